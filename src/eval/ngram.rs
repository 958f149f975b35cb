//! The interpolated 3-gram: what counting alone predicts, the line beneath which a model is worth its cost.
//!
//! Witten & Bell's interpolation (1991; Chen & Goodman 1998) has no parameter to tune. A context that was followed by `n`
//! tokens of `t` kinds leaves the weight `t / (n + t)` to the next shorter one, down to the uniform distribution.

use rayon::prelude::*;

use crate::data::{Dataset, Tokens, eval_windows};
use crate::results::Evaluation;
use crate::{Error, Result};

/// Tokens of the longest context.
const MAX_CONTEXT: usize = 2;
/// Tokens of a training text that are counted for [`three_gram_ce`], the first ones: some 300 MB meanwhile.
pub const COUNTED_TOKENS: usize = 1 << 23;
/// Tokens that are scored at once.
const BLOCK: usize = 1 << 16;

/// Cross-entropy, in nats a token, of the held-out text under the 3-gram of the training text, or of its beginning where
/// that is longer than [`COUNTED_TOKENS`]. No context is cut: this is one number for windows of any length.
///
/// # Errors
/// As [`ThreeGram::evaluate`].
pub fn three_gram_ce(dataset: &Dataset) -> Result<f64> {
    let Dataset { train, eval, .. } = dataset;
    let vocab_size = dataset.tokenizer.vocab_size();
    let counts = ThreeGram::new(&train.prefix(COUNTED_TOKENS), vocab_size);
    let n_bytes = dataset.manifest.eval.n_bytes as u64;
    let evaluation = counts.evaluate(eval, n_bytes, eval.len())?;
    Ok(evaluation.nll_nats.get())
}

/// Counts of a text's 1-, 2- and 3-grams: while they are made, 32 bytes a token of the text.
#[derive(Debug)]
pub struct ThreeGram {
    vocab_size: usize,
    /// By the number of tokens before the last one.
    by_context: [Grams; MAX_CONTEXT + 1],
}

/// The n-grams of one length that occur in a text, in order: those that begin with the same context stand together. A
/// gram is a number, 32 bits a token, the last token lowest.
#[derive(Debug)]
struct Grams {
    /// Each once, ascending.
    kinds: Vec<u128>,
    /// How often all before a kind occur, together; behind the last kind, how many grams the text has.
    before: Vec<u64>,
}

impl Grams {
    /// Those of `text` with `n_context` tokens before the last.
    fn of(text: &Tokens, n_context: usize) -> Self {
        let whole = (1 << (32 * (n_context + 1))) - 1;
        let mut gram = 0_u128;
        let all = text.iter().map(|token| {
            gram = (gram << 32 | u128::from(token)) & whole;
            gram
        });
        let mut all: Vec<u128> = all.skip(n_context).collect();
        all.par_sort_unstable();
        let (mut kinds, mut before) = (Vec::new(), vec![0]);
        let mut n = 0;
        for equal in all.chunk_by(|a, b| a == b) {
            n += equal.len() as u64;
            kinds.push(equal[0]);
            before.push(n);
        }
        Self { kinds, before }
    }

    /// How many tokens followed `context`, and of how many kinds they are.
    fn followed(&self, context: u128) -> (u64, u64) {
        let first = |context: u128| self.kinds.partition_point(|&kind| kind < context << 32);
        let (first, end) = (first(context), first(context + 1));
        (self.before[end] - self.before[first], (end - first) as u64)
    }

    /// How often `gram` occurs.
    fn count(&self, gram: u128) -> u64 {
        let found = self.kinds.binary_search(&gram);
        found.map_or(0, |at| self.before[at + 1] - self.before[at])
    }
}

impl ThreeGram {
    /// Counts `text`, whose vocabulary has `vocab_size` tokens.
    pub fn new(text: &Tokens, vocab_size: usize) -> Self {
        Self {
            vocab_size,
            by_context: std::array::from_fn(|n_context| Grams::of(text, n_context)),
        }
    }

    /// Probability that `token` follows `context`, of which the last two tokens count.
    pub fn probability(&self, context: &[u32], token: u32) -> f64 {
        let nearest = &context[context.len().saturating_sub(MAX_CONTEXT)..];
        let uniform = 1.0 / self.vocab_size as f64;
        // From the shortest context to the longest.
        (0..=nearest.len()).fold(uniform, |shorter, n_context| {
            let context = nearest[nearest.len() - n_context..].iter();
            let context = context.fold(0, |gram, &token| gram << 32 | u128::from(token));
            let grams = &self.by_context[n_context];
            let (n_tokens, n_kinds) = grams.followed(context);
            if n_tokens == 0 {
                return shorter;
            }
            let n = grams.count(context << 32 | u128::from(token)) as f64;
            (n + n_kinds as f64 * shorter) / (n_tokens + n_kinds) as f64
        })
    }

    /// Scores `text` of `n_bytes` as models are scored: each token once, contexts cut at the windows' starts
    /// (window = stride).
    ///
    /// # Errors
    /// [`Error::CheckFailed`] for a text of fewer than two tokens or with one outside the vocabulary.
    pub fn evaluate(&self, text: &Tokens, n_bytes: u64, window: usize) -> Result<Evaluation> {
        let (mut nll_sum_nats, mut n_tokens) = (0.0, 0);
        for scored in eval_windows(text.len(), window) {
            let start = scored.inputs.start;
            for first in scored.targets.clone().step_by(BLOCK) {
                let end = scored.targets.end.min(first + BLOCK);
                let before = first.saturating_sub(MAX_CONTEXT).max(start);
                let ids = text.get(before..end);
                if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
                    let n = self.vocab_size;
                    let problem = format!("token {id} is none of a vocabulary of {n}");
                    return Err(Error::CheckFailed(problem));
                }
                let positions = (first - before..ids.len()).into_par_iter();
                let nll = positions.map(|at| -self.probability(&ids[..at], ids[at]).ln());
                // In a fixed order, so that the sum has the same bits on any number of threads.
                nll_sum_nats += nll.collect::<Vec<f64>>().iter().sum::<f64>();
                n_tokens += (end - first) as u64;
            }
        }
        Evaluation::new(nll_sum_nats, n_tokens, n_bytes, window)
            .ok_or_else(|| Error::CheckFailed("there is no token to score".into()))
    }
}
