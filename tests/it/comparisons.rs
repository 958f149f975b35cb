//! Models a and b of a run against each other, from made-up records.

use bkbench::math::random::{Coordinate, Purpose, normal};
use bkbench::results::{
    Cell, Claim, ClaimVerdict, Comparison, ComparisonVerdict, Finite, Outcome, RunRecord,
    comparisons, judge,
};
use bkbench::stats::holm;

use crate::claims::is;
use crate::made_up::{
    self, GUIDE_LENGTHS, diverged, evaluation, finite, in_both_ways, leak, longcontext, noise,
    out_of_memory, with_nll, with_outcome,
};

/// Models a and b at one length with these held-out losses, seed by seed.
fn of_losses(a: &[f64], b: &[f64]) -> RunRecord {
    let record = longcontext(&[8192], a.len() as u64, 200);
    with_nll(&record, |cell| match cell.model.as_str() {
        "resnetbk" => a[cell.seed as usize - 42],
        "mamba" => b[cell.seed as usize - 42],
        _ => 9.0,
    })
}

fn only(record: &RunRecord) -> Comparison {
    let mut found = comparisons(record);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn a_comparison_says_what_its_numbers_say() {
    let base = [2.0, 2.1, 1.9, 2.05, 1.95];
    let plus = |delta: [f64; 5]| std::array::from_fn::<f64, 5, _>(|i| base[i] + delta[i]);
    let judged = |a: [f64; 5], b: [f64; 5]| only(&of_losses(&a, &b)).verdict;
    let clear = plus([0.5, 0.51, 0.49, 0.5, 0.52]);
    assert_eq!(judged(base, clear), ComparisonVerdict::ABetter);
    assert_eq!(judged(clear, base), ComparisonVerdict::BBetter);
    // Within 1 %, though the difference is not by chance.
    let close = plus([1e-3, 1.1e-3, 0.9e-3, 1e-3, 1.2e-3]);
    assert_eq!(judged(base, close), ComparisonVerdict::Equivalent);
    let noisy = plus([0.5, -0.4, 0.3, -0.2, 0.1]);
    let ComparisonVerdict::Inconclusive { why } = judged(base, noisy) else {
        panic!("noise shows nothing")
    };
    assert!(why.contains("neither"), "{why}");
    let ComparisonVerdict::Inconclusive { why } = judged(base, plus([0.5; 5])) else {
        // Sums of floats may differ in the last bit, and then there is a spread.
        return;
    };
    assert!(why.contains("do not vary"), "{why}");
}

#[test]
fn every_primary_comparison_of_the_run_is_in_the_family() {
    let record = with_nll(&longcontext(&[512, 2048, 8192], 5, 200), |cell| {
        let gap = if cell.model == "mamba" { 0.03 } else { 0.0 };
        2.0 + gap * (cell.seq_len as f64).log2() / 9.0 + 0.02 * noise(cell)
    });
    let found = comparisons(&record);
    let p: Vec<f64> = found.iter().map(|c| c.paired_t.unwrap().p).collect();
    assert_eq!(p.len(), 3, "one a length, the control in none");
    let expected = holm(&p);
    for (i, comparison) in found.iter().enumerate() {
        assert_eq!(comparison.p_bonferroni, Some((3.0 * p[i]).min(1.0)));
        assert_eq!(comparison.p_holm, Some(expected[i]));
        assert!(comparison.p_holm <= comparison.p_bonferroni);
        let ratio = comparison.perplexity_ratio.unwrap();
        let nats = comparison.difference_nats.unwrap();
        assert_eq!(ratio.mean, nats.mean.exp());
        assert_eq!(
            ratio.interval.unwrap().high,
            nats.interval.unwrap().high.exp()
        );
    }
}

/// Five differences with t = 3 and p = 0.04, by seed.
fn borderline(cell: &Cell) -> f64 {
    let deviation = [-1.0, 1.0, -1.0, 1.0, 0.0][cell.seed as usize - 42];
    0.1 * (3.0 / 5.0_f64.sqrt() + deviation)
}

#[test]
fn an_adjusted_p_decides_and_not_the_bare_one() {
    let at = |lengths: &[usize]| {
        with_nll(&longcontext(lengths, 5, 200), |cell| {
            match cell.model.as_str() {
                "mamba" => 2.0 + borderline(cell),
                _ => 2.0,
            }
        })
    };
    let alone = only(&at(&[512]));
    let p = alone.paired_t.unwrap().p;
    assert!((0.039..0.041).contains(&p), "{p}");
    assert_eq!(alone.verdict, ComparisonVerdict::ABetter);
    for comparison in comparisons(&at(&[512, 2048])) {
        let is_inconclusive = matches!(comparison.verdict, ComparisonVerdict::Inconclusive { .. });
        assert!(is_inconclusive, "{comparison:?}");
    }
    let trained = made_up::using_context(&longcontext(&[8192, 32_768], 5, 200));
    let gradients = made_up::changed(&trained, |cell| {
        let log = if cell.model == "mamba" {
            borderline(cell)
        } else {
            0.0
        };
        cell.metrics.as_mut().unwrap().gradient_norm_std = Some(finite(log.exp()));
        true
    });
    is(
        "lower-gradient-variance",
        &gradients,
        "inconclusive",
        "adjusted p 0.080",
    );
}

#[test]
fn the_guides_lists_give_the_guides_numbers() {
    let perplexities = [
        [30.2, 30.5, 30.1, 30.8, 30.3],
        [35.1, 35.8, 35.2, 36.0, 35.5],
    ];
    let [a, b] = perplexities.map(|list| list.map(f64::ln));
    let comparison = only(&of_losses(&a, &b));
    assert_eq!(comparison.verdict, ComparisonVerdict::ABetter);
    let guide = comparison.guide.unwrap();
    let close = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 5e-4, "{got}");
    close(guide.paired_t.unwrap().t, -75.785);
    close(guide.paired_t.unwrap().p, 1.817e-7);
    close(guide.cohens_d.unwrap(), -17.17);
    close(guide.a.mean, 30.38);
    close(guide.b.mean, 35.52);
    close(guide.a.guide_interval.unwrap().low, 30.16);
    assert_eq!(comparison.sign_flip.unwrap().floor, 0.0625);
}

