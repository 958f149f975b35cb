//! What the long-context benchmark measures in one cell.

use serde::{Deserialize, Serialize};

use super::{Finite, FlopsPerToken, KernelError, Memory};
use crate::stats::{self, Estimate};

/// Part of the steps, at the end, over which the final loss is the mean.
const FINAL_FRACTION: f64 = 0.1;
/// A spike is judged by so many losses before it.
const SPIKE_WINDOW: usize = 32;
/// A spike lies at least this far above their median, nats per token, ...
const SPIKE_NATS: f64 = 0.5;
/// ... and this many of their robust standard deviations.
const SPIKE_DEVIATIONS: f64 = 6.0;

/// Measurements of one training and its evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongContextMetrics {
    /// Values of every step.
    pub curves: Curves,
    /// Mean training cross-entropy of the last tenth of the steps, nats per token.
    pub final_loss_nats: Option<Finite>,
    /// Mean over the steps of the global gradient norm before clipping.
    pub gradient_norm_mean: Option<Finite>,
    /// Its sample standard deviation over the steps.
    pub gradient_norm_std: Option<Finite>,
    /// Its largest value.
    pub gradient_norm_max: Option<Finite>,
    /// Steps whose loss or gradient norm was not finite, though no loss scale above 1 explains it.
    pub nan_count: u64,
    /// Times that a batch was tried again at half the loss scale; 0 in f32.
    #[serde(default)]
    pub loss_scale_overflows: u64,
    /// Steps at which a spike of the loss begins, counted from 0.
    pub spike_steps: Vec<u64>,
    /// Steps that changed no weight.
    pub skipped_steps: u64,
    /// Held-out text under the last weights; absent where the cell did not complete or the loss is not finite.
    pub evaluation: Option<Evaluation>,
    /// The loss of that text by the position in the window; empty where there is no evaluation.
    pub nll_by_position: Vec<PositionBucket>,
    /// FLOPs of the forward pass over that text; absent where there is no evaluation, and for a model whose cost does not
    /// depend on the tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_flops_per_token: Option<FlopsPerToken>,
    /// What far context is worth at the end of the held-out windows; absent where it was not measured.
    pub last_quarter: Option<UsefulContext>,
    /// The kernels against the oracle on the trained model's own tensors, over one training window; empty
    /// where the cell did not complete, and for a model without kernels.
    pub kernel_errors: Vec<KernelError>,
    /// Cross-entropy of the held-out text under the token frequencies of the training text (one added to
    /// every count), nats per token: what is reached without any context.
    pub unigram_ce_nats: Finite,
    /// The same under an interpolated 3-gram of the training text: what counting reaches with two tokens of context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub three_gram_ce_nats: Option<Finite>,
    /// Wall-clock time of the training loop.
    pub train_seconds: Finite,
    /// Training tokens per second of the steps, data included, checkpoints and the first three steps left out.
    pub tokens_per_second: Option<Finite>,
    /// Memory of the training: estimated before, measured meanwhile.
    pub memory: Memory,
    /// sha256 of the last weights.
    pub weights_sha256: String,
    /// sha256 of the batches' tokens in the order in which they were trained on.
    pub data_order_sha256: String,
}

/// One value a step; `None` where it was not finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curves {
    /// Cross-entropy of the step's batch before the update, nats per token.
    pub loss_nats: Vec<Option<Finite>>,
    /// Norm of the gradient over all parameters before clipping.
    pub gradient_norm: Vec<Option<Finite>>,
    /// Where the steps that were not finite stopped being so.
    pub faults: Vec<Fault>,
    /// Steps, counted from 0, whose loss was finite and whose gradient was not at a loss scale above 1: the scale was
    /// halved and the batch tried again. A step stands here as often as that happened.
    #[serde(default)]
    pub loss_scale_overflows: Vec<u64>,
}

/// A step that was not finite, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The step, counted from 0.
    pub step: u64,
    /// The first place where a value was not finite; absent where a second look at the step found none.
    pub first: Option<NonFinite>,
}

/// The first place in a step where a value was infinite or no number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "pass", rename_all = "snake_case", deny_unknown_fields)]
pub enum NonFinite {
    /// In the forward pass.
    Forward {
        /// The layer, counted from 1; 0 outside the blocks.
        layer: usize,
        /// The operation, and the tensor that it reads or makes.
        operation: String,
    },
    /// In the backward pass: all values before it were finite.
    Backward {
        /// The parameter whose gradient the backward pass came to first.
        parameter: String,
    },
}

