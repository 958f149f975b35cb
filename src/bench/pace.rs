//! How long trainings will take, from a few steps of each model on random tokens.

use std::time::{Duration, Instant};

use crate::config::{Config, ModelConfig};
use crate::hardware::Hardware;
use crate::math::random::{Coordinate, Purpose, words};
use crate::models::registry::ModelShape;
use crate::models::{BatchShape, LanguageModel};
use crate::train::optimiser::{self, Decay};
use crate::train::{self, Objective, Sequences};
use crate::{Error, Result};

/// Tokens of the sequences that are timed, as far as time allows.
const LENGTHS: [usize; 5] = [16, 64, 256, 1024, 4096];
/// A step of each, after one that warms up.
const STEPS: usize = 2;
/// Parameters of the largest model that is built to be timed.
const LARGEST: usize = 24 << 20;
/// What computing a segment again for its gradient adds to a sequence of several.
const TWO_SWEEPS: f64 = 4.0 / 3.0;

/// Seconds of the training steps of one model, of whatever size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Tokens of the longest step that was timed.
    pub longest: usize,
    /// Parameters of the model that was timed.
    pub n_parameters: usize,
    per_flop: f64,
    per_parameter: f64,
}

impl Pace {
    /// Times steps of `shape`, or of a smaller one of its kind where it is large, of up to `seq_len` tokens. No step is
    /// begun that is expected to end after `limit`, but for the first.
    ///
    /// # Errors
    /// A device that fails, or lacks the memory.
    pub fn measure(
        shape: &ModelShape,
        seq_len: usize,
        config: &Config,
        hardware: &Hardware,
        limit: Duration,
    ) -> Result<Self> {
        let began = Instant::now();
        let shape = timeable(shape, &config.model);
        let objective = Objective::new(&config.model, &config.train, 0, 0);
        let mut model = LanguageModel::new(&shape, 0, &hardware.device.clone().autodiff());
        let mut adamw = optimiser::adamw(&model, &config.train, Decay::Standard);
        let mut timed = Vec::new();
        for seq_len in LENGTHS.map(|length| length.min(seq_len)) {
            let id = |position| words(0, Coordinate::new(Purpose::Test).at(position))[0];
            let ids: Vec<u32> = (0..=seq_len as u64)
                .map(|position| id(position) % shape.vocab_size as u32)
                .collect();
            let sequence = Sequences {
                inputs: &ids[..seq_len],
                targets: &ids[1..],
                shape: BatchShape { batch: 1, seq_len },
            };
            let segments = train::segments(seq_len, seq_len);
            let mut seconds = 0.0;
            for _ in 0..STEPS {
                let start = Instant::now();
                let gradient = objective.gradient(&model, &sequence, &segments, None)?;
                let gradients = gradient.clipped(&model, config.train.gradient_clip_norm);
                model = adamw.step(config.train.learning_rate, model, gradients);
                hardware.device.sync().map_err(|error| Error::Device {
                    doing: "timing a step".into(),
                    reason: format!("{error:?}"),
                })?;
                seconds = start.elapsed().as_secs_f64();
            }
            timed.push((seq_len, seconds));
            let next = STEPS as f64 * 4.0 * seconds;
            if began.elapsed().as_secs_f64() + next > limit.as_secs_f64() {
                break;
            }
        }
        Ok(Self::of(&shape, &timed))
    }

    /// From tokens and seconds of steps, the shortest first: the two longest tell what depends on the number of tokens.
    fn of(shape: &ModelShape, timed: &[(usize, f64)]) -> Self {
        let flops = |seq_len: usize| shape.training_flops_per_token(seq_len) * seq_len as f64;
        let n_parameters = shape.parameters().total;
        let &(longest, seconds) = timed.last().unwrap_or(&(0, 0.0));
        let before = timed.iter().rev().find(|(length, _)| *length < longest);
        let slope = before.map(|&(length, before)| {
            let per_flop = (seconds - before) / (flops(longest) - flops(length));
            per_flop.max(0.0)
        });
        let all = seconds / flops(longest);
        let per_flop = slope.unwrap_or(all).min(all);
        Self {
            longest,
            n_parameters,
            per_flop,
            per_parameter: (seconds - per_flop * flops(longest)) / n_parameters as f64,
        }
    }

    /// Seconds of `n_steps` steps of `batch` sequences of `seq_len` tokens, of which `resident` are there at once.
    pub fn seconds(
        &self,
        shape: &ModelShape,
        [batch, seq_len, resident]: [usize; 3],
        n_steps: u64,
    ) -> f64 {
        let flops = shape.training_flops_per_token(seq_len) * (batch * seq_len) as f64;
        let sweeps = if seq_len > resident { TWO_SWEEPS } else { 1.0 };
        let of_parameters = self.per_parameter * shape.parameters().total as f64;
        n_steps as f64 * (self.per_flop * sweeps * flops + of_parameters)
    }
}

/// The shape, or one of the default width and depth where it has too many parameters to be built in the time there is.
fn timeable(shape: &ModelShape, config: &ModelConfig) -> ModelShape {
    if shape.parameters().total <= LARGEST {
        return shape.clone();
    }
    let ModelConfig {
        d_model, n_layers, ..
    } = ModelConfig::default();
    let config = ModelConfig {
        d_model,
        n_layers,
        ..config.clone()
    };
    let hidden = shape.expert_hidden * d_model / shape.d_model;
    ModelShape::new(shape.architecture, &config, shape.vocab_size, hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::registry::Architecture;

    #[test]
    fn what_two_steps_took_is_split_into_a_part_by_token_and_a_part_by_parameter() {
        let shape = ModelShape::new(Architecture::NoMixer, &ModelConfig::default(), 256, 100);
        // 1 s a step, and 1 ms a token.
        let pace = Pace::of(&shape, &[(16, 1.016), (64, 1.064), (256, 1.256)]);
        assert_eq!(pace.longest, 256);
        let about = |seconds: f64, expected: f64| (seconds / expected - 1.0).abs() < 0.01;
        let ten = pace.seconds(&shape, [8, 256, 256], 10);
        assert!(about(ten, 10.0 * (1.0 + 8.0 * 0.256)), "{ten}");
        let twice = pace.seconds(&shape, [1, 512, 256], 1);
        assert!(about(twice, 1.0 + 0.512 * 4.0 / 3.0), "{twice}");
        // Twice the layers take nearly twice the time.
        let mut deep = shape.clone();
        deep.n_layers *= 2;
        let seconds = pace.seconds(&deep, [1, 256, 256], 1);
        assert!((1.8..2.0).contains(&(seconds / 1.256)), "{seconds}");
    }

    #[test]
    fn one_step_or_a_slower_short_one_still_makes_a_pace() {
        let shape = ModelShape::new(Architecture::NoMixer, &ModelConfig::default(), 256, 100);
        for timed in [&[(16, 2.0)][..], &[(16, 3.0), (64, 2.0)]] {
            let seconds = Pace::of(&shape, timed).seconds(&shape, [1, 64, 64], 1);
            assert!(seconds.is_finite() && seconds > 0.0, "{seconds}");
        }
    }

    #[test]
    fn a_model_that_is_too_large_is_timed_as_a_smaller_one() {
        let config = ModelConfig {
            d_model: 4096,
            n_layers: 48,
            ..ModelConfig::default()
        };
        let large = ModelShape::new(Architecture::ResNetBk, &config, 50_257, 4096);
        let small = timeable(&large, &config);
        assert_eq!((small.d_model, small.n_layers), (256, 6));
        assert_eq!(small.expert_hidden, 256);
        assert_eq!(timeable(&small, &config), small);
    }
}
