//! Files of a run: written to a temporary name, synced, renamed; never overwritten by another run.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::record::FILE_NAME;
use super::seal::Sealed;
use super::{Finite, RunRecord};
use crate::config::Config;
use crate::{Error, Result};

const STEP_LINES: &str = "metrics.jsonl";
/// Locked by the process that works on the run.
const LOCK: &str = ".lock";

/// The folder of one run, `<utc>-<benchmarks>-<start of the configuration's hash>`. No other process can write
/// to it while this one lives.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    step_lines: File,
    /// Cells of which there are lines.
    begun: BTreeSet<String>,
    /// Held, not read.
    _lock: File,
}

/// What tells one line of `metrics.jsonl` from another.
#[derive(Deserialize)]
struct LineKey {
    cell: String,
    step: u64,
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
        let name = format!("{utc}-{}-{}", config.title(), &config.sha256()?[..8]);
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
        Self::open(&dir)
    }

    /// Opens the folder of a run that began before. A line that was cut off while it was written is dropped.
    ///
    /// # Errors
    /// [`Error::BadInput`] if another process works on it or it cannot be written.
    pub fn open(dir: &Path) -> Result<Self> {
        let refused = |problem: String, advice: &str| {
            Error::bad_input(dir.display().to_string(), problem, advice)
        };
        let unwritable = |error: std::io::Error| {
            let problem = format!("cannot be written: {error}");
            refused(problem, "name the folder of a run in which you may write")
        };
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        let lock = options.open(dir.join(LOCK)).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused(
                    "another process works on this run".into(),
                    "wait for it, or end it first",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let step_lines = options.open(dir.join(STEP_LINES)).map_err(unwritable)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            step_lines,
            begun: BTreeSet::new(),
            _lock: lock,
        };
        let mut begun = BTreeSet::new();
        writer.retain_lines(|line| {
            begun.insert(line.cell.clone());
            true
        })?;
        writer.begun = begun;
        Ok(writer)
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
        if !self.begun.contains(line.cell) {
            self.begun.insert(line.cell.to_owned());
        }
        let path = || self.dir.join(STEP_LINES);
        let mut text = serde_json::to_string(line)
            .map_err(|error| Error::io("write", path())(error.into()))?;
        text.push('\n');
        self.step_lines
            .write_all(text.as_bytes())
            .map_err(Error::io("write", path()))
    }

    /// Takes back the lines of a cell from step `first` on, which is going to be done again.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn forget_from(&mut self, cell: &str, first: u64) -> Result<()> {
        if self.begun.contains(cell) {
            self.retain_lines(|line| line.cell != cell || line.step < first)?;
        }
        Ok(())
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sync_steps(&self) -> Result<()> {
        let written = self.step_lines.sync_data();
        written.map_err(Error::io("write", self.dir.join(STEP_LINES)))
    }

    /// Rewrites `metrics.jsonl` with the lines that are whole and that `keep` wants, where any is not.
    fn retain_lines(&mut self, mut keep: impl FnMut(&LineKey) -> bool) -> Result<()> {
        let path = self.dir.join(STEP_LINES);
        let old = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let wanted = |line: &&[u8]| {
            line.ends_with(b"\n") && serde_json::from_slice(line).is_ok_and(|key| keep(&key))
        };
        let lines = old.split_inclusive(|&byte| byte == b'\n');
        let new = lines.filter(wanted).collect::<Vec<_>>().concat();
        if new == old {
            return Ok(());
        }
        self.step_lines = write_whole(&path, true, |file| file.write_all(&new))
            .and_then(|()| OpenOptions::new().append(true).open(&path))
            .map_err(Error::io("write", &path))?;
        Ok(())
    }

    /// Replaces `result.json` by the record as it stands now and the hash of its content; after a crash the old or the
    /// new one is there, whole, and all step lines of the cells in it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, record: &RunRecord) -> Result<()> {
        self.sync_steps()?;
        let path = self.dir.join(FILE_NAME);
        let sealed = Sealed::new(record)?;
        write_json(&path, true, &sealed).map_err(Error::io("write", &path))?;
        sync_folder(&self.dir)
    }
}

/// Waits until the names of the files in `folder` are on the disk, where the system has such a thing.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Writes a file whole or not at all, into a folder that is made where there is none: under a temporary name, synced,
/// renamed. A file of that name is replaced, or without `overwrite` left as it is.
///
/// # Errors
/// Whatever keeps it from being written; [`ErrorKind::AlreadyExists`] for a file that is left as it is.
pub fn write_whole(
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut builder = tempfile::Builder::new();
    // The rights of any new file; those of temporary files are the owner's alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(dir)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    if overwrite {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    Ok(())
}

/// Writes a value so, as indented JSON.
pub(super) fn write_json(
    path: &Path,
    overwrite: bool,
    value: &impl Serialize,
) -> std::io::Result<()> {
    write_whole(path, overwrite, |file| {
        let mut buffer = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut buffer, value)?;
        buffer.write_all(b"\n")?;
        buffer.flush()
    })
}
