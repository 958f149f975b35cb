//! How a model is trained; equal for all models of a comparison.

use serde::{Deserialize, Serialize};

/// How long training goes: tokens and steps, never seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Optimiser steps.
    Steps(u64),
    /// Passes over the training text, turned into steps once at the longest sequence length.
    NumEpochs(u64),
}

/// Whether gradients cross the boundaries of a sequence's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backpropagation {
    /// They do: the gradients are those of the whole sequence.
    #[default]
    Exact,
    /// They end there; states are still carried forward.
    Truncated,
}

/// In what matrix products are computed. Weights, sums, scans and the optimiser are f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// In the type of the tensors, which is f32.
    #[default]
    F32,
    /// Factors and products are rounded to f16, and the loss is scaled so that small gradients do not vanish.
    Mixed,
}

/// Hyper-parameters of AdamW and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Steps or epochs.
    pub budget: Budget,
    /// Sequences a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// `AdamW` decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// `AdamW` epsilon.
    pub epsilon: f64,
    /// Weight decay; on matrices only.
    pub weight_decay: f64,
    /// Warm-up steps at most; 10 % of the run at most.
    pub warmup_steps: u64,
    /// Gradients are scaled down to this norm, taken over all parameters at once.
    pub gradient_clip_norm: f64,
    /// A checkpoint is written at the first step end after this many seconds.
    pub checkpoint_every_seconds: f64,
    /// A cell whose training has taken this many seconds ends as timed out; no limit where absent. Part of the
    /// configuration and its hash: two runs of equal hash must not differ in which of their cells were let finish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cell_seconds: Option<f64>,
    /// Rows of logits that exist at once in the loss; part of the config so that a resumed run takes the same.
    pub loss_chunk_tokens: usize,
    /// Positions of every sequence that are resident at once: longer sequences go in segments of this length,
    /// except where a model carries no state. Absent: a run fills in what suits its device, and records it.
    pub segment_len: Option<usize>,
    /// In what matrix products are computed.
    pub precision: Precision,
    /// Whether gradients cross the boundaries of segments.
    #[serde(rename = "bptt")]
    pub backpropagation: Backpropagation,
    /// Keep the inputs of the layers alone and compute each layer again for its backward pass.
    pub gradient_checkpointing: bool,
    /// Keep the states at the boundaries of segments, and the moments of the optimiser, in the host's memory.
    pub cpu_offloading: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            budget: Budget::NumEpochs(3),
            batch_size: 8,
            learning_rate: 1e-3,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.01,
            warmup_steps: 100,
            gradient_clip_norm: 1.0,
            checkpoint_every_seconds: 60.0,
            max_cell_seconds: None,
            loss_chunk_tokens: 512,
            segment_len: None,
            precision: Precision::F32,
            backpropagation: Backpropagation::Exact,
            gradient_checkpointing: false,
            cpu_offloading: false,
        }
    }
}