#[test]
fn one_seed_has_no_interval_no_p_and_no_effect_size() {
    let comparison = only(&of_losses(&[2.0], &[3.0]));
    assert_eq!(comparison.difference_nats.unwrap().interval, None);
    let p = [
        comparison.p_holm,
        comparison.wilcoxon_p,
        comparison.mann_whitney_p,
        comparison.equivalence_p,
        comparison.divergence_p,
        comparison.d_z,
        comparison.hedges_g,
        comparison.sign_flip.map(|test| test.p),
        comparison.welch.map(|test| test.p),
    ];
    assert_eq!(p, [None; 9]);
    assert!((comparison.bootstrap, comparison.seeds_needed) == (None, None));
}

#[test]
fn a_diverged_seed_is_the_worst_rank_and_its_pair_supports_no_claim() {
    let losses = [2.0, 2.1, 1.9, 2.05, 1.95];
    let record = of_losses(&losses.map(|l| l - 0.5), &losses);
    let worse = |n: u64, outcome: Outcome| {
        only(&with_outcome(&record, |cell| {
            (cell.model == "mamba" && cell.seed < 42 + n).then(|| outcome.clone())
        }))
    };
    let one = worse(1, diverged(30));
    assert_eq!((one.n_pairs, one.n_missing), (4, 1));
    let ComparisonVerdict::Inconclusive { why } = &one.verdict else {
        panic!("{:?}", one.verdict)
    };
    assert!(why.contains("1 of 5 seeds"), "{why}");
    assert_eq!(
        one.wilcoxon_p,
        Some(0.0625),
        "still the lower one in all five"
    );
    assert_eq!(one.mann_whitney_p, Some(2.0 / 252.0));
    assert_eq!(one.divergence_p.map(|p| (p * 1e9).round()), Some(1e9));
    assert_eq!(one.survival[1].rows.len(), 1);
    assert_eq!(
        (
            one.survival[1].rows[0].step,
            one.survival[1].rows[0].at_risk
        ),
        (30, 5)
    );

    let all = worse(5, diverged(30));
    assert!((all.divergence_p.unwrap() - 2.0 / 252.0).abs() < 1e-9);
    assert_eq!((all.n_pairs, all.paired_t), (0, None));
    // Those that never trained, or not to the end, did not show that they do not diverge.
    let skipped = || Outcome::Skipped {
        reason: "made up".into(),
        needs: "more".into(),
        have: "less".into(),
    };
    assert_eq!(worse(5, out_of_memory()).divergence_p, None);
    let apart = with_outcome(&record, |cell| match cell.model.as_str() {
        "mamba" => Some(diverged(30)),
        _ => Some(skipped()),
    });
    assert_eq!(only(&apart).divergence_p, None);
    let half = with_outcome(&record, |cell| match (cell.model.as_str(), cell.seed) {
        ("mamba", _) => Some(diverged(30)),
        ("resnetbk", 42..45) => Some(skipped()),
        _ => None,
    });
    // Five of five against none of two: one way of 21.
    let p = only(&half).divergence_p.unwrap();
    assert!((p - 1.0 / 21.0).abs() < 1e-9, "{p}");
    // What did not fail by the model's fault has no rank.
    let stopped = Outcome::TimedOut {
        seconds: Finite::default(),
    };
    assert_eq!(worse(1, stopped).wilcoxon_p, Some(0.125), "four pairs");
}

