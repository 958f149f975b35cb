//! The efficiency benchmark: shapes under budgets, what is derived from their cells, and the files it leaves.

use std::path::Path;

use assert_cmd::Command;
use bkbench::accounting::FairFLOPsCounter;
use bkbench::config::{Benchmark, BudgetUnit, Config, ModelConfig};
use bkbench::models::budget::fit;
use bkbench::models::registry::{Architecture, ModelShape};
use bkbench::models::{BatchShape, LanguageModel};
use bkbench::report::csv;
use bkbench::report::document::Document;
use bkbench::report::efficiency::table;
use bkbench::report::plot::efficiency::{Options, draw};
use bkbench::results::{
    AtBudget, Claim, ClaimVerdict, EfficiencyGuide, Evaluation, Finite, FlopsPerToken, Judgement,
    NO_CONTEXT, Outcome, ResultsFile, RunRecord, Warning, comparisons, judge,
};

use crate::{made_up, support};

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);
const VOCAB: usize = 256;
const SEQ_LEN: usize = 512;

fn forward(shape: &ModelShape) -> f64 {
    shape.forward_flops_per_token(SEQ_LEN).with_head
}

// ---- shapes ----

#[test]
fn a_shape_is_at_most_five_percent_under_its_budget_and_in_proportion() {
    let config = ModelConfig::default();
    let budgets = [1e6, 2e6, 3.7e7].map(|budget| Architecture::ALL.map(|model| (model, budget)));
    // The widths of other models lie too far apart there.
    let small = [
        Architecture::ResNetBk,
        Architecture::Mamba,
        Architecture::NoMixer,
    ];
    let small = small.map(|model| (model, 5e5));
    for (model, budget) in budgets.into_iter().flatten().chain(small) {
        let fit = fit(model, &config, VOCAB, budget, forward).unwrap();
        let used = forward(&fit.shape) / budget;
        assert!(fit.is_within, "{model:?} {budget:e}: {used}");
        assert!((0.95..=1.0).contains(&used), "{model:?} {budget:e}: {used}");
        let slender = fit.shape.d_model as f64 / fit.shape.n_layers as f64 / (256.0 / 6.0);
        assert!((0.5..=2.0).contains(&slender), "{:?}", fit.shape);
        assert_eq!(fit.shape.d_model % 4, 0);
    }
}

#[test]
fn every_model_of_the_small_presets_has_a_shape_under_every_budget() {
    for preset in ["smoke", "laptop"] {
        let config = Config::resolve(Some(preset), None, toml::Table::new()).unwrap();
        assert_eq!(config.efficiency.seq_len, SEQ_LEN);
        for name in config.models.labels() {
            let model = Architecture::parse(&name).unwrap();
            for &budget in &config.efficiency.flops_budgets {
                let fit = fit(model, &config.model, VOCAB, budget, forward).unwrap();
                assert!(fit.is_within, "{preset}: {name} under {budget:e}");
            }
        }
    }
}

#[test]
fn the_nearest_shape_is_named_where_none_is_within_a_budget() {
    let config = ModelConfig::default();
    for model in [Architecture::ResNetBk, Architecture::Mamba] {
        let small = fit(model, &config, VOCAB, 1e3, forward).unwrap();
        assert!(!small.is_within);
        assert_eq!((small.shape.n_layers, small.shape.d_model), (2, 44));
        let large = fit(model, &config, VOCAB, 1e14, forward).unwrap();
        assert!(!large.is_within);
        assert_eq!((large.shape.n_layers, large.shape.d_model), (48, 4096));
    }
}

#[test]
fn what_a_shape_is_said_to_take_is_what_its_model_registers() {
    let config = ModelConfig::default();
    let tokens = BatchShape {
        batch: 1,
        seq_len: 128,
    };
    let ids: Vec<u32> = (0..128).map(|i| i * 37 % 256).collect();
    for model in [Architecture::ResNetBk, Architecture::Mamba] {
        let cost = |shape: &ModelShape| shape.forward_flops_per_token(128).with_head;
        let fit = fit(model, &config, VOCAB, 4e5, cost).unwrap();
        let built = LanguageModel::new(&fit.shape, 1, &support::cpu());
        let counted = FairFLOPsCounter::default()
            .count(&built, &ids, tokens)
            .unwrap();
        assert_eq!(counted as f64, cost(&fit.shape) * 128.0, "{model:?}");
        assert!((0.95 * 4e5..=4e5).contains(&(counted as f64 / 128.0)));
    }
}

