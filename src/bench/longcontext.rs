//! Training at growing sequence lengths: the same number of steps at every length, every model and seed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Progress, memory};
use crate::config::{Budget, Config};
use crate::data::{Batches, Dataset};
use crate::eval::evaluate;
use crate::hardware::Hardware;
use crate::models::registry::{Architecture, ModelShape, ParameterCount, matched_shapes};
use crate::models::{BatchShape, weights};
use crate::results::{
    Cell, CellKey, Evaluation, Finite, LongContextMetrics, Outcome, Parameters, RunRecord,
    RunWriter, StepLine, Warning,
};
use crate::train::{Trained, Training, learning_rate, train};
use crate::{Error, Result};

/// From this many steps on a run may speak of stability.
const STEPS_FOR_A_CLAIM: u64 = 200;
/// Fewer seeds than this say little about the spread.
const SEEDS_FOR_A_CLAIM: u64 = 5;
/// A trained cell lies at least this far below the unigram cross-entropy, in nats per token.
const LEARNED_NATS: f64 = 0.2;
/// A size that was not matched is mentioned from this ratio on.
const UNEQUAL_RATIO: f64 = 2.0;

/// The cells of a run, before any of them is trained.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The matched models, in the order in which they run.
    pub shapes: Vec<ModelShape>,
    /// Sequence lengths in tokens.
    pub seq_lengths: Vec<usize>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Optimiser steps of every cell.
    pub n_steps: u64,
}

impl Grid {
    /// Looks up and matches the models, and turns epochs into steps at the longest length.
    ///
    /// # Errors
    /// Unknown or unmatchable models, or a text shorter than one window of the longest length.
    pub fn new(config: &Config, vocab_size: usize, n_train_tokens: usize) -> Result<Self> {
        let models: Vec<Architecture> = config
            .models
            .names()
            .map(Architecture::parse)
            .collect::<Result<_>>()?;
        let shapes = matched_shapes(&models, &config.model, vocab_size)?;
        let seq_lengths = config.longcontext.seq_lengths.clone();
        let longest = seq_lengths.iter().copied().max().unwrap_or(0);
        if n_train_tokens <= longest {
            return Err(Error::bad_input(
                format!("--seq_lengths {longest}"),
                format!(
                    "one window needs {} tokens, and the training text has {n_train_tokens}",
                    longest + 1
                ),
                "give shorter lengths, or a longer text with --text",
            ));
        }
        let n_steps = match config.train.budget {
            Budget::Steps(steps) => steps,
            Budget::NumEpochs(epochs) => {
                let tokens_a_step = (config.train.batch_size * longest) as u64;
                (epochs * n_train_tokens as u64 / tokens_a_step).max(1)
            }
        };
        Ok(Self {
            shapes,
            seq_lengths,
            seeds: config.seeds.iter().collect(),
            n_steps,
        })
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.shapes.len() * self.seq_lengths.len() * self.seeds.len()
    }

