//! Verdicts on claims, from made-up records, and the command that prints them.

use std::path::Path;

use bkbench::config::{Benchmark, Config, Fairness};
use bkbench::quant::BitWidth;
use bkbench::results::{
    AtWidth, Cell, Claim, ClaimVerdict, ModelSize, NO_CONTEXT, Outcome, QuantizationMetrics,
    RunRecord, RunWriter, comparisons, judge, lacking,
};
use bkbench::stats::{holm, paired_t};
use bkbench::units::Bytes;

use crate::checklist::exemplary;
use crate::efficiency;
use crate::made_up::{
    self, GUIDE_LENGTHS, diverged, evaluation, finite, in_both_ways, noise, out_of_memory, trials,
    using_context, with_nll, with_outcome,
};
use crate::support::bkbench;

/// Models a, b and the control at these lengths, all completed, both better than the control.
fn longcontext(seq_lengths: &[usize], n_seeds: u64, n_steps: u64) -> RunRecord {
    using_context(&made_up::longcontext(seq_lengths, n_seeds, n_steps))
}

/// The verdict on one of the guide's claims by one run, and why; where learning rates are set in one way, as if the
/// other one had come to the same.
fn verdict(id: &str, record: &RunRecord) -> (&'static str, String) {
    let record = if record.config.fairness.len() == 1 {
        in_both_ways(record)
    } else {
        record.clone()
    };
    let runs = [("made up".to_owned(), record)];
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

pub(crate) fn is(id: &str, record: &RunRecord, expected: &str, part: &str) {
    let (verdict, why) = verdict(id, record);
    assert_eq!(verdict, expected, "{id}: {why}");
    assert!(why.contains(part), "{id}: {why}");
}

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
fn a_model_that_is_not_shown_to_use_context_supports_no_claim() {
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
        "resnetbk is not shown to use context",
    );
    is(
        "lower-gradient-variance",
        &blind(0.0),
        "inconclusive",
        "is not shown to use context",
    );
    let comparison = &comparisons(&blind(0.5))[0];
    assert_eq!(comparison.context_not_shown, ["mamba"]);
}

#[test]
fn what_was_never_held_against_the_control_supports_no_claim() {
    let with = longcontext(&GUIDE_LENGTHS, 5, 200);
    let without = |record: &RunRecord| {
        let mut record = record.clone();
        record.config.models.control = None;
        made_up::changed(&record, |cell| cell.model != NO_CONTEXT)
    };
    let (id, asked) = ("stable-at-all-lengths", "--control no-mixer");
    is(id, &with, "supported", "");
    is(id, &without(&with), "inconclusive", asked);
    let ratio = with_gradient_ratio(0.8, 0.01);
    is(
        "lower-gradient-variance",
        &without(&ratio),
        "inconclusive",
        asked,
    );
    assert_eq!(lacking(&without(&with))[0], asked);
    let comparison = &comparisons(&without(&with))[0];
    assert_eq!(comparison.context_not_shown, ["resnetbk", "mamba"]);
    // What context is no part of stands.
    let early = with_outcome(&without(&with), |cell| {
        (cell.model == "resnetbk").then(|| diverged(3))
    });
    is(id, &early, "contradicted", "");
    // A control that was trained and has no loss shows nothing either.
    let lost = with_outcome(&with, |cell| {
        let here = (cell.model.as_str(), cell.seq_len, cell.seed) == (NO_CONTEXT, 8192, 43);
        here.then(|| diverged(3))
    });
    is(
        id,
        &lost,
        "inconclusive",
        "resnetbk is not shown to use context",
    );

    let config = Config::resolve(Some("guide"), None, toml::Table::new()).unwrap();
    assert_eq!(config.models.control.as_deref(), Some(NO_CONTEXT));
}

