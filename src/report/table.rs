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
    let line = |row: &[String; 8]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if let Some(metrics) = record.cells.iter().find_map(|cell| cell.metrics.as_ref()) {
        let unigram = metrics.unigram_ce_nats.get();
        lines.push(format!(
            "Held-out loss from token frequencies alone, without any context: {unigram:.3}."
        ));
    }
    lines.join("\n") + "\n"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Interval;

    #[test]
    fn an_estimate_is_printed_with_what_is_known_of_it() {
        let whole = Estimate {
            mean: 2.5,
            sd: Some(0.1),
            interval: Some(Interval {
                low: 2.25,
                high: 2.75,
            }),
            n: 3,
        };
        assert_eq!(estimate(Some(whole), 3), "2.500 +- 0.250");
        let single = Estimate {
            sd: None,
            interval: None,
            n: 1,
            ..whole
        };
        assert_eq!(estimate(Some(single), 2), "2.50");
        assert_eq!(estimate(None, 3), "-");
    }
}
