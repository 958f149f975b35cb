//! Comparisons, verdicts on claims and the checklist, from made-up records.

use std::path::Path;

use assert_cmd::Command;
use bkbench::config::{Benchmark, Config};
use bkbench::math::random::{Coordinate, Purpose, normal};
use bkbench::quant::BitWidth;
use bkbench::results::{
    AtWidth, AuditReport, AuditedWeights, CHECKLIST, Cell, ChecklistStatus, Claim, ClaimVerdict,
    Comparison, ComparisonVerdict, DivergenceCause, Evaluation, Finding, Finite, Leak, LeakSearch,
    ModelSize, Outcome, QuantizationMetrics, RunRecord, RunWriter, checklist, comparisons, judge,
};
use bkbench::stats::{holm, paired_t};
use bkbench::units::Bytes;

use crate::made_up;

const GUIDE_LENGTHS: [usize; 5] = [8192, 32_768, 131_072, 524_288, 1_048_576];

/// Models a, b and the control at these lengths, all completed.
fn longcontext(seq_lengths: &[usize], n_seeds: u64, n_steps: u64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.longcontext.seq_lengths = seq_lengths.to_vec();
    config.seeds.count = n_seeds;
    made_up::of_config(config, n_steps, false)
}

fn evaluation(nll_nats: f64) -> Option<Evaluation> {
    Evaluation::new(nll_nats * 65_536.0, 65_536, 65_536, 512)
}

fn finite(value: f64) -> Finite {
    Finite::new(value).unwrap()
}

/// Some noise by seed and model, of the size of 1.
fn noise(cell: &Cell) -> f64 {
    let step = cell.model.bytes().map(u32::from).sum();
    let coordinate = Coordinate {
        step,
        ..Coordinate::new(Purpose::Test)
    };
    normal(cell.seed, coordinate.at(cell.seq_len as u64))
}

/// The record with other held-out losses.
fn with_nll(record: &RunRecord, nll: impl Fn(&Cell) -> f64) -> RunRecord {
    made_up::changed(record, |cell| {
        let nll = nll(cell);
        cell.metrics.as_mut().unwrap().evaluation = evaluation(nll);
        true
    })
}

fn with_outcome(record: &RunRecord, outcome: impl Fn(&Cell) -> Option<Outcome>) -> RunRecord {
    made_up::changed(record, |cell| {
        if let Some(outcome) = outcome(cell) {
            cell.outcome = outcome;
            cell.metrics.as_mut().unwrap().evaluation = None;
        }
        true
    })
}

fn diverged(step: u64) -> Outcome {
    Outcome::Diverged {
        step,
        cause: DivergenceCause::BlowUp,
    }
}

fn out_of_memory() -> Outcome {
    Outcome::OutOfMemory {
        requested_bytes: None,
    }
}

/// The verdict on one of the guide's claims by one run, and why.
fn verdict(id: &str, record: &RunRecord) -> (&'static str, String) {
    let runs = [("made up".to_owned(), record.clone())];
    let judgements = judge(&Claim::of_the_guide().unwrap(), &runs);
    let mut found = judgements.into_iter().filter(|j| j.claim.id == id);
    let judgement = found.next().unwrap();
    assert!(found.next().is_none(), "one run, one verdict");
    match judgement.verdict {
        ClaimVerdict::Supported => ("supported", String::new()),
        ClaimVerdict::Contradicted => ("contradicted", String::new()),
        ClaimVerdict::Inconclusive { why } => ("inconclusive", why),
        ClaimVerdict::NotTestable { why } => ("not testable", why),
    }
}

fn is(id: &str, record: &RunRecord, expected: &str, part: &str) {
    let (verdict, why) = verdict(id, record);
    assert_eq!(verdict, expected, "{id}: {why}");
    assert!(why.contains(part), "{id}: {why}");
}

