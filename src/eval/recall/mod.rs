//! The recall probe: can a model still tell which value was paired with a key, and over which distance?
//!
//! It has its own task ([`task`]), its own short training, equal for all models ([`PROTOCOL`]), and its own measurement:
//! one state is carried through filler, and at every distance the queries branch off copies of it, so that any
//! distance takes the memory of a segment.

pub mod task;

use burn::module::Module;
use burn::tensor::Device;

use crate::config::{ModelConfig, TrainConfig};
use crate::hardware::read;
use crate::models::registry::ModelShape;
use crate::models::{BatchShape, BlockState, Dropout, LanguageModel};
use crate::results::{
    DivergenceCause, Finite, Outcome, RecallBucket, RecallProtocol, RecallSequences,
    ShuffledControl,
};
use crate::stats;
use crate::train::{Objective, learning_rate, optimiser};
use crate::{Error, Result};
use task::{Batch, FILLER, N_PAIRS, N_SYMBOLS, PAIRS_LEN, Pairs};

/// The training and the measurement of every model of every run.
pub const PROTOCOL: RecallProtocol = RecallProtocol {
    n_steps: 16_000,
    batch_size: 16,
    short: RecallSequences {
        seq_len: 32,
        n_queries: 8,
    },
    long: RecallSequences {
        seq_len: 256,
        n_queries: 64,
    },
    long_every: 8,
    learning_rate: 3e-3,
    n_sequences: 25,
};
/// Tokens that go through the model at once on the way to a far query.
const TOKENS_AT_ONCE: usize = 4096;

/// Distances measured: the powers of two from the first at which every query lies behind the pairs up to `longest`,
/// and at least all those below the longer training length.
pub fn distances(protocol: &RecallProtocol, longest: usize) -> Vec<usize> {
    let powers = (PAIRS_LEN.ilog2()..usize::BITS).map(|k| 1 << k);
    powers
        .take_while(|&distance| distance < protocol.long.seq_len || distance <= longest)
        .collect()
}

/// Trains a model of `shape` (whose vocabulary is the task's) from `seed`, on the cross-entropy of the answers alone:
/// nothing else in a sequence can be predicted. Dropout is off. `device` is without autodiff, and so is the model
/// that is returned; `on_step` hears of every step, counted from 1, and its loss; its error
/// ends the training.
///
/// The first non-finite step ends the training.
///
/// # Errors
/// Another vocabulary, a device that fails, or that of `on_step`.
pub fn train(
    shape: &ModelShape,
    model: &ModelConfig,
    protocol: &RecallProtocol,
    seed: u64,
    device: &Device,
    on_step: &mut dyn FnMut(u64, f64) -> Result<()>,
) -> Result<(LanguageModel, Outcome)> {
    let config = TrainConfig {
        learning_rate: protocol.learning_rate,
        ..TrainConfig::default()
    };
    let mut trained = LanguageModel::new(shape, seed, &device.clone().autodiff());
    let mut optimiser = optimiser::adamw(&trained, &config, optimiser::Decay::Standard);
    for step in 0..protocol.n_steps {
        let batch = Batch::draw(seed, step as u32, protocol);
        let batch_shape = BatchShape {
            batch: protocol.batch_size,
            seq_len: protocol.sequences(step).seq_len,
        };
        let objective = Objective {
            dropout: Dropout::NONE,
            ..Objective::new(model, &config, seed, step)
        };
        let gradient = objective.gradient_of_answers(
            &trained,
            &batch.inputs,
            batch_shape,
            &batch.queries,
            &batch.answers,
        )?;
        on_step(step + 1, gradient.loss_nats)?;
        if !gradient.loss_nats.is_finite() || !gradient.norm.is_finite() {
            let cause = DivergenceCause::NonFinite;
            return Ok((trained.valid(), Outcome::Diverged { step, cause }));
        }
        let rate = learning_rate(&config, step, protocol.n_steps);
        let gradients = gradient.clipped(&trained, config.gradient_clip_norm);
        trained = optimiser.step(rate, trained, gradients);
    }
    Ok((trained.valid(), Outcome::Completed))
}

/// What a trained model recalls.
#[derive(Debug, Clone, PartialEq)]
pub struct Recalled {
    /// Accuracy by distance.
    pub buckets: Vec<RecallBucket>,
    /// Mean accuracy over the distances below the longer training length; absent where none was measured.
    pub trained_accuracy: Option<Finite>,
    /// Its answers at all distances held against the values of sequences that it was not shown.
    pub shuffled: ShuffledControl,
}

