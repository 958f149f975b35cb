//! The recall probe: whether a model can still tell which value was paired with a key, by distance.

use serde::{Deserialize, Serialize};

use super::{Finite, Outcome, PROTOCOL_VERSION, Parameters};
use crate::Result;
use crate::config::{ModelConfig, canonical_sha256};
use crate::stats::{self, Interval};

/// The model that shows that the task can be learnt.
const REFERENCE: &str = "mamba";
/// Its accuracy at trained distances lies above this.
const LEARNT: f64 = 0.9;
/// In at least this part of the seeds.
const LEARNT_SEEDS: f64 = 2.0 / 3.0;
/// A control that chance would produce less often than this is not at chance. Not 0.05: there is one such test a model
/// and seed, and one that fails breaks the probe.
const CONTROL_LEVEL: f64 = 1e-3;

/// How a probed model is trained and measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallProtocol {
    /// Optimiser steps.
    pub n_steps: u64,
    /// Sequences a step.
    pub batch_size: usize,
    /// Those of most steps: what belongs together takes many steps to learn, and lies near in them.
    pub short: RecallSequences,
    /// Those of every [`long_every`](Self::long_every)th step: what they teach is to keep it.
    pub long: RecallSequences,
    /// Steps from one on long sequences to the next.
    pub long_every: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Sequences measured; each is asked for each of its pairs at every distance.
    pub n_sequences: usize,
}

/// The training sequences of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallSequences {
    /// Tokens of each.
    pub seq_len: usize,
    /// Queries of each.
    pub n_queries: usize,
}

impl RecallProtocol {
    /// Those of `step`, counted from 0.
    pub fn sequences(&self, step: u64) -> RecallSequences {
        if (step + 1).is_multiple_of(self.long_every) {
            self.long
        } else {
            self.short
        }
    }
}

/// One model, trained on the probe's task from one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallResult {
    /// Hash of everything that determines the entry, [`RecallKey::id`].
    pub id: String,
    /// Registered name of the model.
    pub model: String,
    /// Seed of weights and sequences.
    pub seed: u64,
    /// Size of the model with the task's vocabulary.
    pub parameters: Parameters,
    /// How its training ended; nothing was measured unless it completed.
    pub outcome: Outcome,
    /// Accuracy by distance, shortest first.
    pub buckets: Vec<RecallBucket>,
    /// Mean accuracy over the distances below the training length.
    pub trained_accuracy: Option<Finite>,
    /// The answers held against those of other sequences.
    pub shuffled: Option<ShuffledControl>,
}

/// Accuracy at one distance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallBucket {
    /// Tokens from a pair's value to the query of its key.
    pub distance: usize,
    /// Sequences, the independent units.
    pub n_sequences: usize,
    /// Fraction of the queries answered with the right value; chance is 1/64.
    pub accuracy: Finite,
    /// Student-t interval over the sequences, cut to [0, 1]; absent where no two of them differ.
    pub interval: Option<Interval>,
}

impl RecallBucket {
    /// Summarises one accuracy a sequence; `None` without any.
    pub fn of(distance: usize, accuracies: &[f64]) -> Option<Self> {
        let interval = stats::t_interval(accuracies).filter(|it| it.low < it.high);
        Some(Self {
            distance,
            n_sequences: accuracies.len(),
            accuracy: Finite::new(stats::mean(accuracies)?)?,
            interval: interval.map(|Interval { low, high }| Interval {
                low: low.max(0.0),
                high: high.min(1.0),
            }),
        })
    }
}

/// The answers of a model held against the values of sequences that it was not shown: what a scoring without
/// leaks gives to any model, however good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShuffledControl {
    /// Answers that agree all the same.
    pub n_hits: u64,
    /// Answers.
    pub n_queries: u64,
    /// Exact two-sided binomial p of that many hits at a chance of 1/64.
    pub p: Finite,
}

impl ShuffledControl {
    /// Tests `n_hits` against `chance`; `None` without queries.
    pub fn of(n_hits: u64, n_queries: u64, chance: f64) -> Option<Self> {
        Some(Self {
            n_hits,
            n_queries,
            p: Finite::new(stats::binomial_p(n_hits, n_queries, chance)?)?,
        })
    }

    /// Whether chance explains the hits.
    pub fn is_at_chance(&self) -> bool {
        self.p.get() >= CONTROL_LEVEL
    }
}

/// Whether the probe's numbers mean anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RecallVerdict {
    /// Every control held.
    Sound,
    /// One did not.
    Broken {
        /// Which.
        reason: String,
    },
}

impl RecallVerdict {
    /// Sound where every shuffled control is at chance and Mamba learnt the task (above 0.9 at trained distances) in at
    /// least two thirds of its seeds; `None` where nothing was probed.
    pub fn of(results: &[RecallResult]) -> Option<Self> {
        if results.is_empty() {
            return None;
        }
        let broken = |reason| Some(Self::Broken { reason });
        for result in results {
            if let Some(control) = result.shuffled.filter(|control| !control.is_at_chance()) {
                return broken(format!(
                    "{} seed {} agrees with the values of other sequences {} times in {}, p = {:.2e}",
                    result.model,
                    result.seed,
                    control.n_hits,
                    control.n_queries,
                    control.p.get()
                ));
            }
        }
        let of_reference = || results.iter().filter(|result| result.model == REFERENCE);
        let n_seeds = of_reference().count();
        let n_learnt = of_reference()
            .filter_map(|result| result.trained_accuracy)
            .filter(|accuracy| accuracy.get() > LEARNT)
            .count();
        if n_seeds == 0 {
            return broken(format!(
                "without {REFERENCE} nothing shows that the task can be learnt"
            ));
        }
        if (n_learnt as f64) < LEARNT_SEEDS * n_seeds as f64 {
            return broken(format!(
                "{REFERENCE} exceeds {LEARNT} at trained distances in {n_learnt} of {n_seeds} seeds only"
            ));
        }
        Some(Self::Sound)
    }
}

/// Everything that determines an entry.
#[derive(Debug, Serialize)]
pub struct RecallKey<'a> {
    protocol_version: u32,
    probe: &'a str,
    /// How it is trained and measured.
    pub protocol: &'a RecallProtocol,
    /// The run's common shape.
    pub shape: &'a ModelConfig,
    /// Registered name of the model.
    pub model: &'a str,
    /// Stand in for the hidden size that matching solved for.
    pub parameters: Parameters,
    /// Seed.
    pub seed: u64,
    /// Distances measured.
    pub distances: &'a [usize],
}

impl<'a> RecallKey<'a> {
    /// Collects what determines an entry.
    pub fn new(
        protocol: &'a RecallProtocol,
        shape: &'a ModelConfig,
        model: &'a str,
        parameters: Parameters,
        seed: u64,
        distances: &'a [usize],
    ) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            probe: "recall",
            protocol,
            shape,
            model,
            parameters,
            seed,
            distances,
        }
    }

    /// First 16 hexadecimal digits of the sha256 of its canonical JSON.
    ///
    /// # Errors
    /// As [`canonical_sha256`].
    pub fn id(&self) -> Result<String> {
        Ok(canonical_sha256(self)?[..16].to_owned())
    }
}