// ---- comparisons ----

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
    let gradients = made_up::changed(&longcontext(&[8192, 32_768], 5, 200), |cell| {
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
    assert_eq!(
        worse(5, out_of_memory()).divergence_p.map(f64::round),
        Some(1.0)
    );
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
fn a_model_against_itself_makes_no_comparison_and_no_claim() {
    let mut record = longcontext(&GUIDE_LENGTHS, 5, 200);
    record.config.models.b = "resnetbk".into();
    assert_eq!(comparisons(&record), []);
    let judgements = judge(&Claim::of_the_guide().unwrap(), &[("a".into(), record)]);
    for judgement in judgements {
        let is_not_testable = matches!(judgement.verdict, ClaimVerdict::NotTestable { .. });
        assert!(is_not_testable, "{judgement:?}");
    }
}

fn leaky(record: &mut RunRecord, model: &str) {
    let finding = Finding::Causality(LeakSearch {
        n_tokens: 8,
        cuts: vec![4],
        largest_change: Some(finite(1.0)),
        leak: Some(Leak {
            first_offset: -1,
            cut: 4,
        }),
        n_not_reproduced: 0,
    });
    record.audits.push(AuditReport {
        model: model.into(),
        weights: AuditedWeights::Initial,
        seed: 42,
        checks: vec![finding.into()],
    });
}

#[test]
fn a_model_that_sees_its_targets_is_compared_with_nothing() {
    let mut record = longcontext(&GUIDE_LENGTHS, 5, 200);
    leaky(&mut record, "resnetbk");
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

// ---- claims ----

#[test]
fn every_claim_without_a_run_says_so() {
    let claims = Claim::of_the_guide().unwrap();
    assert_eq!(claims.len(), 9);
    for judgement in judge(&claims, &[]) {
        let ClaimVerdict::NotTestable { why } = judgement.verdict else {
            panic!("{judgement:?}")
        };
        assert!(why.starts_with("no run of the "), "{why}");
    }
}

#[test]
fn stability_is_supported_by_every_seed_at_every_length_and_contradicted_by_one() {
    let id = "stable-at-all-lengths";
    let record = longcontext(&GUIDE_LENGTHS, 5, 200);
    is(id, &record, "supported", "");
    let ended = |outcome: Outcome| {
        with_outcome(&record, |cell| {
            let here =
                (cell.model.as_str(), cell.seq_len, cell.seed) == ("resnetbk", 1_048_576, 44);
            here.then(|| outcome.clone())
        })
    };
    is(id, &ended(diverged(100)), "contradicted", "");
    is(
        id,
        &ended(out_of_memory()),
        "inconclusive",
        "4 of 5 seeds completed and 0 diverged",
    );
    is(
        id,
        &longcontext(&GUIDE_LENGTHS, 4, 200),
        "inconclusive",
        "a claim needs 5",
    );
    is(
        id,
        &longcontext(&GUIDE_LENGTHS, 5, 199),
        "inconclusive",
        "199 steps",
    );
    is(
        id,
        &longcontext(&[8192], 5, 200),
        "not testable",
        "seq_len_32768",
    );
    let cut = made_up::changed(&record, |cell| (cell.seq_len, cell.seed) != (1_048_576, 46));
    is(id, &cut, "inconclusive", "4 of 5 seeds have run");
    // One that diverged needs neither the other seeds nor the other lengths.
    let early = with_outcome(&longcontext(&[8192], 1, 20), |cell| {
        (cell.model == "resnetbk").then(|| diverged(3))
    });
    is(id, &early, "contradicted", "");
}

#[test]
fn divergence_is_supported_by_every_seed_and_contradicted_by_none() {
    let id = "mamba-diverges-at-32k";
    let record = longcontext(&[8192, 32_768], 5, 200);
    is(id, &record, "contradicted", "");
    let first = |n: u64, outcome: Outcome| {
        with_outcome(&record, |cell| {
            let here = cell.model == "mamba" && cell.seq_len == 32_768 && cell.seed < 42 + n;
            here.then(|| outcome.clone())
        })
    };
    is(id, &first(5, diverged(9)), "supported", "");
    is(
        id,
        &first(3, diverged(9)),
        "inconclusive",
        "2 of 5 seeds completed and 3 diverged",
    );
    is(id, &first(5, out_of_memory()), "inconclusive", "0 diverged");
    is(
        id,
        &longcontext(&[32_768], 5, 30),
        "inconclusive",
        "30 steps",
    );
    is(
        id,
        &longcontext(&[32_768], 3, 200),
        "inconclusive",
        "a claim needs 5",
    );
}

/// The spread of the gradient norm of resnetbk is `ratio` times that of mamba, with noise of this size.
fn with_gradient_ratio(ratio: f64, size: f64) -> RunRecord {
    made_up::changed(&longcontext(&[8192, 32_768], 5, 200), |cell| {
        let factor = if cell.model == "resnetbk" { ratio } else { 1.0 };
        let std = 0.1 * factor * (size * noise(cell)).exp();
        cell.metrics.as_mut().unwrap().gradient_norm_std = Some(finite(std));
        true
    })
}

#[test]
fn a_ratio_is_judged_by_its_interval_against_the_margin() {
    let id = "lower-gradient-variance";
    is(id, &with_gradient_ratio(0.8, 0.01), "supported", "");
    is(id, &with_gradient_ratio(1.25, 0.01), "contradicted", "");
    // Now above the margin, now below: 1.25, 0.8, 1.25, 0.8, 1.25.
    let torn = made_up::changed(&with_gradient_ratio(1.0, 0.01), |cell| {
        if cell.model == "mamba" {
            let ratio = if cell.seed % 2 == 0 { 1.25 } else { 0.8 };
            cell.metrics.as_mut().unwrap().gradient_norm_std = Some(finite(0.1 * ratio));
        }
        true
    });
    is(id, &torn, "inconclusive", "adjusted p");
    let lost = made_up::changed(&with_gradient_ratio(0.8, 0.01), |cell| {
        if (cell.model.as_str(), cell.seed) == ("mamba", 43) {
            cell.outcome = diverged(3);
        }
        true
    });
    is(id, &lost, "inconclusive", "1 of 5 seeds have no value");
}

#[test]
fn the_tests_of_all_claims_of_a_run_are_one_family() {
    let record = with_gradient_ratio(0.8, 0.01);
    let claims = Claim::of_the_guide().unwrap();
    let judgements = judge(&claims, &[("made up".into(), record.clone())]);
    let judgement = judgements
        .iter()
        .find(|j| j.claim.id == "lower-gradient-variance");
    let tests: Vec<_> = judgement
        .unwrap()
        .settings
        .iter()
        .map(|s| s.ratio_test.clone().unwrap())
        .collect();
    let p: Vec<f64> = tests.iter().map(|test| test.t_test.unwrap().p).collect();
    let adjusted: Vec<f64> = tests.iter().map(|test| test.p_holm.unwrap()).collect();
    assert_eq!(adjusted, holm(&p));
    // By hand at the first length.
    let logs = |model: &str| -> Vec<f64> {
        let here = |cell: &&Cell| cell.seq_len == 8192 && cell.model == model;
        let std = |cell: &Cell| {
            cell.metrics
                .as_ref()
                .unwrap()
                .gradient_norm_std
                .unwrap()
                .get()
                .ln()
        };
        record.cells.iter().filter(here).map(std).collect()
    };
    let expected = paired_t(&logs("resnetbk"), &logs("mamba")).unwrap();
    assert!((tests[0].t_test.unwrap().t / expected.t - 1.0).abs() < 1e-9);
    let ratio = tests[0].ratio.unwrap();
    assert!((ratio.mean.ln() - expected.mean_difference).abs() < 1e-12);
}

#[test]
fn a_model_that_uses_no_context_supports_no_claim() {
    let blind = |margin: f64| {
        with_nll(&longcontext(&GUIDE_LENGTHS, 5, 200), |cell| {
            let gain = if cell.model == "resnetbk" {
                margin
            } else {
                0.0
            };
            2.5 - gain + 0.01 * noise(cell)
        })
    };
    is("stable-at-all-lengths", &blind(0.5), "supported", "");
    is(
        "stable-at-all-lengths",
        &blind(0.0),
        "inconclusive",
        "resnetbk uses no context",
    );
    is(
        "lower-gradient-variance",
        &blind(0.0),
        "inconclusive",
        "uses no context",
    );
    let comparison = &comparisons(&blind(0.5))[0];
    assert_eq!(comparison.uses_no_context, ["mamba"]);
}

/// Perplexity at int8 and int4 over that at fp32, by model; at fp32 it is 4.
fn quantised(factors: impl Fn(&str, BitWidth) -> f64) -> RunRecord {
    let mut config = Config::resolve(None, None, toml::Table::new()).unwrap();
    config.benchmark = Benchmark::Quantization;
    made_up::changed(&made_up::of_config(config, 200, false), |cell| {
        let at = |width: BitWidth| AtWidth {
            width,
            evaluation: evaluation(
                (4.0 * factors(&cell.model, width)).ln()
                    + 0.002 * noise(cell) / (1.0 + f64::from(width.bits())),
            ),
            size: ModelSize {
                codes_bytes: Bytes(1),
                scales_bytes: Bytes(1),
                rest_bytes: Bytes(1),
                embedding_bytes: Bytes(1),
                file_header_bytes: Bytes(1),
            },
            prefill_tokens_per_second: None,
            decode_tokens_per_second: None,
        };
        cell.quantization = Some(QuantizationMetrics {
            widths: BitWidth::ALL.map(at).into(),
            sensitivity: Vec::new(),
        });
        true
    })
}

#[test]
fn the_guides_claims_about_quantization_follow_from_the_ratios() {
    let as_the_guide_says = quantised(|model, width| match (model, width) {
        ("resnetbk", BitWidth::Int8) => 1.05,
        ("mamba", BitWidth::Int8) => 1.25,
        ("resnetbk", BitWidth::Int4) => 1.5,
        ("mamba", BitWidth::Int4) => 6.1,
        _ => 1.0,
    });
    let ids = [
        "resnetbk-int8-degradation",
        "mamba-int8-degradation",
        "four-times-better-at-int4",
    ];
    for id in ids {
        is(id, &as_the_guide_says, "supported", "");
    }
    let lossless = quantised(|_, _| 1.0);
    for (id, expected) in ids
        .into_iter()
        .zip(["supported", "contradicted", "contradicted"])
    {
        is(id, &lossless, expected, "");
    }
    assert_eq!(comparisons(&lossless).len(), 5, "one a width");
    is(
        "stable-at-all-lengths",
        &lossless,
        "not testable",
        "no run of the longcontext benchmark",
    );
}

const CLAIM: &str = "[[claim]]
id = \"mine\"
text = \"mine is better\"
benchmark = \"longcontext\"
settings = [\"seq_len_512\"]
model = \"mine\"
against = \"mamba\"
metric = \"perplexity\"
hypothesis = \"at_most\"
margin = 0.9
";

#[test]
fn a_file_that_holds_no_claims_is_refused_by_line_or_claim() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.toml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Claim::load(&path)
    };
    assert_eq!(load(CLAIM).unwrap()[0].margin, Some(0.9));
    let outcome = CLAIM
        .replace("\"perplexity\"", "\"outcome\"")
        .replace("at_most", "completes");
    for (text, part) in [
        (
            CLAIM.replace("margin", "margim"),
            "line 10: unknown field `margim`",
        ),
        (
            CLAIM.replace("\"perplexity\"", "\"ppl\""),
            "line 8: unknown variant `ppl`",
        ),
        (
            CLAIM.replace("margin = 0.9", ""),
            "claim 'mine': margin is missing",
        ),
        (CLAIM.replace("0.9", "-1.0"), "no ratio above 0"),
        (CLAIM.replace("0.9", "nan"), "no ratio above 0"),
        (
            CLAIM.replace("longcontext", "speed"),
            "benchmark 'speed' is none of longcontext",
        ),
        (
            CLAIM.replace("_512\"]", "_8k\"]"),
            "'seq_len_8k' is no setting of longcontext",
        ),
        (
            CLAIM.replace("[\"seq_len_512\"]", "[]"),
            "settings is empty",
        ),
        (
            CLAIM.replace("at_most", "completes"),
            "go with the metric outcome",
        ),
        (outcome.clone(), "has no against"),
        (
            outcome.replace("against = \"mamba\"\n", ""),
            "has no margin",
        ),
        (CLAIM.repeat(2), "another claim has this id"),
        ("claim = []".into(), "no claims"),
        ("claim = [".into(), "line 1"),
        (String::new(), "missing field `claim`"),
    ] {
        let error = load(&text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
    assert_eq!(
        Claim::load(Path::new("no/such/file"))
            .unwrap_err()
            .exit_code(),
        2
    );
}

// ---- the checklist ----

/// A run of which every item is met.
fn exemplary() -> RunRecord {
    let mut record = with_nll(&longcontext(&[512, 2048], 5, 200), |cell| {
        2.0 + 0.1 * noise(cell)
    });
    for model in ["resnetbk", "mamba", "no-mixer"] {
        let checks = [
            Finding::EqualData {
                ids_sha256: "00".into(),
                tokenizer_sha256: "00".into(),
                data_order_sha256: "00".into(),
                difference: None,
            },
            Finding::Determinism {
                n_steps: 20,
                weights_sha256: "00".into(),
                moments_sha256: "00".into(),
                difference: None,
            },
        ];
        record.audits.push(AuditReport {
            model: model.into(),
            weights: AuditedWeights::Initial,
            seed: 42,
            checks: checks.map(Into::into).into(),
        });
    }
    record.files.keep_checkpoints = true;
    record.config_sha256 = record.config.sha256().unwrap();
    record
}

/// The items, by number from 1, that are not met.
fn not_met(record: &RunRecord) -> Vec<usize> {
    let items = checklist(record, &comparisons(record));
    assert_eq!(items.len(), CHECKLIST.len());
    let json = serde_json::to_value(record).unwrap();
    for item in &items {
        assert!(!item.evidence.is_empty(), "{item:?}");
        for pointer in &item.evidence {
            assert!(
                json.pointer(pointer).is_some(),
                "{pointer} points at nothing"
            );
        }
    }
    let numbered = (1..).zip(&items);
    let open = numbered.filter(|(_, item)| item.status == ChecklistStatus::NotMet);
    open.map(|(number, _)| number).collect()
}

#[test]
fn every_item_of_the_checklist_follows_from_the_record() {
    let record = exemplary();
    assert_eq!(not_met(&record), [0; 0]);
    let edited = |edit: fn(&mut RunRecord)| {
        let mut record = record.clone();
        edit(&mut record);
        not_met(&record)
    };
    assert_eq!(edited(|r| r.config.train.learning_rate = 1.0), [1]);
    assert_eq!(edited(|r| r.audits.clear()), [2, 12]);
    assert_eq!(edited(|r| drop(r.cells.pop())), [3]);
    let other_order = |r: &mut RunRecord| {
        r.cells[1].metrics.as_mut().unwrap().data_order_sha256 = "11".into();
    };
    assert_eq!(edited(other_order), [3]);
    assert_eq!(edited(|r| r.hardware = serde_json::Value::Null), [4]);
    let unmeasured = |r: &mut RunRecord| {
        r.cells[0]
            .metrics
            .as_mut()
            .unwrap()
            .memory
            .peak_memory_bytes = Bytes(0);
    };
    assert_eq!(edited(unmeasured), [6]);
    assert_eq!(edited(|r| r.files.keep_checkpoints = false), [12]);
    assert_eq!(
        edited(|r| r.cells.clear()),
        [3, 6, 8, 9, 10, 11],
        "nothing has run"
    );
    let few = with_nll(&longcontext(&[512], 4, 200), |cell| 2.0 + 0.1 * noise(cell));
    assert_eq!(not_met(&few), [2, 7, 12]);
    let one = longcontext(&[512], 1, 200);
    assert_eq!(not_met(&one), [2, 7, 8, 9, 10, 11, 12]);
}

// ---- the command ----

fn stats(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    let output = command
        .current_dir(dir)
        .arg("stats")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_command_prints_verdicts_comparisons_and_checklist() {
    let dir = tempfile::tempdir().unwrap();
    let save = |record: &RunRecord| {
        let writer = RunWriter::create(&dir.path().join("results"), &record.config).unwrap();
        writer.save(record).unwrap();
        writer.dir().display().to_string()
    };
    let good = save(&exemplary());
    let quantised = save(&quantised(|_, _| 1.0));
    let (code, out, _) = stats(dir.path(), &format!("{good} {quantised}"));
    assert_eq!(code, Some(0));
    for part in [
        "not testable  half-the-flops: ResNet-BK: 2x fewer FLOPs at equal PPL (guide, line 152)",
        "no run of the efficiency benchmark was given",
        "contradicted  mamba-int8-degradation",
        "seq_len_2048",
        "Effect sizes computed",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let (code, out, _) = stats(dir.path(), &format!("{good} --json --require-checklist"));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["claims"].as_array().unwrap().len(), 9);
    assert_eq!(json["claims"][0]["verdict"], "not_testable");
    assert_eq!(json["runs"][0]["comparisons"][0]["setting"], "seq_len_512");
    assert_eq!(json["runs"][0]["checklist"].as_array().unwrap().len(), 12);

    let poor = save(&longcontext(&[512], 1, 20));
    let (code, out, err) = stats(dir.path(), &format!("{poor} --require-checklist"));
    assert_eq!(code, Some(1), "{out}");
    assert!(
        err.contains("item(s) of the checklist are not met"),
        "{err}"
    );

    std::fs::write(dir.path().join("mine.toml"), CLAIM).unwrap();
    let (code, out, _) = stats(dir.path(), &format!("{good} --claims mine.toml"));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("not testable  mine: mine is better\n"),
        "{out}"
    );
    std::fs::write(dir.path().join("bad.toml"), "claims = 3").unwrap();
    for (line, part) in [
        (
            format!("{good} --claims bad.toml"),
            "bad.toml, line 1: unknown field `claims`",
        ),
        ("no/such/run".into(), "cannot be read"),
    ] {
        let (code, out, err) = stats(dir.path(), &line);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(part), "{err}");
    }
}
