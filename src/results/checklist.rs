//! The benchmarking guide's checklist, answered by what a record holds.

use serde::Serialize;

use super::{
    AuditCheck, Cell, Comparison, Finding, Outcome, RunRecord, SEEDS_FOR_A_CLAIM, Verdict, Warning,
};
use crate::config::{Benchmark, Fairness};
use crate::stats::t_quantile;

/// The guide's items, in its order and words.
pub const CHECKLIST: [&str; 12] = [
    "Identical hyperparameters for both models",
    "Same tokenizer and vocabulary",
    "Same random seeds",
    "Same hardware (GPU model, CUDA version)",
    "Fair FLOPs counting (all operations)",
    "Fair memory measurement (all components)",
    "Multiple runs (\u{2265}5 seeds)",
    "Statistical significance (p < 0.001)",
    "Confidence intervals reported",
    "Bonferroni correction applied",
    "Effect sizes computed",
    "Results reproducible (code + data + checkpoints)",
];

/// Whether an item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecklistStatus {
    /// The evidence shows it.
    Met,
    /// The evidence is missing or shows the opposite.
    NotMet,
    /// The run compares nothing of the kind.
    NotApplicable,
}

/// One item with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChecklistItem {
    /// In the guide's words, one of [`CHECKLIST`].
    pub item: &'static str,
    /// Whether it holds.
    pub status: ChecklistStatus,
    /// What was found.
    pub finding: String,
    /// JSON pointers (RFC 6901) into `result.json` to what it was found in.
    pub evidence: Vec<String>,
}

/// What is said of an item: whether it is met, what was found, and where.
type Answer = (ChecklistStatus, String, Vec<String>);

fn met_if(is_met: bool) -> ChecklistStatus {
    if is_met {
        ChecklistStatus::Met
    } else {
        ChecklistStatus::NotMet
    }
}

/// Answers every item from a record and its [`comparisons`](super::comparisons). "Significance" is met where every
/// comparison was tested and is reported: a null result passes.
pub fn checklist(record: &RunRecord, comparisons: &[Comparison]) -> Vec<ChecklistItem> {
    let answers: [Answer; 12] = [
        hyperparameters(record),
        tokenizer(record),
        seeds(record),
        hardware(record),
        flops(record),
        memory(record),
        n_seeds(record),
        significance(comparisons),
        of_comparisons(comparisons, "a 95 % t interval of the difference", |c| {
            c.difference_nats.is_some_and(|d| d.interval.is_some())
        }),
        of_comparisons(comparisons, "p adjusted by Bonferroni and Holm", |c| {
            c.p_bonferroni.is_some() && c.p_holm.is_some()
        }),
        of_comparisons(comparisons, "Cohen's d, d_z and Hedges' g", |c| {
            c.d_z.is_some()
                && c.hedges_g.is_some()
                && c.guide.is_some_and(|guide| guide.cohens_d.is_some())
        }),
        reproducible(record),
    ];
    let items = CHECKLIST.into_iter().zip(answers);
    items
        .map(|(item, (status, finding, evidence))| ChecklistItem {
            item,
            status,
            finding,
            evidence,
        })
        .collect()
}

/// The checks of all audits of the kind that `wanted` picks, with their pointers.
fn audited(record: &RunRecord, wanted: impl Fn(&Finding) -> bool) -> Vec<(String, &AuditCheck)> {
    let mut found = Vec::new();
    for (i, audit) in record.audits.iter().enumerate() {
        for (j, check) in audit.checks.iter().enumerate() {
            if wanted(&check.finding) {
                found.push((format!("/audits/{i}/checks/{j}"), check));
            }
        }
    }
    found
}

/// Whether there are checks and all of them passed, and where they stand.
fn all_passed(checks: Vec<(String, &AuditCheck)>) -> (bool, Vec<String>) {
    let passed = checks
        .iter()
        .all(|(_, check)| check.verdict == Verdict::Pass);
    let found = !checks.is_empty();
    (
        found && passed,
        checks.into_iter().map(|(at, _)| at).collect(),
    )
}

fn hyperparameters(record: &RunRecord) -> Answer {
    let mut evidence = vec!["/config".to_owned(), "/config_sha256".to_owned()];
    let is_whole = record
        .config
        .sha256()
        .is_ok_and(|hash| hash == record.config_sha256);
    let mut finding = if is_whole {
        "one configuration for all models, and its hash agrees".to_owned()
    } else {
        "the configuration does not have the hash that the record names".to_owned()
    };
    let matching = audited(record, |finding| {
        matches!(finding, Finding::Matching { .. })
    });
    // Under budgets every shape is its own, and those that were audited are not trained.
    let is_matched = record.config.benchmarks != [Benchmark::Efficiency];
    if let Some((at, check)) = matching.into_iter().next().filter(|_| is_matched) {
        finding = format!("{finding}; {}", check.finding);
        evidence.push(at);
    }
    let is_identical = record.config.fairness.contains(&Fairness::Identical);
    if !is_identical {
        finding = format!("{finding}; learning rates were tuned for each model");
        evidence.push("/tuning/chosen".to_owned());
    }
    (met_if(is_whole && is_identical), finding, evidence)
}

