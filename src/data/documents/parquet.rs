//! The column `text` of parquet files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::Item;
use super::bytes::{damaged, not_utf8, open_file};
use crate::{Error, Result};

/// Rows that are decoded at a time.
const ROWS: usize = 256;

/// The rows of a file, in order; `None` for a row whose text is null.
pub(super) struct Texts {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// Index of the column.
    column: usize,
    nullable: bool,
    /// The next row group.
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    rows: std::vec::IntoIter<Option<ByteArray>>,
    /// Rows handed out.
    n_rows: u64,
}

impl Texts {
    pub(super) fn open(path: &Path, n_read: &Arc<AtomicU64>) -> Result<Self> {
        let file = open_file(path)?;
        let n_bytes = file.metadata().map_err(|error| damaged(path, "", &error))?;
        n_read.store(n_bytes.len(), Ordering::Relaxed);
        let file = SerializedFileReader::new(file).map_err(|error| damaged(path, "", &error))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let Some(column) = names.iter().position(|name| name == "text") else {
            return Err(Error::bad_input(
                path.display().to_string(),
                format!("has no column text, but {}", names.join(", ")),
                "give a parquet file with the text of a document a row",
            ));
        };
        let nullable = schema.column(column).max_def_level() > 0;
        Ok(Self {
            path: path.to_owned(),
            file,
            column,
            nullable,
            group: 0,
            reader: None,
            rows: Vec::new().into_iter(),
            n_rows: 0,
        })
    }

    /// Reads on; `false` at the end of the file.
    fn read(&mut self) -> Result<bool> {
        let place = format!(" after row {}", self.n_rows);
        let Some(reader) = &mut self.reader else {
            if self.group == self.file.num_row_groups() {
                return Ok(false);
            }
            let column = self
                .file
                .get_row_group(self.group)
                .and_then(|group| group.get_column_reader(self.column))
                .map_err(|error| damaged(&self.path, &place, &error))?;
            let ColumnReader::ByteArrayColumnReader(reader) = column else {
                return Err(Error::bad_input(
                    self.path.display().to_string(),
                    "has a column text that holds no texts",
                    "give a parquet file with the text of a document a row",
                ));
            };
            self.group += 1;
            self.reader = Some(reader);
            return Ok(true);
        };
        let (mut levels, mut texts) = (Vec::new(), Vec::new());
        let wanted = self.nullable.then_some(&mut levels);
        let (n_rows, ..) = reader
            .read_records(ROWS, wanted, None, &mut texts)
            .map_err(|error| damaged(&self.path, &place, &error))?;
        if n_rows == 0 {
            self.reader = None;
            return Ok(true);
        }
        let mut texts = texts.into_iter();
        let rows: Vec<_> = if self.nullable {
            let present = levels.iter().map(|&level| level > 0);
            present
                .map(|is| if is { texts.next() } else { None })
                .collect()
        } else {
            texts.map(Some).collect()
        };
        self.rows = rows.into_iter();
        Ok(true)
    }
}

impl Iterator for Texts {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(row) = self.rows.next() {
                self.n_rows += 1;
                let text = row
                    .map(|bytes| String::from_utf8(bytes.data().to_vec()))
                    .transpose();
                return Some(text.map_err(|error| {
                    let at = error.utf8_error().valid_up_to() as u64;
                    not_utf8(
                        &self.path,
                        &format!(" of the text in row {}", self.n_rows),
                        at,
                    )
                }));
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
