//! Effect sizes: differences in units of a standard deviation.

use serde::{Deserialize, Serialize};

use super::{mean, sample_sd};

/// How large an effect is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectLabel {
    /// |d| up to 0.2.
    Negligible,
    /// Up to 0.5.
    Small,
    /// Up to 0.8.
    Medium,
    /// Above.
    Large,
}

impl EffectLabel {
    /// The label of an effect size.
    ///
    /// Source: Cohen (1988); below 0.2 the benchmarking guide would say "small".
    pub fn of(d: f64) -> Self {
        match d.abs() {
            d if d > 0.8 => Self::Large,
            d if d > 0.5 => Self::Medium,
            d if d > 0.2 => Self::Small,
            _ => Self::Negligible,
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Negligible => "negligible",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

/// Difference of the means over the root of the mean of the two variances, both of which have divisor n: the
/// benchmarking guide's d. `None` for fewer than two values in either list, and where neither varies.
pub fn guide_cohens_d(a: &[f64], b: &[f64]) -> Option<f64> {
    let variance = |values: &[f64]| {
        let n = values.len() as f64;
        Some(sample_sd(values)?.powi(2) * (n - 1.0) / n)
    };
    let pooled = f64::midpoint(variance(a)?, variance(b)?).sqrt();
    finite((mean(a)? - mean(b)?) / pooled)
}

/// Difference of the means over the pooled standard deviation (divisor n - 1), freed of the bias that it has for few
/// values. `None` for fewer than two values in either list, and where neither varies.
///
/// Source: Hedges (1981), with his approximation 1 - 3 / (4 df - 1) of the correction.
pub fn hedges_g(a: &[f64], b: &[f64]) -> Option<f64> {
    let df = |values: &[f64]| values.len() as f64 - 1.0;
    let squares = sample_sd(a)?.powi(2) * df(a) + sample_sd(b)?.powi(2) * df(b);
    let df = df(a) + df(b);
    let d = (mean(a)? - mean(b)?) / (squares / df).sqrt();
    finite(d * (1.0 - 3.0 / (4.0 * df - 1.0)))
}

/// Mean difference over the standard deviation of the differences. `None` for fewer than two, and where they do not
/// vary.
///
/// Source: Cohen (1988), 2.3.5.
pub fn cohens_d_z(differences: &[f64]) -> Option<f64> {
    finite(mean(differences)? / sample_sd(differences)?)
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