// ---- what is derived ----

fn record(factor: f64) -> RunRecord {
    under([1e6, 2e6, 4e6], factor)
}

/// Perplexity of `resnetbk` falls as e^3, e^2.5, e^2 over the budgets; `mamba` takes `factor` times the FLOPs for each of
/// them. A little noise of the seed cancels in pairs.
pub(crate) fn under(budgets: [f64; 3], factor: f64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.benchmarks = vec![Benchmark::Efficiency];
    config.efficiency.flops_budgets = budgets.to_vec();
    config.models.control = None;
    config.seeds.count = 5;
    let template = made_up::of_config(config.clone(), 40, false);
    let mut record = RunRecord {
        cells: Vec::new(),
        ..template.clone()
    };
    let finite = |value| Finite::new(value).unwrap();
    for (i, &budget) in config.efficiency.flops_budgets.iter().enumerate() {
        for cell in &template.cells {
            let is_b = cell.model == "mamba";
            let forward = 0.97 * budget * if is_b { factor } else { 1.0 };
            let mut cell = cell.clone();
            let loss = 3.0 - 0.5 * i as f64 + 0.01 * (cell.seed as f64 - 44.0);
            cell.id = format!("{} {budget:e} {}", cell.model, cell.seed);
            cell.at_budget = Some(AtBudget {
                budget: finite(budget),
                d_model: 64,
                n_layers: 2,
                expert_hidden: 8,
                forward_flops_per_token: finite(forward),
                forward_flops_per_token_without_head: finite(0.9 * forward),
                training_flops_total: finite(40.0 * 3.0 * forward),
            });
            let metrics = cell.metrics.as_mut().unwrap();
            metrics.evaluation = Some(Evaluation::new(loss * 4096.0, 4096, 4096, 512).unwrap());
            record.push(cell);
        }
    }
    record
}

#[test]
fn the_ratio_of_flops_at_equal_perplexity_comes_back() {
    for factor in [0.5, 1.0, 1.7] {
        let record = record(factor);
        let ratio = record.efficiency_ratio.clone().unwrap();
        assert!((ratio.ratio.get() - factor).abs() < 1e-9, "{ratio:?}");
        // Both models of a seed share its noise.
        let interval = ratio.interval.unwrap();
        assert!(interval.high - interval.low < 1e-9, "{interval:?}");
        assert_eq!(ratio.n_seeds, 5);
        let [low, high] = ratio.perplexity.map(Finite::get);
        assert!((low - 2_f64.exp()).abs() < 1e-9 && (high - 3_f64.exp()).abs() < 1e-9);
        // Written and read, it is the same.
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), record);
    }
}

#[test]
fn flops_that_were_measured_stand_for_the_most_there_can_be() {
    // `mamba` in the place of a model that takes half of what its shapes may.
    let record = made_up::changed(&record(1.5), |cell| {
        if cell.model == "mamba" {
            let most = cell.at_budget.unwrap().forward_flops_per_token.get();
            let off = 1.0 + 0.01 * (cell.seed as f64 - 44.0);
            let flops = Finite::new(0.5 * most * off).unwrap();
            cell.metrics.as_mut().unwrap().forward_flops_per_token = Some(FlopsPerToken {
                with_head: flops,
                without_head: flops,
            });
        }
        true
    });
    let ratio = record.efficiency_ratio.clone().unwrap().ratio.get();
    assert!((ratio - 0.75).abs() < 1e-3, "{ratio}");
    let guide = EfficiencyGuide::new(&record).to_json();
    let flops = |model: &str| guide["flops_2e6"][model]["avg_flops_per_token"].as_f64();
    assert!((flops("mamba").unwrap() / (0.97 * 2e6 * 0.75) - 1.0).abs() < 1e-9);
    assert_eq!(flops("resnetbk"), Some(0.97 * 2e6));
    let table = table(&record).unwrap();
    assert!(table.contains("1.4550e6"), "{table}");
}

