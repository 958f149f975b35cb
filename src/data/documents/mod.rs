//! Documents of files, one at a time: what is held in memory is one document and the readers' buffers.

mod bytes;
mod folder;
mod json_lines;
mod parquet;
mod text;
mod wikitext;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;

pub(super) use bytes::prefix_sha256;
pub(super) use folder::files_of;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A record of json lines or parquet, or a whole text file.
    Documents,
    /// One running text, whose lines are sentences.
    Running,
    /// One running text: the articles of WikiText, which joined give the text to the byte.
    WikiText,
}

/// How a file holds its text, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Parquet,
    Text,
}

impl Format {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_ascii_lowercase();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("json" | "jsonl" | "ndjson") => Self::JsonLines,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

/// Whether `path` is a plain text file, one document by itself: no folder, no records, not compressed.
pub(super) fn is_plain_text(path: &Path) -> bool {
    let compressed = path
        .extension()
        .is_some_and(|extension| extension == "gz" || extension == "zst");
    !path.is_dir() && !compressed && Format::of(path) == Format::Text
}

/// What a reader yields: a document, or nothing where a record has no text.
type Item = Result<Option<String>>;

/// The documents of a file, in its order. Records without text, or with an empty one, are counted and left
/// out; nothing follows an error.
pub struct Documents {
    items: Box<dyn Iterator<Item = Item> + Send>,
    n_read: Arc<AtomicU64>,
    n_skipped: u64,
    ended: bool,
}

impl Documents {
    /// The documents of `path`: json lines (`.json`, `.jsonl`, `.ndjson`) and texts, plain or compressed
    /// (`.gz`, `.zst`), and parquet. Records have their text under `text`.
    ///
    /// # Errors
    /// [`Error::BadInput`](crate::Error::BadInput) where the file cannot be opened. The iterator ends with one
    /// where the file is cut short or damaged, a line is not JSON, or bytes are not UTF-8, and says where.
    pub fn open(path: &Path, form: Form) -> Result<Self> {
        let n_read = Arc::new(AtomicU64::new(0));
        let items: Box<dyn Iterator<Item = Item> + Send> = match (Format::of(path), form) {
            (Format::Parquet, Form::WikiText) => {
                let rows = parquet::Texts::open(path, &n_read)?;
                Box::new(wikitext::articles(rows.map(wikitext::line_of_row)))
            }
            (Format::Parquet, _) => Box::new(parquet::Texts::open(path, &n_read)?),
            (Format::JsonLines, _) => Box::new(json_lines::Texts::open(path, &n_read)?),
            (Format::Text, Form::WikiText) => {
                let mut lines = bytes::Lines::open(path, &n_read)?;
                let lines = std::iter::from_fn(move || lines.read().transpose());
                Box::new(wikitext::articles(lines))
            }
            (Format::Text, _) => Box::new(text::whole(path, &n_read)),
        };
        Ok(Self {
            items,
            n_read,
            n_skipped: 0,
            ended: false,
        })
    }

    /// Records so far that had no text.
    pub fn n_skipped(&self) -> u64 {
        self.n_skipped
    }

    /// Bytes of the file that were read so far, buffers included; of a parquet file, all.
    pub fn n_read(&self) -> u64 {
        self.n_read.load(Ordering::Relaxed)
    }
}

impl Iterator for Documents {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.items.next() {
                Some(Ok(Some(text))) if !text.is_empty() => return Some(Ok(text)),
                Some(Ok(_)) => self.n_skipped += 1,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => self.ended = true,
            }
        }
        None
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents")
            .field("n_read", &self.n_read)
            .field("n_skipped", &self.n_skipped)
            .finish_non_exhaustive()
    }
}
