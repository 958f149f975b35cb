//! The rules by which a training counts as diverged.

use crate::results::{Curves, DivergenceCause};

/// This many non-finite steps in a row end a training.
const NON_FINITE_LIMIT: u64 = 5;
/// Half-life of the smoothed loss, in steps.
const HALF_LIFE_STEPS: f64 = 10.0;
/// The step, counted from 0, whose smoothed loss `blow_up` measures from.
const START_STEP: u64 = 5;
/// A smoothed loss this far above that of the start has blown up, nats per token.
const BLOW_UP_NATS: f64 = 1.0;
/// A smoothed loss is lost where it lies further above its minimum than the larger of this, nats per token, ...
const LOST_NATS: f64 = 1.0;
/// ... and this part of what had been learned, the distance of the minimum from the uniform guess.
const LOST_FRACTION: f64 = 0.5;
/// A loss that stays lost for so many steps does not recover.
const LOST_STEPS: u64 = 50;

/// Watches one training, step by step. It holds nothing that [`Curves`] does not, so that a resumed training replays
/// them.
///
/// With s the mean of the losses so far, weighted down by half every ten steps, and m the smallest s so far, a training
/// of S steps with a vocabulary of V tokens has diverged at the first of
/// - `non_finite`: five non-finite steps in a row;
/// - `blow_up`: s exceeds s\[5\], that of the sixth step, by more than 1 nat;
/// - `no_recovery`: s exceeds m by more than max(1, (ln V - m) / 2) nats in 50 steps running, or at step S.
///
/// A step is non-finite if its loss or its gradient norm is; it counts towards `non_finite` alone, and the other two
/// rules go on behind it as if it had not been there.
#[derive(Debug, Clone, PartialEq)]
pub struct Stability {
    uniform_nats: f64,
    steps_left: u64,
    non_finite_in_a_row: u64,
    finite_steps: u64,
    /// Sum of the losses, each halved every [`HALF_LIFE_STEPS`], and of their weights: the mean needs no correction for
    /// a start from zero.
    weighted_loss: f64,
    weights: f64,
    start: Option<f64>,
    minimum: f64,
    lost_in_a_row: u64,
}

impl Stability {
    /// Before the first of `n_steps` steps.
    pub fn new(vocab_size: usize, n_steps: u64) -> Self {
        Self {
            uniform_nats: (vocab_size as f64).ln(),
            steps_left: n_steps,
            non_finite_in_a_row: 0,
            finite_steps: 0,
            weighted_loss: 0.0,
            weights: 0.0,
            start: None,
            minimum: f64::INFINITY,
            lost_in_a_row: 0,
        }
    }

    /// Behind the steps of `curves`, none of which met a rule.
    pub fn replay(vocab_size: usize, n_steps: u64, curves: &Curves) -> Self {
        let mut stability = Self::new(vocab_size, n_steps);
        for (loss_nats, gradient_norm) in curves.steps() {
            stability.step(loss_nats, gradient_norm);
        }
        stability
    }

    /// Judges the next step by its loss before the update, nats per token, and its gradient norm before clipping; the
    /// rule by which the training has diverged, if any.
    pub fn step(&mut self, loss_nats: f64, gradient_norm: f64) -> Option<DivergenceCause> {
        self.steps_left = self.steps_left.saturating_sub(1);
        if loss_nats.is_finite() && gradient_norm.is_finite() {
            self.non_finite_in_a_row = 0;
            self.smooth(loss_nats);
        } else {
            self.non_finite_in_a_row += 1;
        }
        let smoothed = self.weighted_loss / self.weights;
        if self.non_finite_in_a_row == NON_FINITE_LIMIT {
            Some(DivergenceCause::NonFinite)
        } else if self
            .start
            .is_some_and(|start| smoothed > start + BLOW_UP_NATS)
        {
            Some(DivergenceCause::BlowUp)
        } else if self.lost_in_a_row >= LOST_STEPS
            || (self.lost_in_a_row > 0 && self.steps_left == 0)
        {
            Some(DivergenceCause::NoRecovery)
        } else {
            None
        }
    }

