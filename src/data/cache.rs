//! Token files: memory-mapped, hashed, replaced whole or not at all.

use std::env;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::Tokens;
use super::text::Text;
use super::tokens::{Width, hex};
use crate::results::write_whole;
use crate::{Error, Result};

/// Goes up whenever the bytes of a token file, the held-out rule or the separators change.
const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"bkbtoken";
const OTHER_LENGTH: &str = "has another length than its header says";
/// Magic, version, bytes an id (`u32` each), key, number of training and evaluation ids and of their documents (`u64`
/// each), the sha256s of both parts; little-endian. The ids follow, training first, and then likewise where documents
/// begin (`u64`).
const HEADER: usize = 8 + 4 + 4 + 32 + 4 * 8 + 2 * 32;
/// Bytes of the place where a document begins.
const START: usize = 8;

/// The tokens of a text, split.
#[derive(Debug, Clone)]
pub(super) struct Split<T> {
    pub(super) train: T,
    pub(super) eval: T,
}

/// A file of the cache folder.
#[derive(Debug)]
pub(super) struct CacheFile {
    path: PathBuf,
    key: [u8; 32],
}

impl CacheFile {
    /// The file in `folder` that holds `text` under the tokenizer of that hash. Equal bytes cut into other documents are
    /// split otherwise, and another text.
    pub(super) fn new(folder: &Path, text: &Text, tokenizer_sha256: &str) -> Self {
        let key = Sha256::digest(format!(
            "{VERSION} {} {:?} {tokenizer_sha256}",
            text.sha256, text.documents
        ));
        Self {
            path: folder.join(format!("{}.tokens", hex(&key))),
            key: key.into(),
        }
    }

    /// The tokens, or `None` where there is no file.
    ///
    /// # Errors
    /// [`Error::CheckFailed`] where the file is not what [`CacheFile::store`] wrote, [`Error::Io`] where
    /// it cannot be read.
    pub(super) fn load(&self) -> Result<Option<Split<Tokens>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io("open", &self.path))?,
        };
        self.parse(map(&file, &self.path)?)
            .map(Some)
            .map_err(|problem| {
                Error::CheckFailed(format!("the token file {} {problem}", self.path.display()))
            })
    }

    fn parse(&self, map: Mmap) -> Result<Split<Tokens>, &'static str> {
        let header = map.get(..HEADER).ok_or("is too short")?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let count = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if header[..8] != *MAGIC || word(8) != VERSION || header[16..48] != self.key {
            return Err("has another header");
        }
        let width = match word(12) {
            2 => Width::Two,
            4 => Width::Four,
            _ => return Err("has another header"),
        };
        let mut sections = [0..0, 0..0, 0..0, 0..0];
        let mut at = HEADER;
        let sizes = [width.bytes(), width.bytes(), START, START];
        for (i, (section, size)) in sections.iter_mut().zip(sizes).enumerate() {
            let n_bytes = count(48 + 8 * i).checked_mul(size as u64);
            let end = n_bytes.and_then(|n| n.checked_add(at as u64));
            let end = end.filter(|&end| end <= map.len() as u64);
            let end = end.ok_or(OTHER_LENGTH)? as usize;
            *section = at..end;
            at = end;
        }
        if at != map.len() {
            return Err(OTHER_LENGTH);
        }
        let hashes = [header[80..112].to_vec(), header[112..144].to_vec()];
        let map = Arc::new(map);
        let part = |ids: Range<usize>, starts: Range<usize>| {
            let (starts, _) = map[starts].as_chunks();
            let starts = starts
                .iter()
                .map(|&start| u64::from_le_bytes(start) as usize);
            let n_ids = ids.len() / width.bytes();
            Tokens::from_storage(map.clone(), ids.start, n_ids, width).with_starts(starts.collect())
        };
        let [train, eval, train_starts, eval_starts] = sections;
        let tokens = Split {
            train: part(train, train_starts),
            eval: part(eval, eval_starts),
        };
        for (tokens, hash) in [&tokens.train, &tokens.eval].into_iter().zip(hashes) {
            if hash_of(tokens).as_slice() != hash {
                return Err("has ids that do not match its hash");
            }
        }
        Ok(tokens)
    }

    /// Writes `tokens`; a reader sees the old file or the whole new one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn store(&self, tokens: &Split<Tokens>, width: Width) -> Result<()> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(width.bytes() as u32).to_le_bytes());
        header.extend_from_slice(&self.key);
        let parts = [&tokens.train, &tokens.eval];
        let n_documents = |tokens: &Tokens| tokens.starts().len();
        for count in parts
            .map(Tokens::len)
            .into_iter()
            .chain(parts.map(n_documents))
        {
            header.extend_from_slice(&(count as u64).to_le_bytes());
        }
        for part in parts {
            header.extend_from_slice(&hash_of(part));
        }
        let write = |file: &mut File| {
            file.write_all(&header)?;
            for part in parts {
                file.write_all(part.bytes())?;
            }
            for part in parts {
                file.write_all(&bytes_of(part.starts()))?;
            }
            Ok(())
        };
        write_whole(&self.path, true, write).map_err(Error::io("write", &self.path))
    }
}

/// sha256 of the ids, and behind them where documents begin.
fn hash_of(tokens: &Tokens) -> [u8; 32] {
    let ids = Sha256::new().chain_update(tokens.bytes());
    ids.chain_update(bytes_of(tokens.starts()))
        .finalize()
        .into()
}

fn bytes_of(starts: &[usize]) -> Vec<u8> {
    let bytes = |&start: &usize| (start as u64).to_le_bytes();
    starts.iter().flat_map(bytes).collect()
}

/// Maps a token file.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn map(file: &File, path: &Path) -> Result<Mmap> {
    #[expect(
        unsafe_code,
        reason = "a mapped file must not change: ours are only ever replaced by renaming"
    )]
    unsafe { Mmap::map(file) }.map_err(Error::io("map", path))
}

/// Where token files lie: `$BKBENCH_CACHE`, or `bkbench` in the user's cache folder (`$XDG_CACHE_HOME` or
/// `~/.cache`; `~/Library/Caches` on macOS; `%LOCALAPPDATA%` on Windows), or in the temporary folder where
/// there is none.
pub fn cache_dir() -> PathBuf {
    let folder = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(chosen) = folder("BKBENCH_CACHE") {
        return chosen;
    }
    let user = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    };
    user.unwrap_or_else(env::temp_dir).join("bkbench")
}
