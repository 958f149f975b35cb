//! Training batches and evaluation windows.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::Tokens;
use crate::math::random::{Coordinate, Purpose, permutation, words};
use crate::{Error, Result};

/// Seeded training batches: a pure function of the tokens, the seed and the step, so a resumed run needs
/// no state.
///
/// An epoch visits every window once, in a seeded order. Windows start at multiples of `seq_len` after a
/// seeded offset; the offset spreads the tokens that do not fill a window before and after them.
#[derive(Debug, Clone)]
pub struct Batches {
    tokens: Tokens,
    seq_len: usize,
    batch_size: usize,
    seed: u64,
    /// Windows an epoch.
    windows: usize,
    /// The epoch that was asked for last: to draw one takes as long as its windows are many.
    newest: Arc<Mutex<Option<Arc<Epoch>>>>,
}

/// The data of one step; row-major `[batch_size, seq_len]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Token ids.
    pub inputs: Vec<u32>,
    /// The token that follows each input in the text.
    pub targets: Vec<u32>,
}

impl Batches {
    /// Batches of `batch_size` sequences of `seq_len` tokens.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a zero size, or a text shorter than one window (`seq_len + 1` tokens).
    pub fn new(tokens: Tokens, seq_len: usize, batch_size: usize, seed: u64) -> Result<Self> {
        for (what, value) in [("sequence length", seq_len), ("batch size", batch_size)] {
            if value == 0 {
                return Err(Error::bad_input(what, "is 0", "give at least 1"));
            }
        }
        let windows = tokens.len().saturating_sub(1) / seq_len;
        if windows == 0 {
            return Err(Error::bad_input(
                "training text",
                format!(
                    "has {} tokens, one window takes {}",
                    tokens.len(),
                    seq_len + 1
                ),
                "give a longer text or a shorter sequence length",
            ));
        }
        Ok(Self {
            tokens,
            seq_len,
            batch_size,
            seed,
            windows,
            newest: Arc::default(),
        })
    }

    /// The batch of `step`, which counts from 0.
    pub fn batch(&self, step: u64) -> Batch {
        let first = step * self.batch_size as u64;
        let mut batch = Batch {
            inputs: Vec::with_capacity(self.batch_size * self.seq_len),
            targets: Vec::with_capacity(self.batch_size * self.seq_len),
        };
        for sample in first..first + self.batch_size as u64 {
            let epoch = self.epoch((sample / self.windows as u64) as u32);
            let start =
                epoch.offset + epoch.order[(sample % self.windows as u64) as usize] * self.seq_len;
            let window = self.tokens.get(start..start + self.seq_len + 1);
            batch.inputs.extend_from_slice(&window[..self.seq_len]);
            batch.targets.extend_from_slice(&window[1..]);
        }
        batch
    }

    fn epoch(&self, number: u32) -> Arc<Epoch> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = newest
            .take()
            .filter(|epoch| epoch.number == number)
            .unwrap_or_else(|| Arc::new(self.draw_epoch(number)));
        newest.insert(epoch).clone()
    }

    fn draw_epoch(&self, number: u32) -> Epoch {
        let coordinate = Coordinate {
            step: number,
            ..Coordinate::new(Purpose::DataOrder)
        };
        let spare = (self.tokens.len() - 1) % self.seq_len;
        // position 0: the permutation draws from 1 on
        let [a, b, ..] = words(self.seed, coordinate);
        let wide = u64::from(a) << 32 | u64::from(b);
        let offset = ((u128::from(wide) * (spare as u128 + 1)) >> 64) as usize;
        Epoch {
            number,
            offset,
            order: permutation(self.seed, coordinate, self.windows),
        }
    }
}

/// Where the windows of an epoch start: `offset + order[i] * seq_len`.
#[derive(Debug)]
struct Epoch {
    number: u32,
    offset: usize,
    order: Vec<usize>,
}

/// One window of an evaluation: positions in the text, both ranges of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalWindow {
    /// Fed to the model, from an empty state.
    pub inputs: Range<usize>,
    /// Scored: each input's successor.
    pub targets: Range<usize>,
}

/// Windows that score every token of a text of `n_tokens` once but the first, which nothing precedes.
///
/// The stride is the window: `seq_len` tokens are scored a window, fewer in the last one.
///
/// # Panics
/// When `seq_len` is 0.
pub fn eval_windows(n_tokens: usize, seq_len: usize) -> impl Iterator<Item = EvalWindow> {
    let last = n_tokens.saturating_sub(1);
    (0..last).step_by(seq_len).map(move |start| {
        let end = last.min(start + seq_len);
        EvalWindow {
            inputs: start..end,
            targets: start + 1..end + 1,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text whose token at position i is i.
    fn positions(n: usize) -> Tokens {
        Tokens::from_ids(&(0..n as u32).collect::<Vec<_>>(), n)
    }

    proptest! {
        #[test]
        fn targets_follow_inputs_and_an_epoch_sees_each_window_once(
            seq_len in 1_usize..40, spare in 0_usize..40, windows in 1_usize..20, batch in 1_usize..7, seed: u64,
        ) {
            let n = windows * seq_len + 1 + spare % seq_len;
            let batches = Batches::new(positions(n), seq_len, batch, seed).unwrap();
            // as many steps as there are windows: `batch` whole epochs
            let mut starts = Vec::new();
            for step in 0..windows as u64 {
                let data = batches.batch(step);
                prop_assert_eq!(data.inputs.len(), batch * seq_len);
                for (row, targets) in data.inputs.chunks(seq_len).zip(data.targets.chunks(seq_len)) {
                    for i in 0..seq_len {
                        prop_assert_eq!(row[i], row[0] + i as u32);
                        prop_assert_eq!(targets[i], row[i] + 1);
                    }
                    starts.push(row[0]);
                }
            }
            for epoch in starts.chunks_mut(windows) {
                epoch.sort_unstable();
                prop_assert!(epoch.windows(2).all(|pair| pair[1] == pair[0] + seq_len as u32));
            }
        }

        #[test]
        fn every_token_but_the_first_is_scored_once(n in 0_usize..200, seq_len in 1_usize..50) {
            let windows: Vec<_> = eval_windows(n, seq_len).collect();
            let scored: Vec<usize> = windows.iter().flat_map(|window| window.targets.clone()).collect();
            prop_assert!(scored.into_iter().eq(1..n.max(1)));
            for window in &windows {
                prop_assert_eq!(window.inputs.start + 1, window.targets.start);
                prop_assert_eq!(window.inputs.len(), window.targets.len());
                prop_assert!(!window.inputs.is_empty() && window.inputs.len() <= seq_len);
            }
        }
    }

    #[test]
    fn batches_depend_on_the_seed_and_the_step_alone() {
        let batches = |seed| Batches::new(positions(1000), 10, 3, seed).unwrap();
        let first = batches(1);
        let later = first.batch(70);
        assert_eq!(first.batch(0), batches(1).batch(0));
        assert_eq!(later, batches(1).batch(70), "no step before it is needed");
        assert_ne!(first.batch(0), batches(2).batch(0));
        assert_ne!(
            first.batch(0).inputs,
            first.batch(33).inputs,
            "another epoch, another order"
        );
    }

    #[test]
    fn exactly_one_window_is_enough_and_less_is_an_error() {
        assert_eq!(
            Batches::new(positions(9), 8, 1, 0)
                .unwrap()
                .batch(5)
                .targets,
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        for (tokens, seq_len, batch) in [(8, 8, 1), (0, 8, 1), (9, 0, 1), (9, 8, 0)] {
            let error = Batches::new(positions(tokens), seq_len, batch, 0).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
