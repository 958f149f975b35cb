//! The bytes of plain and compressed files, counted, and their lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::data::tokens::hex;
use crate::{Error, Result};

/// Bytes that are read from a file at a time.
const BUFFER: usize = 1 << 18;
/// The largest window that zstd's own tool writes, as a power of 2: `zstd --long=31`.
const MAX_ZSTD_WINDOW_LOG: u32 = 31;

struct Counted {
    file: File,
    n_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.n_read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The decompressed bytes of `path`; `n_read` counts what was read of the file itself.
pub(super) fn open(path: &Path, n_read: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
    let file = open_file(path)?;
    let n_read = Arc::clone(n_read);
    let file = BufReader::with_capacity(BUFFER, Counted { file, n_read });
    Ok(
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
            Some("zst") => {
                let decoder = zstd::Decoder::with_buffer(file).and_then(|mut decoder| {
                    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                    Ok(decoder)
                });
                let decoder = decoder.map_err(|error| damaged(path, "", &error))?;
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
            _ => Box::new(file),
        },
    )
}

/// Opens a file that the user named.
pub(super) fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        Error::bad_input(
            path.display().to_string(),
            format!("cannot be read: {error}"),
            "give the path of a readable file",
        )
    })
}

/// A file that cannot be read on; `place` says how far it was read.
pub(super) fn damaged(path: &Path, place: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::bad_input(
        path.display().to_string(),
        format!("is cut short or damaged{place}: {cause}"),
        "get the file again",
    )
}

/// A file whose text is not UTF-8 from byte `at` of its (decompressed) bytes on.
pub(super) fn not_utf8(path: &Path, place: &str, at: u64) -> Error {
    Error::bad_input(
        path.display().to_string(),
        format!("is not UTF-8 from byte {at} on{place}"),
        "convert it, for example with iconv -t UTF-8",
    )
}

/// sha256 of the first `n` bytes of a file, in hexadecimal.
///
/// # Errors
/// [`Error::BadInput`] where it cannot be read or is shorter.
pub(in crate::data) fn prefix_sha256(path: &Path, n: u64) -> Result<String> {
    let mut sha256 = Sha256::new();
    let copied = io::copy(&mut open_file(path)?.take(n), &mut sha256)
        .map_err(|error| damaged(path, "", &error))?;
    if copied < n {
        return Err(damaged(path, "", &format!("{copied} bytes of {n}")));
    }
    Ok(hex(&sha256.finalize()))
}

/// The lines of a text.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// The number of the line read last, from 1.
    pub(super) number: u64,
    /// Bytes before the next line.
    n_bytes: u64,
}

impl Lines {
    pub(super) fn open(path: &Path, n_read: &Arc<AtomicU64>) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            reader: open(path, n_read)?,
            number: 0,
            n_bytes: 0,
        })
    }

    /// The next line with its line feed, if it has one; `None` at the end.
    pub(super) fn read(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let n = self.reader.read_until(b'\n', &mut line).map_err(|error| {
            damaged(&self.path, &format!(" after line {}", self.number), &error)
        })?;
        if n == 0 {
            return Ok(None);
        }
        self.number += 1;
        let start = self.n_bytes;
        self.n_bytes += n as u64;
        String::from_utf8(line).map(Some).map_err(|error| {
            let at = start + error.utf8_error().valid_up_to() as u64;
            not_utf8(&self.path, &format!(" (line {})", self.number), at)
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
