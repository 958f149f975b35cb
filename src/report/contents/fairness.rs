//! What was compared, and how fairly: sizes, common settings, audits.

use serde_json::Value;

use super::super::document::{Block, Kind};
use crate::config::{Budget, Config, Fairness, MatchBasis, Precision};
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
                "without embedding",
                "used by a token, without embedding",
                "with embedding",
            ],
            (2, Kind::Number),
            labels.iter().map(|label| size(record, label)),
        ),
        Block::List(matching(record)),
        Block::section("Equal for all models", vec![Block::List(common(record))]),
    ];
    blocks.push(Block::section("Audits", audits(record)));
    Block::section("What was compared, and how fairly", blocks)
}

fn size(record: &RunRecord, name: &str) -> [String; 5] {
    let models = &record.config.models;
    let role = match name {
        _ if name == models.a => "a",
        _ if models.label_b().is_some_and(|b| name == b) => "b",
        _ => "control",
    };
    let cell = record.cells.iter().find(|cell| cell.model == name);
    let count = |n: Option<u64>| n.map_or("-".into(), |n| Count(n).to_string());
    let parameters = cell.map(|cell| cell.parameters);
    [
        name.to_owned(),
        role.to_owned(),
        count(parameters.map(|it| it.non_embedding)),
        count(parameters.map(|it| it.active)),
        count(parameters.map(|it| it.total)),
    ]
}

/// What was matched, and what the audits found of it.
fn matching(record: &RunRecord) -> Vec<String> {
    if record.config.models.b.is_none() {
        return vec!["One model alone: nothing was matched.".into()];
    }
    let basis = match record.config.model.match_basis {
        MatchBasis::Total => "parameters without the embedding",
        MatchBasis::Active => "the parameters that a token uses, without the embedding",
        MatchBasis::Flops => "forward FLOPs a token",
    };
    let mut lines = vec![format!("Matched within 10 %: {basis}.")];
    let checks = record.audits.iter().flat_map(|audit| &audit.checks);
    for check in checks {
        let line = check.to_string();
        if matches!(check.finding, Finding::Matching { .. }) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.len() == 1 {
        lines.push("No audit looked at the sizes.".into());
    }
    lines.push(
        "FLOPs a token are not part of this record: `bkbench audit --flops` counts them, operation by operation.".into(),
    );
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
        format!(
            "Shape: width {}, {} blocks; ResNet-BK has {} experts, {} a token.",
            config.model.d_model, config.model.n_layers, config.model.n_experts, config.model.top_k
        ),
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
