//! Pairs: Student's t test, the exact sign-flip test, equivalence, correlation.

use serde::{Deserialize, Serialize};

use super::{Interval, mean, sample_sd, t_cdf, t_interval};

/// With more pairs than this the sign-flip test, which tries every pattern of signs, is left out.
pub const MAX_SIGN_FLIPS: usize = 20;
/// Sums this close to the observed one, relatively, are equal to it in exact arithmetic.
const ROUNDING: f64 = 1e-12;

/// Two-sided t test of the mean difference of pairs against zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedT {
    /// Mean of first minus second.
    pub mean_difference: f64,
    /// Mean difference over its standard error.
    pub t: f64,
    /// Degrees of freedom: pairs minus one.
    pub df: usize,
    /// Probability of a |t| at least this large if the true mean difference is zero.
    pub p: f64,
    /// Student-t interval of the mean difference at [`CONFIDENCE`](super::CONFIDENCE).
    pub interval: Interval,
}

/// Tests the differences `a[i] - b[i]`. `None` where the lists differ in length, hold fewer than two pairs or
/// a value that is not finite, and where the differences do not vary: without a spread there is no t.
///
/// Source: Student (1908); any text, e.g. Casella and Berger, Statistical Inference, 8.3.
pub fn paired_t(a: &[f64], b: &[f64]) -> Option<PairedT> {
    if a.len() != b.len() {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let mean_difference = mean(&differences)?;
    let t = mean_difference / (sample_sd(&differences)? / (differences.len() as f64).sqrt());
    if !t.is_finite() {
        return None;
    }
    let df = differences.len() - 1;
    // The lower tail, which stays accurate where 1 - cdf would cancel.
    let p = 2.0 * t_cdf(-t.abs(), df as f64)?;
    Some(PairedT {
        mean_difference,
        t,
        df,
        p,
        interval: t_interval(&differences)?,
    })
}

/// p of the two one-sided t tests that the mean difference lies at or beyond `-margin` or `margin`: below 0.05 the
/// two means are equivalent within the margin. `None` for fewer than two differences or a margin that is not above
/// zero, and where the differences do not vary or are not finite.
///
/// Source: Schuirmann (1987).
pub fn equivalence_p(differences: &[f64], margin: f64) -> Option<f64> {
    let centre = mean(differences)?;
    let standard_error = sample_sd(differences)? / (differences.len() as f64).sqrt();
    let nearest = (margin - centre.abs()) / standard_error;
    if !nearest.is_finite() || margin <= 0.0 {
        return None;
    }
    // The nearer end decides: the other one-sided p is smaller.
    t_cdf(-nearest, (differences.len() - 1) as f64)
}

/// The exact sign-flip test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignFlip {
    /// Share of all patterns of signs whose |sum| is at least the observed one.
    pub p: f64,
    /// The smallest p that so many differences can give, 2 / 2^n.
    pub floor: f64,
}

/// Two-sided exact test of differences against zero, by every pattern of their signs: no distribution is assumed but
/// its symmetry. `None` for fewer than two differences, for more than [`MAX_SIGN_FLIPS`], and where one
/// is not finite.
///
/// Source: Fisher (1935), The Design of Experiments, 21.
pub fn sign_flip(differences: &[f64]) -> Option<SignFlip> {
    let n = differences.len();
    let observed = differences.iter().sum::<f64>().abs();
    if !(2..=MAX_SIGN_FLIPS).contains(&n) || !observed.is_finite() {
        return None;
    }
    let scale: f64 = differences.iter().map(|d| d.abs()).sum();
    let is_extreme = |pattern: &u32| {
        let signed = differences.iter().enumerate();
        let sum: f64 = signed
            .map(|(i, &d)| if pattern >> i & 1 == 1 { -d } else { d })
            .sum();
        sum.abs() >= observed - ROUNDING * scale
    };
    // A pattern and its opposite have one |sum|: half of them are enough.
    let patterns = 1_u32 << (n - 1);
    let extreme = (0..patterns).filter(is_extreme).count();
    Some(SignFlip {
        p: extreme as f64 / f64::from(patterns),
        floor: 1.0 / f64::from(patterns),
    })
}

/// Pearson's correlation of pairs. `None` where the lists differ in length, hold fewer than two pairs or a value that
/// is not finite, and where either does not vary.
pub fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (mean_a, mean_b) = (mean(a)?, mean(b)?);
    let products = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b));
    let covariance = products.sum::<f64>() / (a.len() as f64 - 1.0);
    let r = covariance / (sample_sd(a)? * sample_sd(b)?);
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Perplexities of two models in five runs as listed in the benchmarking guide.
    const A: [f64; 5] = [30.2, 30.5, 30.1, 30.8, 30.3];
    const B: [f64; 5] = [35.1, 35.8, 35.2, 36.0, 35.5];

    fn close(got: f64, expected: f64, relative: f64) {
        assert!(
            (got / expected - 1.0).abs() <= relative,
            "{got} is not {expected} within {relative}"
        );
    }

    #[test]
    fn the_guides_lists_give_their_known_t_and_p() {
        let test = paired_t(&A, &B).unwrap();
        close(test.mean_difference, -5.14, 1e-12);
        // Squared deviations of the differences sum to 0.092: t = -5.14 / sqrt(0.092 / 4 / 5).
        close(test.t, -5.14 / 0.0046_f64.sqrt(), 1e-12);
        close(test.t, -75.785, 1e-5);
        assert_eq!(test.df, 4);
        close(test.p, 1.817e-7, 5e-4);
        // t of 4 degrees of freedom at 97.5 %: 2.776 (table).
        close(test.interval.high + 5.14, 2.776 * 0.0046_f64.sqrt(), 1e-3);
        close(-5.14 - test.interval.low, test.interval.high + 5.14, 1e-9);
    }

    #[test]
    fn with_one_degree_of_freedom_p_is_an_arc_tangent() {
        // Differences 1 and 3: mean 2, standard error 1; the t of 1 degree of freedom is Cauchy's distribution.
        let test = paired_t(&[1.0, 3.0], &[0.0, 0.0]).unwrap();
        assert_eq!((test.t, test.df), (2.0, 1));
        close(
            test.p,
            1.0 - 2.0 / std::f64::consts::PI * 2.0_f64.atan(),
            1e-12,
        );
        let swapped = paired_t(&[0.0, 0.0], &[1.0, 3.0]).unwrap();
        assert_eq!((swapped.t, swapped.p), (-2.0, test.p));
        let even = paired_t(&[1.0, 2.0], &[2.0, 1.0]).unwrap();
        close(even.p, 1.0, 1e-12);
    }

    #[test]
    fn what_cannot_be_tested_is_absent() {
        assert_eq!(paired_t(&[], &[]), None);
        assert_eq!(paired_t(&[1.0], &[2.0]), None, "one pair");
        assert_eq!(paired_t(&A, &B[..4]), None, "a pair is missing");
        assert_eq!(paired_t(&[1.0, 2.0], &[1.0, 2.0]), None, "no difference");
        assert_eq!(paired_t(&[1.0, 2.0], &[0.0, 1.0]), None, "no spread");
        assert_eq!(paired_t(&[1.0, f64::NAN], &[0.0, 0.0]), None);
        assert_eq!(paired_t(&[1.0, f64::INFINITY], &[0.0, 0.0]), None);
    }
}
