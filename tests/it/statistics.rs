//! The statistics against published examples, hand calculations and plain enumeration; coverage by simulation.

use bkbench::math::random::{Coordinate, Purpose, normal};
use bkbench::stats::{
    EffectLabel, Interval, bonferroni, bootstrap_mean, clopper_pearson, cohens_d_z, correlation,
    equivalence_p, fisher_p, guide_cohens_d, guide_interval, hedges_g, holm, mann_whitney_p,
    paired_t, seeds_needed, sign_flip, survival, t_interval, t_quantile, welch_t, wilcoxon_p,
};
use rayon::prelude::*;

/// Perplexities of two models in five runs as listed in the benchmarking guide.
const A: [f64; 5] = [30.2, 30.5, 30.1, 30.8, 30.3];
const B: [f64; 5] = [35.1, 35.8, 35.2, 36.0, 35.5];

/// Student's sleep data (1908), extra hours with two drugs; R's `sleep`.
const SLEEP_1: [f64; 10] = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
const SLEEP_2: [f64; 10] = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];

fn close(got: f64, expected: f64, relative: f64) {
    assert!(
        (got - expected).abs() <= relative * expected.abs(),
        "{got} is not {expected} within {relative}"
    );
}

fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[test]
fn the_guides_lists_give_their_known_effect_sizes_and_intervals() {
    close(guide_cohens_d(&A, &B).unwrap(), -17.17, 2e-4);
    close(cohens_d_z(&differences(&A, &B)).unwrap(), -33.89, 2e-4);
    // d with divisor n - 1 is -17.17 sqrt(4/5); the correction for 8 degrees of freedom is 1 - 3/31.
    let d = guide_cohens_d(&A, &B).unwrap() * 0.8_f64.sqrt();
    close(hedges_g(&A, &B).unwrap(), d * 28.0 / 31.0, 1e-12);
    assert_eq!(EffectLabel::of(-17.17), EffectLabel::Large);
    let recipe = guide_interval(&A).unwrap();
    assert!((recipe.low - 30.16).abs() < 5e-3 && (recipe.high - 30.60).abs() < 5e-3);
    // The floor of five pairs.
    let test = sign_flip(&differences(&A, &B)).unwrap();
    assert_eq!((test.p, test.floor), (0.0625, 0.0625));
    assert_eq!(wilcoxon_p(&A, &B), Some(0.0625));
}

#[test]
fn labels_change_at_their_limits() {
    for (d, label) in [
        (0.2, "negligible"),
        (-0.21, "small"),
        (0.5, "small"),
        (0.51, "medium"),
        (0.8, "medium"),
        (-0.81, "large"),
    ] {
        assert_eq!(EffectLabel::of(d).name(), label);
    }
}

#[test]
fn student_and_welch_agree_with_r_on_students_sleep_data() {
    let paired = paired_t(&SLEEP_1, &SLEEP_2).unwrap();
    close(paired.t, -4.0621, 2e-5);
    close(paired.p, 0.002_833, 2e-4);
    let welch = welch_t(&SLEEP_1, &SLEEP_2).unwrap();
    close(welch.t, -1.8608, 3e-5);
    close(welch.df, 17.776, 3e-5);
    close(welch.p, 0.079_39, 1e-4);
    close(welch.interval.low, -3.365_483_2, 1e-7);
    close(welch.interval.high, 0.205_483_2, 1e-6);
    close(correlation(&SLEEP_1, &SLEEP_2).unwrap(), 0.795_170_2, 1e-6);
}

#[test]
fn rank_tests_agree_with_the_examples_of_hollander_and_wolfe() {
    // Depression scores; R: V = 40, one-sided p 0.01953.
    let first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
    let second = [
        0.878,
        0.647,
        0.598,
        2.05,
        1.06,
        1.29,
        1.06,
        3.06 + 0.08,
        1.29,
    ];
    close(wilcoxon_p(&first, &second).unwrap(), 0.039_062_5, 1e-12);
    // Permeability; R: W = 35, one-sided p 0.1272.
    let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
    let early = [1.15, 0.88, 0.90, 0.74, 1.21];
    close(mann_whitney_p(&term, &early).unwrap(), 2.0 * 0.1272, 5e-4);
    close(mann_whitney_p(&early, &term).unwrap(), 2.0 * 0.1272, 5e-4);
}

