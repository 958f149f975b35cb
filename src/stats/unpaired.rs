//! Two groups that are not paired.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{CONFIDENCE, Interval, mean, sample_sd};

/// Welch's two-sided t test of the difference of two means against zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WelchT {
    /// First mean minus second.
    pub mean_difference: f64,
    /// Difference over its standard error.
    pub t: f64,
    /// Degrees of freedom, no whole number.
    pub df: f64,
    /// Probability of a |t| at least this large if the true means are equal.
    pub p: f64,
    /// Interval of the difference at [`CONFIDENCE`].
    pub interval: Interval,
}

/// Compares the means of two groups whose variances may differ. `None` for fewer than two values in either, where one
/// is not finite, and where neither group varies.
///
/// Source: Welch (1947), degrees of freedom by Satterthwaite (1946).
pub fn welch_t(a: &[f64], b: &[f64]) -> Option<WelchT> {
    let squared_error = |values: &[f64]| Some(sample_sd(values)?.powi(2) / values.len() as f64);
    let (of_a, of_b) = (squared_error(a)?, squared_error(b)?);
    let mean_difference = mean(a)? - mean(b)?;
    let standard_error = (of_a + of_b).sqrt();
    let t = mean_difference / standard_error;
    if !t.is_finite() {
        return None;
    }
    let weighted = |part: f64, values: &[f64]| part.powi(2) / (values.len() - 1) as f64;
    let df = (of_a + of_b).powi(2) / (weighted(of_a, a) + weighted(of_b, b));
    let distribution = StudentsT::new(0.0, 1.0, df).ok()?;
    let margin = distribution.inverse_cdf(f64::midpoint(1.0, CONFIDENCE)) * standard_error;
    Some(WelchT {
        mean_difference,
        t,
        df,
        p: 2.0 * distribution.cdf(-t.abs()),
        interval: Interval {
            low: mean_difference - margin,
            high: mean_difference + margin,
        },
    })
}
