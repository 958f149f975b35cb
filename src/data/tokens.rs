//! A sequence of token ids, in memory or in a memory-mapped cache file, and where its documents begin.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Token ids, stored as little-endian `u16`, or `u32` for vocabularies above 65,536.
///
/// Cheap to clone; clones and [`Tokens::prefix`]es share the storage.
#[derive(Clone)]
pub struct Tokens {
    storage: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// First byte of the ids within the storage.
    offset: usize,
    len: usize,
    width: Width,
    /// Where documents begin, rising from 0; those behind `len` do not count.
    starts: Arc<[usize]>,
}

/// Bytes an id takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    /// The narrower one that holds every id of a vocabulary.
    pub(super) fn for_vocabulary(size: usize) -> Self {
        if size <= 1 << 16 {
            Self::Two
        } else {
            Self::Four
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    fn read(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Two => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            Self::Four => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }

    /// The stored form of `ids`.
    pub(super) fn encode(self, ids: &[u32]) -> Vec<u8> {
        match self {
            Self::Two => ids
                .iter()
                .flat_map(|&id| (id as u16).to_le_bytes())
                .collect(),
            Self::Four => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        }
    }
}

impl Tokens {
    /// Keeps `ids` of a vocabulary of `vocab_size` in memory, as one document.
    pub fn from_ids(ids: &[u32], vocab_size: usize) -> Self {
        let width = Width::for_vocabulary(vocab_size);
        Self::from_storage(Arc::new(width.encode(ids)), 0, ids.len(), width)
    }

    /// Joins documents, with `separator`, where there is one, between each two. It counts to the second of them.
    pub fn from_documents(
        documents: &[Vec<u32>],
        separator: Option<u32>,
        vocab_size: usize,
    ) -> Self {
        let separator: Vec<u32> = separator.into_iter().collect();
        let mut starts = vec![0];
        for document in documents.iter().take(documents.len().saturating_sub(1)) {
            let before = if starts.len() > 1 { separator.len() } else { 0 };
            starts.push(starts[starts.len() - 1] + before + document.len());
        }
        Self::from_ids(&documents.join(&separator[..]), vocab_size).with_starts(starts)
    }

    /// The same with documents that begin at `starts`, in order, the first at 0.
    #[must_use]
    pub(super) fn with_starts(self, mut starts: Vec<usize>) -> Self {
        // A document may have no token.
        starts.dedup();
        Self {
            starts: starts.into(),
            ..self
        }
    }

    /// Where documents begin: the first at 0, each other one with the separator before it, where there is one. A running text
    /// is one document.
    pub fn starts(&self) -> &[usize] {
        let n = self.starts.partition_point(|&start| start < self.len);
        &self.starts[..n]
    }

    /// The `len` ids that start at byte `offset` of `storage`, which must reach that far, as one document.
    pub(super) fn from_storage(
        storage: Arc<dyn AsRef<[u8]> + Send + Sync>,
        offset: usize,
        len: usize,
        width: Width,
    ) -> Self {
        assert!(
            offset + len * width.bytes() <= (*storage).as_ref().len(),
            "storage too short"
        );
        Self {
            storage,
            offset,
            len,
            width,
            starts: [0].into(),
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ids at `range`.
    ///
    /// # Panics
    /// When `range` reaches beyond the last token, as a slice does.
    pub fn get(&self, range: Range<usize>) -> Vec<u32> {
        let width = self.width.bytes();
        let bytes = &self.bytes()[range.start * width..range.end * width];
        bytes
            .chunks_exact(width)
            .map(|id| self.width.read(id))
            .collect()
    }

    /// All ids in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.bytes()
            .chunks_exact(self.width.bytes())
            .map(|id| self.width.read(id))
    }

    /// The first `n` tokens, or all where there are fewer.
    #[must_use]
    pub fn prefix(&self, n: usize) -> Self {
        Self {
            len: self.len.min(n),
            ..self.clone()
        }
    }

    /// The last `n` tokens, or all where there are fewer.
    #[must_use]
    pub fn suffix(&self, n: usize) -> Self {
        let len = self.len.min(n);
        let cut = self.len - len;
        let later = self.starts.iter().filter(|&&start| start > cut);
        Self {
            offset: self.offset + cut * self.width.bytes(),
            len,
            starts: std::iter::once(0)
                .chain(later.map(|start| start - cut))
                .collect(),
            ..self.clone()
        }
    }

    /// sha256 of the ids as stored, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.bytes()))
    }

    /// The ids as stored.
    pub(super) fn bytes(&self) -> &[u8] {
        &(*self.storage).as_ref()[self.offset..self.offset + self.len * self.width.bytes()]
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("len", &self.len)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_both_widths() {
        for (vocab_size, ids) in [(65_536, vec![0, 1, 65_535]), (65_537, vec![65_536, 7, 0])] {
            let tokens = Tokens::from_ids(&ids, vocab_size);
            assert_eq!(tokens.get(0..3), ids);
            assert_eq!(tokens.get(1..2), ids[1..2]);
            assert!(tokens.iter().eq(ids.iter().copied()));
            assert_eq!(tokens.prefix(2).get(0..2), ids[..2]);
            assert_eq!(tokens.prefix(9).len(), 3);
            assert_eq!(tokens.suffix(2).get(0..2), ids[1..]);
            assert_eq!(tokens.prefix(2).suffix(1).get(0..1), ids[1..2]);
            assert_eq!(tokens.suffix(9).len(), 3);
        }
        assert_eq!(Tokens::from_ids(&[1], 65_536).bytes(), [1, 0]);
        assert_eq!(Tokens::from_ids(&[1], 65_537).bytes(), [1, 0, 0, 0]);
    }

    #[test]
    fn documents_begin_at_their_separators_and_keep_to_parts() {
        let documents = [vec![1, 2], vec![3], vec![4, 5, 6]];
        let joined = |separator| Tokens::from_documents(&documents, separator, 10);
        assert_eq!(joined(None).starts(), [0, 2, 3]);
        let tokens = joined(Some(9));
        assert_eq!(tokens.get(0..8), [1, 2, 9, 3, 9, 4, 5, 6]);
        assert_eq!(tokens.starts(), [0, 2, 4]);
        assert_eq!(tokens.prefix(5).starts(), [0, 2, 4]);
        assert_eq!(tokens.prefix(4).starts(), [0, 2]);
        assert_eq!(tokens.suffix(6).starts(), [0, 2]);
        assert_eq!(tokens.suffix(5).starts(), [0, 1]);
        assert_eq!(tokens.prefix(5).suffix(2).starts(), [0, 1]);
        assert_eq!(Tokens::from_ids(&[1, 2], 10).starts(), [0]);
    }
}
