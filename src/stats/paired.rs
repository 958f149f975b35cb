//! Student's t test of pairs.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Interval, mean, sample_sd, t_interval};

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
    let p = 2.0 * StudentsT::new(0.0, 1.0, df as f64).ok()?.cdf(-t.abs());
    Some(PairedT {
        mean_difference,
        t,
        df,
        p,
        interval: t_interval(&differences)?,
    })
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
