//! The cells of a run.

use crate::bench::memory::widest_activation;
use crate::config::{Budget, Config};
use crate::hardware::adapters::Adapter;
use crate::models::registry::{Architecture, ModelShape, matched_shapes};
use crate::{Error, Result};

/// Segments of this length cost little in launches and keep little in memory, on every class of adapter tried.
pub const SEGMENT_LEN: usize = 4096;

/// 4096 tokens, halved until the widest tensor of every model fits what a kernel of the adapter can see.
pub fn segment_len(shapes: &[ModelShape], batch_size: usize, adapter: Option<&Adapter>) -> usize {
    let mut segment_len = SEGMENT_LEN;
    if let Some(adapter) = adapter {
        let widest = shapes.iter().map(widest_activation).max().unwrap_or(1);
        let a_position = (4 * batch_size * widest) as u64;
        while segment_len > 1 && segment_len as u64 * a_position > adapter.limits.binding.0 {
            segment_len /= 2;
        }
    }
    segment_len
}

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
        let seq_lengths = config.seq_lengths().to_vec();
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

    /// Length of the segments of long sequences where the user names none: [`segment_len`], one for all models.
    pub fn segment_len(&self, batch_size: usize, adapter: Option<&Adapter>) -> usize {
        segment_len(&self.shapes, batch_size, adapter)
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
