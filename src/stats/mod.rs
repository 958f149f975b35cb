//! Intervals and tests (statrs inside). Every statistical formula of the suite lives here.

mod binomial;
mod bootstrap;
mod effect;
mod multiplicity;
mod paired;
mod planning;
mod ranks;
mod survival;
mod unpaired;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

pub use binomial::{binomial_p, clopper_pearson, fisher_p};
pub use bootstrap::{BootstrapIntervals, N_RESAMPLES, bootstrap, bootstrap_mean};
pub use effect::{EffectLabel, cohens_d_z, guide_cohens_d, hedges_g};
pub use multiplicity::{bonferroni, holm};
pub use paired::{
    MAX_SIGN_FLIPS, PairedT, SignFlip, correlation, equivalence_p, paired_t, sign_flip,
};
pub use planning::{SeedsNeeded, seeds_needed};
pub use ranks::{mann_whitney_p, wilcoxon_p};
pub use survival::{SurvivalRow, survival};
pub use unpaired::{WelchT, welch_t};

/// Confidence level of every interval this crate reports.
pub const CONFIDENCE: f64 = 0.95;

/// A two-sided interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The interval of the exponential: of a ratio, where this is that of a difference of logarithms.
    #[must_use]
    pub fn exp(self) -> Self {
        Self {
            low: self.low.exp(),
            high: self.high.exp(),
        }
    }
}

/// A mean over independent runs and what is known of its precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Mean of the runs.
    pub mean: f64,
    /// Sample standard deviation of the runs; absent for one run.
    pub sd: Option<f64>,
    /// Student-t interval of the mean at [`CONFIDENCE`]; absent for one run.
    pub interval: Option<Interval>,
    /// Number of runs.
    pub n: usize,
}

impl Estimate {
    /// Summarises one value a run; `None` where there is no run, or where a value or a result is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let estimate = Self {
            mean: mean(values)?,
            sd: sample_sd(values),
            interval: t_interval(values),
            n: values.len(),
        };
        // The spread of finite values can still overflow, and a NaN among them reaches it too.
        let finite = estimate.mean.is_finite() && estimate.sd.is_none_or(f64::is_finite);
        finite.then_some(estimate)
    }
}

/// Arithmetic mean; `None` for an empty slice.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (divisor n - 1), in two passes; `None` for fewer than two values.
pub fn sample_sd(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The middle value, or the mean of the two in the middle; `None` for an empty slice.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// Standard deviation as estimated from the median absolute deviation from the median, which outliers hardly move:
/// 1.4826 times it, the ratio of the two for a normal distribution. `None` for an empty slice.
///
/// Source: Hampel (1974).
pub fn robust_sd(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    Some(1.4826 * median(&deviations)?)
}

/// Quantile of Student's t with `degrees_of_freedom` >= 1 at `probability` in (0, 1).
pub fn t_quantile(probability: f64, degrees_of_freedom: usize) -> Option<f64> {
    let t = StudentsT::new(0.0, 1.0, degrees_of_freedom as f64).ok()?;
    Some(t.inverse_cdf(probability))
}

/// Student-t interval of the mean at [`CONFIDENCE`]: mean +- t sd / sqrt(n), n - 1 degrees of freedom.
/// `None` for fewer than two values: one run says nothing about its own spread.
///
/// Source: Student (1908); any text, e.g. Casella and Berger, Statistical Inference, 9.2.
pub fn t_interval(values: &[f64]) -> Option<Interval> {
    let centre = mean(values)?;
    let standard_error = sample_sd(values)? / (values.len() as f64).sqrt();
    let margin = t_quantile(f64::midpoint(1.0, CONFIDENCE), values.len() - 1)? * standard_error;
    Some(Interval {
        low: centre - margin,
        high: centre + margin,
    })
}

/// The benchmarking guide's interval of the mean: mean +- 1.96 sd / sqrt(n) with the standard deviation of divisor n.
/// It covers less than it says, 84.6 % for five normal values, and stands only beside [`t_interval`].
/// `None` for fewer than two values.
pub fn guide_interval(values: &[f64]) -> Option<Interval> {
    let centre = mean(values)?;
    let n = values.len() as f64;
    let margin = 1.96 * sample_sd(values)? * ((n - 1.0) / n).sqrt() / n.sqrt();
    Some(Interval {
        low: centre - margin,
        high: centre + margin,
    })
}

/// Probability that a t of `degrees_of_freedom` is at most `t`.
fn t_cdf(t: f64, degrees_of_freedom: f64) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, degrees_of_freedom).ok()?.cdf(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Perplexities of five runs as listed in the benchmarking guide.
    const LIST: [f64; 5] = [30.2, 30.5, 30.1, 30.8, 30.3];

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!(
            (got - expected).abs() <= tolerance,
            "{got} is not {expected} +- {tolerance}"
        );
    }

    #[test]
    fn t_quantiles_agree_with_the_published_table() {
        for (degrees, expected) in [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)] {
            close(t_quantile(0.975, degrees).unwrap(), expected, 5e-4);
        }
        close(t_quantile(0.95, 4).unwrap(), 2.132, 5e-4);
    }

    #[test]
    fn estimate_of_five_runs_agrees_with_a_hand_calculation() {
        let estimate = Estimate::of(&LIST).unwrap();
        close(estimate.mean, 30.38, 1e-12);
        // Squared deviations sum to 0.308; sd = sqrt(0.308 / 4).
        close(estimate.sd.unwrap(), 0.077_f64.sqrt(), 1e-12);
        let interval = estimate.interval.unwrap();
        close(interval.high - estimate.mean, 0.345, 5e-4);
        close(estimate.mean - interval.low, 0.345, 5e-4);
        assert_eq!(estimate.n, 5);
    }

    #[test]
    fn median_and_robust_deviation_are_those_of_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        // Distances from 3: 2, 1, 0, 1, 97.
        assert_eq!(robust_sd(&[1.0, 2.0, 3.0, 4.0, 100.0]), Some(1.4826));
        assert_eq!(robust_sd(&[5.0]), Some(0.0));
        assert_eq!((median(&[]), robust_sd(&[])), (None, None));
    }

    #[test]
    fn one_run_has_a_mean_and_nothing_else() {
        let estimate = Estimate::of(&[4.5]).unwrap();
        assert_eq!(
            estimate,
            Estimate {
                mean: 4.5,
                sd: None,
                interval: None,
                n: 1
            }
        );
        assert_eq!(t_interval(&[4.5]), None);
    }

    #[test]
    fn degenerate_lists_are_absent_or_exact() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
        assert_eq!(Estimate::of(&[1.0, f64::INFINITY]), None);
        assert_eq!(Estimate::of(&[1e200, -1e200]), None);
        assert_eq!(t_quantile(0.975, 0), None);
        let constant = Estimate::of(&[2.0, 2.0, 2.0]).unwrap();
        assert_eq!(constant.sd, Some(0.0));
        assert_eq!(
            constant.interval,
            Some(Interval {
                low: 2.0,
                high: 2.0
            })
        );
    }
}
