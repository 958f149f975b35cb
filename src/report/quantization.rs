//! The quantization benchmark as plain-text tables.

use super::table::{aligned, estimate};
use crate::quant::BitWidth;
use crate::results::{Cell, RunRecord, WidthSummary};
use crate::stats::{self, Estimate};
use crate::units::{Count, fixed};

pub(super) const COLUMNS: [&str; 10] = [
    "width",
    "model",
    "perplexity",
    "bits/byte",
    "degradation",
    "loss - fp32",
    "MB",
    "MB w/o embedding",
    "prefill tokens/s",
    "decode tokens/s",
];

/// What [`sensitivity`] shows.
pub(super) const SENSITIVITY: &str =
    "Loss added by one family alone (nats per token, mean over seeds)";
pub(super) const SENSITIVITY_COLUMNS: [&str; 6] =
    ["model", "family", "fp16", "int8", "int4", "int2"];

/// One row a width and model (`degradation` is the perplexity over that at fp32, less 1), means over completed seeds, `+-` half the 95 % t interval, `-` where absent; then what
/// quantising one family of parameters alone adds to the loss, in nats per token. `None` where nothing was quantised.
pub fn table(record: &RunRecord) -> Option<String> {
    if record.quantization.is_empty() {
        return None;
    }
    let mut lines = given(record);
    lines.extend(aligned(COLUMNS, rows(record).into_iter()));
    lines.push(String::new());
    lines.push(format!("{SENSITIVITY}:"));
    lines.extend(aligned(
        SENSITIVITY_COLUMNS,
        sensitivity(record).into_iter(),
    ));
    Some(lines.join("\n") + "\n")
}

/// A line a model that was not trained by the run.
pub(super) fn given(record: &RunRecord) -> Vec<String> {
    let line = |cell: &Cell| {
        let given = cell.given.as_ref()?;
        let steps = given.steps.map_or(String::new(), |steps| {
            format!(", {} steps taken before", Count(steps))
        });
        Some(format!(
            "{}: weights given and not trained here: {}, {} layout{steps}, sha256 {}.",
            cell.model,
            given.path.display(),
            given.layout,
            given.file_sha256
        ))
    };
    record.cells.iter().filter_map(line).collect()
}

/// Width by width.
pub(super) fn rows(record: &RunRecord) -> Vec<[String; 10]> {
    let mut summaries: Vec<&WidthSummary> = record.quantization.iter().collect();
    // A stable sort keeps the models in their order.
    summaries.sort_by_key(|summary| summary.width);
    summaries.into_iter().map(row).collect()
}

fn row(summary: &WidthSummary) -> [String; 10] {
    let rate = |rate: Option<Estimate>| {
        rate.map_or("-".into(), |rate| {
            Count(rate.mean.round() as u64).to_string()
        })
    };
    let size = |mb: Option<f64>| mb.map_or("-".into(), |mb| format!("{mb:.3}"));
    [
        summary.width.to_string(),
        summary.model.clone(),
        estimate(summary.token_perplexity, 3),
        estimate(summary.bits_per_byte, 4),
        estimate(summary.degradation, 4),
        estimate(summary.degradation_nats, 4),
        size(summary.size_mb),
        size(summary.size_without_embedding_mb),
        rate(summary.prefill_tokens_per_second),
        rate(summary.decode_tokens_per_second),
    ]
}

/// One row a model and family.
pub(super) fn sensitivity(record: &RunRecord) -> Vec<[String; 6]> {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    let entries = || {
        record.cells.iter().flat_map(|cell| {
            let metrics = cell.quantization.iter();
            let entries = metrics.flat_map(|metrics| &metrics.sensitivity);
            entries.map(|entry| (cell.model.as_str(), entry))
        })
    };
    for (model, entry) in entries() {
        if !rows.contains(&(model, &entry.family)) {
            rows.push((model, &entry.family));
        }
    }
    let mean = |model: &str, family: &str, width: BitWidth| {
        let values: Option<Vec<f64>> = entries()
            .filter(|(of, entry)| {
                (*of, entry.family.as_str(), entry.width) == (model, family, width)
            })
            .map(|(_, entry)| Some(entry.nll_difference_nats?.get()))
            .collect();
        let mean = values.and_then(|values| stats::mean(&values));
        mean.map_or("-".into(), |mean| {
            let text = fixed(mean, 4);
            if mean > 0.0 { format!("+{text}") } else { text }
        })
    };
    let row = |(model, family): (&str, &str)| {
        let at = |width| mean(model, family, width);
        [
            model.to_owned(),
            family.to_owned(),
            at(BitWidth::Fp16),
            at(BitWidth::Int8),
            at(BitWidth::Int4),
            at(BitWidth::Int2),
        ]
    };
    rows.into_iter().map(row).collect()
}