#[test]
fn sign_flips_agree_with_fishers_count_on_darwins_maize() {
    let maize = [
        49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0, -48.0,
    ];
    // The Design of Experiments, 21: 863 of 32,768 patterns give a sum as large.
    assert_eq!(sign_flip(&maize).unwrap().p, 2.0 * 863.0 / 32_768.0);
}

#[test]
fn fishers_exact_test_agrees_with_his_tea_and_with_hand_counts() {
    close(fisher_p((3, 4), (1, 4)).unwrap(), 34.0 / 70.0, 1e-9);
    // All against none of five: 2 / C(10, 5).
    close(fisher_p((5, 5), (0, 5)).unwrap(), 2.0 / 252.0, 1e-9);
    close(fisher_p((2, 5), (2, 5)).unwrap(), 1.0, 1e-9);
    close(fisher_p((0, 5), (0, 3)).unwrap(), 1.0, 1e-9);
    assert_eq!(fisher_p((0, 0), (1, 2)), None);
    assert_eq!(fisher_p((3, 2), (1, 2)), None);
}

/// p by trying every case, straight from the definition.
fn wilcoxon_by_enumeration(differences: &[f64]) -> f64 {
    let kept: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let rank = |d: f64| {
        let below = kept.iter().filter(|e| e.abs() < d.abs()).count() as f64;
        let equal = kept.iter().filter(|e| e.abs() == d.abs()).count() as f64;
        below + f64::midpoint(equal, 1.0)
    };
    let ranks: Vec<f64> = kept.iter().map(|&d| rank(d)).collect();
    let centred = |plus: &dyn Fn(usize) -> bool| -> f64 {
        let signed = ranks.iter().enumerate();
        let sum: f64 = signed.map(|(i, r)| if plus(i) { *r } else { -*r }).sum();
        sum.abs()
    };
    let observed = centred(&|i| kept[i] > 0.0);
    let n = 1_u32 << kept.len();
    let extreme = (0..n).filter(|mask| centred(&|i| mask >> i & 1 == 1) >= observed);
    extreme.count() as f64 / f64::from(n)
}

/// p by trying every split into groups of the same sizes.
fn mann_whitney_by_enumeration(a: &[f64], b: &[f64]) -> f64 {
    let all = [a, b].concat();
    let (n, m) = (all.len(), a.len());
    let u = |mask: u32| -> f64 {
        let side = |first: bool| (0..n).filter(move |i| (mask >> i & 1 == 1) == first);
        let score = |i: usize, j: usize| match all[i].total_cmp(&all[j]) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0,
        };
        let sum: f64 = side(true)
            .flat_map(|i| side(false).map(move |j| (i, j)))
            .map(|(i, j)| score(i, j))
            .sum();
        (sum - (m * (n - m)) as f64 / 2.0).abs()
    };
    let observed = u((1 << m) - 1);
    let splits = || (0..1_u32 << n).filter(|mask| mask.count_ones() as usize == m);
    splits().filter(|&mask| u(mask) >= observed).count() as f64 / splits().count() as f64
}

#[test]
fn rank_tests_with_ties_zeros_and_worst_ranks_agree_with_enumeration() {
    let inf = f64::INFINITY;
    for (a, b) in [
        (vec![1.0, 2.0, 3.0, 4.0, 5.0], vec![2.0, 1.0, 3.0, 2.0, 9.0]),
        (vec![1.0, 1.0, 1.0, 7.0], vec![0.0, 0.0, 2.0, 7.0]),
        (
            vec![1.0, inf, 3.0, inf, 2.0, 8.0],
            vec![2.0, 5.0, inf, inf, 1.5, 1.0],
        ),
        (vec![3.0, 1.0], vec![4.0, 7.0]),
        (vec![2.0, 2.0, 2.0], vec![2.0, 2.0, 2.0]),
    ] {
        let d: Vec<f64> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| if a == b { 0.0 } else { a - b })
            .collect();
        close(
            wilcoxon_p(&a, &b).unwrap(),
            wilcoxon_by_enumeration(&d),
            1e-12,
        );
        close(
            mann_whitney_p(&a, &b).unwrap(),
            mann_whitney_by_enumeration(&a, &b),
            1e-12,
        );
    }
    // Unequal groups.
    let (a, b) = ([1.0, 4.0, 4.0], [2.0, 4.0, 5.0, 6.0, 7.0]);
    close(
        mann_whitney_p(&a, &b).unwrap(),
        mann_whitney_by_enumeration(&a, &b),
        1e-12,
    );
    // One diverged seed of five against none is the worst rank, not a missing value.
    let diverged = [3.0, 3.1, inf, 3.2, 3.3];
    assert_eq!(wilcoxon_p(&diverged, &[2.0; 5]), Some(0.0625));
}

