//! Training at growing sequence lengths: the same number of steps at every length, every model and seed.

mod cell;
mod grid;
mod replay;
mod warnings;

use std::path::{Path, PathBuf};

use super::Progress;
use crate::config::Config;
use crate::data::Dataset;
use crate::hardware::Hardware;
use crate::models::checkpoint::{Description, TokenizerHint};
use crate::models::registry::ModelShape;
use crate::results::{AuditReport, Cell, CellKey, Files, RunRecord, RunWriter};
use crate::train::{CheckpointFolder, Interrupt};
use crate::{Error, Result};

pub(super) use cell::{failure_kind, parameters};
pub use grid::{Grid, Planned, SEGMENT_LEN, Setting, segment_len, settings};
pub use replay::{Check, Verdict};

/// Where checkpoints lie, one folder a cell.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// Folder of those folders.
    pub dir: PathBuf,
    /// Whether the last one of a finished cell is kept.
    pub keep: bool,
}

impl Checkpoints {
    /// Those of the run in `run`, whose record says `files`.
    pub fn of(files: &Files, run: &Path) -> Self {
        Self {
            dir: files.checkpoints(run),
            keep: files.keep_checkpoints,
        }
    }

    /// Those of one cell.
    fn of_cell(&self, id: &str) -> CheckpointFolder {
        CheckpointFolder::new(self.dir.join(id))
    }

    /// Removes what a finished cell needs no more; the record holds the cell by then.
    ///
    /// # Errors
    /// If a folder cannot be removed.
    pub fn tidy(&self, cell: &Cell) -> Result<()> {
        self.of_cell(&cell.id).keep(usize::from(self.keep))
    }
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
    /// Where checkpoints go.
    pub checkpoints: &'a Checkpoints,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
}

/// One point of the grid.
#[derive(Debug, Clone, Copy)]
struct Point<'a> {
    shape: &'a ModelShape,
    planned: &'a Planned,
    seq_len: usize,
    seed: u64,
}

impl Run<'_> {
    /// The record of a run that is about to begin; `audits` are what was found of its models.
    ///
    /// # Errors
    /// If what goes into it has no JSON form.
    pub fn record(&self, files: Files, audits: Vec<AuditReport>) -> Result<RunRecord> {
        let mut record = RunRecord::new(
            self.config.clone(),
            json(&self.hardware.fingerprint)?,
            json(&self.dataset.manifest)?,
        )?;
        record.files = files;
        record.warnings = self.warnings_before(&audits);
        record.audits = audits;
        Ok(record)
    }

    /// Trains and evaluates every cell that the record does not hold yet, then probes recall; the record is
    /// saved after each of them.
    ///
    /// # Errors
    /// What stops the whole run: [`Error::Interrupted`], a folder that cannot be written, a mistake in the
    /// program. What stops one cell is its outcome.
    pub fn train_all(
        &self,
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        for point in self.points() {
            let id = self.id(point, &record.data)?;
            if record.cell(&id).is_some() {
                continue;
            }
            if self.interrupt.requested() {
                return Err(Error::Interrupted);
            }
            let (cell, audit) = self.cell(point, id, record, writer, progress)?;
            let found = audit.iter().flat_map(warnings::of_audit);
            record.warnings.extend(found);
            record.audits.extend(audit);
            record.warnings.extend(warnings::nothing_learned(&cell));
            record.warnings.extend(warnings::memory_estimate_off(&cell));
            record.push(cell.clone());
            let drift = warnings::kernel_drift(&cell, &record.cells);
            record.warnings.extend(drift);
            writer.save(record)?;
            self.checkpoints.tidy(&cell)?;
        }
        if self.config.probes_recall() {
            self.probe_recall(record, writer, progress)?;
        }
        Ok(())
    }

    /// The grid in the order in which it runs.
    fn points(&self) -> impl Iterator<Item = Point<'_>> {
        let seeds = &self.grid.seeds;
        self.grid.settings.iter().flat_map(move |setting| {
            seeds.iter().flat_map(move |&seed| {
                setting.models.iter().map(move |planned| Point {
                    shape: &planned.shape,
                    planned,
                    seq_len: setting.seq_len,
                    seed,
                })
            })
        })
    }

    /// What a reader of the cell's checkpoints must know.
    fn description(&self, point: Point<'_>) -> Result<Description> {
        let manifest = &self.dataset.manifest;
        let name = match self.config.data.tokenizer.as_str() {
            built_in @ ("bytes" | "gpt2") => built_in.to_owned(),
            file => {
                let path = std::path::absolute(file).map_err(Error::io("find", file))?;
                path.display().to_string()
            }
        };
        Ok(Description {
            shape: point.shape.clone(),
            tokenizer: TokenizerHint {
                name,
                sha256: Some(manifest.tokenizer_sha256.clone()),
            },
            seq_len: point.seq_len,
        })
    }

    /// The name of a cell; `data` is the record's manifest.
    fn id(&self, point: Point<'_>, data: &serde_json::Value) -> Result<String> {
        let Point {
            shape,
            planned,
            seq_len,
            seed,
        } = point;
        let model = shape.architecture.name();
        let parameters = parameters(shape.parameters());
        let n_steps = self.grid.n_steps;
        let key = CellKey::new(self.config, data, model, parameters, seq_len, seed, n_steps);
        key.at(planned.at_budget.as_ref()).id()
    }
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("the record cannot be written: {error}")))
}