fn tokenizer(record: &RunRecord) -> Answer {
    let checks = audited(record, |finding| {
        matches!(finding, Finding::EqualData { .. })
    });
    let (passed, mut evidence) = all_passed(checks);
    evidence.push("/data".to_owned());
    let finding = if passed {
        "every model was given the tokens of one tokenizer"
    } else {
        "no audit shows that all models were given equal data"
    };
    (met_if(passed), finding.into(), evidence)
}

/// Cells by index.
fn cells(record: &RunRecord) -> impl Iterator<Item = (usize, &Cell)> {
    record.cells.iter().enumerate()
}

fn seeds(record: &RunRecord) -> Answer {
    let mut problems = Vec::new();
    let mut evidence = vec!["/config/seeds".to_owned()];
    let mut settings: Vec<(Benchmark, String)> = Vec::new();
    for cell in &record.cells {
        let setting = (cell.benchmark, cell.setting());
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let (n_run, n_missing) = (record.cells.len() as u64, record.n_missing());
    if n_missing > 0 {
        let n_planned = n_run + n_missing;
        problems.push(format!("{n_run} of {n_planned} cells have run"));
    }
    let labels = record.config.models.labels();
    for (benchmark, setting) in &settings {
        for model in labels.iter().map(String::as_str) {
            let here = |cell: &&Cell| {
                (cell.benchmark, cell.model.as_str()) == (*benchmark, model)
                    && cell.setting() == *setting
            };
            let ran: Vec<u64> = record
                .cells
                .iter()
                .filter(here)
                .map(|cell| cell.seed)
                .collect();
            let missing = record
                .config
                .seeds
                .iter()
                .filter(|seed| !ran.contains(seed));
            let missing = missing.count();
            if missing > 0 {
                problems.push(format!("{model} at {setting} lacks {missing} seed(s)"));
            }
        }
    }
    let order = |cell: &Cell| Some(cell.metrics.as_ref()?.data_order_sha256.clone());
    for (i, cell) in cells(record) {
        let is_twin = |other: &&Cell| {
            (other.benchmark, other.seed) == (cell.benchmark, cell.seed)
                && other.setting() == cell.setting()
                && other.outcome == Outcome::Completed
        };
        let Some(first) = record.cells.iter().find(is_twin) else {
            continue;
        };
        if cell.outcome == Outcome::Completed && order(first) != order(cell) {
            problems.push(format!(
                "{} and {} at {}, seed {}, read the text in different orders",
                first.model,
                cell.model,
                cell.setting(),
                cell.seed
            ));
            evidence.push(format!("/cells/{i}/metrics/data_order_sha256"));
        }
    }
    let is_met = problems.is_empty() && !record.cells.is_empty();
    let finding = if is_met {
        "every model ran with the same seeds and read the text in the same order".to_owned()
    } else if record.cells.is_empty() {
        "no cell has run".to_owned()
    } else {
        problems.join("; ")
    };
    evidence.push("/cells".to_owned());
    (met_if(is_met), finding, evidence)
}

fn hardware(record: &RunRecord) -> Answer {
    let name = record
        .hardware
        .get("adapter")
        .and_then(serde_json::Value::as_str);
    let finding = name.map_or("the record names no adapter".to_owned(), |name| {
        format!("all cells ran on {name}; a resumed run goes on where the fingerprint agrees only")
    });
    (met_if(name.is_some()), finding, vec!["/hardware".into()])
}

fn flops(record: &RunRecord) -> Answer {
    if !record.efficiency.is_empty() {
        let n = record.efficiency.len();
        let finding = format!(
            "{n} shapes were solved by the count of every operation of ours, head included; \
             `bkbench audit --flops` holds that count against the oracle's"
        );
        return (ChecklistStatus::Met, finding, vec!["/efficiency".into()]);
    }
    (
        ChecklistStatus::NotApplicable,
        format!(
            "{} compares no FLOPs; `bkbench audit --flops` counts them",
            record.config.title()
        ),
        vec!["/config/benchmarks".into()],
    )
}

fn memory(record: &RunRecord) -> Answer {
    let began = || cells(record).filter_map(|(i, cell)| Some((i, cell.metrics.as_ref()?)));
    let unmeasured: Vec<String> = began()
        .filter(|(_, metrics)| metrics.memory.peak_memory_bytes.0 == 0)
        .map(|(i, _)| format!("/cells/{i}/metrics/memory"))
        .collect();
    let n_off = record
        .warnings
        .iter()
        .filter(|warning| matches!(warning, Warning::MemoryEstimateOff { .. }))
        .count();
    let n_cells = began().count();
    if n_cells == 0 || !unmeasured.is_empty() {
        let finding = format!(
            "{} of {n_cells} trainings have no measured peak",
            unmeasured.len()
        );
        let evidence = if unmeasured.is_empty() {
            vec!["/cells".into()]
        } else {
            unmeasured
        };
        return (ChecklistStatus::NotMet, finding, evidence);
    }
    let finding = format!(
        "measured peak and an estimate by category for {n_cells} trainings; the estimate was off in {n_off}"
    );
    let evidence = began().map(|(i, _)| format!("/cells/{i}/metrics/memory"));
    (ChecklistStatus::Met, finding, evidence.collect())
}

/// Seeds that completed, at the setting and of the model of which the fewest did.
fn n_seeds(record: &RunRecord) -> Answer {
    let planned = record.config.seeds.count;
    let ways = record.ways();
    let summaries = ways.iter().flat_map(|way| &way.summaries);
    let least = summaries.min_by_key(|summary| summary.n_seeds);
    let n_missing = record.n_missing();
    let finding = match least {
        _ if n_missing > 0 => format!("{planned} seed(s), and {n_missing} cell(s) have not run"),
        Some(least) if (least.n_seeds as u64) < planned => format!(
            "{planned} seed(s), of which {} completed for {} at {}",
            least.n_seeds,
            least.model,
            least.setting()
        ),
        _ => format!("{planned} seed(s)"),
    };
    let completed = least.map_or(0, |least| least.n_seeds as u64);
    (
        met_if(n_missing == 0 && completed >= SEEDS_FOR_A_CLAIM),
        finding,
        vec!["/config/seeds/count".into(), "/summaries".into()],
    )
}

fn significance(comparisons: &[Comparison]) -> Answer {
    let (status, mut finding, evidence) =
        of_comparisons(comparisons, "a paired t test", |c| c.paired_t.is_some());
    if status == ChecklistStatus::Met {
        let p = comparisons.iter().filter_map(|c| Some(c.paired_t?.p));
        let n_below = p.filter(|&p| p < 0.001).count();
        finding = format!("{finding}, {n_below} with p < 0.001");
        let least = comparisons.iter().map(|c| c.n_pairs).min();
        if let Some((n, t)) = least.and_then(|n| Some((n, t_quantile(0.9995, n - 1)?))) {
            finding = format!("{finding}; with {n} pairs that takes |t| > {t:.2}");
        }
    }
    (status, finding, evidence)
}

/// An item that every comparison must have.
fn of_comparisons(
    comparisons: &[Comparison],
    what: &str,
    has: impl Fn(&Comparison) -> bool,
) -> Answer {
    let lacking: Vec<&str> = comparisons
        .iter()
        .filter(|comparison| !has(comparison))
        .map(|comparison| comparison.setting.as_str())
        .collect();
    let evidence = vec!["/cells".to_owned()];
    if comparisons.is_empty() {
        let finding = "the run compares no two models".to_owned();
        return (ChecklistStatus::NotMet, finding, evidence);
    }
    if lacking.is_empty() {
        let finding = format!("{} comparison(s) with {what}", comparisons.len());
        return (ChecklistStatus::Met, finding, evidence);
    }
    let finding = format!("missing at {}: {what}", lacking.join(", "));
    (ChecklistStatus::NotMet, finding, evidence)
}

fn reproducible(record: &RunRecord) -> Answer {
    let checks = audited(record, |finding| {
        matches!(finding, Finding::Determinism { .. })
    });
    let (is_deterministic, mut evidence) = all_passed(checks);
    let mut missing = Vec::new();
    if !is_deterministic {
        missing.push("two processes that train to the same bits");
    }
    if !record
        .data
        .get("train")
        .is_some_and(serde_json::Value::is_object)
    {
        missing.push("hashes of the text");
    }
    if record.files.keep_checkpoints {
        evidence.push("/files/keep_checkpoints".into());
    } else {
        missing.push("checkpoints (--save_checkpoints)");
    }
    evidence.extend(["/provenance/bkbench_version".to_owned(), "/data".to_owned()]);
    let finding = if missing.is_empty() {
        "version, hashes of the text, bitwise determinism and checkpoints are there; `bkbench replay` checks them"
            .to_owned()
    } else {
        format!("missing: {}", missing.join(", "))
    };
    (met_if(missing.is_empty()), finding, evidence)
}
