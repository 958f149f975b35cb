//! The multidataset benchmark as a plain-text table.

use super::table::{aligned, estimate};
use crate::results::{DatasetSummary, Finite, RunRecord};

pub(super) const COLUMNS: [&str; 9] = [
    "dataset",
    "model",
    "trained on",
    "perplexity",
    "carried",
    "per word",
    "bits/byte",
    "bits/byte carried",
    "frequencies alone",
];

/// One row a dataset and model: means over completed seeds, `+-` half the 95 % t interval, `-` where absent; then which
/// datasets are here and what brings the others. `None` where the benchmark was not part of the run.
pub fn table(record: &RunRecord) -> Option<String> {
    record.datasets.as_ref()?;
    let mut lines = aligned(COLUMNS, rows(record).into_iter());
    lines.extend(remarks(record));
    Some(lines.join("\n") + "\n")
}

/// One row a dataset and model.
pub(super) fn rows(record: &RunRecord) -> Vec<[String; 9]> {
    let is_causal = |summary: &&DatasetSummary| record.is_causal(&summary.model);
    record
        .multidataset
        .iter()
        .filter(is_causal)
        .map(row)
        .collect()
}

fn row(summary: &DatasetSummary) -> [String; 9] {
    let unigram = summary.unigram_ce_nats.map(Finite::get);
    [
        summary.dataset.clone(),
        summary.model.clone(),
        summary.trained_on.clone(),
        estimate(summary.token_perplexity, 3),
        estimate(summary.carry_token_perplexity, 3),
        estimate(summary.word_perplexity, 1),
        estimate(summary.bits_per_byte, 4),
        estimate(summary.carry_bits_per_byte, 4),
        unigram.map_or("-".into(), |nats| format!("{:.3}", nats.exp())),
    ]
}

/// What to know of the table, a sentence each.
pub(super) fn remarks(record: &RunRecord) -> Vec<String> {
    let Some(datasets) = &record.datasets else {
        return Vec::new();
    };
    let config = &record.config.multidataset;
    let mut remarks = vec![
        format!("{}.", datasets.in_words(&config.datasets)),
        format!(
            "Perplexity is per token, every token scored once, the state reset after windows of {} tokens (stride = window); carried: from the first token of every document to its last. Bits per byte count the bytes of the raw text.",
            config.seq_len
        ),
    ];
    let absent = datasets.absent.iter();
    remarks.extend(absent.map(|it| format!("{} is not here: {}.", it.name, it.advice)));
    remarks
}
