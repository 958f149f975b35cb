//! The sequences of the recall probe.
//!
//! ```text
//! key value key value ... (8 pairs)   filler ... filler key filler ... filler key filler ...
//! ```
//!
//! A key that comes again asks for the value it was paired with; no value ever follows the pairs, so the
//! pair alone gives the answer. A query always follows filler, in training as in the measurement.

use crate::math::random::{Coordinate, Purpose, permutation, words};
use crate::results::{RecallProtocol, RecallSequences};

/// Different keys, and different values.
pub const N_SYMBOLS: usize = 64;
/// Pairs a sequence; its keys differ, its values are drawn independently.
pub const N_PAIRS: usize = 8;
/// Tokens that the pairs take.
pub const PAIRS_LEN: usize = 2 * N_PAIRS;
/// Tokens of the vocabulary: the values, then the keys, then the filler.
pub const VOCAB_SIZE: usize = 2 * N_SYMBOLS + 1;
/// The token that keeps a query away from its pair.
pub const FILLER: u32 = 2 * N_SYMBOLS as u32;

/// Where sequences come from: training steps count from 0, and no step reaches this number.
const MEASURED: u32 = u32::MAX;

/// Which draws of a sequence.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
enum Part {
    Keys,
    Values,
    Slots,
}

/// The pairs of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    keys: [u32; N_PAIRS],
    values: [u32; N_PAIRS],
}

impl Pairs {
    /// Those of sequence `row` of those that are measured.
    pub fn measured(seed: u64, row: u32) -> Self {
        Self::draw(seed, MEASURED, row)
    }

    fn draw(seed: u64, step: u32, row: u32) -> Self {
        let keys = permutation(seed, coordinate(step, row, Part::Keys), N_SYMBOLS);
        let values = coordinate(step, row, Part::Values);
        let value = |i| words(seed, values.at(i as u64))[0] % N_SYMBOLS as u32;
        Self {
            keys: std::array::from_fn(|i| (N_SYMBOLS + keys[i]) as u32),
            values: std::array::from_fn(value),
        }
    }

    /// Token of the key of pair `i`.
    pub fn key(&self, i: usize) -> u32 {
        self.keys[i]
    }

    /// Token of the value of pair `i`: the answer when its key comes again.
    pub fn value(&self, i: usize) -> u32 {
        self.values[i]
    }

    /// The start of the sequence, [`PAIRS_LEN`] tokens.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        let pairs = self.keys.iter().zip(&self.values);
        pairs.flat_map(|(&key, &value)| [key, value])
    }
}

/// Position of the query for pair `i` whose value lies `distance` tokens back.
pub fn query_position(i: usize, distance: usize) -> usize {
    2 * i + 1 + distance
}

/// The data of one training step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Tokens, row-major `[batch, seq_len]`.
    pub inputs: Vec<u32>,
    /// Indices into `inputs` of the queries.
    pub queries: Vec<u32>,
    /// Their answers.
    pub answers: Vec<u32>,
}

impl Batch {
    /// The batch of `step`. The queries are spread at random over the odd positions behind the pairs, and every pair
    /// is asked for equally often, up to one time.
    pub fn draw(seed: u64, step: u32, protocol: &RecallProtocol) -> Self {
        let batch_size = protocol.batch_size;
        let RecallSequences { seq_len, n_queries } = protocol.sequences(step.into());
        let mut batch = Self {
            inputs: Vec::with_capacity(batch_size * seq_len),
            queries: Vec::with_capacity(batch_size * n_queries),
            answers: Vec::with_capacity(batch_size * n_queries),
        };
        for row in 0..batch_size as u32 {
            let pairs = Pairs::draw(seed, step, row);
            let start = batch.inputs.len();
            batch.inputs.extend(pairs.tokens());
            batch.inputs.resize(start + seq_len, FILLER);
            let slots = (seq_len - PAIRS_LEN) / 2;
            let slots = permutation(seed, coordinate(step, row, Part::Slots), slots);
            for (query, slot) in slots.into_iter().take(n_queries).enumerate() {
                let pair = query % N_PAIRS;
                let position = start + PAIRS_LEN + 2 * slot + 1;
                batch.inputs[position] = pairs.key(pair);
                batch.queries.push(position as u32);
                batch.answers.push(pairs.value(pair));
            }
        }
        batch
    }
}

fn coordinate(step: u32, row: u32, part: Part) -> Coordinate {
    Coordinate {
        step,
        layer: part as u16,
        row,
        ..Coordinate::new(Purpose::Recall)
    }
}