/// Moves the losses of `mamba` by so many nats, and a little more or less by seed.
fn shaken(original: &RunRecord, nats: f64) -> RunRecord {
    made_up::changed(original, |cell| {
        let evaluation = cell.metrics.as_mut().unwrap().evaluation.as_mut().unwrap();
        if cell.model == "mamba" {
            let noise = 0.02 * (cell.seed as f64 * 7.0 % 5.0 - 2.0);
            let loss = evaluation.nll_nats.get() + nats + noise;
            *evaluation = Evaluation::new(loss * 4096.0, 4096, 4096, 512).unwrap();
        }
        true
    })
}

#[test]
fn noise_that_pairs_do_not_share_widens_the_interval_and_a_missing_seed_is_left_out() {
    let original = record(1.5);
    let shaken = shaken(&original, 0.0);
    let interval = shaken.efficiency_ratio.clone().unwrap().interval.unwrap();
    let ratio = shaken.efficiency_ratio.unwrap().ratio.get();
    assert!(
        interval.low < ratio && ratio < interval.high,
        "{interval:?}"
    );
    assert!((1.4..1.6).contains(&ratio), "{ratio}");

    let broken = made_up::changed(&original, |cell| {
        if cell.seed == 43 && cell.model == "mamba" {
            cell.outcome = Outcome::OutOfMemory {
                requested_bytes: None,
            };
            cell.metrics = None;
        }
        true
    });
    assert_eq!(broken.efficiency_ratio.unwrap().n_seeds, 4);
}

#[test]
fn a_budget_out_of_reach_for_one_seed_is_left_out_for_all() {
    let skipped = made_up::changed(&record(1.7), |cell| {
        let budget = cell.at_budget.unwrap().budget.get();
        if (cell.model.as_str(), cell.seed, budget) == ("mamba", 43, 1e6) {
            cell.outcome = Outcome::Skipped {
                reason: "made up".into(),
                needs: "more".into(),
                have: "less".into(),
            };
            cell.metrics = None;
        }
        true
    });
    let ratio = skipped.efficiency_ratio.unwrap();
    assert_eq!(ratio.n_seeds, 5);
    assert!((ratio.ratio.get() - 1.7).abs() < 1e-9, "{ratio:?}");
    let high = ratio.perplexity[1].get().ln();
    assert!(
        (high - 2.5).abs() < 1e-9,
        "up to the loss under 2e6: {high}"
    );
}

#[test]
fn a_model_that_sees_its_targets_has_no_point_and_no_ratio() {
    let mut leaking = record(1.0);
    made_up::leak(&mut leaking, "mamba");
    leaking.derive();
    assert!(leaking.efficiency_ratio.is_none());
    assert!(
        leaking
            .efficiency
            .iter()
            .all(|point| point.model == "resnetbk")
    );
    assert_eq!(leaking.efficiency.len(), 3);
}

#[test]
fn there_is_no_ratio_where_the_fronts_share_no_perplexity() {
    let apart = shaken(&record(1.0), 2.0);
    assert!(apart.efficiency_ratio.is_none());
    let why = "No efficiency ratio: the models' fronts have no perplexity in common.";
    assert!(table(&apart).unwrap().contains(why));
}

