//! The bootstrap of a mean.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{CONFIDENCE, Interval, mean};
use crate::math::random::{Coordinate, Purpose, words};

/// Resamples of a bootstrap: one less than a round number, so that the quantiles of the intervals are values of the
/// sorted means and not between two of them.
pub const N_RESAMPLES: usize = 1999;

/// Two intervals of a mean from the same resamples, at [`CONFIDENCE`]. Of few values both cover less than they say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapIntervals {
    /// Between the quantiles of the means of the resamples.
    pub percentile: Interval,
    /// Between quantiles that are corrected for bias and skewness (`BCa`).
    pub bca: Interval,
}

/// Bootstraps the mean of `values` with [`N_RESAMPLES`] resamples drawn from `seed`. `None` for fewer than two values
/// and where one is not finite.
///
/// Source: Efron (1987); Efron and Tibshirani, An Introduction to the Bootstrap, 13.3 and 14.3.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Option<BootstrapIntervals> {
    let n = values.len();
    if n < 2 || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let centre = mean(values)?;
    let mut means: Vec<f64> = (0..N_RESAMPLES)
        .map(|resample| resampled_mean(values, seed, resample))
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let quantile = |probability: f64| means[rank(probability)];
    let normal = Normal::standard();
    let tails = [(1.0 - CONFIDENCE) / 2.0, f64::midpoint(1.0, CONFIDENCE)];

    // The part of the means below the mean itself, those equal to it counted half.
    let below = means.partition_point(|&m| m < centre);
    let not_above = means.partition_point(|&m| m <= centre);
    let part = (below + not_above) as f64 / (2 * N_RESAMPLES) as f64;
    let edge = 0.5 / N_RESAMPLES as f64;
    let bias = normal.inverse_cdf(part.clamp(edge, 1.0 - edge));
    let acceleration = acceleration(values, centre);
    let corrected = |tail: f64| {
        let z = bias + normal.inverse_cdf(tail);
        quantile(normal.cdf(bias + z / (1.0 - acceleration * z)))
    };
    let between = |ends: [f64; 2]| Interval {
        low: ends[0],
        high: ends[1],
    };
    Some(BootstrapIntervals {
        percentile: between(tails.map(quantile)),
        bca: between(tails.map(corrected)),
    })
}

/// The percentile interval, at [`CONFIDENCE`], of a statistic of `n` units that are drawn with replacement from `seed`:
/// `statistic` is given the indices drawn, in ascending order. `None` for fewer than two units and where the
/// statistic of one resample is absent.
pub fn bootstrap(
    n: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    if n < 2 {
        return None;
    }
    let of_resample = |resample: usize| {
        let times = drawn(n, seed, resample);
        let indices: Vec<usize> = (0..n)
            .flat_map(|i| std::iter::repeat_n(i, times[i] as usize))
            .collect();
        statistic(&indices)
    };
    let mut values: Vec<f64> = (0..N_RESAMPLES).map(of_resample).collect::<Option<_>>()?;
    values.sort_unstable_by(f64::total_cmp);
    let [low, high] = [(1.0 - CONFIDENCE) / 2.0, f64::midpoint(1.0, CONFIDENCE)]
        .map(|probability| values[rank(probability)]);
    Some(Interval { low, high })
}

/// Index of a quantile among [`N_RESAMPLES`] sorted values.
fn rank(probability: f64) -> usize {
    let rank = (probability * (N_RESAMPLES + 1) as f64).round() as usize;
    rank.clamp(1, N_RESAMPLES) - 1
}

/// Mean of as many values as there are, drawn with replacement. Summed in the order of the values and not of the
/// draws, so that equal resamples have equal bits.
fn resampled_mean(values: &[f64], seed: u64, resample: usize) -> f64 {
    let times = drawn(values.len(), seed, resample);
    let sum: f64 = values
        .iter()
        .zip(&times)
        .map(|(value, &times)| value * f64::from(times))
        .sum();
    sum / values.len() as f64
}

/// How often each of `n` units is drawn in `n` draws with replacement.
fn drawn(n: usize, seed: u64, resample: usize) -> Vec<u32> {
    let base = Coordinate {
        step: resample as u32,
        ..Coordinate::new(Purpose::Bootstrap)
    };
    let mut times = vec![0_u32; n];
    for first in (0..n).step_by(4) {
        let drawn = words(seed, base.at(first as u64));
        for word in &drawn[..4.min(n - first)] {
            times[((u64::from(*word) * n as u64) >> 32) as usize] += 1;
        }
    }
    times
}

/// A sixth of the skewness of the mean, from its jackknife; 0 where the values do not vary.
fn acceleration(values: &[f64], centre: f64) -> f64 {
    let power = |exponent| -> f64 { values.iter().map(|v| (v - centre).powi(exponent)).sum() };
    let squares = power(2);
    if squares > 0.0 {
        power(3) / (6.0 * squares.powf(1.5))
    } else {
        0.0
    }
}
