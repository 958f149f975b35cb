//! One point of a benchmark's grid: a model, a setting and a seed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    AtBudget, Evaluation, Finite, LongContextMetrics, OnDataset, PROTOCOL_VERSION,
    QuantizationMetrics, Warning,
};
use crate::Result;
use crate::config::{Benchmark, Config, QuantizationConfig, TrainConfig, canonical_sha256};
use crate::units::Bytes;

/// One trained and evaluated model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Hash of everything that determines the cell, [`CellKey::id`].
    pub id: String,
    /// The benchmark it belongs to.
    pub benchmark: Benchmark,
    /// Hash of everything that determines its weights, [`TrainingKey::id`]. Cells with equal ones share one training,
    /// which the first of them did.
    pub training: String,
    /// Registered name of the model, with ` (b)` behind it for the second of two equal ones.
    pub model: String,
    /// Sequence length, in tokens.
    pub seq_len: usize,
    /// Seed of weights, data order and masks.
    pub seed: u64,
    /// Optimiser steps it was to take.
    pub n_steps: u64,
    /// Peak learning rate.
    pub learning_rate: Finite,
    /// Size of the model.
    pub parameters: Parameters,
    /// How it ended.
    pub outcome: Outcome,
    /// What to know before quoting its numbers.
    pub warnings: Vec<Warning>,
    /// What was measured up to its end; absent where training never began.
    pub metrics: Option<LongContextMetrics>,
    /// The trained model in fewer bits, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<QuantizationMetrics>,
    /// The budget of FLOPs and what the model makes of it; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_budget: Option<AtBudget>,
    /// The dataset, and what was measured on it beside the evaluation; absent outside the multidataset benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_dataset: Option<OnDataset>,
    /// Where the weights are from, where the run was given them and trained nothing; there are no `metrics` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<GivenWeights>,
}

/// Weights that a run was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenWeights {
    /// The folder or file they were read from.
    pub path: PathBuf,
    /// `bkbench`, or `published` for the official layout of Mamba.
    pub layout: String,
    /// Optimiser steps they had taken, where the files tell.
    pub steps: Option<u64>,
    /// sha256 of the file of weights.
    pub file_sha256: String,
}

impl Cell {
    /// Held-out text under the last weights.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.metrics.as_ref()?.evaluation.as_ref()
    }

    /// Its benchmark and setting: `quantization seq_len_512`.
    pub fn place(&self) -> String {
        format!("{} {}", self.benchmark.name(), self.setting())
    }

    /// Key of the cell's setting in the guide's JSON: `seq_len_8192`, `flops_1e9`, or the name of a dataset. One benchmark,
    /// setting, model and seed is one cell.
    pub fn setting(&self) -> String {
        match (&self.at_budget, &self.on_dataset) {
            (Some(at), _) => at.setting(),
            (None, Some(on)) => on.dataset.clone(),
            (None, None) => format!("seq_len_{}", self.seq_len),
        }
    }
}

/// Parameter counts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// All of them.
    pub total: u64,
    /// Without the token embedding, which is also the output head.
    pub non_embedding: u64,
    /// Those a token really uses (the chosen experts only), without the embedding.
    pub active: u64,
}

/// How a cell ended. An outcome is data, not an error: the run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// All steps were taken.
    Completed,
    /// Training broke down.
    Diverged {
        /// The step at which the rule was met, counted from 0.
        step: u64,
        /// The rule.
        cause: DivergenceCause,
    },
    /// The device had not enough memory, which is not divergence.
    OutOfMemory {
        /// What was asked for, where the driver says so.
        requested_bytes: Option<Bytes>,
    },
    /// It took longer than allowed.
    TimedOut {
        /// The time after which it was stopped.
        seconds: Finite,
    },
    /// It never started, because it could not have finished.
    Skipped {
        /// Why.
        reason: String,
        /// What it needs.
        needs: String,
        /// What is there.
        have: String,
    },
    /// The device or a kernel failed, and once more after it was tried again from the last checkpoint.
    Failed {
        /// What failed.
        failure: FailureKind,
        /// What was reported.
        reason: String,
    },
}

