//! The interpolated 3-gram: what counting alone predicts, the line beneath which a model is worth its cost.
//!
//! Witten & Bell's interpolation (1991; Chen & Goodman 1998) has no parameter to tune. A context that was followed by `n`
//! tokens of `t` kinds leaves the weight `t / (n + t)` to the next shorter one, down to the uniform distribution.

use std::collections::HashMap;

use crate::data::{Tokens, eval_windows};
use crate::results::Evaluation;
use crate::{Error, Result};

/// Tokens of the longest context.
const MAX_CONTEXT: usize = 2;
/// Tokens of the text that are counted at once.
const BLOCK: usize = 1 << 16;

/// Counts of a text's 1-, 2- and 3-grams.
#[derive(Debug)]
pub struct ThreeGram {
    vocab_size: usize,
    /// How often a context was followed by a token.
    followed: HashMap<Gram, u64>,
    /// What followed each context.
    contexts: HashMap<Gram, Successors>,
}

/// At most three tokens and how many they are, the last one lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Gram(u128);

/// What followed a context.
#[derive(Debug, Clone, Copy, Default)]
struct Successors {
    n_tokens: u64,
    n_kinds: u64,
}

impl Gram {
    fn of(tokens: &[u32]) -> Self {
        let packed = tokens
            .iter()
            .fold(0, |gram, &token| gram << 32 | u128::from(token));
        Self(packed | (tokens.len() as u128) << 96)
    }
}

impl ThreeGram {
    /// Counts `text`, whose vocabulary has `vocab_size` tokens.
    pub fn new(text: &Tokens, vocab_size: usize) -> Self {
        let mut counts = Self {
            vocab_size,
            followed: HashMap::new(),
            contexts: HashMap::new(),
        };
        for first in (0..text.len()).step_by(BLOCK) {
            let before = first.saturating_sub(MAX_CONTEXT);
            let block = text.get(before..text.len().min(first + BLOCK));
            for at in first - before..block.len() {
                for context in 0..=at.min(MAX_CONTEXT) {
                    counts.count(&block[at - context..=at]);
                }
            }
        }
        counts
    }

    /// A context and the token that follows it.
    fn count(&mut self, gram: &[u32]) {
        let context = Gram::of(&gram[..gram.len() - 1]);
        let n = self.followed.entry(Gram::of(gram)).or_default();
        let successors = self.contexts.entry(context).or_default();
        successors.n_tokens += 1;
        successors.n_kinds += u64::from(*n == 0);
        *n += 1;
    }

    /// Probability that `token` follows `context`, of which the last two tokens count.
    pub fn probability(&self, context: &[u32], token: u32) -> f64 {
        let nearest = &context[context.len().saturating_sub(MAX_CONTEXT)..];
        let mut gram = nearest.to_vec();
        gram.push(token);
        let uniform = 1.0 / self.vocab_size as f64;
        // From the shortest context to the longest.
        (0..gram.len()).rev().fold(uniform, |shorter, first| {
            let Some(seen) = self.contexts.get(&Gram::of(&nearest[first..])) else {
                return shorter;
            };
            let n = self.followed.get(&Gram::of(&gram[first..])).copied();
            let kinds = seen.n_kinds as f64;
            (n.unwrap_or(0) as f64 + kinds * shorter) / (seen.n_tokens as f64 + kinds)
        })
    }

    /// Scores `text` of `n_bytes` as models are scored: each token once, contexts cut at the windows' starts
    /// (window = stride).
    ///
    /// # Errors
    /// [`Error::CheckFailed`] for a text of fewer than two tokens or with one outside the vocabulary.
    pub fn evaluate(&self, text: &Tokens, n_bytes: u64, window: usize) -> Result<Evaluation> {
        let (mut nll_sum_nats, mut n_tokens) = (0.0, 0);
        for window in eval_windows(text.len(), window) {
            let ids = text.get(window.inputs.start..window.targets.end);
            if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
                let n = self.vocab_size;
                let problem = format!("token {id} is none of a vocabulary of {n}");
                return Err(Error::CheckFailed(problem));
            }
            for at in 1..ids.len() {
                nll_sum_nats -= self.probability(&ids[..at], ids[at]).ln();
                n_tokens += 1;
            }
        }
        Evaluation::new(nll_sum_nats, n_tokens, n_bytes, window)
            .ok_or_else(|| Error::CheckFailed("there is no token to score".into()))
    }
}