/// Asks `model` (without autodiff) for every pair of `protocol.n_sequences` sequences at each of `distances`, which
/// increase. An answer is the likeliest of the 64 values, so that chance is 1/64.
///
/// # Errors
/// Another vocabulary, or a device that fails.
pub fn measure(
    model: &LanguageModel,
    protocol: &RecallProtocol,
    seed: u64,
    distances: &[usize],
) -> Result<Recalled> {
    let n_sequences = protocol.n_sequences;
    // Sequences that the model is asked about, then as many others for each distance.
    let sequences = |group: usize| -> Vec<Pairs> {
        let first = group * n_sequences;
        let rows = first..first + n_sequences;
        rows.map(|row| Pairs::measured(seed, row as u32)).collect()
    };
    let shown = sequences(0);
    let mut carried = Carried::new(model, &shown)?;
    let mut buckets = Vec::with_capacity(distances.len());
    let (mut n_hits, mut n_queries) = (0, 0);
    for (group, &distance) in (1..).zip(distances) {
        let others = sequences(group);
        let mut right = vec![0_u32; n_sequences];
        for pair in 0..N_PAIRS {
            carried.advance(task::query_position(pair, distance))?;
            let keys: Vec<u32> = shown.iter().map(|pairs| pairs.key(pair)).collect();
            for (row, answer) in carried.ask(&keys)?.into_iter().enumerate() {
                right[row] += u32::from(answer == shown[row].value(pair));
                n_hits += u64::from(answer == others[row].value(pair));
                n_queries += 1;
            }
        }
        let accuracies: Vec<f64> = right
            .iter()
            .map(|&n| f64::from(n) / N_PAIRS as f64)
            .collect();
        buckets.extend(RecallBucket::of(distance, &accuracies));
    }
    let trained: Vec<f64> = buckets
        .iter()
        .filter(|bucket| bucket.distance < protocol.long.seq_len)
        .map(|bucket| bucket.accuracy.get())
        .collect();
    let nothing_asked = || Error::CheckFailed("the recall probe was given no distance".into());
    Ok(Recalled {
        buckets,
        trained_accuracy: stats::mean(&trained).and_then(Finite::new),
        shuffled: ShuffledControl::of(n_hits, n_queries, 1.0 / N_SYMBOLS as f64)
            .ok_or_else(nothing_asked)?,
    })
}

/// Sequences on their way through filler.
struct Carried<'a> {
    model: &'a LanguageModel,
    batch: usize,
    states: Vec<BlockState>,
    position: usize,
}

impl<'a> Carried<'a> {
    fn new(model: &'a LanguageModel, sequences: &[Pairs]) -> Result<Self> {
        let tokens: Vec<u32> = sequences.iter().flat_map(Pairs::tokens).collect();
        let mut carried = Self {
            model,
            batch: sequences.len(),
            states: model.initial_states(sequences.len()),
            position: 0,
        };
        carried.feed(&tokens, PAIRS_LEN)?;
        Ok(carried)
    }

    /// Filler up to but without `position`.
    fn advance(&mut self, position: usize) -> Result<()> {
        let segment = (TOKENS_AT_ONCE / self.batch).max(1);
        while self.position < position {
            let n = segment.min(position - self.position);
            self.feed(&vec![FILLER; n * self.batch], n)?;
        }
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32], seq_len: usize) -> Result<()> {
        let states = std::mem::take(&mut self.states);
        self.states = self
            .model
            .infer(tokens, self.shape(seq_len), states)?
            .states;
        self.position += seq_len;
        Ok(())
    }

    /// The value that each sequence answers to its key here; the sequences themselves do not hear of it.
    fn ask(&self, keys: &[u32]) -> Result<Vec<u32>> {
        let hidden = self.model.infer(keys, self.shape(1), self.states.clone())?;
        let logits = read::floats(self.model.logits(hidden.x)?, "reading the answers")?;
        let likeliest = |row: &[f32]| {
            let values = row[..N_SYMBOLS].iter().enumerate();
            values
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map_or(0, |(value, _)| value as u32)
        };
        Ok(logits.chunks(task::VOCAB_SIZE).map(likeliest).collect())
    }

    fn shape(&self, seq_len: usize) -> BatchShape {
        BatchShape {
            batch: self.batch,
            seq_len,
        }
    }
}