#[test]
fn a_ratio_that_is_absent_says_why() {
    let says = |record: &RunRecord, why: &str| {
        assert!(record.efficiency_ratio.is_none());
        let table = table(record).unwrap();
        assert!(
            table.contains(&format!("No efficiency ratio: {why}.")),
            "{table}"
        );
    };
    let ended = |outcome: Outcome| {
        made_up::changed(&record(1.0), |cell| {
            if cell.model == "mamba" && cell.at_budget.unwrap().budget.get() == 2e6 {
                cell.outcome = outcome.clone();
                cell.metrics = None;
            }
            true
        })
    };
    says(
        &ended(made_up::diverged(3)),
        "mamba under 2e6 FLOPs, seed 42: diverged",
    );
    says(
        &ended(made_up::out_of_memory()),
        "mamba under 2e6 FLOPs, seed 42: out of memory",
    );
    let begun = made_up::changed(&record(1.0), |cell| {
        cell.model == "resnetbk" && cell.at_budget.unwrap().budget.get() == 1e6
    });
    says(&begun, "resnetbk under 2e6 FLOPs, seed 42: has not run");
    let mut leaking = record(1.0);
    made_up::leak(&mut leaking, "mamba");
    leaking.derive();
    says(&leaking, "mamba sees the tokens it predicts");
    let mut alone = record(1.0);
    alone.config.models.b = None;
    let alone = made_up::changed(&alone, |cell| cell.model == "resnetbk");
    says(&alone, "resnetbk is the only model");
    let skipped = made_up::changed(&record(1.0), |cell| {
        if cell.model == "mamba" {
            cell.outcome = Outcome::Skipped {
                reason: "made up".into(),
                needs: "more".into(),
                have: "less".into(),
            };
            cell.metrics = None;
        }
        true
    });
    says(&skipped, "no budget is within reach of mamba");
    let claim = half_the_flops(&ended(made_up::diverged(3))).verdict;
    let ClaimVerdict::NotTestable { why } = claim else {
        panic!("{claim:?}")
    };
    let part = "no seed has a ratio: mamba under 2e6 FLOPs, seed 42: diverged";
    assert!(why.contains(part), "{why}");
}

#[test]
fn a_report_tells_that_budgets_take_the_place_of_matching() {
    let page = |record: &RunRecord| {
        let runs = [("made up".to_owned(), record.clone())];
        let page = Document::of(&runs, &[], &Claim::of_the_guide().unwrap()).markdown();
        let (_, fair) = page
            .split_once("What was compared, and how fairly")
            .unwrap();
        fair.split("Audits").next().unwrap().to_owned()
    };
    let under = page(&record(1.0));
    for part in [
        "the budget takes the place of matching",
        "2 x 64 (budget 1e6)",
        "2 x 64 (budget 4e6)",
        "Shape: of every model and budget its own",
    ] {
        assert!(under.contains(part), "{part}: {under}");
    }
    for part in ["Matched within", "not part of this record", "Shape: width"] {
        assert!(!under.contains(part), "{part}: {under}");
    }
    let lengths = page(&made_up::record(40, false));
    for part in [
        "Matched within 10 %: parameters",
        "Shape: width 64, 2 blocks",
    ] {
        assert!(lengths.contains(part), "{part}: {lengths}");
    }
    assert!(!lengths.contains("budget"), "{lengths}");
}

/// The record with a control at every budget that both models beat.
fn with_control(record: &RunRecord) -> RunRecord {
    let mut with = record.clone();
    with.config.models.control = Some(NO_CONTEXT.into());
    let of_a = record.cells.iter().filter(|it| it.model == "resnetbk");
    with.cells.extend(of_a.cloned().map(|mut cell| {
        cell.id = format!("control of {}", cell.id);
        cell.model = NO_CONTEXT.into();
        let nll = 6.0 + 0.01 * made_up::noise(&cell);
        cell.metrics.as_mut().unwrap().evaluation = made_up::evaluation(nll);
        cell
    }));
    with.derive();
    with
}

/// What a record says of the guide's claim of half the FLOPs, at these budgets.
fn half_the_flops(record: &RunRecord) -> Judgement {
    let mut claims = Claim::of_the_guide().unwrap();
    claims.retain(|claim| claim.id == "half-the-flops");
    claims[0].settings = ["flops_1e6", "flops_2e6", "flops_4e6"]
        .map(str::to_owned)
        .into();
    judge(
        &claims,
        &[(
            "made up".into(),
            made_up::in_both_ways(&with_control(record)),
        )],
    )
    .remove(0)
}

