//! Text to token ids and back.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::tokens::hex;
use crate::{Error, Result};

/// GPT-2's tokenizer.json, made by `scripts/make_assets.py`.
const GPT2: &[u8] = include_bytes!("../../assets/gpt2/tokenizer.json.zst");
/// The special token that separates documents, where a vocabulary has it.
const SEPARATOR: &str = "<|endoftext|>";
/// Texts are encoded in parallel in pieces of about this many bytes.
const PIECE: usize = 1 << 16;

/// A tokenizer; cheap to clone.
///
/// Special tokens that appear in a text are plain text: only [`Tokenizer::separator`] makes one.
#[derive(Clone)]
pub struct Tokenizer {
    name: String,
    sha256: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Bytes,
    Subwords {
        inner: Arc<tokenizers::Tokenizer>,
        vocab_size: usize,
        /// Whether [`safe_pieces`] holds for this tokenizer.
        splittable: bool,
    },
}

impl Tokenizer {
    /// `bytes`, `gpt2`, or the path of a tokenizer.json file.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the file cannot be read or is no tokenizer.
    pub fn new(name_or_file: &str) -> Result<Self> {
        match name_or_file {
            "bytes" => Ok(Self::bytes()),
            "gpt2" => {
                let json =
                    zstd::decode_all(GPT2).map_err(Error::io("unpack", "gpt2/tokenizer.json"))?;
                Self::subwords("gpt2".into(), &json, true)
            }
            file => {
                let json = std::fs::read(file).map_err(|error| {
                    let advice = "give bytes, gpt2 or the path of a tokenizer.json file";
                    Error::bad_input(format!("tokenizer {file}"), error.to_string(), advice)
                })?;
                let name = Path::new(file)
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                Self::subwords(name.into_owned(), &json, false)
            }
        }
    }

    /// The byte tokenizer: 256 ids, each its own byte of the UTF-8 text.
    pub fn bytes() -> Self {
        Self {
            name: "bytes".into(),
            sha256: hex(&Sha256::digest("bytes")),
            kind: Kind::Bytes,
        }
    }

    fn subwords(name: String, json: &[u8], splittable: bool) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| {
            let advice = "give a tokenizer.json as the tokenizers library writes it";
            Error::bad_input(format!("tokenizer {name}"), error.to_string(), advice)
        })?;
        inner.set_encode_special_tokens(true);
        let vocab_size = inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        let kind = Kind::Subwords {
            inner: Arc::new(inner),
            vocab_size,
            splittable,
        };
        Ok(Self {
            name,
            sha256: hex(&Sha256::digest(json)),
            kind,
        })
    }

    /// `bytes`, `gpt2`, or the file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// sha256 of what determines the ids: the tokenizer.json, or the word `bytes`.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 256,
            Kind::Subwords { vocab_size, .. } => *vocab_size,
        }
    }

    /// The id of `<|endoftext|>`, which stands between passages; bytes have none.
    pub fn separator(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::Subwords { inner, .. } => inner.token_to_id(SEPARATOR),
        }
    }

    /// The ids of `text`, the same as if it were encoded in one go.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the tokenizer has no id for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let Kind::Subwords {
            inner, splittable, ..
        } = &self.kind
        else {
            return Ok(text.bytes().map(u32::from).collect());
        };
        let encode = |piece: &str| match inner.encode_fast(piece, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => {
                let advice = "use another tokenizer";
                Err(Error::bad_input(
                    format!("tokenizer {}", self.name),
                    error.to_string(),
                    advice,
                ))
            }
        };
        if *splittable {
            let pieces: Result<Vec<_>> = safe_pieces(text, PIECE)
                .into_par_iter()
                .map(encode)
                .collect();
            Ok(pieces?.concat())
        } else {
            encode(text)
        }
    }

    /// The text of `ids`, without special tokens. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::BadInput`] where an id cannot be decoded.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::Subwords { inner, .. } => inner.decode(ids, true).map_err(|error| {
                let advice = "give ids of this tokenizer";
                Error::bad_input(
                    format!("tokenizer {}", self.name),
                    error.to_string(),
                    advice,
                )
            }),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({}, {} ids)", self.name, self.vocab_size())
    }
}

/// Cuts `text` into pieces of at least `size` bytes (but the last) that GPT-2's tokenizer encodes to the
/// same ids as the whole.
///
/// A cut lies before a space or line feed that an ASCII letter follows. GPT-2 splits a text into words
/// before it merges anything, by
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
/// White space is only ever the first character of a word, or all of it; and of a run of white space
/// before a letter, `\s+(?!\S)` takes all but the last character, which starts the next word. So a word
/// starts at every cut, and what stands before a cut splits the same at the end of a text, where
/// `\s+(?!\S)` takes just what it took before.
fn safe_pieces(text: &str, size: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let is_cut =
        |&at: &usize| matches!(bytes[at], b' ' | b'\n') && bytes[at + 1].is_ascii_alphabetic();
    let mut pieces = Vec::with_capacity(text.len() / size + 1);
    let mut start = 0;
    while let Some(cut) = (start + size..text.len().saturating_sub(1)).find(is_cut) {
        pieces.push(&text[start..cut]);
        start = cut;
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new("gpt2").unwrap());

    fn whole(text: &str) -> Vec<u32> {
        let Kind::Subwords { inner, .. } = &GPT2.kind else {
            unreachable!()
        };
        inner.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    proptest! {
        /// White space of all sorts, contractions, letters, digits and signs; a cut wherever one is allowed.
        #[test]
        fn pieces_encode_as_the_whole(text in "([ \n\t\u{a0}\u{2003}\r]{0,3}('s|'|a|Zé|9|-|日|<\\|endoftext\\|>)){0,24}[ \n]{0,3}") {
            let pieces = safe_pieces(&text, 1);
            prop_assert_eq!(pieces.concat(), text.as_str());
            let ids: Vec<u32> = pieces.into_iter().flat_map(whole).collect();
            prop_assert_eq!(ids, whole(&text));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let text = "one  two\n\nthree four ".repeat(40);
        assert!(safe_pieces(&text, 100).len() > 5);
        assert!(
            safe_pieces(&text, 100)
                .iter()
                .rev()
                .skip(1)
                .all(|piece| piece.len() >= 100)
        );
    }

    #[test]
    fn special_tokens_in_a_text_are_plain_text() {
        let ids = GPT2.encode("<|endoftext|>").unwrap();
        assert!(ids.len() > 1 && !ids.contains(&50_256), "{ids:?}");
        assert_eq!(GPT2.decode(&ids).unwrap(), "<|endoftext|>");
        assert_eq!(
            (GPT2.vocab_size(), GPT2.separator()),
            (50_257, Some(50_256))
        );
    }

    #[test]
    fn bytes_are_their_own_ids() {
        let bytes = Tokenizer::bytes();
        assert_eq!(bytes.encode("é\n").unwrap(), [0xc3, 0xa9, 10]);
        assert_eq!(bytes.decode(&[0xc3, 0xa9, 10]).unwrap(), "é\n");
        assert_eq!((bytes.vocab_size(), bytes.separator()), (256, None));
    }
}
