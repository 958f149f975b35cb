//! Cross-entropy of held-out text: every token scored once, in windows that start from an empty state and go
//! through the model a segment at a time, so that a window of any length takes the memory of a segment.

use crate::Result;
use crate::data::{Tokens, eval_windows};
use crate::hardware::read;
use crate::models::{BatchShape, LanguageModel};
use crate::ops::ledger::Ledger;
use crate::results::{Evaluation, FlopsPerToken, PositionBucket, UsefulContext};

/// Windows of this many tokens together go through the model at once.
const TOKENS_AT_ONCE: usize = 8192;
/// Context that is left to the last quarter of a window where the state is reset before it.
const NEAR_TOKENS: usize = 1024;
/// Fewer windows than this have no spread.
const MIN_WINDOWS: usize = 2;

/// How many windows of `len` tokens go through the model at once.
pub fn windows_at_once(len: usize) -> usize {
    (TOKENS_AT_ONCE / len).max(1)
}

/// Held-out text under one model.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// All of it.
    pub evaluation: Evaluation,
    /// What its forward pass took.
    pub flops: FlopsPerToken,
    /// The same tokens by their position in the window.
    pub nll_by_position: Vec<PositionBucket>,
    /// The last quarters of the whole windows, with and without far context; absent for fewer than two windows, and
    /// where less than 1,024 tokens lie before that quarter.
    pub last_quarter: Option<UsefulContext>,
}

/// A model and how it is fed.
#[derive(Debug, Clone, Copy)]
pub struct Evaluator<'a> {
    /// Without autodiff.
    pub model: &'a LanguageModel,
    /// Tokens of a sequence that go through the model at once; the states are carried from one segment to the next.
    pub segment: usize,
    /// Rows of logits that exist at once.
    pub loss_chunk_tokens: usize,
}