impl Curves {
    /// Appends a step.
    pub fn push(&mut self, loss_nats: f64, gradient_norm: f64) {
        self.loss_nats.push(Finite::new(loss_nats));
        self.gradient_norm.push(Finite::new(gradient_norm));
    }

    /// Loss and gradient norm of every step, NaN where one was not finite.
    pub fn steps(&self) -> impl Iterator<Item = (f64, f64)> {
        let value = |value: &Option<Finite>| value.map_or(f64::NAN, Finite::get);
        self.loss_nats
            .iter()
            .map(value)
            .zip(self.gradient_norm.iter().map(value))
    }

    /// Mean of the finite losses among the last tenth of the steps (at least one step).
    pub fn final_loss_nats(&self) -> Option<Finite> {
        let n_final = (self.loss_nats.len() as f64 * FINAL_FRACTION).ceil() as usize;
        let tail = &self.loss_nats[self.loss_nats.len() - n_final..];
        let values: Vec<f64> = tail.iter().flatten().map(|loss| loss.get()).collect();
        stats::mean(&values).and_then(Finite::new)
    }

    /// The gradient norms that are finite.
    fn finite_norms(&self) -> Vec<f64> {
        self.gradient_norm
            .iter()
            .flatten()
            .map(|norm| norm.get())
            .collect()
    }

    /// Mean of the finite gradient norms.
    pub fn gradient_norm_mean(&self) -> Option<Finite> {
        stats::mean(&self.finite_norms()).and_then(Finite::new)
    }

    /// Sample standard deviation of the finite gradient norms.
    pub fn gradient_norm_std(&self) -> Option<Finite> {
        stats::sample_sd(&self.finite_norms()).and_then(Finite::new)
    }

    /// Largest finite gradient norm.
    pub fn gradient_norm_max(&self) -> Option<Finite> {
        self.finite_norms()
            .into_iter()
            .reduce(f64::max)
            .and_then(Finite::new)
    }

    /// Steps at which the loss or the norm was not finite.
    pub fn nan_count(&self) -> u64 {
        self.steps()
            .filter(|(loss, norm)| loss.is_nan() || norm.is_nan())
            .count() as u64
    }

    /// Steps, counted from 0, at which a spike begins: the loss exceeds the median of the last 32 finite steps' losses
    /// by more than max(0.5 nats, 6 * 1.4826 MAD), and that of the step before did not.
    ///
    /// A step before which there are fewer than 32 is not judged: the loss of a training that has just begun falls too
    /// fast for a median. A non-finite step is no spike, and ends one.
    pub fn spike_steps(&self) -> Vec<u64> {
        let mut finite_losses = Vec::new();
        let mut in_spike = false;
        let mut begins = Vec::new();
        for (step, (loss, norm)) in (0..).zip(self.steps()) {
            if loss.is_nan() || norm.is_nan() {
                in_spike = false;
                continue;
            }
            let recent = finite_losses.last_chunk::<SPIKE_WINDOW>();
            let spike = recent
                .and_then(|recent| spike_limit(recent))
                .is_some_and(|limit| loss > limit);
            if spike && !in_spike {
                begins.push(step);
            }
            in_spike = spike;
            finite_losses.push(loss);
        }
        begins
    }
}

/// Loss above which a step behind these is a spike.
fn spike_limit(recent: &[f64]) -> Option<f64> {
    let margin = SPIKE_NATS.max(SPIKE_DEVIATIONS * stats::robust_sd(recent)?);
    Some(stats::median(recent)? + margin)
}

/// Held-out text scored once, every token in exactly one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Sum over the tokens of the negative log-likelihood, nats.
    pub nll_sum_nats: Finite,
    /// Tokens scored.
    pub n_tokens: u64,
    /// Bytes of the text, those of its first token, which is not scored, included.
    pub n_bytes: u64,
    /// Tokens after which the state is reset.
    pub window: usize,
    /// `nll_sum_nats / n_tokens`.
    pub nll_nats: Finite,
    /// `exp(nll_sum_nats / n_tokens)`; absent where that overflows.
    pub token_perplexity: Option<Finite>,
    /// `nll_sum_nats / ln 2 / n_bytes`.
    pub bits_per_byte: Finite,
}

