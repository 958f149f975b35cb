//! Training at growing sequence lengths: the same number of steps at every length, every model and seed.

mod cell;
mod grid;
mod warnings;

use std::path::PathBuf;

use super::Progress;
use crate::config::Config;
use crate::data::Dataset;
use crate::hardware::Hardware;
use crate::results::{AuditReport, RunRecord, RunWriter};
use crate::{Error, Result};

pub use grid::{Grid, SEGMENT_LEN};

/// Where checkpoints lie, one folder a cell.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// Folder of those folders.
    pub dir: PathBuf,
    /// Whether the last one of a finished cell is kept.
    pub keep: bool,
}

/// Everything a run needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Cells.
    pub grid: &'a Grid,
    /// Where it runs.
    pub hardware: &'a Hardware,
    /// What it trains and evaluates on.
    pub dataset: &'a Dataset,
    /// What the models' audits found before the run.
    pub audits: &'a [AuditReport],
    /// Where checkpoints go.
    pub checkpoints: &'a Checkpoints,
}

impl Run<'_> {
    /// Trains and evaluates every cell; the record is saved after each of them.
    ///
    /// # Errors
    /// What stops the whole run: a folder that cannot be written, a mistake in the program. What stops
    /// one cell is its outcome.
    pub fn train_all(
        &self,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<RunRecord> {
        let mut record = RunRecord::new(
            self.config.clone(),
            json(&self.hardware.fingerprint)?,
            json(&self.dataset.manifest)?,
        )?;
        record.audits = self.audits.to_vec();
        record.warnings = self.warnings_before();
        for warning in &record.warnings {
            progress.message(&format!("warning: {warning}"));
        }
        writer.save(&record)?;
        for &seq_len in &self.grid.seq_lengths {
            for &seed in &self.grid.seeds {
                for shape in &self.grid.shapes {
                    let (cell, audit) =
                        self.cell(shape, seq_len, seed, &record, writer, progress)?;
                    record
                        .warnings
                        .extend(audit.iter().flat_map(warnings::of_audit));
                    record.audits.extend(audit);
                    record.warnings.extend(warnings::nothing_learned(&cell));
                    record.warnings.extend(warnings::memory_estimate_off(&cell));
                    record.push(cell);
                    writer.save(&record)?;
                }
            }
        }
        Ok(record)
    }
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("the record cannot be written: {error}")))
}