#[test]
fn a_claim_needs_both_ways_of_setting_learning_rates_to_agree() {
    let id = "lower-gradient-variance";
    let runs = |record: &RunRecord| [("made up".to_owned(), record.clone())];
    let of = |record: &RunRecord| {
        let judgements = judge(&Claim::of_the_guide().unwrap(), &runs(record));
        judgements.into_iter().find(|it| it.claim.id == id).unwrap()
    };
    let one = with_gradient_ratio(0.8, 0.01);
    let judgement = of(&one);
    let ClaimVerdict::NotTestable { why } = &judgement.verdict else {
        panic!("{judgement:?}")
    };
    assert!(
        why.starts_with("one_mode: one learning rate for all models alone"),
        "{why}"
    );
    assert_eq!(
        judgement.settings[0].verdict,
        ClaimVerdict::Supported,
        "shown all the same"
    );
    let tuned_alone = {
        let mut record = in_both_ways(&one);
        record.config.fairness = vec![Fairness::EqualTuning];
        record.derive();
        record
    };
    let verdict = of(&tuned_alone).verdict;
    assert!(
        matches!(&verdict, ClaimVerdict::NotTestable { why } if why.contains("one_mode: learning rates tuned")),
        "{verdict:?}"
    );

    let both = in_both_ways(&one);
    assert_eq!(of(&both).verdict, ClaimVerdict::Supported);
    assert_eq!(both.ways().len(), 2);
    assert_eq!(both.ways()[0].cells, both.ways()[1].cells, "trained once");
    assert_eq!(both.n_missing(), 0);

    // With a rate of its own resnetbk varies more.
    let mut apart = one.clone();
    apart.tuning = Some(trials(&one, |model, rate| {
        let best = if model == "resnetbk" { 1e-3 } else { 3e-3 };
        2.0 + (rate / best).ln().abs()
    }));
    apart.config.fairness = Fairness::ALL.into();
    for cell in one.cells.iter().filter(|cell| cell.model == "resnetbk") {
        let mut cell = cell.clone();
        cell.id = format!("{} tuned", cell.id);
        cell.learning_rate = finite(1e-3);
        let metrics = cell.metrics.as_mut().unwrap();
        let std = metrics.gradient_norm_std.unwrap().get();
        metrics.gradient_norm_std = Some(finite(2.0 * std));
        apart.cells.push(cell);
    }
    apart.derive();
    assert_eq!(apart.n_missing(), 0);
    let ways = apart.ways();
    assert_eq!(ways[0].cells.len(), ways[1].cells.len());
    assert_eq!(
        apart.summaries, one.summaries,
        "the first way stands for the run"
    );
    let judgement = of(&apart);
    let ClaimVerdict::Inconclusive { why } = &judgement.verdict else {
        panic!("{judgement:?}")
    };
    assert_eq!(
        why,
        "with one learning rate for all models: supported; \
         with learning rates tuned equally for each model: contradicted"
    );
    let compared = comparisons(&apart);
    let n_of = |way| compared.iter().filter(|it| it.fairness == way).count();
    assert_eq!(
        (n_of(Fairness::Identical), n_of(Fairness::EqualTuning)),
        (2, 2)
    );
    // Cells of a rate that was not chosen belong to neither way.
    apart
        .cells
        .retain(|cell| cell.learning_rate != finite(1e-3));
    apart.derive();
    assert_eq!(apart.n_missing(), 2 * 5);
}

/// Perplexity at int8 and int4 over that at fp32, by model; at fp32 it is 4.
fn quantised(factors: impl Fn(&str, BitWidth) -> f64) -> RunRecord {
    let mut config = Config::resolve(None, None, toml::Table::new()).unwrap();
    config.benchmarks = vec![Benchmark::Quantization];
    config.models.control = Some(NO_CONTEXT.into());
    let trained = using_context(&made_up::of_config(config, 200, false));
    made_up::changed(&trained, |cell| {
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
fn the_laptops_claims_can_be_decided_by_its_runs() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/claims-laptop.toml");
    let claims = Claim::load(&file).unwrap();
    let guides = Claim::of_the_guide().unwrap();
    assert_eq!(claims.len(), guides.len());
    for (claim, of_guide) in claims.iter().zip(&guides) {
        let kind = |claim: &Claim| (claim.metric, claim.hypothesis, claim.margin);
        assert_eq!(kind(claim), kind(of_guide), "{}", claim.id);
    }
    let config = Config::resolve(Some("laptop"), None, toml::Table::new()).unwrap();
    let budgets: [f64; 3] = config.efficiency.flops_budgets.try_into().unwrap();
    let runs = [
        longcontext(&config.longcontext.seq_lengths, 5, 200),
        quantised(|_, _| 1.0),
        efficiency::under(budgets, 1.5),
    ];
    let runs = runs.map(|record| ("made up".to_owned(), in_both_ways(&record)));
    for judgement in judge(&claims, &runs) {
        assert!(
            !matches!(judgement.verdict, ClaimVerdict::NotTestable { .. }),
            "{judgement:?}"
        );
    }
}

#[test]
fn what_a_run_lacks_for_a_claim_is_said_in_flags() {
    let of_preset = |name: &str, n_steps: u64| {
        let config = Config::resolve(Some(name), None, toml::Table::new()).unwrap();
        lacking(&made_up::of_config(config, n_steps, false))
    };
    let all = [
        "--fairness identical equal_tuning",
        "--num_seeds 5",
        "--steps 200",
    ];
    assert_eq!(of_preset("smoke", 100), all);
    assert_eq!(of_preset("smoke", 200), all[..2]);
    assert_eq!(of_preset("t4", 200), [""; 0]);
    assert_eq!(of_preset("laptop", 200), [""; 0]);
    let mut alone = longcontext(&[512], 1, 20);
    alone.config.models.b = None;
    assert_eq!(lacking(&alone), [""; 0], "nothing is compared");
}

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

// ---- the command ----

fn stats(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    bkbench(dir, &format!("stats {line}"))
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
    let quantised = save(&in_both_ways(&quantised(|_, _| 1.0)));
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
    let lacks = format!(
        "{poor} lacks what a claim needs: run it again with --fairness identical equal_tuning --num_seeds 5 --steps 200 \
         behind its other flags."
    );
    assert!(out.contains(&lacks), "{out}");
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
