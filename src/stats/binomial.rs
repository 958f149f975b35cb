//! Proportions: the exact interval and the exact tests.

use statrs::distribution::{Beta, Binomial, ContinuousCDF, Discrete};
use statrs::stats_tests::{Alternative, fishers_exact};

use super::{CONFIDENCE, Interval};

/// Outcomes this much more likely than the observed one still count as no more likely: what is equal in exact
/// arithmetic differs by less. R's `binom.test` has the same value.
const ROUNDING: f64 = 1.0 + 1e-7;

/// Exact interval of the probability of success at [`CONFIDENCE`]; `None` without trials or with more successes than
/// trials.
///
/// Source: Clopper and Pearson (1934); its ends as quantiles of the beta distribution.
pub fn clopper_pearson(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let (k, n) = (successes as f64, trials as f64);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let quantile = |a, b, p| Some(Beta::new(a, b).ok()?.inverse_cdf(p));
    Some(Interval {
        low: if successes == 0 {
            0.0
        } else {
            quantile(k, n - k + 1.0, tail)?
        },
        high: if successes == trials {
            1.0
        } else {
            quantile(k + 1.0, n - k, 1.0 - tail)?
        },
    })
}

/// Two-sided exact p of the hypothesis that every trial succeeds with `probability`: the summed probability of all
/// outcomes that are no more likely than the observed one. `None` without trials, with more successes than trials,
/// or for a `probability` outside [0, 1].
///
/// Source: Sterne (1954); R's `binom.test`.
pub fn binomial_p(successes: u64, trials: u64, probability: f64) -> Option<f64> {
    if trials == 0 || successes > trials {
        return None;
    }
    let distribution = Binomial::new(probability, trials).ok()?;
    let limit = distribution.pmf(successes) * ROUNDING;
    let p: f64 = (0..=trials)
        .map(|k| distribution.pmf(k))
        .filter(|&pmf| pmf <= limit)
        .sum();
    Some(p.min(1.0))
}

/// Two-sided exact p of the hypothesis that two groups fail with one probability, given `(failures, trials)` of
/// each. `None` where a group has no trials or more failures than trials.
///
/// Source: Fisher (1922); R's `fisher.test`.
pub fn fisher_p(a: (u64, u64), b: (u64, u64)) -> Option<f64> {
    if a.1 == 0 || b.1 == 0 {
        return None;
    }
    let table = [a.0, a.1.checked_sub(a.0)?, b.0, b.1.checked_sub(b.0)?];
    fishers_exact(&table, Alternative::TwoSided).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64, relative: f64) {
        assert!(
            (got / expected - 1.0).abs() <= relative,
            "{got} is not {expected} within {relative}"
        );
    }

    #[test]
    fn intervals_agree_with_bisection_in_exact_fractions() {
        for (successes, trials, low, high) in [
            (5, 10, 0.187_086_028_447_398_5, 0.812_913_971_552_601_5),
            (2, 20, 0.012_348_527_170_294_8, 0.316_982_714_019_082_35),
            (24, 25, 0.796_483_086_077_586, 0.998_987_800_300_669_1),
            (3, 200, 0.003_104_107_621_553_5, 0.043_208_281_917_712_61),
        ] {
            let interval = clopper_pearson(successes, trials).unwrap();
            close(interval.low, low, 1e-9);
            close(interval.high, high, 1e-9);
        }
    }

    #[test]
    fn without_or_with_nothing_but_successes_the_interval_reaches_the_end() {
        // All ten: the lower end solves p^10 = 0.025.
        let all = clopper_pearson(10, 10).unwrap();
        close(all.low, 0.025_f64.powf(0.1), 1e-9);
        let none = clopper_pearson(0, 10).unwrap();
        assert_eq!((none.low, all.high), (0.0, 1.0));
        close(none.high, 1.0 - 0.025_f64.powf(0.1), 1e-9);
        assert_eq!(clopper_pearson(0, 0), None);
        assert_eq!(clopper_pearson(3, 2), None);
    }

    #[test]
    fn p_agrees_with_published_and_hand_derived_values() {
        // The example of R's binom.test: 0.3825.
        close(
            binomial_p(682, 925, 0.75).unwrap(),
            0.382_491_559_574_851_7,
            1e-9,
        );
        // 2 (C(10, 0) + C(10, 1) + C(10, 2)) / 2^10
        close(binomial_p(8, 10, 0.5).unwrap(), 0.109_375, 1e-12);
        // One hit in 25 at chance 1/64 is likelier than any other but none: 1 - (63/64)^25.
        close(
            binomial_p(1, 25, 1.0 / 64.0).unwrap(),
            1.0 - (63.0_f64 / 64.0).powi(25),
            1e-12,
        );
        close(
            binomial_p(12, 200, 1.0 / 64.0).unwrap(),
            8.639_055_600_760_18e-5,
            1e-9,
        );
    }

    #[test]
    fn p_at_the_ends_is_exact_or_absent() {
        assert_eq!(binomial_p(5, 10, 0.5), Some(1.0), "the likeliest outcome");
        assert_eq!(binomial_p(0, 3, 0.0), Some(1.0));
        assert_eq!(binomial_p(1, 3, 0.0), Some(0.0));
        assert_eq!(binomial_p(0, 0, 0.5), None);
        assert_eq!(binomial_p(4, 3, 0.5), None);
        for probability in [-0.1, 1.1, f64::NAN] {
            assert_eq!(binomial_p(1, 3, probability), None);
        }
    }
}
