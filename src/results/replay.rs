//! What `bkbench replay` found, kept beside the record.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{folder, now};
use super::writer::{sync_folder, write_json};
use crate::{Error, Result};

/// Name of the file in a run's folder.
const FILE_NAME: &str = "replay.json";

/// The last replay of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Its end, RFC 3339, UTC.
    pub finished_utc: String,
    /// Version of bkbench that replayed.
    pub bkbench_version: String,
    /// The device that replayed, as a record names it.
    pub hardware: Value,
    /// [`RunRecord::content_sha256`](super::RunRecord::content_sha256) of the record.
    pub record_sha256: String,
    /// The only cell that was looked at; absent for all.
    pub cell: Option<String>,
    /// What was compared.
    pub checks: Vec<ReplayCheck>,
}

/// One comparison of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayCheck {
    /// The cell in words, or `run`.
    pub of: String,
    /// What was compared.
    pub what: String,
    /// How it ended.
    pub verdict: ReplayVerdict,
}

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReplayVerdict {
    /// Equal, to the bit where it is a number.
    Same,
    /// Not equal; says what was recorded and what came out.
    Differs(String),
    /// Could not be compared; says why.
    NotCompared(String),
}

impl Replay {
    /// That of this process, ended now.
    pub fn new(
        hardware: Value,
        record_sha256: String,
        cell: Option<String>,
        checks: Vec<ReplayCheck>,
    ) -> Self {
        Self {
            finished_utc: now(),
            bkbench_version: env!("CARGO_PKG_VERSION").into(),
            hardware,
            record_sha256,
            cell,
            checks,
        }
    }

    /// Comparisons that ended as the same, as different, and that could not be made.
    pub fn counts(&self) -> [usize; 3] {
        let count = |is_it: fn(&ReplayVerdict) -> bool| {
            let verdicts = self.checks.iter().map(|check| &check.verdict);
            verdicts.filter(|verdict| is_it(verdict)).count()
        };
        [
            count(|verdict| *verdict == ReplayVerdict::Same),
            count(|verdict| matches!(verdict, ReplayVerdict::Differs(_))),
            count(|verdict| matches!(verdict, ReplayVerdict::NotCompared(_))),
        ]
    }

    /// Reads the last replay of the run that `run`, its folder or its record, names; `None` where there was none.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a file that cannot be read or is none.
    pub fn beside(run: &Path) -> Result<Option<Self>> {
        let path = folder(run).join(FILE_NAME);
        if !path.exists() {
            return Ok(None);
        }
        let bad = |problem: String| {
            let advice = "remove it, or run `bkbench replay` again";
            Error::bad_input(path.display().to_string(), problem, advice)
        };
        let text = std::fs::read(&path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        let replay = serde_json::from_slice(&text);
        replay.map_err(|error| bad(format!("not the outcome of a replay: {error}")))
    }

    /// Writes it beside the record, in the place of the last one.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn save(&self, run: &Path) -> Result<()> {
        let dir = folder(run);
        let path = dir.join(FILE_NAME);
        write_json(&path, true, self).map_err(Error::io("write", &path))?;
        sync_folder(dir)
    }
}