impl Outcome {
    /// Its name in files: `completed`, `diverged`, ...
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Diverged { .. } => "diverged",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::TimedOut { .. } => "timed_out",
            Self::Skipped { .. } => "skipped",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What made a cell fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The driver gave the device up: a reset, a hang that a watchdog ended, a GPU that was unplugged.
    DeviceLost,
    /// Anything else that the device or a kernel reported.
    Error,
}

/// The rule by which a training counts as diverged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceCause {
    /// The loss or the gradient was not finite in five steps running.
    NonFinite,
    /// The smoothed loss rose far above that of the start.
    BlowUp,
    /// The smoothed loss rose far above its minimum and stayed there.
    NoRecovery,
}

/// Everything that determines the weights that a training ends with: equal keys are one training.
#[derive(Debug, Serialize)]
pub struct TrainingKey<'a> {
    protocol_version: u32,
    shape: &'a serde_json::Value,
    dropout: f64,
    load_balance_weight: f64,
    act_penalty: f64,
    train: &'a TrainConfig,
    ids_sha256: &'a str,
    seq_len: usize,
    seed: u64,
    #[serde(skip_serializing_if = "is_first")]
    stream: u32,
    n_steps: u64,
}

/// Whether a set of initial weights is the one that all models have but the second of two equal ones.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(stream: &u32) -> bool {
    *stream == 0
}

impl<'a> TrainingKey<'a> {
    /// Collects what determines a training of a benchmark, whose configuration `config` is.
    ///
    /// `shape` fixes the parameters' shapes; `ids_sha256` is that of the training tokens.
    pub fn new(
        config: &'a Config,
        shape: &'a serde_json::Value,
        ids_sha256: &'a str,
        seq_len: usize,
        seed: u64,
        n_steps: u64,
    ) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            shape,
            dropout: config.model.dropout,
            load_balance_weight: config.model.load_balance_weight,
            act_penalty: config.model.act_penalty,
            train: &config.train,
            ids_sha256,
            seq_len,
            seed,
            stream: 0,
            n_steps,
        }
    }

    /// The same from another set of initial weights.
    #[must_use]
    pub fn from_stream(self, stream: u32) -> Self {
        Self { stream, ..self }
    }

    /// First 16 hexadecimal digits of the sha256 of its canonical JSON.
    ///
    /// # Errors
    /// As [`canonical_sha256`].
    pub fn id(&self) -> Result<String> {
        Ok(canonical_sha256(self)?[..16].to_owned())
    }
}

/// Everything that determines a cell: its training, and what is measured of it.
#[derive(Debug, Serialize)]
pub struct CellKey<'a> {
    protocol_version: u32,
    benchmark: Benchmark,
    training: &'a str,
    data: &'a serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantization: Option<&'a QuantizationConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_budget: Option<&'a AtBudget>,
}

impl<'a> CellKey<'a> {
    /// Collects what determines a cell of `benchmark`; `training` is its [`TrainingKey::id`], `data` the manifest of
    /// its text.
    pub fn new(
        config: &'a Config,
        benchmark: Benchmark,
        training: &'a str,
        data: &'a serde_json::Value,
    ) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            benchmark,
            training,
            data,
            quantization: (benchmark == Benchmark::Quantization).then_some(&config.quantization),
            at_budget: None,
        }
    }

    /// The same under a budget of FLOPs.
    #[must_use]
    pub fn at(self, at_budget: Option<&'a AtBudget>) -> Self {
        Self { at_budget, ..self }
    }

    /// First 16 hexadecimal digits of the sha256 of its canonical JSON.
    ///
    /// # Errors
    /// As [`canonical_sha256`].
    pub fn id(&self) -> Result<String> {
        Ok(canonical_sha256(self)?[..16].to_owned())
    }
}
