//! Runs of one benchmark or several: what all of them share. Every cell is trained, evaluated, audited, recorded,
//! resumed and replayed alike; what a benchmark measures beyond that stands in a file of its own beside this folder.
//!
//! A training is named by everything that determines its weights, and its checkpoints lie under that name. So a cell
//! whose training another one has done finds it at its last step, and goes on from there.

mod cell;
mod grid;
mod replay;
mod tuning;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Progress;
use crate::config::{Benchmark, Config, Fairness};
use crate::data::Dataset;
use crate::hardware::Hardware;
use crate::models::checkpoint::{Description, Loaded, TokenizerHint};
use crate::models::registry::ModelShape;
use crate::results::{
    AbsentDataset, AuditReport, CellKey, Datasets, Files, Finite, GRID, RunRecord, RunWriter,
    TrainingKey, Tuning, Warning, kernel_drift,
};
use crate::train::{CheckpointFolder, Interrupt};
use crate::{Error, Result};

pub(super) use cell::{failure_kind, parameters};
pub use grid::{Grid, Planned, SEGMENT_LEN, Setting, n_steps, segment_len, settings};

/// Where checkpoints lie, one folder a training.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// Folder of those folders.
    pub dir: PathBuf,
    /// Whether the last one of a finished training is kept.
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

    /// Those of one training.
    fn of_training(&self, training: &str) -> CheckpointFolder {
        CheckpointFolder::new(self.dir.join(training))
    }

    /// Removes what a training needs no more; the record holds all its cells by then.
    ///
    /// # Errors
    /// If a folder cannot be removed.
    pub fn tidy(&self, training: &str) -> Result<()> {
        self.of_training(training).keep(usize::from(self.keep))
    }
}

/// A benchmark of a run on one text.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which.
    pub benchmark: Benchmark,
    /// The run's settings, for this benchmark alone and with the text that it trains on.
    pub config: Config,
    /// Cells.
    pub grid: Grid,
    /// What it trains and evaluates on.
    pub dataset: Dataset,
    /// [`three_gram_ce`](crate::eval::three_gram_ce) of that text.
    pub three_gram_ce_nats: Option<Finite>,
    /// What learning rates are chosen on, where they are.
    pub to_tune_on: Option<Dataset>,
    /// The one model it measures, where it was given and none is trained.
    pub given: Option<Loaded>,
}

/// Everything a run needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Its benchmarks, in the order in which they run; that of several datasets once for each of them.
    pub parts: &'a [Part],
    /// Datasets that were asked for and are not here.
    pub absent: &'a [AbsentDataset],
    /// Where it runs.
    pub hardware: &'a Hardware,
    /// Where checkpoints go.
    pub checkpoints: &'a Checkpoints,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
}

/// One point of the grid.
#[derive(Debug, Clone, Copy)]
struct Point<'a> {
    part: &'a Part,
    shape: &'a ModelShape,
    planned: &'a Planned,
    seq_len: usize,
    seed: u64,
}

