//! The efficiency benchmark as a plain-text table.

use super::table::{aligned, estimate};
use crate::results::{
    EfficiencyPoint, EfficiencyRatio, Finite, RunRecord, why_no_efficiency_ratio,
};
use crate::stats::Estimate;

pub(super) const COLUMNS: [&str; 11] = [
    "budget",
    "model",
    "layers x width",
    "forward FLOPs/token",
    "without head",
    "used",
    "training FLOPs",
    "perplexity",
    "bits/byte",
    "on front",
    "training FLOPs to target",
];

/// One row a budget and model, means over completed seeds, `+-` half the 95 % t interval, `-` where absent; then the FLOPs
/// of one model over the other's at equal perplexity. `None` where no cell has a budget.
pub fn table(record: &RunRecord) -> Option<String> {
    if record.efficiency.is_empty() {
        return None;
    }
    let mut lines = aligned(COLUMNS, rows(record).into_iter());
    lines.extend(remarks(record));
    Some(lines.join("\n") + "\n")
}

/// What to know of the table, a sentence each.
pub(super) fn remarks(record: &RunRecord) -> [String; 2] {
    let target = "The target is a training loss: the worst last one under the same budget, which all models reached.";
    [target.into(), ratio(record)]
}

/// The ratio of FLOPs in a sentence, or why there is none.
pub(super) fn ratio(record: &RunRecord) -> String {
    if let Some(ratio) = &record.efficiency_ratio {
        return format!("{}.", ratio_in_words(ratio));
    }
    let why = why_no_efficiency_ratio(record);
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    format!("No efficiency ratio{why}.")
}

/// One row a budget and model.
pub(super) fn rows(record: &RunRecord) -> Vec<[String; 11]> {
    let unit = record.config.efficiency.budget_unit;
    let row = |point: &EfficiencyPoint| {
        let (at, forward) = (&point.at, point.forward_flops_per_token());
        let used = 100.0 * point.used(unit) / at.budget.get();
        let flops = |estimate: Option<Estimate>| {
            estimate.map_or("-".into(), |estimate| format!("{:.3e}", estimate.mean))
        };
        [
            format!("{:e}", at.budget.get()),
            point.model.clone(),
            format!("{} x {}", at.n_layers, at.d_model),
            format!("{:.4e}", forward.with_head.get()),
            format!("{:.4e}", forward.without_head.get()),
            format!("{used:.1} %"),
            format!("{:.3e}", at.training_flops_total.get()),
            estimate(point.token_perplexity, 3),
            estimate(point.bits_per_byte, 4),
            if point.on_front { "yes" } else { "no" }.into(),
            flops(point.training_flops_to_target),
        ]
    };
    record.efficiency.iter().map(row).collect()
}

/// `mamba takes 1.23 times the FLOPs of resnetbk at equal perplexity, 95 % bootstrap [1.10, 1.40] over 5 seeds, ...`.
pub fn ratio_in_words(ratio: &EfficiencyRatio) -> String {
    let interval = ratio.interval.map_or("no interval".to_owned(), |it| {
        format!("95 % bootstrap [{:.2}, {:.2}]", it.low, it.high)
    });
    let [low, high] = ratio.perplexity.map(Finite::get);
    format!(
        "{} takes {:.2} times the FLOPs of {} at equal perplexity ({low:.2} to {high:.2}), {interval} over {} seed(s)",
        ratio.model_b,
        ratio.ratio.get(),
        ratio.model_a,
        ratio.n_seeds
    )
}
