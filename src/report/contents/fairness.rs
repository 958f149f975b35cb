//! What was compared, and how fairly: sizes, common settings, audits.

use serde_json::Value;

use super::super::document::{Block, Kind};
use crate::config::{Benchmark, Budget, BudgetUnit, Config, Fairness, MatchBasis, Precision};
use crate::results::{AuditReport, AuditedWeights, Cell, Finding, RunRecord, Verdict};
use crate::units::Count;

pub(super) fn section(record: &RunRecord) -> Block {
    let labels = record.config.models.labels();
    let mut blocks = vec![
        Block::table(
            "The models and their sizes, in parameters",
            [
                "model",
                "role",
                "layers x width",
                "without embedding",
                "used by a token, without embedding",
                "with embedding",
            ],
            (3, Kind::Number),
            labels.iter().flat_map(|label| sizes(record, label)),
        ),
        Block::List(matching(record)),
        Block::section("Equal for all models", vec![Block::List(common(record))]),
    ];
    blocks.push(Block::section("Audits", audits(record)));
    Block::section("What was compared, and how fairly", blocks)
}

/// One row a shape: the matched one, and that of every budget.
fn sizes(record: &RunRecord, name: &str) -> Vec<[String; 6]> {
    let models = &record.config.models;
    let role = match name {
        _ if name == models.a => "a",
        _ if models.label_b().is_some_and(|b| name == b) => "b",
        _ => "control",
    };
    let mut cells: Vec<&Cell> = Vec::new();
    for cell in record.cells.iter().filter(|cell| cell.model == name) {
        if cells.iter().all(|known| known.at_budget != cell.at_budget) {
            cells.push(cell);
        }
    }
    if cells.is_empty() {
        let absent = || "-".to_owned();
        return vec![[
            name.into(),
            role.into(),
            absent(),
            absent(),
            absent(),
            absent(),
        ]];
    }
    let row = |cell: &&Cell| {
        let model = &record.config.model;
        let shape = match cell.at_budget {
            Some(at) => format!(
                "{} x {} (budget {:e})",
                at.n_layers,
                at.d_model,
                at.budget.get()
            ),
            None => format!("{} x {}", model.n_layers, model.d_model),
        };
        let sizes = cell.parameters;
        let [non_embedding, active, total] =
            [sizes.non_embedding, sizes.active, sizes.total].map(|n| Count(n).to_string());
        [
            name.into(),
            role.into(),
            shape,
            non_embedding,
            active,
            total,
        ]
    };
    cells.iter().map(row).collect()
}

/// Whether the budgets of FLOPs take the place of matching: in all of the run, or in a part of it.
fn by_budget(config: &Config) -> (bool, bool) {
    let some = config.benchmarks.contains(&Benchmark::Efficiency);
    (some && config.benchmarks.len() == 1, some)
}

