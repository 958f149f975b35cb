//! Text from a model, token by token: each token costs the same, however many came before it, because the model
//! carries all it knows of them in its state.

use super::{BatchShape, BlockState, LanguageModel};
use crate::hardware::read;
use crate::math::random::{Coordinate, Purpose, uniform};
use crate::{Error, Result};

/// Tokens of a prompt that go through the model at once.
const PROMPT_SEGMENT: usize = 1024;

/// One sequence on its way through a model.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a LanguageModel,
    states: Vec<BlockState>,
    logits: Vec<f32>,
}

impl<'a> Decoder<'a> {
    /// Reads `prompt` in as few passes as its length allows; `model` is without autodiff.
    ///
    /// # Errors
    /// [`Error::BadInput`] for an empty prompt or a model that carries no state, [`Error::Domain`] for ids outside the
    /// vocabulary; a device that fails.
    pub fn new(model: &'a LanguageModel, prompt: &[u32]) -> Result<Self> {
        let mut decoder = Self {
            model,
            states: model.initial_states(1),
            logits: Vec::new(),
        };
        let is_empty = |state: &BlockState| matches!(state, BlockState::Empty);
        if decoder.states.iter().any(is_empty) {
            return Err(Error::bad_input(
                "this model",
                "carries no state of fixed size from one token to the next, so it cannot write text token by token",
                "generate from a model that carries a state, such as mamba or resnetbk",
            ));
        }
        if prompt.is_empty() {
            return Err(Error::bad_input(
                "the prompt",
                "is empty, and the first token follows from nothing",
                "give at least one character",
            ));
        }
        for segment in prompt.chunks(PROMPT_SEGMENT) {
            decoder.read(segment)?;
        }
        Ok(decoder)
    }

    /// Scores of the tokens that may come next, `[vocab]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Goes on with `token`.
    ///
    /// # Errors
    /// [`Error::Domain`] for an id outside the vocabulary; a device that fails.
    pub fn push(&mut self, token: u32) -> Result<()> {
        self.read(&[token])
    }

    fn read(&mut self, tokens: &[u32]) -> Result<()> {
        let shape = BatchShape {
            batch: 1,
            seq_len: tokens.len(),
        };
        let states = std::mem::take(&mut self.states);
        let hidden = self.model.infer(tokens, shape, states)?;
        let last = hidden.x.narrow(0, tokens.len() - 1, 1);
        self.states = hidden.states;
        self.logits = read::floats(self.model.logits(last)?, "reading the next token's scores")?;
        Ok(())
    }
}

/// How the next token is chosen from the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What scores are divided by before they become probabilities; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest tokens may be drawn; all where absent.
    pub top_k: Option<usize>,
    /// Of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Whether tokens can be drawn so.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a temperature that is negative or not finite, or a `top_k` of 0.
    pub fn validate(&self) -> Result<()> {
        let bad = |what: String, advice: &str| Err(Error::bad_input(what, "cannot be", advice));
        let Self {
            temperature, top_k, ..
        } = *self;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return bad(
                format!("--temperature {temperature}"),
                "give 0 for the likeliest token, or a number above it",
            );
        }
        if top_k == Some(0) {
            return bad("--top_k 0".into(), "give at least 1");
        }
        Ok(())
    }

    /// The token for draw `index` among the ids that `logits` scores; the lowest of equals comes first.
    ///
    /// # Errors
    /// [`Error::CheckFailed`] when a score is not finite.
    pub fn choose(&self, logits: &[f32], index: u64) -> Result<u32> {
        if let Some(id) = logits.iter().position(|score| !score.is_finite()) {
            let score = logits[id];
            return Err(Error::CheckFailed(format!(
                "the model scores token {id} with {score}: it diverged, or its weights are damaged"
            )));
        }
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        // A stable sort keeps the lowest id first among equals.
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let &[likeliest, ..] = ids.as_slice() else {
            return Err(Error::CheckFailed("there is no token to choose".into()));
        };
        if self.temperature == 0.0 {
            return Ok(likeliest as u32);
        }
        ids.truncate(self.top_k.unwrap_or(ids.len()));
        let best = f64::from(logits[likeliest]);
        let weight = |&id: &usize| ((f64::from(logits[id]) - best) / self.temperature).exp();
        let draw = uniform(self.seed, Coordinate::new(Purpose::Sampling).at(index))
            * ids.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let drawn = ids.iter().find(|&id| {
            sum += weight(id);
            sum > draw
        });
        // Rounding may leave the draw above the sum.
        Ok(*drawn.unwrap_or(&likeliest) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f64, top_k: Option<usize>) -> Sampling {
        Sampling {
            temperature,
            top_k,
            seed: 7,
        }
    }

    #[test]
    fn temperature_0_takes_the_likeliest_and_the_lowest_of_equals() {
        for index in 0..20 {
            let id = sampling(0.0, None).choose(&[0.5, 2.0, -1.0, 2.0], index);
            assert_eq!(id.unwrap(), 1);
        }
        // So near 0 that every other weight vanishes.
        let id = sampling(1e-320, None).choose(&[0.5, 2.0, -1.0], 3);
        assert_eq!(id.unwrap(), 1);
    }

    /// Counts against the probabilities by hand, within four standard errors of `n` draws.
    #[test]
    fn tokens_come_as_often_as_their_probabilities_say() {
        let n = 20_000_u32;
        let logits = [0.0, 1.0, -0.5, 0.25];
        for (temperature, top_k) in [
            (1.0, None),
            (0.5, None),
            (2.0, Some(3)),
            (1.0, Some(9)),
            (1.0, Some(1)),
        ] {
            let mut weights = logits.map(|score| (f64::from(score) / temperature).exp());
            // Likeliest first: 1, 3, 0, 2.
            for &id in [1, 3, 0, 2].iter().skip(top_k.unwrap_or(4)) {
                weights[id] = 0.0;
            }
            let sum: f64 = weights.iter().sum();
            let mut counts = [0_u32; 4];
            for index in 0..n {
                let id = sampling(temperature, top_k).choose(&logits, index.into());
                counts[id.unwrap() as usize] += 1;
            }
            for (count, weight) in counts.into_iter().zip(weights) {
                let p = weight / sum;
                let off = (f64::from(count) / f64::from(n) - p).abs();
                assert!(
                    off <= 4.0 * (p * (1.0 - p) / f64::from(n)).sqrt(),
                    "{temperature}, {top_k:?}: {counts:?}, {p}"
                );
            }
        }
    }

    #[test]
    fn impossible_settings_and_scores_are_refused() {
        for (temperature, top_k) in [
            (-1.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (1.0, Some(0)),
        ] {
            let error = sampling(temperature, top_k).validate().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        sampling(0.0, Some(1)).validate().unwrap();
        let error = sampling(1.0, None).choose(&[0.0, f32::NAN], 0).unwrap_err();
        assert!(error.to_string().contains("token 1"), "{error}");
    }
}
