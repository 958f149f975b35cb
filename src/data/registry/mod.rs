//! The datasets that have a name: where they live, what they are, and which of their files are here.

mod entries;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EMBEDDED, Form};
use crate::{Error, Result};

pub use entries::ENTRIES;

/// A part of a dataset, as its publishers divide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// To train on.
    Train,
    /// To choose by.
    Validation,
    /// To report.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// A dataset.
#[derive(Debug)]
pub struct Entry {
    /// Its name on the command line and in records.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// How it becomes documents.
    pub form: Form,
    /// Where it comes from.
    pub origin: Origin,
    /// Its parts, the training split first.
    pub splits: &'static [SplitEntry],
}

/// Where a dataset comes from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// A dataset repository of the Hugging Face hub.
    Hub {
        /// Owner and name.
        repository: &'static str,
        /// The commit.
        revision: &'static str,
        /// The folder of the data folder that its files are kept in, under their paths.
        folder: &'static str,
    },
    /// The user brings it.
    ByHand {
        /// Why it cannot be fetched.
        reason: &'static str,
        /// Which files to put where.
        files: &'static str,
    },
}

/// A part of a dataset.
#[derive(Debug)]
pub struct SplitEntry {
    /// Which.
    pub split: Split,
    /// Its files on the hub.
    pub hub: Option<HubFiles>,
    /// Where its files may lie in the data folder: the first pattern that any file matches names them all.
    /// A `*` stands for any part of a file's name.
    pub patterns: &'static [&'static str],
    /// What its publishers say of it.
    pub official: Official,
}

/// Numbered files of a repository.
#[derive(Debug, Clone, Copy)]
pub struct HubFiles {
    /// Path in the repository; `{}` stands for the number, with as many digits as `digits` says.
    pub pattern: &'static str,
    /// Digits of the number.
    pub digits: usize,
    /// How many there are.
    pub n_files: usize,
    /// How many are fetched where nothing else is asked for.
    pub n_fetched: usize,
}

impl HubFiles {
    /// The path of file `i`, from 0.
    pub fn path(&self, i: usize) -> String {
        self.pattern
            .replace("{}", &format!("{i:0width$}", width = self.digits))
    }
}

/// What is known of a whole split.
#[derive(Debug, Clone, Copy, Default)]
pub struct Official {
    /// Words between white space, and an end of sentence for each line.
    pub n_words: Option<u64>,
    /// sha256 of the text.
    pub text_sha256: Option<&'static str>,
}

impl Entry {
    /// The entry of `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn find(name: &str) -> Result<&'static Self> {
        ENTRIES
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| {
                let names = ENTRIES.iter().map(|entry| entry.name.to_owned());
                Error::UnknownName {
                    kind: "dataset",
                    name: name.into(),
                    known: std::iter::once(EMBEDDED.to_owned()).chain(names).collect(),
                }
            })
    }

    /// The files of `split` in the data folder `dir`, by name; none where it has no such split or none is there.
    ///
    /// # Errors
    /// [`Error::BadInput`] where a folder cannot be read.
    pub fn files(&self, split: Split, dir: &Path) -> Result<Vec<PathBuf>> {
        let others = self.splits.iter().filter(|other| other.split != split);
        let others: Vec<&str> = others.flat_map(|other| other.patterns).copied().collect();
        let own = self.splits.iter().filter(|own| own.split == split);
        for pattern in own.flat_map(|own| own.patterns) {
            let mut files = matching(dir, pattern)?;
            // `*.jsonl.zst` is not for the files that another split names.
            files.retain(|file| {
                let path = file.strip_prefix(dir).unwrap_or(file);
                !others.iter().any(|other| Path::new(other) == path)
            });
            if !files.is_empty() {
                return Ok(files);
            }
        }
        Ok(Vec::new())
    }

    /// Whether any file of it is in the data folder `dir`.
    ///
    /// # Errors
    /// As [`Entry::files`].
    pub fn is_in(&self, dir: &Path) -> Result<bool> {
        let files = self.splits.iter().map(|split| self.files(split.split, dir));
        let files: Vec<Vec<PathBuf>> = files.collect::<Result<_>>()?;
        Ok(files.iter().any(|files| !files.is_empty()))
    }

    /// How to bring what is absent from `dir`.
    pub fn advice(&self, dir: &Path) -> String {
        match self.origin {
            Origin::Hub { .. } => format!(
                "bring it with: bkbench data fetch {} --data_dir {}",
                self.name,
                dir.display()
            ),
            Origin::ByHand { reason, files } => {
                format!("{reason}; put {files} into {}", dir.display())
            }
        }
    }
}

/// The files of `dir` that `pattern` stands for, by name.
fn matching(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let folder = dir.join(folder);
    let Some((start, end)) = name.split_once('*') else {
        let file = folder.join(name);
        return Ok(if file.is_file() {
            vec![file]
        } else {
            Vec::new()
        });
    };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = |error: std::io::Error| {
        let advice = "name a readable data folder";
        Error::bad_input(folder.display().to_string(), error.to_string(), advice)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let matches = name
            .strip_prefix(start)
            .is_some_and(|rest| rest.ends_with(end));
        if matches && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `path` within `dir`.
///
/// # Errors
/// [`Error::BadInput`] where it would climb out of `dir`.
pub(super) fn within(dir: &Path, path: &str) -> Result<PathBuf> {
    let relative = Path::new(path);
    let stays = relative
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || path.contains('\\') || !stays {
        return Err(Error::bad_input(
            format!("the file name '{path}'"),
            "leads out of the data folder",
            "fetch from a hub that you trust",
        ));
    }
    Ok(dir.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_patterns_find_what_is_fetched() {
        for (i, entry) in ENTRIES.iter().enumerate() {
            assert!(ENTRIES[..i].iter().all(|other| other.name != entry.name));
            let Origin::Hub { folder, .. } = entry.origin else {
                assert!(entry.splits.iter().all(|split| split.hub.is_none()));
                continue;
            };
            let dir = tempfile::tempdir().unwrap();
            for split in entry.splits {
                let hub = split.hub.unwrap();
                assert!((1..=hub.n_files).contains(&hub.n_fetched));
                let file = within(dir.path(), &format!("{folder}/{}", hub.path(0))).unwrap();
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, "").unwrap();
            }
            for split in entry.splits {
                let file = dir.path().join(folder).join(split.hub.unwrap().path(0));
                let found = entry.files(split.split, dir.path()).unwrap();
                assert_eq!(found, [file], "{} {}", entry.name, split.split);
            }
        }
    }

    #[test]
    fn no_path_climbs_out_of_the_data_folder() {
        let dir = Path::new("data");
        assert_eq!(within(dir, "a/b.gz").unwrap(), dir.join("a/b.gz"));
        for path in [
            "",
            "..",
            "../a",
            "a/../../b",
            "/etc/a",
            "./a/..",
            "..\\a",
            "a\\..\\b",
        ] {
            assert_eq!(within(dir, path).unwrap_err().exit_code(), 2, "{path}");
        }
    }
}