impl Evaluation {
    /// Derives the rates from the sums; `None` if the sum is not finite or nothing was scored.
    pub fn new(nll_sum_nats: f64, n_tokens: u64, n_bytes: u64, window: usize) -> Option<Self> {
        let nll_nats = nll_sum_nats / n_tokens as f64;
        Some(Self {
            nll_sum_nats: Finite::new(nll_sum_nats)?,
            n_tokens,
            n_bytes,
            window,
            nll_nats: Finite::new(nll_nats)?,
            token_perplexity: Finite::new(nll_nats.exp()),
            bits_per_byte: Finite::new(nll_sum_nats / std::f64::consts::LN_2 / n_bytes as f64)?,
        })
    }
}

/// Held-out loss at the positions of one octave of the windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionBucket {
    /// First position, counted from 0: the number of tokens before it in the window. A power of two, but in the first
    /// bucket, which begins at 0.
    pub first: usize,
    /// Last position.
    pub last: usize,
    /// Tokens scored there, in all windows.
    pub n_tokens: u64,
    /// Mean negative log-likelihood of the token that follows such a position, nats.
    pub nll_nats: Finite,
}

impl PositionBucket {
    /// The positions `2^octave .. 2^(octave + 1)` of windows of `window` tokens, 0 counted to the first octave;
    /// `None` if the sum is not finite or nothing was scored.
    pub fn new(octave: usize, window: usize, nll_sum_nats: f64, n_tokens: u64) -> Option<Self> {
        Some(Self {
            first: if octave == 0 { 0 } else { 1 << octave },
            last: ((2 << octave) - 1).min(window - 1),
            n_tokens,
            nll_nats: Finite::new(nll_sum_nats / n_tokens as f64)?,
        })
    }
}

/// Loss in the last quarter of the held-out windows of N tokens, with the state carried from the window's start and
/// with the state reset 1,024 tokens before that quarter: what context from further back is worth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsefulContext {
    /// Mean over the windows with the state carried, nats per token.
    pub with_state_nats: Finite,
    /// Mean over the windows with the state reset, nats per token.
    pub reset_nats: Finite,
    /// Carried minus reset, a value a window.
    pub difference: Estimate,
}

impl UsefulContext {
    /// Pairs the mean losses of each window, in nats per token; `None` where there is no window, where one lacks its
    /// pair, or where a value is not finite.
    pub fn of(with_state: &[f64], reset: &[f64]) -> Option<Self> {
        if with_state.len() != reset.len() {
            return None;
        }
        let differences: Vec<f64> = with_state.iter().zip(reset).map(|(a, b)| a - b).collect();
        Some(Self {
            with_state_nats: Finite::new(stats::mean(with_state)?)?,
            reset_nats: Finite::new(stats::mean(reset)?)?,
            difference: Estimate::of(&differences)?,
        })
    }

