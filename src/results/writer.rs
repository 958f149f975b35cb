//! Files of a run: written to a temporary name, synced, renamed; never overwritten by another run.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::record::FILE_NAME;
use super::{Finite, RunRecord};
use crate::config::Config;
use crate::{Error, Result};

/// The folder of one run, `<utc>-<benchmark>-<start of the configuration's hash>`.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    step_lines: File,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct StepLine<'a> {
    /// Identity of the cell.
    pub cell: &'a str,
    /// The step, counted from 0.
    pub step: u64,
    /// Cross-entropy before the update, nats per token; `null` where it was not finite.
    pub loss_nats: Option<Finite>,
    /// Norm of the gradient over all parameters before clipping; `null` where it was not finite.
    pub gradient_norm: Option<Finite>,
    /// Learning rate of the update.
    pub learning_rate: Finite,
}

impl RunWriter {
    /// Makes a new folder for a run in `results_dir` and opens its log, which shows that both can be written.
    ///
    /// # Errors
    /// [`Error::BadInput`] if that is not possible.
    pub fn create(results_dir: &Path, config: &Config) -> Result<Self> {
        let unwritable = |error: std::io::Error| {
            Error::bad_input(
                results_dir.display().to_string(),
                format!("cannot be written: {error}"),
                "start bkbench from a folder in which you may write",
            )
        };
        std::fs::create_dir_all(results_dir).map_err(unwritable)?;
        let utc: String = humantime::format_rfc3339_seconds(SystemTime::now())
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let name = format!(
            "{utc}-{}-{}",
            config.benchmark.name(),
            &config.sha256()?[..8]
        );
        let mut dir = results_dir.join(&name);
        let mut attempt = 1;
        while let Err(error) = std::fs::create_dir(&dir) {
            if error.kind() != ErrorKind::AlreadyExists {
                return Err(unwritable(error));
            }
            // Another run with the same settings began within this second.
            attempt += 1;
            dir = results_dir.join(format!("{name}-{attempt}"));
        }
        let step_lines = File::create_new(dir.join("metrics.jsonl")).map_err(unwritable)?;
        Ok(Self { dir, step_lines })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends a step to `metrics.jsonl`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn step(&mut self, line: &StepLine<'_>) -> Result<()> {
        let path = || self.dir.join("metrics.jsonl");
        let mut text = serde_json::to_string(line)
            .map_err(|error| Error::io("write", path())(error.into()))?;
        text.push('\n');
        self.step_lines
            .write_all(text.as_bytes())
            .map_err(Error::io("write", path()))
    }

    /// Replaces `result.json` by the record as it stands now; after a crash the old or the new one is there, whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, record: &RunRecord) -> Result<()> {
        let path = self.dir.join(FILE_NAME);
        let failed = || Error::io("write", &path);
        let file = synced_json(record, &self.dir).map_err(failed())?;
        file.persist(&path).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

/// Writes a value as indented JSON to a temporary file in `dir` and waits until it is on the disk.
pub(super) fn synced_json(
    value: &impl Serialize,
    dir: &Path,
) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = temporary_in(dir)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A temporary file in `dir`, to be renamed when it is whole, with the rights any new file has (those of
/// temporary files are the owner's alone).
///
/// # Errors
/// If it cannot be created.
pub fn temporary_in(dir: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(dir)
}
