//! A run's summaries as a plain-text table.

use crate::results::{RunRecord, Summary};
use crate::stats::Estimate;
use crate::units::Count;

const COLUMNS: [&str; 8] = [
    "N",
    "model",
    "completed",
    "training loss",
    "held-out loss",
    "perplexity",
    "bits/byte",
    "tokens/s",
];

/// One row a sequence length and model: means over completed seeds, `+-` half the 95 % t interval, `-` where absent.
/// Losses are in nats per token; the training loss is that of the last tenth of the steps.
pub fn table(record: &RunRecord) -> String {
    let mut rows: Vec<[String; 8]> = vec![COLUMNS.map(str::to_owned)];
    rows.extend(record.summaries.iter().map(row));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    if let Some(metrics) = record.cells.iter().find_map(|cell| cell.metrics.as_ref()) {
        let unigram = metrics.unigram_ce_nats.get();
        text.push_str(&format!(
            "Held-out loss from token frequencies alone, without any context: {unigram:.3}.\n"
        ));
    }
    text
}

fn row(summary: &Summary) -> [String; 8] {
    let n_cells: usize = summary.outcomes.values().sum();
    let others: Vec<String> = summary
        .outcomes
        .iter()
        .filter(|(name, _)| *name != "completed")
        .map(|(name, n)| format!(", {n} {}", name.replace('_', " ")))
        .collect();
    [
        Count(summary.seq_len as u64).to_string(),
        summary.model.clone(),
        format!("{} of {n_cells}{}", summary.n_seeds, others.concat()),
        estimate(summary.final_loss_nats, 3),
        estimate(summary.nll_nats, 3),
        estimate(summary.token_perplexity, 2),
        estimate(summary.bits_per_byte, 3),
        summary.tokens_per_second.map_or("-".into(), |rate| {
            Count(rate.mean.round() as u64).to_string()
        }),
    ]
}

fn estimate(estimate: Option<Estimate>, decimals: usize) -> String {
    let Some(Estimate { mean, interval, .. }) = estimate else {
        return "-".into();
    };
    match interval {
        Some(interval) => format!(
            "{mean:.decimals$} +- {:.decimals$}",
            (interval.high - interval.low) / 2.0
        ),
        None => format!("{mean:.decimals$}"),
    }
}
