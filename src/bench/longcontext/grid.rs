//! The cells of a run.

use crate::config::{Budget, Config};
use crate::models::registry::{Architecture, ModelShape, matched_shapes};
use crate::{Error, Result};

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
