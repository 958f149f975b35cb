//! Json lines: a JSON object a line, with its text under `text`. C4 and the Pile come in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Deserialize;
use serde_json::error::Category;

use super::Item;
use super::bytes::Lines;
use crate::{Error, Result};

/// A record; its other keys are not looked at.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    text: Option<String>,
}

pub(super) struct Texts(Lines);

impl Texts {
    pub(super) fn open(path: &Path, n_read: &Arc<AtomicU64>) -> Result<Self> {
        Lines::open(path, n_read).map(Self)
    }

    fn parse(&self, line: &str) -> Item {
        match serde_json::from_str::<Record>(line) {
            Ok(record) => Ok(record.text),
            // JSON, but no object, or one whose text is no text.
            Err(error) if error.classify() == Category::Data => Ok(None),
            Err(error) => Err(Error::bad_input(
                format!("{}, line {}", self.0.path().display(), self.0.number),
                format!("is not JSON: {error}"),
                "get the file again, or correct the line",
            )),
        }
    }
}

impl Iterator for Texts {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            match self.0.read() {
                Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                Ok(Some(line)) => return Some(self.parse(&line)),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