#[test]
fn adjusted_p_values_agree_with_rs_p_adjust() {
    let p = [0.01, 0.04, 0.03, 0.02];
    for (got, expected) in holm(&p).iter().zip([0.04, 0.06, 0.06, 0.06]) {
        close(*got, expected, 1e-12);
    }
    for (got, expected) in bonferroni(&p).iter().zip([0.04, 0.16, 0.12, 0.08]) {
        close(*got, expected, 1e-12);
    }
    assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    assert_eq!((holm(&[]), bonferroni(&[])), (vec![], vec![]));
    assert_eq!(holm(&[0.03]), [0.03], "one test needs no correction");
}

#[test]
fn equivalence_agrees_with_the_arc_tangent_of_one_degree_of_freedom() {
    // Differences 0 and 0.2: mean 0.1, standard error 0.1. The nearer end of +-0.5 is 4 standard errors away.
    let p = |t: f64| 0.5 - t.atan() / std::f64::consts::PI;
    close(equivalence_p(&[0.0, 0.2], 0.5).unwrap(), p(4.0), 1e-12);
    close(equivalence_p(&[0.0, -0.2], 0.5).unwrap(), p(4.0), 1e-12);
    assert!(
        equivalence_p(&[0.0, 0.2], 0.05).unwrap() > 0.5,
        "the mean lies outside"
    );
    assert_eq!(equivalence_p(&[0.1], 0.5), None);
    assert_eq!(equivalence_p(&[0.1, 0.1], 0.5), None, "no spread");
    assert_eq!(equivalence_p(&[0.1, f64::NAN], 0.5), None);
    for margin in [0.0, -1.0, f64::NAN] {
        assert_eq!(equivalence_p(&[0.0, 0.2], margin), None);
    }
}

#[test]
fn seeds_needed_agree_with_the_tables_of_power() {
    // Pairs for a two-sided test at 0.05 with power 0.8, by effect size d_z (Cohen's tables; G*Power).
    let unit = [-1.0, 1.0, -1.0, 1.0, 0.0];
    let sd = 1.0;
    for (d_z, n) in [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)] {
        assert_eq!(seeds_needed(&unit, d_z * sd).unwrap().n, n, "{d_z}");
    }
    // Chi squared of 4 degrees of freedom at 95 % and 5 %: 9.488 and 0.711 (table).
    let range = seeds_needed(&unit, 0.5).unwrap();
    let at = |chi_squared: f64| {
        seeds_needed(&unit, 0.5 / (4.0_f64 / chi_squared).sqrt())
            .unwrap()
            .n
    };
    assert_eq!((range.low, range.high), (at(9.488), at(0.711)));
    assert!(range.low < range.n && range.n < range.high);
    let none = seeds_needed(&[1.0, 1.0], 0.1).unwrap();
    assert_eq!((none.n, none.low, none.high), (2, 2, 2), "no spread");
    assert_eq!(seeds_needed(&[1.0], 0.1), None);
    assert_eq!(seeds_needed(&unit, 0.0), None);
    assert_eq!(seeds_needed(&[1.0, f64::NAN], 0.1), None);
    assert!(seeds_needed(&[0.0, 1e9], 1e-9).unwrap().n > 1_000_000_000);
}

#[test]
fn survival_agrees_with_a_hand_calculation() {
    // Diverged at 3, 5, 5; one stopped at 4, one completed all 10.
    let rows = survival(&[(5, true), (10, false), (3, true), (4, false), (5, true)]);
    let got: Vec<_> = rows
        .iter()
        .map(|r| (r.step, r.at_risk, r.diverged))
        .collect();
    assert_eq!(got, [(3, 5, 1), (5, 3, 2)]);
    close(rows[0].surviving, 0.8, 1e-12);
    close(rows[1].surviving, 0.8 / 3.0, 1e-12);
    assert_eq!(survival(&[(10, false)]), []);
}

