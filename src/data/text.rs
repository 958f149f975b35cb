//! Reading texts, and the rule that holds a part of them out.

use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::cache::Split;
use super::tokens::hex;
use crate::{Error, Result};

/// Name of the embedded corpus.
pub const EMBEDDED: &str = "embedded:kjv+austen";
/// The held-out rule, in the words of the manifest.
pub(super) const HELD_OUT_RULE: &str = "documents are cut at the first blank line after 16 KiB (the first line end or \
    character where there is none within 32 KiB); blocks whose sha256 mod 20 is 0 are held out; where that leaves a \
    side empty, the last 5 % of the text from a blank line on";
/// Documents are cut into blocks of at least this many bytes, and at most twice as many.
const BLOCK: usize = 16 << 10;

/// The embedded corpus, made by `scripts/make_assets.py`: a form feed between documents.
const CORPUS: &[u8] = include_bytes!("../../assets/corpus/kjv+austen.txt.zst");

/// A text made of documents.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: String,
    /// A path, or `embedded`.
    pub(super) source: String,
    /// sha256 of the bytes the documents came in.
    pub(super) sha256: String,
    content: String,
    /// Where each document lies in `content`.
    pub(super) documents: Vec<Range<usize>>,
}

impl Text {
    /// The embedded corpus: the 66 books of the King James Version and Jane Austen's six novels.
    ///
    /// # Errors
    /// [`Error::Io`] where the binary is damaged.
    pub(super) fn embedded() -> Result<Self> {
        let damaged = || Error::io("unpack", EMBEDDED);
        let bytes = zstd::decode_all(CORPUS).map_err(damaged())?;
        let sha256 = hex(&Sha256::digest(&bytes));
        let content =
            String::from_utf8(bytes).map_err(|error| damaged()(std::io::Error::other(error)))?;
        let mut start = 0;
        let ranges = content.split('\u{c}').map(|document| {
            let range = start..start + document.len();
            start = range.end + 1;
            range
        });
        let documents = ranges.collect();
        Ok(Self {
            name: EMBEDDED.into(),
            source: "embedded".into(),
            sha256,
            content,
            documents,
        })
    }

    /// A UTF-8 file, as one document.
    ///
    /// # Errors
    /// [`Error::BadInput`] where it cannot be read, is empty or is not UTF-8.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let content = read_utf8(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: format!("text:{name}"),
            source: path.display().to_string(),
            sha256: hex(&Sha256::digest(&content)),
            documents: std::iter::once(0..content.len()).collect(),
            content,
        })
    }

    /// The training and the evaluation passages: what is left of each document, in order, neighbouring
    /// blocks joined.
    pub(super) fn split(&self) -> Split<Vec<&str>> {
        let blocks = self
            .documents
            .iter()
            .flat_map(|document| blocks(&self.content, document.clone()));
        let (eval, train): (Vec<_>, Vec<_>) =
            blocks.partition(|block| is_held_out(&self.content[block.clone()]));
        let (train, eval) = if train.is_empty() || eval.is_empty() {
            self.tail()
        } else {
            (train, eval)
        };
        let text = |blocks| {
            self.join(blocks)
                .into_iter()
                .map(|passage| &self.content[passage])
                .collect()
        };
        Split {
            train: text(train),
            eval: text(eval),
        }
    }

    /// The documents before and from 95 % of the text on.
    fn tail(&self) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        let len = self.content.len();
        let cut = boundary(&self.content, len - len / 20, len);
        let part = |from: usize, to: usize| {
            let clip = move |d: &Range<usize>| d.start.max(from)..d.end.min(to);
            self.documents
                .iter()
                .map(clip)
                .filter(|part| !part.is_empty())
                .collect()
        };
        (part(0, cut), part(cut, len))
    }

    /// Joins neighbouring blocks of one document.
    fn join(&self, blocks: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let mut passages: Vec<Range<usize>> = Vec::new();
        for block in blocks {
            match passages.last_mut() {
                Some(last) if last.end == block.start && !self.is_document_start(block.start) => {
                    last.end = block.end;
                }
                _ => passages.push(block),
            }
        }
        passages
    }

    fn is_document_start(&self, at: usize) -> bool {
        self.documents
            .binary_search_by_key(&at, |document| document.start)
            .is_ok()
    }
}