/// What was matched, and what the audits found of it.
fn matching(record: &RunRecord) -> Vec<String> {
    if record.config.models.b.is_none() {
        return vec!["One model alone: nothing was matched.".into()];
    }
    let (all_by_budget, some_by_budget) = by_budget(&record.config);
    let mut lines = Vec::new();
    if some_by_budget {
        let unit = match record.config.efficiency.budget_unit {
            BudgetUnit::ForwardFlopsPerToken => "forward FLOPs a token, head included",
            BudgetUnit::TrainingFlopsTotal => "FLOPs of the whole training, head included",
        };
        lines.push(format!(
            "In efficiency the budget takes the place of matching: each model has a shape of its own, at most 5 % below the budget in {unit}. \
             What each shape takes is in the table of budgets."
        ));
    }
    if all_by_budget {
        return lines;
    }
    let basis = match record.config.model.match_basis {
        MatchBasis::Total => "parameters without the embedding",
        MatchBasis::Active => "the parameters that a token uses, without the embedding",
        MatchBasis::Flops => "forward FLOPs a token",
    };
    let where_else = if some_by_budget {
        ", in the other benchmarks"
    } else {
        ""
    };
    lines.push(format!("Matched within 10 %{where_else}: {basis}."));
    let n_said = lines.len();
    let checks = record.audits.iter().flat_map(|audit| &audit.checks);
    for check in checks {
        let line = check.to_string();
        if matches!(check.finding, Finding::Matching { .. }) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.len() == n_said {
        lines.push("No audit looked at the sizes.".into());
    }
    lines.push("`bkbench audit --flops` counts FLOPs operation by operation.".into());
    lines
}

fn common(record: &RunRecord) -> Vec<String> {
    let config = &record.config;
    let train = &config.train;
    let budget = match train.budget {
        Budget::Steps(steps) => format!("{} steps", Count(steps)),
        Budget::NumEpochs(epochs) => format!("{epochs} epoch(s) at the longest sequence length"),
    };
    let precision = match train.precision {
        Precision::F32 => "f32",
        Precision::Mixed => "matrix products in f16, everything else in f32",
    };
    let of_data = |pointer| record.data.pointer(pointer);
    let tokens = |pointer| {
        let n = of_data(pointer).and_then(Value::as_u64);
        n.map_or("an unknown number of".into(), |n| Count(n).to_string())
    };
    let text = of_data("/name").and_then(Value::as_str);
    let mut lines = vec![
        format!(
            "Text: {}; {} tokens to train on, {} held out; tokenizer {}.",
            text.unwrap_or("not named"),
            tokens("/train/n_tokens"),
            tokens("/eval/n_tokens"),
            config.data.tokenizer
        ),
        format!(
            "Training: {budget}, AdamW with weight decay {}, gradients cut to norm {}; {precision}.",
            train.weight_decay, train.gradient_clip_norm
        ),
        learning_rates(config),
        shape(config),
        format!(
            "Seeds: {} from {} on; one seed drives weights, data order and masks.",
            config.seeds.count, config.seeds.first
        ),
        "One configuration for all models; how its other values were chosen is not recorded."
            .into(),
    ];
    lines.extend(record.config.benchmarks.iter().map(|&benchmark| {
        let config = config.only(benchmark);
        let lengths = config.seq_lengths().into_iter();
        let lengths: Vec<String> = lengths.map(|n| Count(n as u64).to_string()).collect();
        format!(
            "In {}: {} sequence(s) a step; sequence lengths {}.",
            benchmark.name(),
            config.train.batch_size,
            lengths.join("; ")
        )
    }));
    if let Some(datasets) = &record.datasets {
        let wanted = &config.multidataset.datasets;
        lines.push(format!("{}.", datasets.in_words(wanted)));
        lines.extend(datasets.present.iter().map(dataset));
    }
    lines.extend(shared_trainings(record));
    lines
}

fn shape(config: &Config) -> String {
    let model = &config.model;
    let matched = format!("width {}, {} blocks", model.d_model, model.n_layers);
    let shape = match by_budget(config) {
        (true, _) => "of every model and budget its own".into(),
        (false, true) => format!("{matched}; in efficiency of every model and budget its own"),
        (false, false) => matched,
    };
    format!(
        "Shape: {shape}; ResNet-BK has {} experts, {} a token.",
        model.n_experts, model.top_k
    )
}

/// What is trained and evaluated on of one dataset, by its manifest.
fn dataset(manifest: &Value) -> String {
    let text = |pointer| manifest.pointer(pointer).and_then(Value::as_str);
    let tokens = |pointer| {
        let n = manifest.pointer(pointer).and_then(Value::as_u64);
        n.map_or("an unknown number of".into(), |n| Count(n).to_string())
    };
    let trained_on = text("/trained_on").map_or(String::new(), |name| format!(" of {name}"));
    format!(
        "{}: {} tokens{trained_on} to train on, {} held out ({}).",
        text("/name").unwrap_or("not named"),
        tokens("/train/n_tokens"),
        tokens("/eval/n_tokens"),
        text("/held_out_rule").unwrap_or("by no rule that is recorded")
    )
}

/// In which ways learning rates were set, and what a claim would need.
fn learning_rates(config: &Config) -> String {
    let rate = config.train.learning_rate;
    let tuned =
        "by equally many trials for each model, as told under \"How learning rates were chosen\"";
    match config.fairness[..] {
        [Fairness::Identical] => format!(
            "Learning rate: {rate} for every model, tuned for none. A claim also needs the other way, tuned equally for each."
        ),
        [Fairness::EqualTuning] => format!(
            "Learning rates: chosen {tuned}. A claim also needs the other way, one for all models."
        ),
        _ => format!(
            "Learning rates, in two ways that a claim needs to agree: {rate} for every model; and chosen {tuned}."
        ),
    }
}

/// How many trainings the cells share, if any.
fn shared_trainings(record: &RunRecord) -> Option<String> {
    let is_first = |cell: &&Cell| {
        let first = record.trained_by(&cell.training);
        first.is_some_and(|first| first.id == cell.id)
    };
    let (n_cells, n_trainings) = (
        record.cells.len(),
        record.cells.iter().filter(is_first).count(),
    );
    (n_trainings < n_cells).then(|| {
        format!(
            "{n_cells} cells of {n_trainings} trainings: what determines the same weights was trained once, and measured by each benchmark."
        )
    })
}

/// One row an audit; all findings to open.
fn audits(record: &RunRecord) -> Vec<Block> {
    if record.audits.is_empty() {
        return vec![Block::Paragraph(
            "No model was audited: nothing here shows that they are causal and reproducible."
                .into(),
        )];
    }
    let weights = |audit: &AuditReport| match audit.weights {
        AuditedWeights::Initial => "as drawn",
        AuditedWeights::Final => "trained",
    };
    let row = |audit: &AuditReport| {
        let is_passed = |verdict: Verdict| verdict == Verdict::Pass;
        let n_passed = audit.checks.iter().filter(|it| is_passed(it.verdict));
        let others = audit.checks.iter().filter(|it| !is_passed(it.verdict));
        let others: Vec<String> = others.map(ToString::to_string).collect();
        [
            audit.model.clone(),
            weights(audit).to_owned(),
            format!("{} of {}", n_passed.count(), audit.checks.len()),
            if others.is_empty() {
                "-".into()
            } else {
                others.join("\n")
            },
        ]
    };
    let all = |audit: &AuditReport| {
        let head = format!("{}, weights {}", audit.model, weights(audit));
        let checks = audit
            .checks
            .iter()
            .map(move |it| [head.clone(), it.verdict.to_string(), it.finding.to_string()]);
        checks.collect::<Vec<_>>()
    };
    vec![
        Block::table(
            "Checks of every model: causality, initial loss, gradients, determinism, equal data, sizes, kernels",
            ["model", "weights", "passed", "warned or failed"],
            (2, Kind::Text),
            record.audits.iter().map(row),
        ),
        Block::details(
            "Every finding",
            vec![Block::table(
                "Findings of the audits",
                ["audit", "verdict", "finding"],
                (1, Kind::Text),
                record.audits.iter().flat_map(all),
            )],
        ),
    ]
}