    /// Takes in the loss of a finite step.
    fn smooth(&mut self, loss_nats: f64) {
        let decay = (-1.0 / HALF_LIFE_STEPS).exp2();
        self.weighted_loss = decay * self.weighted_loss + loss_nats;
        self.weights = decay * self.weights + 1.0;
        let smoothed = self.weighted_loss / self.weights;
        if self.finite_steps == START_STEP {
            self.start = Some(smoothed);
        }
        self.finite_steps += 1;
        self.minimum = self.minimum.min(smoothed);
        let learned = self.uniform_nats - self.minimum;
        let lost = smoothed > self.minimum + LOST_NATS.max(LOST_FRACTION * learned);
        self.lost_in_a_row = if lost { self.lost_in_a_row + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The step, counted from 0, and the rule at which a training of just these losses ends.
    fn verdict(vocab_size: usize, losses: &[f64]) -> Option<(usize, DivergenceCause)> {
        let mut stability = Stability::new(vocab_size, losses.len() as u64);
        let judged = losses.iter().map(|&loss| stability.step(loss, 1.0));
        judged
            .enumerate()
            .find_map(|(step, cause)| Some((step, cause?)))
    }

    fn losses(parts: &[(usize, f64)]) -> Vec<f64> {
        let part = |&(n, loss)| std::iter::repeat_n(loss, n);
        parts.iter().flat_map(part).collect()
    }

    /// Six steps at 3.5 and 194 at 2: s[5] is 3.5, m is 2 + 1.5 / 2^19.4, and with 256 tokens a loss is lost above
    /// m + (ln 256 - 2) / 2 = 2 + 1.7726.
    const LEARNED: [(usize, f64); 2] = [(6, 3.5), (194, 2.0)];

    fn after_learning(parts: &[(usize, f64)]) -> Vec<f64> {
        losses(&[&LEARNED[..], parts].concat())
    }

    #[test]
    fn five_non_finite_steps_in_a_row_are_divergence_and_four_are_not() {
        let four = losses(&[(2, 3.0), (4, f64::NAN), (1, 3.0), (4, f64::NAN), (1, 3.0)]);
        assert_eq!(verdict(256, &four), None);
        let five = losses(&[(2, 3.0), (4, f64::NAN), (1, 3.0), (6, f64::NAN)]);
        assert_eq!(verdict(256, &five), Some((11, DivergenceCause::NonFinite)));

        // A gradient counts as a loss does, from the first step on.
        let mut stability = Stability::new(256, 100);
        for (loss, norm) in [(3.0, f64::INFINITY), (f64::INFINITY, 1.0), (3.0, f64::NAN)] {
            assert_eq!(stability.step(loss, norm), None);
        }
        assert_eq!(stability.step(f64::NAN, f64::NAN), None);
        let cause = stability.step(3.0, f64::INFINITY);
        assert_eq!(cause, Some(DivergenceCause::NonFinite));
    }

    #[test]
    fn one_nat_above_the_start_is_a_blow_up() {
        // The smoothed loss tends to the new one and reaches it from below.
        assert_eq!(verdict(256, &losses(&[(6, 3.0), (400, 3.999)])), None);
        let slowly = verdict(256, &losses(&[(6, 3.0), (400, 4.001)]));
        assert!(
            matches!(slowly, Some((_, DivergenceCause::BlowUp))),
            "{slowly:?}"
        );

        // After k steps 2 nats above: s - s[5] = 2 (1 - 2^(-k/10)) / (1 - 2^(-(6 + k)/10)), above 1 from
        // k = 10 log2(2 - 2^-0.6) = 4.2 on, so at the fifth.
        let at_once = verdict(256, &losses(&[(6, 3.0), (400, 5.0)]));
        assert_eq!(at_once, Some((10, DivergenceCause::BlowUp)));
        // Before the sixth step there is no start to measure from; s[5] is then high itself.
        assert_eq!(verdict(256, &losses(&[(5, 3.0), (400, 3.9)])), None);
    }

    #[test]
    fn fifty_steps_far_above_the_minimum_are_no_recovery() {
        // 1.8 nats above: s - m = 1.8 (1 - 2^(-k/10)) exceeds 1.7726 from k = 60.4 on, at the 61st step.
        assert_eq!(verdict(256, &after_learning(&[(1000, 3.77)])), None);
        let lost = after_learning(&[(1000, 3.8)]);
        // 61 + 49 = 110 steps, the last of which is number 200 + 109.
        assert_eq!(
            verdict(256, &lost),
            Some((309, DivergenceCause::NoRecovery))
        );
        // One step without a loss brings s back below the limit, and the count begins anew.
        let back_in_time = after_learning(&[(109, 3.8), (1, 0.0), (20, 3.8)]);
        assert_eq!(verdict(256, &back_in_time), None);
    }

    #[test]
    fn a_training_must_not_end_far_above_the_minimum() {
        assert_eq!(verdict(256, &after_learning(&[(60, 3.8)])), None);
        let lost = verdict(256, &after_learning(&[(61, 3.8)]));
        assert_eq!(lost, Some((260, DivergenceCause::NoRecovery)));
        // A last step that is not finite changes nothing about that.
        let gap = verdict(256, &after_learning(&[(61, 3.8), (1, f64::NAN)]));
        assert_eq!(gap, Some((261, DivergenceCause::NoRecovery)));
    }

    #[test]
    fn a_loss_is_not_lost_within_one_nat_of_the_minimum() {
        // ln 8 = 2.08: half of what was learned is 0.54 nats, and the limit stays at 1 nat.
        let learned = [(6, 2.0), (194, 1.0)];
        let rises_to = |loss| losses(&[&learned[..], &[(1000, loss)]].concat());
        assert_eq!(verdict(8, &rises_to(1.999)), None);
        let lost = verdict(8, &rises_to(2.02));
        assert!(
            matches!(lost, Some((_, DivergenceCause::NoRecovery))),
            "{lost:?}"
        );
    }

    #[test]
    fn non_finite_steps_leave_the_other_rules_as_they_are() {
        let lost = after_learning(&[(110, 3.8)]);
        let with_gaps: Vec<f64> = lost.iter().flat_map(|&loss| [f64::NAN, loss]).collect();
        assert_eq!(
            verdict(256, &lost),
            Some((309, DivergenceCause::NoRecovery))
        );
        assert_eq!(
            verdict(256, &with_gaps),
            Some((2 * 309 + 1, DivergenceCause::NoRecovery))
        );
    }

    #[test]
    fn a_training_that_learns_is_stable() {
        let falling: Vec<f64> = (0..500)
            .map(|step| 5.5 / (1.0 + 0.01 * f64::from(step)))
            .collect();
        assert_eq!(verdict(256, &falling), None);
        assert_eq!(
            verdict(256, &losses(&[(300, 5.5)])),
            None,
            "nor one that learns nothing"
        );
    }

    /// A value of a step, now and then not finite.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![8 => 0.0..8.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
    }

    proptest! {
        #[test]
        fn replaying_curves_equals_feeding_step_by_step(
            steps in prop::collection::vec((value(), value()), 0..200),
            vocab_size in 2_usize..60_000,
        ) {
            let mut fed = Stability::new(vocab_size, 200);
            let mut curves = Curves::default();
            for (loss, norm) in steps {
                curves.push(loss, norm);
                let cause = fed.step(loss, norm);
                prop_assert_eq!(&Stability::replay(vocab_size, 200, &curves), &fed);
                if cause.is_some() {
                    break;
                }
            }
        }
    }
}