/// The whole of a UTF-8 text file.
///
/// # Errors
/// [`Error::BadInput`] where it cannot be read, is empty or is not UTF-8.
pub fn read_utf8(path: &Path) -> Result<String> {
    let bad = |problem: String, advice: &str| {
        Error::bad_input(path.display().to_string(), problem, advice)
    };
    let bytes = std::fs::read(path).map_err(|error| {
        bad(
            format!("cannot be read: {error}"),
            "give the path of a UTF-8 text file",
        )
    })?;
    if bytes.is_empty() {
        return Err(bad(
            "is empty".into(),
            "give a UTF-8 text file with text in it",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        bad(
            format!("is not UTF-8 from byte {at} on"),
            "convert it, for example with iconv -t UTF-8",
        )
    })
}

/// `document` of `text`, cut as [`HELD_OUT_RULE`] says.
fn blocks(text: &str, document: Range<usize>) -> Vec<Range<usize>> {
    let mut blocks = Vec::with_capacity(document.len() / BLOCK + 1);
    let mut start = document.start;
    while document.end - start > BLOCK {
        let cut = boundary(text, start + BLOCK, document.end.min(start + 2 * BLOCK));
        blocks.push(start..cut);
        start = cut;
    }
    if start < document.end {
        blocks.push(start..document.end);
    }
    blocks
}

/// The end of the first blank line that starts after `from` and ends before `limit`; without one, the first
/// line end; without that, the first character boundary.
fn boundary(text: &str, from: usize, limit: usize) -> usize {
    let bytes = &text.as_bytes()[..limit];
    let line_end = |from: usize| {
        bytes[from..]
            .iter()
            .position(|&b| b == b'\n')
            .map(|at| from + at + 1)
    };
    let Some(first) = line_end(from) else {
        return text.ceil_char_boundary(from);
    };
    let mut start = first;
    while let Some(end) = line_end(start) {
        if bytes[start..end].trim_ascii().is_empty() {
            return end;
        }
        start = end;
    }
    first
}

/// Whether the sha256 of `block`, read as one big-endian number, is divisible by 20.
pub(super) fn is_held_out(block: &str) -> bool {
    Sha256::digest(block).iter().fold(0, |remainder, &byte| {
        (remainder * 256 + u32::from(byte)) % 20
    }) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(documents: &[String]) -> Text {
        let content = documents.concat();
        let mut start = 0;
        let ranges = documents.iter().map(|document| {
            start += document.len();
            start - document.len()..start
        });
        let documents = ranges.collect();
        Text {
            name: String::new(),
            source: String::new(),
            sha256: String::new(),
            content,
            documents,
        }
    }

    fn length(passages: &[&str]) -> usize {
        passages.iter().map(|passage| passage.len()).sum()
    }

    proptest! {
        #[test]
        fn a_split_loses_and_repeats_nothing(
            paragraphs in prop::collection::vec("[a-zé ]{1,40}", 1..4), repeat in 1_usize..2000, end in "\n|\n\n| \n \n|",
        ) {
            let document = (paragraphs.join(&end) + &end).repeat(repeat);
            let text = text(&[document.clone(), "second\n\ndocument\n".into()]);
            let split = text.split();
            prop_assert_eq!(length(&split.train) + length(&split.eval), text.content.len());
            for block in blocks(&text.content, 0..document.len()) {
                prop_assert!(block.len() <= 2 * BLOCK + 3, "{block:?}");
                prop_assert!(block.len() >= BLOCK || block.end == document.len(), "{block:?}");
            }
        }
    }

    #[test]
    fn blocks_end_at_blank_lines() {
        let paragraph = format!("{}\n{}\n\n", "a".repeat(70), "b".repeat(70));
        let text = paragraph.repeat(1000);
        let blocks = blocks(&text, 0..text.len());
        assert!(blocks.len() > 5);
        assert!(
            blocks
                .iter()
                .all(|block| text[block.clone()].ends_with("b\n\n"))
        );
    }

    #[test]
    fn about_a_twentieth_is_held_out_and_no_passage_spans_documents() {
        let documents: Vec<String> = (0..4000).map(|i| format!("document {i}\n")).collect();
        let text = text(&documents);
        let split = text.split();
        // 200 expected, standard deviation 13.8
        assert!(
            (145..255).contains(&split.eval.len()),
            "{}",
            split.eval.len()
        );
        assert_eq!(split.train.len() + split.eval.len(), 4000);
    }

    #[test]
    fn a_text_of_one_block_gives_its_end() {
        let text = text(&["line of text\n\n".repeat(100)]);
        let split = text.split();
        let lines = length(&split.eval) / 14;
        assert!(
            split.eval.concat().starts_with("line") && (4..=5).contains(&lines),
            "{lines}"
        );
    }
}