#[test]
fn degenerate_lists_have_no_test() {
    let nan = [1.0, f64::NAN, 2.0];
    for (a, b) in [
        (&[][..], &[][..]),
        (&[1.0][..], &[2.0][..]),
        (&[2.0, 2.0][..], &[2.0, 2.0][..]),
        (&nan[..], &[1.0, 2.0, 3.0][..]),
    ] {
        let d = differences(a, b);
        assert_eq!(welch_t(a, b), None, "{a:?}");
        assert_eq!(guide_cohens_d(a, b), None, "{a:?}");
        assert_eq!(hedges_g(a, b), None, "{a:?}");
        assert_eq!(cohens_d_z(&d), None, "{a:?}");
        assert_eq!(correlation(a, b), None, "{a:?}");
    }
    for values in [&[][..], &[1.0][..]] {
        assert_eq!(bootstrap_mean(values, 1), None);
        assert_eq!(guide_interval(values), None);
    }
    assert_eq!(bootstrap_mean(&nan, 1), None);
    assert_eq!(
        (wilcoxon_p(&nan, &nan), mann_whitney_p(&nan, &nan)),
        (None, None)
    );
    assert_eq!(
        (wilcoxon_p(&[], &[]), mann_whitney_p(&[], &[1.0])),
        (None, None)
    );
    assert_eq!(wilcoxon_p(&[1.0], &[1.0, 2.0]), None);
    assert_eq!((sign_flip(&[]), sign_flip(&nan)), (None, None));
    assert_eq!(sign_flip(&[1.0; 21]), None, "too many patterns");
    assert_eq!(sign_flip(&[3.0]), None, "one pair");
    assert_eq!(
        (
            wilcoxon_p(&[3.0], &[1.0]),
            mann_whitney_p(&[3.0], &[1.0, 2.0])
        ),
        (None, None)
    );
    assert_eq!(sign_flip(&[0.0, 0.0]).unwrap().p, 1.0);
    assert_eq!(correlation(&[1.0, 2.0], &[1.0]), None);
}

#[test]
fn one_seed_gives_one_bootstrap_interval() {
    let first = bootstrap_mean(&A, 7).unwrap();
    assert_eq!(bootstrap_mean(&A, 7), Some(first));
    assert_ne!(bootstrap_mean(&A, 8), Some(first));
    let constant = bootstrap_mean(&[0.1; 3], 7).unwrap();
    close(constant.bca.low, 0.1, 1e-15);
    assert_eq!(
        (constant.percentile, constant.bca.high),
        (constant.bca, constant.bca.low)
    );
}

#[test]
fn the_bootstrap_agrees_with_all_resamples_of_three_values() {
    let values = [1.0, 2.0, 6.0];
    let mut means = Vec::new();
    for a in values {
        for b in values {
            means.extend(values.map(|c| (a + b + c) / 3.0));
        }
    }
    means.sort_by(f64::total_cmp);
    // The 2.5 % quantile lies within the first of 27 equally likely means, 3.7 %; the other likewise.
    let got = bootstrap_mean(&values, 3).unwrap();
    assert_eq!(
        (got.percentile.low, got.percentile.high),
        (means[0], means[26])
    );
    // Skewed to the right: BCa moves both ends to the right, as far as there are values.
    assert!(got.bca.low >= got.percentile.low && got.bca.high >= got.percentile.high);
    let even = bootstrap_mean(&[-3.0, -1.0, 0.0, 1.0, 3.0], 3).unwrap();
    assert!((even.bca.low + even.bca.high).abs() < 0.5, "{even:?}");
}

// ---- coverage ----

/// Data sets of each kind and size.
const DRAWS: usize = 10_000;
const SEED: u64 = 20_240_607;

fn draws(row: u32, draw: usize, n: usize) -> Vec<f64> {
    let base = Coordinate {
        row,
        step: draw as u32,
        ..Coordinate::new(Purpose::Test)
    };
    (0..n as u64).map(|i| normal(SEED, base.at(i))).collect()
}

