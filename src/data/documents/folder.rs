//! Folders that hold a document a file.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The files of the folder `path` but hidden ones, by name; `path` itself where it is a file.
///
/// # Errors
/// [`Error::BadInput`] where the folder cannot be read or holds no file.
pub(in crate::data) fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let bad = |problem: String| {
        let advice = "give a folder with a document a file";
        Error::bad_input(path.display().to_string(), problem, advice)
    };
    let unreadable = |error: std::io::Error| bad(format!("cannot be read: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        return Err(bad("holds no file".into()));
    }
    files.sort();
    Ok(files)
}