#[test]
fn models_of_one_quality_are_rarely_told_apart() {
    // 400 runs of two lengths whose models differ by chance alone.
    let mut record = longcontext(&[512, 2048], 5, 10);
    let n_runs = 400;
    let mut n_claims = 0;
    for run in 0..n_runs {
        for (i, cell) in record.cells.iter_mut().enumerate() {
            let coordinate = Coordinate {
                row: 77,
                step: run,
                ..Coordinate::new(Purpose::Test)
            };
            let nll = 3.0 + 0.1 * normal(5, coordinate.at(i as u64));
            cell.metrics.as_mut().unwrap().evaluation = evaluation(nll);
        }
        let is_claim =
            |c: &Comparison| !matches!(c.verdict, ComparisonVerdict::Inconclusive { .. });
        n_claims += u32::from(comparisons(&record).iter().any(is_claim));
    }
    let (rate, error) = (
        f64::from(n_claims) / f64::from(n_runs),
        (0.05 * 0.95 / 400.0_f64).sqrt(),
    );
    println!("{n_claims} of {n_runs} runs of equal models make a claim");
    assert!(rate < 0.05 + 4.0 * error, "{rate}");
}

#[test]
fn a_model_against_itself_is_compared_and_nothing_is_claimed() {
    let mut config = longcontext(&GUIDE_LENGTHS, 5, 200).config;
    config.models.b = Some("resnetbk".into());
    // Far apart, however that came to be: a claim all the same would be one by chance.
    let record = with_nll(&made_up::of_config(config, 200, false), |cell| {
        let more = if cell.model == "resnetbk (b)" {
            0.5
        } else {
            0.0
        };
        2.0 + more + 0.01 * noise(cell)
    });
    let compared = comparisons(&record);
    assert_eq!(compared.len(), GUIDE_LENGTHS.len());
    for comparison in &compared {
        assert_eq!(
            (comparison.a.as_str(), comparison.b.as_str()),
            ("resnetbk", "resnetbk (b)")
        );
        assert!(comparison.p_holm.unwrap() < 1e-3 && comparison.n_pairs == 5);
        let ComparisonVerdict::Inconclusive { why } = &comparison.verdict else {
            panic!("{comparison:?}")
        };
        assert_eq!(why, "a model against itself: any difference is chance");
    }
    let judgements = judge(
        &Claim::of_the_guide().unwrap(),
        &[("a".into(), in_both_ways(&record))],
    );
    for judgement in judgements {
        let is_not_testable = matches!(judgement.verdict, ClaimVerdict::NotTestable { .. });
        assert!(is_not_testable, "{judgement:?}");
    }
}

#[test]
fn a_model_that_sees_its_targets_is_compared_with_nothing() {
    let mut record = longcontext(&GUIDE_LENGTHS, 5, 200);
    leak(&mut record, "resnetbk");
    assert_eq!(comparisons(&record), []);
    is(
        "stable-at-all-lengths",
        &record,
        "not testable",
        "sees the tokens",
    );
    is(
        "lower-gradient-variance",
        &record,
        "not testable",
        "sees the tokens",
    );
    is("mamba-diverges-at-32k", &record, "contradicted", "");
}