/// Part of the intervals, in percent, that hold the true value: t, percentile and `BCa` bootstrap and the guide's recipe
/// of a mean, Welch's of a difference.
fn coverage(n: usize, shape: fn(f64) -> f64, truth: f64) -> [f64; 5] {
    let held = |draw: usize| {
        let group = |row| -> Vec<f64> { draws(row, draw, n).into_iter().map(shape).collect() };
        let (values, others) = (group(n as u32), group(100 + n as u32));
        let bootstrap = bootstrap_mean(&values, draw as u64).unwrap();
        let holds = |interval: Interval, truth: f64| {
            usize::from((interval.low..=interval.high).contains(&truth))
        };
        [
            holds(t_interval(&values).unwrap(), truth),
            holds(bootstrap.percentile, truth),
            holds(bootstrap.bca, truth),
            holds(guide_interval(&values).unwrap(), truth),
            holds(welch_t(&values, &others).unwrap().interval, 0.0),
        ]
    };
    let add = |a: [usize; 5], b: [usize; 5]| std::array::from_fn(|i| a[i] + b[i]);
    let counts = (0..DRAWS).into_par_iter().map(held).reduce(|| [0; 5], add);
    counts.map(|count| 100.0 * count as f64 / DRAWS as f64)
}

#[test]
fn intervals_cover_what_they_are_known_to_cover() {
    println!("coverage of 95 % intervals, % of {DRAWS} data sets, seed {SEED}");
    println!("distribution  n   t      percentile  BCa    1.96 recipe  Welch");
    let normal_mean: (fn(f64) -> f64, f64) = (|z| z, 0.0);
    let log_normal: (fn(f64) -> f64, f64) = (f64::exp, 0.5_f64.exp());
    for (name, (shape, truth)) in [("normal", normal_mean), ("log-normal", log_normal)] {
        for n in [3, 5, 10] {
            let [t, percentile, bca, recipe, welch] = coverage(n, shape, truth);
            println!(
                "{name:<12}  {n:<2}  {t:<5.2}  {percentile:<10.2}  {bca:<5.2}  {recipe:<11.2}  {welch:.2}"
            );
            if name == "normal" {
                let within = |got: f64, expected: f64| {
                    let error = (expected * (100.0 - expected) / DRAWS as f64).sqrt();
                    assert!(
                        (got - expected).abs() < 4.0 * error,
                        "{n}: {got} is not {expected}"
                    );
                };
                within(t, 95.0);
                // The recipe is the t interval with another factor: what it covers follows from t itself.
                within(recipe, recipe_coverage(n));
                // Few values have few resamples: the bootstrap covers less than it says.
                assert!(percentile < 95.0 && bca < 95.0, "n = {n}");
            }
        }
    }
}

#[test]
fn the_exact_interval_of_a_probability_covers_at_least_what_it_says() {
    println!(
        "least coverage of the exact 95 % interval of a probability, %, by summing the binomial distribution"
    );
    for n in [3, 5, 10_u64] {
        let covers = |p: f64| -> f64 {
            let mut chance = (1.0 - p).powi(n as i32);
            let mut covered = 0.0;
            for hits in 0..=n {
                let interval = clopper_pearson(hits, n).unwrap();
                if (interval.low..=interval.high).contains(&p) {
                    covered += chance;
                }
                chance *= (n - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p);
            }
            100.0 * covered
        };
        let least = (1..1000).map(|i| covers(f64::from(i) / 1000.0));
        let least = least.fold(100.0, f64::min);
        println!("n = {n:<2}  {least:.2}");
        assert!(least >= 95.0, "n = {n}: {least}");
    }
}

/// What mean +- 1.96 sd / sqrt(n), divisor n, covers of n normal values, in percent: P(|t| < 1.96 sqrt((n - 1) / n)),
/// by bisection of the quantile.
fn recipe_coverage(n: usize) -> f64 {
    let limit = 1.96 * ((n - 1) as f64 / n as f64).sqrt();
    let (mut low, mut high) = (0.5, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if t_quantile(middle, n - 1).unwrap() < limit {
            low = middle;
        } else {
            high = middle;
        }
    }
    100.0 * (2.0 * low - 1.0)
}

#[test]
fn the_guides_recipe_covers_84_6_percent_of_five_values() {
    assert!(
        (recipe_coverage(5) - 84.6).abs() < 0.05,
        "{}",
        recipe_coverage(5)
    );
}