    /// Whether the loss with the state carried is lower: the interval of the difference lies below zero. `None` for one
    /// window, which has no interval.
    pub fn is_useful(&self) -> Option<bool> {
        self.difference.interval.map(|interval| interval.high < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_loss_is_the_mean_of_the_last_tenth() {
        let mut curves = Curves::default();
        assert_eq!(curves.final_loss_nats(), None);
        for step in 0..25 {
            curves.push(f64::from(step), 1.0);
        }
        // The last ceil(2.5) = 3 steps: 22, 23, 24.
        assert_eq!(curves.final_loss_nats(), Finite::new(23.0));
    }

    #[test]
    fn steps_that_are_not_finite_are_counted_and_leave_gaps() {
        let mut curves = Curves::default();
        curves.push(2.0, 1.0);
        curves.push(f64::NAN, 3.0);
        curves.push(2.0, f64::INFINITY);
        curves.push(f64::NAN, f64::NAN);
        assert_eq!(curves.nan_count(), 3);
        assert_eq!(
            curves.loss_nats,
            [Finite::new(2.0), None, Finite::new(2.0), None]
        );
        assert_eq!(curves.gradient_norm_mean(), Finite::new(2.0));
        assert_eq!(curves.gradient_norm_std(), Finite::new(2.0_f64.sqrt()));
        assert_eq!(curves.gradient_norm_max(), Finite::new(3.0));
        assert_eq!(
            curves.final_loss_nats(),
            None,
            "the last step is not finite"
        );
    }

    const NONE: [u64; 0] = [];

    /// Curves whose losses alternate between 2.9 and 3.1, median 3, MAD 0.1, with others put in behind 32 steps.
    fn ripple(others: &[f64]) -> Curves {
        let mut curves = Curves::default();
        for step in 0..32 {
            curves.push(if step % 2 == 0 { 2.9 } else { 3.1 }, 1.0);
        }
        for &loss in others {
            curves.push(loss, 1.0);
        }
        curves
    }

    #[test]
    fn a_spike_exceeds_the_median_by_six_robust_deviations() {
        // 6 * 1.4826 * 0.1 = 0.88956
        assert_eq!(ripple(&[3.889]).spike_steps(), NONE);
        assert_eq!(ripple(&[3.890]).spike_steps(), [32]);
        // where the losses hardly vary, by half a nat
        let mut flat = Curves::default();
        (0..32).for_each(|_| flat.push(3.0, 1.0));
        for (loss, expected) in [(3.5, vec![]), (3.501, vec![32])] {
            let mut curves = flat.clone();
            curves.push(loss, 1.0);
            assert_eq!(curves.spike_steps(), expected, "{loss}");
        }
    }

    #[test]
    fn consecutive_spikes_count_once_and_a_fall_is_none() {
        assert_eq!(ripple(&[5.0, 6.0, 5.5, 3.0, 5.0]).spike_steps(), [32, 36]);
        assert_eq!(ripple(&[0.0, 0.0]).spike_steps(), NONE);
        assert_eq!(
            ripple(&[f64::NAN, 3.0, f64::INFINITY]).spike_steps(),
            NONE,
            "non-finite steps are none"
        );
        assert_eq!(
            ripple(&[5.0, f64::NAN, 5.0]).spike_steps(),
            [32, 34],
            "and end one"
        );
    }

    #[test]
    fn a_spike_needs_32_finite_losses_before_it() {
        let mut early = Curves::default();
        for step in 0..31 {
            early.push(if step % 2 == 0 { 2.9 } else { 3.1 }, 1.0);
        }
        early.push(9.0, 1.0);
        assert_eq!(early.spike_steps(), NONE, "the 32nd step has 31 before it");
        let mut gap = Curves::default();
        (0..31).for_each(|_| gap.push(3.0, 1.0));
        gap.push(3.0, f64::NAN);
        gap.push(9.0, 1.0);
        assert_eq!(
            gap.spike_steps(),
            NONE,
            "a non-finite step counts for nothing"
        );
        gap.push(9.0, 1.0);
        assert_eq!(gap.spike_steps(), [33]);
    }

    #[test]
    fn rates_of_an_evaluation_follow_from_its_sums() {
        let evaluation = Evaluation::new(8.0 * std::f64::consts::LN_2, 4, 16, 2).unwrap();
        assert!((evaluation.token_perplexity.unwrap().get() - 4.0).abs() < 1e-12);
        assert!((evaluation.bits_per_byte.get() - 0.5).abs() < 1e-12);
        assert_eq!(Evaluation::new(f64::NAN, 4, 16, 2), None);
        assert_eq!(Evaluation::new(0.0, 0, 0, 2), None);
        assert_eq!(
            Evaluation::new(4000.0, 4, 16, 2).unwrap().token_perplexity,
            None
        );
    }

    #[test]
    fn context_is_useful_where_the_interval_over_windows_lies_below_zero() {
        let reset = [3.0, 3.2, 3.1];
        // Differences -0.1, -0.2, -0.15: the interval is -0.15 +- 4.303 * 0.05 / sqrt(3) = -0.15 +- 0.124.
        let useful = UsefulContext::of(&[2.9, 3.0, 2.95], &reset).unwrap();
        assert_eq!(useful.is_useful(), Some(true), "{useful:?}");
        assert!((useful.difference.mean + 0.15).abs() < 1e-12);
        assert!((useful.reset_nats.get() - 3.1).abs() < 1e-12);
        // Differences -0.1, -0.2, 0.0: -0.1 +- 0.248.
        let unsure = UsefulContext::of(&[2.9, 3.0, 3.1], &reset).unwrap();
        assert_eq!(unsure.is_useful(), Some(false), "{unsure:?}");
        let harmful = UsefulContext::of(&reset, &[2.9, 3.0, 2.95]).unwrap();
        assert_eq!(harmful.is_useful(), Some(false), "{harmful:?}");
        let single = UsefulContext::of(&[1.0], &[3.0]).unwrap();
        assert_eq!(single.is_useful(), None, "one window has no interval");
        assert_eq!(UsefulContext::of(&[1.0], &reset), None);
        assert_eq!(UsefulContext::of(&[1.0, f64::NAN, 1.0], &reset), None);
        assert_eq!(UsefulContext::of(&[], &[]), None);
    }
}
