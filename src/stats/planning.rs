//! How many seeds an effect of preset size needs.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

use super::{CONFIDENCE, sample_sd, t_quantile};

/// Probability of finding the effect.
const POWER: f64 = 0.8;
/// Confidence level of the range of the standard deviation.
const RANGE: f64 = 0.9;
/// For more pairs than this the quantiles of t are those of the normal distribution, to 2 pairs. (Far beyond, those of
/// statrs do not come to an end.)
const MANY: f64 = 1e4;

/// Pairs of seeds with which a two-sided paired t test at 0.05 finds an effect with probability 0.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedsNeeded {
    /// If the standard deviation of the differences is the one observed.
    pub n: u64,
    /// If it is at the lower end of its 90 % interval.
    pub low: u64,
    /// If it is at the upper end.
    pub high: u64,
}

/// Seeds needed to see a mean difference of `effect`, given differences from which to estimate their spread: never
/// the power at the observed effect, which only restates p. `None` for fewer than two differences, for an effect that
/// is not above zero, and where a difference is not finite.
///
/// Source: n >= (t(0.975, n - 1) + t(0.8, n - 1))^2 sd^2 / effect^2, Student's t in place of the noncentral one, as in
/// Chow, Shao and Wang, Sample Size Calculations in Clinical Research, 3.1; the interval of the sd by chi squared.
pub fn seeds_needed(differences: &[f64], effect: f64) -> Option<SeedsNeeded> {
    let sd = sample_sd(differences)?;
    if !sd.is_finite() || !effect.is_finite() || effect <= 0.0 {
        return None;
    }
    let df = (differences.len() - 1) as f64;
    let chi_squared = ChiSquared::new(df).ok()?;
    let at = |probability: f64| {
        let sd = sd * (df / chi_squared.inverse_cdf(probability)).sqrt();
        pairs(sd / effect)
    };
    Some(SeedsNeeded {
        n: pairs(sd / effect)?,
        low: at(f64::midpoint(1.0, RANGE))?,
        high: at((1.0 - RANGE) / 2.0)?,
    })
}

/// Pairs needed where the standard deviation is so many times the effect.
fn pairs(sd_over_effect: f64) -> Option<u64> {
    let two_sided = f64::midpoint(1.0, CONFIDENCE);
    let normal = Normal::standard();
    let enough = |sum_of_quantiles: f64| (sum_of_quantiles * sd_over_effect).powi(2);
    // Fewer than this are too few: the quantiles of t lie above those of the normal distribution.
    let least = enough(normal.inverse_cdf(two_sided) + normal.inverse_cdf(POWER)).ceil();
    if least > MANY {
        return Some(least as u64);
    }
    let mut n = (least as u64).max(2);
    loop {
        let df = (n - 1) as usize;
        if enough(t_quantile(two_sided, df)? + t_quantile(POWER, df)?) <= n as f64 {
            return Some(n);
        }
        n += 1;
    }
}