/// The names of a cell and of the training that its weights come from.
#[derive(Debug)]
struct Ids {
    cell: String,
    training: String,
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
            self.data()?,
        )?;
        record.datasets = self.datasets()?;
        let mut texts = Vec::new();
        for text in self.parts.iter().filter_map(|it| it.to_tune_on.as_ref()) {
            let manifest = json(&text.manifest)?;
            if !texts.contains(&manifest) {
                texts.push(manifest);
            }
        }
        record.tuning = Tuning::new(texts);
        record.files = files;
        record.warnings = self.warnings_before(&audits);
        record.audits = audits;
        Ok(record)
    }

    /// The manifest of the text: the first that is trained on.
    ///
    /// # Errors
    /// If it has no JSON form.
    pub fn data(&self) -> Result<serde_json::Value> {
        json(&self.parts.first().map(|part| &part.dataset.manifest))
    }

    /// The datasets of the multidataset benchmark, where it is part of the run.
    ///
    /// # Errors
    /// If a manifest has no JSON form.
    pub fn datasets(&self) -> Result<Option<Datasets>> {
        if !self.config.benchmarks.contains(&Benchmark::Multidataset) {
            return Ok(None);
        }
        let is_of_several = |part: &&Part| part.benchmark == Benchmark::Multidataset;
        let parts = self.parts.iter().filter(is_of_several);
        Ok(Some(Datasets {
            present: parts
                .map(|part| json(&part.dataset.manifest))
                .collect::<Result<_>>()?,
            absent: self.absent.to_vec(),
        }))
    }

    /// Tokens trained on in all cells and trials, in every way of setting learning rates, equal trainings counted once: the
    /// trials of the grid alone, and as if every rate that is chosen were another than the common one. The recall probe comes
    /// on top.
    ///
    /// # Errors
    /// If what names a training has no JSON form.
    pub fn n_train_tokens(&self) -> Result<u64> {
        let a_way = n_tokens(self.parts)?;
        let ways = (self.config.fairness.len() as u64).saturating_mul(a_way);
        if !self.config.fairness.contains(&Fairness::EqualTuning) {
            return Ok(ways);
        }
        let settings = self.parts.iter().flat_map(|part| {
            let settings = part.grid.settings.iter();
            settings.map(move |setting| (part, setting))
        });
        let trials = settings.flat_map(|(part, setting)| {
            let rates = GRID.into_iter();
            rates.filter_map(move |rate| part.trials(setting, rate))
        });
        let trials = n_tokens(&trials.collect::<Vec<Part>>())?;
        Ok(ways.saturating_add(trials))
    }

    /// Trains and evaluates every cell that the record does not hold yet, in every way of setting learning rates, then
    /// probes recall; the record is saved after each of them.
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
        for &fairness in &self.config.fairness {
            match fairness {
                Fairness::Identical => self.fill_all(self.parts, record, writer, progress)?,
                Fairness::EqualTuning => {
                    self.tune(record, writer, progress)?;
                    let parts = self.tuned_parts(record);
                    self.fill_all(&parts, record, writer, progress)?;
                }
            }
        }
        for part in self.parts.iter().filter(|part| part.config.probes_recall()) {
            self.probe_recall(part, record, writer, progress)?;
        }
        Ok(())
    }

    /// Trains and evaluates the cells of `parts` that the record does not hold.
    fn fill_all(
        &self,
        parts: &[Part],
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let points: Vec<Point<'_>> = parts.iter().flat_map(Part::points).collect();
        let ids: Vec<Ids> = points.iter().map(Point::ids).collect::<Result<_>>()?;
        for (i, (&point, ids_here)) in points.iter().zip(&ids).enumerate() {
            if record.cell(&ids_here.cell).is_none() {
                if self.interrupt.requested() {
                    return Err(Error::Interrupted);
                }
                self.fill(point, ids_here, record, writer, progress)?;
            }
            let training = &ids_here.training;
            let is_done = ids[i + 1..].iter().all(|later| later.training != *training);
            if is_done {
                self.checkpoints.tidy(training)?;
            }
        }
        Ok(())
    }

    /// Trains and evaluates one cell and enters it.
    fn fill(
        &self,
        point: Point<'_>,
        ids: &Ids,
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (cell, audit) = self.cell(point, ids, record, writer, progress)?;
        let found = audit.iter().flat_map(warnings::of_audit);
        record.warnings.extend(found);
        record.audits.extend(audit);
        record.warnings.extend(warnings::held_out_not_finite(&cell));
        record.warnings.extend(warnings::nothing_learned(&cell));
        let is_first = record.trained_by(&cell.training).is_none();
        let off = warnings::memory_estimate_off(&cell).filter(|_| is_first);
        record.warnings.extend(off);
        record.push(cell);
        // Judged anew: this cell may be the shortest.
        let is_drift = |warning: &Warning| matches!(warning, Warning::KernelDrift { .. });
        record.warnings.retain(|warning| !is_drift(warning));
        record.warnings.extend(kernel_drift(&record.cells));
        writer.save(record)
    }
}

impl Part {
    /// The grid in the order in which it runs.
    fn points(&self) -> impl Iterator<Item = Point<'_>> {
        self.grid.settings.iter().flat_map(move |setting| {
            self.grid.seeds.iter().flat_map(move |&seed| {
                setting.models.iter().map(move |planned| Point {
                    part: self,
                    shape: &planned.shape,
                    planned,
                    seq_len: setting.seq_len,
                    seed,
                })
            })
        })
    }
}

impl Point<'_> {
    /// What a reader of the training's checkpoints must know.
    fn description(&self) -> Result<Description> {
        let manifest = &self.part.dataset.manifest;
        let name = match self.part.config.data.tokenizer.as_str() {
            built_in @ ("bytes" | "gpt2") => built_in.to_owned(),
            file => {
                let path = std::path::absolute(file).map_err(Error::io("find", file))?;
                path.display().to_string()
            }
        };
        Ok(Description {
            shape: self.shape.clone(),
            tokenizer: TokenizerHint {
                name,
                sha256: Some(manifest.tokenizer_sha256.clone()),
            },
            seq_len: self.seq_len,
        })
    }

    fn ids(&self) -> Result<Ids> {
        let Part {
            benchmark,
            config,
            grid,
            dataset,
            given,
            ..
        } = self.part;
        let manifest = &dataset.manifest;
        let training = match given {
            // The first 16 digits of a hash, as of a training.
            Some(given) => given.file_sha256[..16].to_owned(),
            None => TrainingKey::new(
                config,
                &json(self.shape)?,
                &manifest.train.ids_sha256,
                self.seq_len,
                self.seed,
                grid.n_steps,
            )
            .from_stream(self.planned.stream())
            .id()?,
        };
        let cell = CellKey::new(config, *benchmark, &training, &json(manifest)?)
            .at(self.planned.at_budget.as_ref())
            .id()?;
        Ok(Ids { cell, training })
    }
}

/// Tokens that the cells of `parts` are trained on, equal trainings counted once.
fn n_tokens(parts: &[Part]) -> Result<u64> {
    let mut trainings = BTreeMap::new();
    let points = parts.iter().flat_map(Part::points);
    for point in points.filter(|point| point.planned.misfit.is_none()) {
        let Part { config, grid, .. } = point.part;
        let a_step = (config.train.batch_size * point.seq_len) as u64;
        trainings.insert(point.ids()?.training, grid.n_steps.saturating_mul(a_step));
    }
    Ok(trainings.into_values().fold(0, u64::saturating_add))
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("the record cannot be written: {error}")))
}