#[test]
fn half_the_flops_is_judged_by_the_ratio_of_every_seeds_fronts() {
    let three = half_the_flops(&shaken(&record(3.0), 0.0));
    assert_eq!(three.verdict, ClaimVerdict::Supported);
    // One test of all budgets together, and one where learning rates are tuned. The noise of the five seeds cancels:
    // half a nat is a factor of two at any loss.
    let [setting, tuned] = &three.settings[..] else {
        panic!("{three:?}")
    };
    assert_eq!(setting.ratio_test, tuned.ratio_test);
    let test = setting.ratio_test.as_ref().unwrap();
    assert_eq!((test.n, test.n_missing), (5, 0));
    let ratio = test.ratio.unwrap().mean;
    assert!((ratio - 3.0).abs() < 1e-9, "{ratio}");

    let fewer = half_the_flops(&shaken(&record(1.2), 0.0));
    assert_eq!(fewer.verdict, ClaimVerdict::Contradicted);
    let just = half_the_flops(&shaken(&record(2.0), 0.0)).verdict;
    assert!(
        matches!(just, ClaimVerdict::Inconclusive { .. }),
        "{just:?}"
    );
    let apart = half_the_flops(&shaken(&record(1.0), 2.0)).verdict;
    let ClaimVerdict::NotTestable { why } = apart else {
        panic!("{apart:?}")
    };
    assert!(
        why.contains("no seed has a ratio: the models' fronts have no perplexity in common"),
        "{why}"
    );
}

#[test]
fn the_ratio_stands_in_the_csv_and_at_the_top_of_the_report() {
    let record = record(1.7);
    let runs = [("made up".to_owned(), record)];
    let text = csv::summaries(&runs);
    let fields = |line: &str| -> Vec<String> { line.split(',').map(str::to_owned).collect() };
    let heads = fields(text.lines().next().unwrap());
    let row = text.lines().map(fields).find(|row| row[3] == "all_budgets");
    let row = row.unwrap();
    assert_eq!(row.len(), heads.len());
    let at = heads
        .iter()
        .position(|it| it == "efficiency_ratio")
        .unwrap();
    assert_eq!(row[4], "resnetbk");
    assert!((row[at].parse::<f64>().unwrap() - 1.7).abs() < 1e-9);
    assert!(
        text.lines().nth(1).unwrap().contains(",flops_1e6,"),
        "{text}"
    );
    let page = Document::of(&runs, &[], &Claim::of_the_guide().unwrap()).markdown();
    let short = page.split("Verdicts on the claims").next().unwrap();
    assert!(
        short.contains("mamba takes 1.70 times the FLOPs of resnetbk"),
        "{short}"
    );
}

#[test]
fn a_point_that_costs_more_and_gains_nothing_is_off_the_front() {
    let record = made_up::changed(&record(1.0), |cell| {
        if cell.model == "mamba" && cell.at_budget.unwrap().budget.get() == 4e6 {
            let metrics = cell.metrics.as_mut().unwrap();
            metrics.evaluation = Some(Evaluation::new(3.5 * 4096.0, 4096, 4096, 512).unwrap());
        }
        true
    });
    let off: Vec<(&str, f64)> = record
        .efficiency
        .iter()
        .filter(|point| !point.on_front)
        .map(|point| (point.model.as_str(), point.at.budget.get()))
        .collect();
    assert_eq!(off, [("mamba", 4e6)]);
    let options = |annotate_pareto| Options {
        flops_budgets: Vec::new(),
        annotate_pareto,
        show_confidence_intervals: true,
    };
    let file = ResultsFile::Record(Box::new(record));
    assert!(
        draw(&file, &options(true))
            .unwrap()
            .svg
            .contains("off its front")
    );
    assert!(!draw(&file, &options(false)).unwrap().svg.contains("front"));
}

#[test]
fn budgets_are_settings_of_their_own_in_summaries_and_comparisons() {
    let means = bkbench::report::table::table(&record(1.5));
    assert!(means.starts_with("budget     model"), "{means}");

    let record = record(1.0);
    assert_eq!(record.summaries.len(), 3 * 2);
    assert!(record.summaries.iter().all(|summary| summary.n_seeds == 5));
    let settings: Vec<String> = comparisons(&record)
        .into_iter()
        .map(|comparison| comparison.setting)
        .collect();
    assert_eq!(settings, ["flops_1e6", "flops_2e6", "flops_4e6"]);
    assert!(record.limits.is_empty(), "no length was varied");
}

#[test]
fn flops_to_the_target_are_those_at_which_the_slowest_model_got_there() {
    let record = record(1.0);
    for point in &record.efficiency {
        let to_target = point.training_flops_to_target.unwrap().mean;
        let total = point.at.training_flops_total.get();
        assert!(to_target > 0.0 && to_target <= total, "{point:?}");
    }
}