impl Evaluator<'_> {
    /// Scores `tokens` with the state reset every `window` tokens (window = stride). The first token of the
    /// text has no context and is not scored. `n_bytes` is the text's length. `None` where the loss is not finite.
    ///
    /// # Errors
    /// A device that fails.
    pub fn evaluate(
        &self,
        tokens: &Tokens,
        n_bytes: u64,
        window: usize,
    ) -> Result<Option<HeldOut>> {
        let windows: Vec<_> = eval_windows(tokens.len(), window)
            .map(|window| window.inputs)
            .collect();
        let quarter = window - window / 4;
        let mut octaves = Octaves::default();
        let mut with_state = vec![0.0; windows.len()];
        // Windows are equal but for the last one, which goes alone.
        let mut first = 0;
        let ledger = Ledger::default();
        for group in windows.chunk_by(|a, b| a.len() == b.len()) {
            let starts: Vec<usize> = group.iter().map(|window| window.start).collect();
            let visit = |row: usize, position: usize, nll: f64| {
                octaves.add(position, nll);
                if position >= quarter {
                    with_state[first + row] += nll;
                }
            };
            ledger.watch(|| self.score(tokens, &starts, group[0].len(), visit))?;
            first += group.len();
        }
        let (nll_sum_nats, n_tokens) = octaves.total();
        let flops = ledger.breakdown(windows.len(), n_tokens as usize);
        let evaluation = Evaluation::new(nll_sum_nats, n_tokens, n_bytes, window);
        let (Some(evaluation), Some(nll_by_position)) = (evaluation, octaves.buckets(window))
        else {
            return Ok(None);
        };
        let whole: Vec<usize> = windows
            .iter()
            .filter(|inputs| inputs.len() == window)
            .map(|inputs| inputs.start)
            .collect();
        let last_quarter = if whole.len() >= MIN_WINDOWS && quarter > NEAR_TOKENS {
            let mut reset = vec![0.0; whole.len()];
            let starts: Vec<usize> = whole.iter().map(|at| at + quarter - NEAR_TOKENS).collect();
            let len = NEAR_TOKENS + window - quarter;
            self.score(tokens, &starts, len, |row, position, nll| {
                if position >= NEAR_TOKENS {
                    reset[row] += nll;
                }
            })?;
            let mean = |sums: &[f64]| -> Vec<f64> {
                let n = (window - quarter) as f64;
                sums.iter().map(|sum| sum / n).collect()
            };
            UsefulContext::of(&mean(&with_state[..whole.len()]), &mean(&reset))
        } else {
            None
        };
        Ok(Some(HeldOut {
            evaluation,
            flops: FlopsPerToken::of(&flops),
            nll_by_position,
            last_quarter,
        }))
    }

    /// Scores the same tokens with the state carried through every document and reset before the next one. The `window` of
    /// the result is the longest document; `None` where the loss is not finite.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn evaluate_documents(&self, tokens: &Tokens, n_bytes: u64) -> Result<Option<Evaluation>> {
        let starts = tokens.starts();
        let last = tokens.len().saturating_sub(1);
        let ends = starts.iter().skip(1).copied().chain([last]);
        let (mut nll_sum_nats, mut n_tokens, mut longest) = (0.0, 0, 0);
        for (&start, end) in starts.iter().zip(ends) {
            let len = end - start;
            if len == 0 {
                // A last document of one token: nothing follows it.
                continue;
            }
            self.score(tokens, &[start], len, |_, _, nll| nll_sum_nats += nll)?;
            n_tokens += len as u64;
            longest = longest.max(len);
        }
        Ok(Evaluation::new(nll_sum_nats, n_tokens, n_bytes, longest))
    }

    /// Hands `visit` the row, the position and the loss in nats of the successor of every token of the stretches of
    /// `len` tokens that begin at `starts`, each from an empty state.
    fn score(
        &self,
        tokens: &Tokens,
        starts: &[usize],
        len: usize,
        mut visit: impl FnMut(usize, usize, f64),
    ) -> Result<()> {
        let at_once = windows_at_once(len);
        for (group, starts) in starts.chunks(at_once).enumerate() {
            let batch = starts.len();
            let mut states = self.model.initial_states(batch);
            for first in (0..len).step_by(self.segment) {
                let seq_len = self.segment.min(len - first);
                let shifted = |by: usize| -> Vec<u32> {
                    let from = |start| start + first + by;
                    let stretches = starts
                        .iter()
                        .map(|&start| from(start)..from(start) + seq_len);
                    stretches.flat_map(|stretch| tokens.get(stretch)).collect()
                };
                let hidden =
                    self.model
                        .infer(&shifted(0), BatchShape { batch, seq_len }, states)?;
                states = hidden.states;
                let nll = self
                    .model
                    .nll(hidden.x, &shifted(1), self.loss_chunk_tokens)?;
                let nll = read::doubles(nll, "reading the evaluation's loss")?;
                for (row, nll) in nll.chunks(seq_len).enumerate() {
                    for (position, &nll) in (first..).zip(nll) {
                        visit(group * at_once + row, position, nll);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Sum and number of losses, by the octave of the position.
#[derive(Debug, Default)]
struct Octaves(Vec<(f64, u64)>);

impl Octaves {
    fn add(&mut self, position: usize, nll: f64) {
        let octave = position.max(1).ilog2() as usize;
        if self.0.len() <= octave {
            self.0.resize(octave + 1, (0.0, 0));
        }
        let (sum, n) = &mut self.0[octave];
        *sum += nll;
        *n += 1;
    }

    fn total(&self) -> (f64, u64) {
        self.0
            .iter()
            .fold((0.0, 0), |(sum, n), octave| (sum + octave.0, n + octave.1))
    }

    fn buckets(&self, window: usize) -> Option<Vec<PositionBucket>> {
        let bucket = |(octave, &(sum, n))| PositionBucket::new(octave, window, sum, n);
        self.0.iter().enumerate().map(bucket).collect()
    }
}
