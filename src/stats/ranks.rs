//! Rank tests, exact at every size that is tried and with ties. An infinite value is the worst rank: that is how
//! runs which diverged take part. Equal infinities are a tie.

use std::ops::RangeInclusive;

/// Groups of these sizes are tested. One value shows nothing, and for larger groups counting the cases takes too long.
const GROUP: RangeInclusive<usize> = 2..=50;

/// Two-sided exact p of Wilcoxon's signed-rank test of pairs. Pairs without a difference are left out (Wilcoxon's own
/// rule), equal distances share the mean of their ranks, and the cases are counted with those ranks. 1 where no pair
/// differs. `None` where the lists differ in length, hold fewer than 2 or more than 50 pairs, and for a NaN.
///
/// Source: Wilcoxon (1945); Hollander and Wolfe, Nonparametric Statistical Methods, 3.1.
pub fn wilcoxon_p(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || !GROUP.contains(&a.len()) || has_nan(a) || has_nan(b) {
        return None;
    }
    // Equal infinities have no difference: theirs is NaN, which is above nothing.
    let differences: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| a - b)
        .filter(|difference| difference.abs() > 0.0)
        .collect();
    let distances: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = doubled_ranks(&distances);
    let total: usize = ranks.iter().sum();
    let positive = differences.iter().zip(&ranks).filter(|(d, _)| **d > 0.0);
    let positive: usize = positive.map(|(_, rank)| rank).sum();
    // Cases by twice the sum of the ranks with a plus, each rank with either sign.
    let mut cases = vec![0.0; total + 1];
    cases[0] = 1.0;
    for &rank in &ranks {
        for sum in (rank..=total).rev() {
            cases[sum] += cases[sum - rank];
        }
    }
    Some(two_sided(&cases, positive, total))
}

/// Two-sided exact p of the Mann-Whitney test (Wilcoxon's rank-sum test) of two groups. Equal values share the mean
/// of their ranks, and the cases are counted with those ranks. `None` where a group has fewer than 2 or more than 50, and
/// for a NaN.
///
/// Source: Mann and Whitney (1947); Hollander and Wolfe, Nonparametric Statistical Methods, 4.1.
pub fn mann_whitney_p(a: &[f64], b: &[f64]) -> Option<f64> {
    if !GROUP.contains(&a.len()) || !GROUP.contains(&b.len()) || has_nan(a) || has_nan(b) {
        return None;
    }
    let ranks = doubled_ranks(&[a, b].concat());
    let total: usize = ranks.iter().sum();
    let of_a: usize = ranks[..a.len()].iter().sum();
    // Choices of so many of the ranks, by twice their sum.
    let mut choices = vec![vec![0.0; total + 1]; a.len() + 1];
    choices[0][0] = 1.0;
    for &rank in &ranks {
        for chosen in (1..=a.len()).rev() {
            for sum in rank..=total {
                choices[chosen][sum] += choices[chosen - 1][sum - rank];
            }
        }
    }
    // Twice the expected value is |a| / |a + b| of the total; scaled to whole numbers.
    let n = ranks.len();
    let distance = |sum: usize| (sum * n).abs_diff(total * a.len());
    Some(extreme_part(&choices[a.len()], |sum| {
        distance(sum) >= distance(of_a)
    }))
}

fn has_nan(values: &[f64]) -> bool {
    values.iter().any(|value| value.is_nan())
}

/// Twice the rank of every value from 1 on, equal values sharing the mean of theirs: whole numbers.
fn doubled_ranks(values: &[f64]) -> Vec<usize> {
    let count = |of: &dyn Fn(f64) -> bool| values.iter().filter(|&&v| of(v)).count();
    let rank = |&value: &f64| count(&|v| v < value) + count(&|v| v <= value) + 1;
    values.iter().map(rank).collect()
}

/// Part of the cases whose sum lies at least as far from the middle of `0..=total` as the observed one.
fn two_sided(cases: &[f64], observed: usize, total: usize) -> f64 {
    let distance = |sum: usize| (2 * sum).abs_diff(total);
    extreme_part(cases, |sum| distance(sum) >= distance(observed))
}

fn extreme_part(cases: &[f64], is_extreme: impl Fn(usize) -> bool) -> f64 {
    let all: f64 = cases.iter().sum();
    let extreme = cases.iter().enumerate().filter(|(sum, _)| is_extreme(*sum));
    extreme.map(|(_, cases)| cases).sum::<f64>() / all
}