// ---- from the command line ----

fn bkbench(dir: &Path, line: &str) -> std::process::Output {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    command.output().unwrap()
}

const TINY: &str = "
[models]
control = \"resnetbk\"
[data]
tokenizer = \"bytes\"
eval_tokens = 512
[efficiency]
seq_len = 64
batch_size = 2
";

#[test]
fn a_run_leaves_points_within_their_budgets_the_guides_file_and_a_plot() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tiny.toml"), TINY).unwrap();
    let output = bkbench(
        dir.path(),
        &format!(
            "run --benchmark efficiency --config tiny.toml --text {TEXT} --steps 2 --num_seeds 1 --device cpu --quiet \
             --flops_budgets 1e2 4e5 8e5 --output guide.json"
        ),
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "));
    let folder = dir.path().join(folder.unwrap());
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.cells.len(), 3 * 2, "budgets x models");
    for cell in &record.cells {
        let at = cell.at_budget.unwrap();
        if at.budget.get() == 1e2 {
            assert_eq!(cell.outcome.name(), "skipped", "{}", cell.model);
            continue;
        }
        assert_eq!(cell.outcome, Outcome::Completed);
        let used = at.used(BudgetUnit::ForwardFlopsPerToken) / at.budget.get();
        assert!((0.95..=1.0).contains(&used), "{}: {used}", cell.model);
        let ratio = at.training_flops_total.get() / at.forward_flops_per_token.get() / 256.0;
        assert!((2.9..3.1).contains(&ratio), "{ratio}");
    }
    // A layer that a smaller model does not have is no layer that drifted.
    let drifted = |warning: &&Warning| matches!(warning, Warning::KernelDrift { .. });
    let depths: Vec<usize> = record
        .cells
        .iter()
        .map(|cell| cell.at_budget.unwrap().n_layers)
        .collect();
    assert!(depths.iter().min() < depths.iter().max(), "{depths:?}");
    assert_eq!(record.warnings.iter().find(drifted), None);
    assert!(folder.join("efficiency.svg").exists());
    assert!(!folder.join("stability.svg").exists());

    let guide = std::fs::read_to_string(dir.path().join("guide.json")).unwrap();
    let guide: serde_json::Value = serde_json::from_str(&guide).unwrap();
    let entry = &guide["flops_4e5"]["mamba"];
    assert!(entry["ppl"].as_f64().unwrap() > 1.0);
    let flops = entry["avg_flops_per_token"].as_f64().unwrap();
    assert!((0.95 * 4e5..=4e5).contains(&flops));
    for source in ["guide.json".into(), folder.display().to_string()] {
        let line = format!(
            "plot efficiency --results_file {source} --output plot.pdf --flops_budgets 4e5 8e5 --annotate_pareto true"
        );
        let output = bkbench(dir.path(), &line);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for line in [
        "plot efficiency --results_file guide.json --output plot.svg --flops_budgets 7e7",
        "plot quantization --results_file guide.json --output plot.svg",
        "plot stability --results_file guide.json --output plot.svg",
    ] {
        let output = bkbench(dir.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
    assert!(!dir.path().join("plot.svg").exists());
}

#[test]
fn budgets_of_whole_trainings_need_their_steps() {
    let dir = tempfile::tempdir().unwrap();
    let unit = "[efficiency]\nbudget_unit = \"training_flops_total\"\nflops_budgets = [3e12]\n[data]\ntokenizer = \"bytes\"\n";
    std::fs::write(dir.path().join("total.toml"), unit).unwrap();
    let line = "run --benchmark efficiency --config total.toml --dry_run --device wgpu:99";
    let refused = bkbench(dir.path(), line);
    assert_eq!(refused.status.code(), Some(2));
    let planned = bkbench(dir.path(), &format!("{line} --steps 300"));
    assert!(
        planned.status.success(),
        "{}",
        String::from_utf8_lossy(&planned.stderr)
    );
    let planned = String::from_utf8(planned.stdout).unwrap();
    // 3e12 over 300 steps of 8 x 512 is 2,441,406 a token, forward and backward.
    assert!(planned.contains("mamba under 3e12 FLOPs"), "{planned}");
    assert!(!planned.contains("skipped"), "{planned}");
}
