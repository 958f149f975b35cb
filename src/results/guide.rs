//! The benchmarking guide's JSON: `seq_len_<N>` -> model -> values.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::writer::synced_json;
use super::{RunRecord, Summary};
use crate::stats::Estimate;
use crate::{Error, Result};

/// The record in the guide's shape.
///
/// Over seeds, `final_loss`, `token_perplexity` and `gradient_norm_*` are means over completed seeds, `null` exactly where
/// none completed; `nan_count` is a sum and `diverged` an "any". `ci95` holds the t interval of `final_loss`.
pub fn guide_json(record: &RunRecord) -> Value {
    let mut root = Map::new();
    for summary in &record.summaries {
        let setting = root
            .entry(format!("seq_len_{}", summary.seq_len))
            .or_insert_with(|| json!({}));
        setting[&summary.model] = entry(summary);
    }
    Value::Object(root)
}

fn entry(summary: &Summary) -> Value {
    let mean = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.mean);
    let interval = summary
        .final_loss_nats
        .and_then(|estimate| estimate.interval);
    json!({
        "final_loss": mean(summary.final_loss_nats),
        "gradient_norm_mean": mean(summary.gradient_norm_mean),
        "gradient_norm_std": mean(summary.gradient_norm_std),
        "nan_count": summary.nan_count,
        "diverged": summary.diverged,
        "token_perplexity": mean(summary.token_perplexity),
        "n_seeds": summary.n_seeds,
        "outcomes": summary.outcomes,
        "ci95": interval.map(|interval| [interval.low, interval.high]),
    })
}

/// A file that does not exist yet and can be written: checked before a run, written after it.
#[derive(Debug)]
pub struct GuideFile {
    path: PathBuf,
}

impl GuideFile {
    /// Checks that `path` is free and makes its folder.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the file exists or its folder cannot be written.
    pub fn reserve(path: &Path) -> Result<Self> {
        if path.exists() {
            return Err(exists(path));
        }
        let file = Self {
            path: path.to_owned(),
        };
        std::fs::create_dir_all(file.dir())
            .and_then(|()| tempfile::NamedTempFile::new_in(file.dir()))
            .map_err(|error| {
                Error::bad_input(
                    format!("--output {}", path.display()),
                    format!("its folder cannot be written: {error}"),
                    "name a file in a folder in which you may write",
                )
            })?;
        Ok(file)
    }

    /// Writes the record in the guide's shape.
    ///
    /// # Errors
    /// If the file has come into being since, or cannot be written.
    pub fn write(self, record: &RunRecord) -> Result<()> {
        let file =
            synced_json(&guide_json(record), self.dir()).map_err(Error::io("write", &self.path))?;
        match file.persist_noclobber(&self.path) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(exists(&self.path))
            }
            Err(error) => Err(Error::io("write", self.path)(error.error)),
        }
    }

    fn dir(&self) -> &Path {
        self.path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }
}

fn exists(path: &Path) -> Error {
    Error::bad_input(
        format!("--output {}", path.display()),
        "the file exists, and results are never overwritten",
        "name another file",
    )
}