    /// Tokens trained on in all.
    pub fn n_train_tokens(&self, batch_size: usize) -> u64 {
        let a_step: usize = self.seq_lengths.iter().sum::<usize>() * batch_size;
        self.n_steps * a_step as u64 * (self.shapes.len() * self.seeds.len()) as u64
    }
}

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
        record.warnings = self.warnings_before();
        for warning in &record.warnings {
            progress.message(&format!("warning: {warning}"));
        }
        writer.save(&record)?;
        for &seq_len in &self.grid.seq_lengths {
            for &seed in &self.grid.seeds {
                for shape in &self.grid.shapes {
                    let cell = self.cell(shape, seq_len, seed, &record.data, writer, progress)?;
                    record.warnings.extend(nothing_learned(&cell));
                    record.push(cell);
                    writer.save(&record)?;
                }
            }
        }
        Ok(record)
    }

    fn cell(
        &self,
        shape: &ModelShape,
        seq_len: usize,
        seed: u64,
        data: &serde_json::Value,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<Cell> {
        let model = shape.architecture.name();
        let parameters = parameters(shape.parameters());
        let n_steps = self.grid.n_steps;
        let key = CellKey::new(self.config, data, model, parameters, seq_len, seed, n_steps);
        let id = key.id()?;
        progress.start_cell(&format!("{model} N={seq_len} seed {seed}"), n_steps);
        let n_tokens = self.config.train.batch_size * seq_len;
        let (outcome, metrics) = match memory::misfit(shape, n_tokens, self.hardware) {
            Some(skipped) => (skipped, None),
            None => match self.train(shape, seq_len, seed, &id, writer, progress) {
                Ok((outcome, metrics)) => (outcome, Some(metrics)),
                // What a device cannot do is the cell's outcome; the run goes on.
                Err(Error::Device { doing, reason }) => (device_outcome(&doing, &reason), None),
                Err(error) => return Err(error),
            },
        };
        progress.finish_cell(&describe(&outcome, metrics.as_ref()));
        Ok(Cell {
            id,
            benchmark: self.config.benchmark,
            model: model.to_owned(),
            seq_len,
            seed,
            n_steps,
            parameters,
            outcome,
            metrics,
        })
    }

    fn train(
        &self,
        shape: &ModelShape,
        seq_len: usize,
        seed: u64,
        id: &str,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<(Outcome, LongContextMetrics)> {
        let config = &self.config.train;
        let batch = config.batch_size;
        let training = Training {
            shape,
            model: &self.config.model,
            config,
            batches: &Batches::new(self.dataset.train.clone(), seq_len, batch, seed)?,
            batch_shape: BatchShape { batch, seq_len },
            n_steps: self.grid.n_steps,
            seed,
            device: &self.hardware.device,
            checkpoint: self.checkpoints.dir.join(id),
        };
        let mut logged = Ok(());
        let trained = train(&training, &mut |step| {
            let rate = learning_rate(config, step.index, training.n_steps);
            let line = StepLine {
                cell: id,
                step: step.index,
                loss_nats: Finite::new(step.loss_nats),
                gradient_norm: Finite::new(step.gradient_norm),
                learning_rate: Finite::new(rate).unwrap_or_default(),
            };
            if logged.is_ok() {
                logged = writer.step(&line);
            }
            let n_tokens = (step.index + 1) * step.n_tokens;
            progress.step(step.index + 1, step.loss_nats, n_tokens);
        })?;
        logged?;
        let evaluation = match trained.outcome {
            Outcome::Completed => Some(evaluate(
                &trained.model,
                &self.dataset.eval,
                self.dataset.manifest.eval.n_bytes as u64,
                seq_len,
                config.loss_chunk_tokens,
            )?),
            _ => None,
        };
        if !self.checkpoints.keep {
            remove_checkpoint(&training.checkpoint)?;
        }
        let metrics = metrics(&trained, evaluation, self.dataset.manifest.unigram_ce_nats)?;
        Ok((trained.outcome, metrics))
    }
}

/// A cell that ended needs no checkpoint any more, nor does the folder of the last one.
fn remove_checkpoint(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
    }
    if let Some(parent) = folder.parent() {
        // Fails, and may, while other cells have theirs in it.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("the record cannot be written: {error}")))
}

fn metrics(
    trained: &Trained,
    evaluation: Option<Evaluation>,
    unigram_ce_nats: f64,
) -> Result<LongContextMetrics> {
    let curves = trained.curves.clone();
    Ok(LongContextMetrics {
        final_loss_nats: curves.final_loss_nats(),
        gradient_norm_mean: curves.gradient_norm_mean(),
        gradient_norm_std: curves.gradient_norm_std(),
        gradient_norm_max: curves.gradient_norm_max(),
        nan_count: curves.nan_count(),
        curves,
        skipped_steps: trained.skipped_steps,
        evaluation,
        last_quarter: None,
        unigram_ce_nats: Finite::new(unigram_ce_nats).unwrap_or_default(),
        train_seconds: Finite::new(trained.seconds).unwrap_or_default(),
        tokens_per_second: trained.tokens_per_second.and_then(Finite::new),
        peak_memory_bytes: trained.peak_memory_bytes.map(crate::units::Bytes),
        weights_sha256: weights::sha256(&trained.model)?,
        data_order_sha256: trained.data_order_sha256.clone(),
    })
}

fn parameters(count: ParameterCount) -> Parameters {
    Parameters {
        total: count.total as u64,
        non_embedding: count.non_embedding as u64,
        active: count.active as u64,
    }
}

/// Out of memory is not a failure of the model or of the driver.
fn device_outcome(doing: &str, reason: &str) -> Outcome {
    if reason.contains("allocate") || reason.contains("out of memory") {
        return Outcome::OutOfMemory {
            requested_bytes: None,
        };
    }
    Outcome::Failed {
        reason: format!("while {doing}: {reason}"),
    }
}

fn describe(outcome: &Outcome, metrics: Option<&LongContextMetrics>) -> String {
    let evaluation = metrics.and_then(|metrics| metrics.evaluation.as_ref());
    match evaluation {
        Some(evaluation) => format!(
            "{}: held-out {:.4} nats per token, {:.4} bits per byte",
            outcome.name(),
            evaluation.nll_nats.get(),
            evaluation.bits_per_byte.get()
        ),
        None => outcome.name().to_owned(),
    }
}

impl Run<'_> {
    /// What is known before anything is trained.
    fn warnings_before(&self) -> Vec<Warning> {
        let Self {
            config,
            grid,
            hardware,
            dataset,
            ..
        } = *self;
        let mut warnings: Vec<Warning> = hardware
            .notes
            .iter()
            .map(|note| Warning::DeviceNote { note: note.clone() })
            .collect();
        if let Some(adapter) = hardware
            .adapter
            .as_ref()
            .filter(|adapter| adapter.is_software())
        {
            warnings.push(Warning::SoftwareAdapter {
                name: adapter.name.clone(),
            });
        }
        if grid.n_steps < STEPS_FOR_A_CLAIM {
            warnings.push(Warning::TooFewSteps {
                steps: grid.n_steps,
                needed: STEPS_FOR_A_CLAIM,
            });
        }
        let n_seeds = grid.seeds.len() as u64;
        if n_seeds < SEEDS_FOR_A_CLAIM {
            warnings.push(Warning::FewSeeds { count: n_seeds });
        }
        let longest = grid.seq_lengths.iter().copied().max().unwrap_or(0);
        let tokens = grid.n_steps as f64 * (config.train.batch_size * longest) as f64;
        let epochs = tokens / dataset.train.len() as f64;
        if epochs > 1.0
            && let Some(epochs) = Finite::new(epochs)
        {
            warnings.push(Warning::RepeatedData { epochs });
        }
        let counts: Vec<ParameterCount> = grid.shapes.iter().map(ModelShape::parameters).collect();
        let total: Vec<usize> = counts.iter().map(|count| count.total).collect();
        let active: Vec<usize> = counts.iter().map(|count| count.active).collect();
        for (basis, sizes) in [("total", total), ("active", active)] {
            if let (Some(&min), Some(&max)) = (sizes.iter().min(), sizes.iter().max())
                && let Some(ratio) = Finite::new(max as f64 / min as f64)
                && ratio.get() > UNEQUAL_RATIO
            {
                warnings.push(Warning::UnequalSize {
                    basis: basis.to_owned(),
                    ratio,
                });
            }
        }
        warnings
    }
}

fn nothing_learned(cell: &Cell) -> Option<Warning> {
    let metrics = cell.metrics.as_ref()?;
    let evaluation = metrics.evaluation.as_ref()?;
    let needed = metrics.unigram_ce_nats.get() - LEARNED_NATS;
    (evaluation.nll_nats.get() > needed).then(|| Warning::NothingLearned {
        model: cell.model.clone(),
        seq_len: cell.seq_len,
        seed: cell.seed,
        nll_nats: evaluation.nll_nats,
        needed_nats: Finite::new(needed).unwrap_or_default(),
    })
}
