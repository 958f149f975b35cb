//! A run's summaries as a plain-text table.

use super::document::visible;
use crate::results::{Censoring, Limit, ModelLimits, RunRecord, STEPS_FOR_A_CLAIM, Summary};
use crate::stats::Estimate;
use crate::units::{Count, fixed};

/// Heads of the table of a record.
pub(super) fn columns(record: &RunRecord) -> [&'static str; 11] {
    [
        setting_head(record),
        "model",
        "completed",
        "spikes",
        "not finite",
        "training loss",
        "held-out loss",
        "perplexity",
        "bits/byte",
        "context",
        "tokens/s",
    ]
}

/// Title of the table of models whose numbers are compared with nothing.
pub(super) const NOT_CAUSAL: &str = "not causal: these models see the tokens they predict";

pub(super) const LIMIT_COLUMNS: [&str; 3] = ["model", "max stable length", "max useful length"];

/// One row a setting (a sequence length, a budget, a dataset) and model: means over completed seeds, `+-` half the 95 % t interval, `-` where absent;
/// then one row a model with the lengths it reaches.
///
/// Losses are in nats per token; the training loss is that of the last tenth of the steps. Spikes and steps that were
/// not finite are counted over all seeds; loss-scale overflows too, in lines of their own where there are any. `context` says whether the held-out loss is lower than that of the control
/// without context, by the paired t test over seeds and Holm's p over all models and settings; with fewer than five seeds it is the
/// difference of the two. Models that are not causal stand apart, under a title that says so.
pub fn table(record: &RunRecord) -> String {
    let is_causal = |summary: &&Summary| record.is_causal(&summary.model);
    let (causal, others): (Vec<&Summary>, Vec<&Summary>) =
        record.summaries.iter().partition(is_causal);
    let mut lines = aligned(columns(record), causal.into_iter().map(row));
    lines.extend(counting(record));
    lines.extend(record.summaries.iter().filter_map(overflows));
    let (limits, others_limits): (Vec<&ModelLimits>, Vec<&ModelLimits>) = record
        .limits
        .iter()
        .partition(|limits| record.is_causal(&limits.model));
    lines.extend(limits_table(limits));
    if !others.is_empty() {
        lines.push(String::new());
        lines.push(NOT_CAUSAL.into());
        lines.extend(aligned(
            columns(record),
            others.into_iter().map(incomparable),
        ));
        lines.extend(limits_table(others_limits));
    }
    visible(&(lines.join("\n") + "\n"))
}

/// What counting alone reaches on the held-out text, in a sentence. Datasets have each their own, which stands in their table.
pub(super) fn counting(record: &RunRecord) -> Option<String> {
    let mut cells = record.cells.iter().filter(|it| it.on_dataset.is_none());
    let metrics = cells.find_map(|cell| cell.metrics.as_ref())?;
    let unigram = metrics.unigram_ce_nats.get();
    let three_gram = metrics.three_gram_ce_nats.map_or(String::new(), |nats| {
        let nats = nats.get();
        format!("; of an interpolated 3-gram, with two tokens of context: {nats:.3}")
    });
    Some(format!(
        "Held-out loss from token frequencies alone, without any context: {unigram:.3}{three_gram}."
    ))
}

/// An empty line and the lengths that the models reach, if any were looked for.
fn limits_table(limits: Vec<&ModelLimits>) -> Vec<String> {
    if limits.is_empty() {
        return Vec::new();
    }
    let table = aligned(LIMIT_COLUMNS, limits.into_iter().map(limits_row));
    std::iter::once(String::new()).chain(table).collect()
}

/// Lines of equally wide columns, the heads first.
pub(super) fn aligned<const N: usize>(
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Vec<String> {
    let heads = heads.map(str::to_owned).into();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows.map(Vec::from)).collect();
    aligned_rows(&rows)
}

/// The same of rows of any one length.
pub(super) fn aligned_rows(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

pub(super) fn row(summary: &Summary) -> [String; 11] {
    let n_cells: usize = summary.outcomes.values().sum();
    let others: Vec<String> = summary
        .outcomes
        .iter()
        .filter(|(name, _)| *name != "completed")
        .map(|(name, n)| format!(", {n} {}", name.replace('_', " ")))
        .collect();
    [
        setting(summary),
        summary.model.clone(),
        format!("{} of {n_cells}{}", summary.n_seeds, others.concat()),
        Count(summary.spikes as u64).to_string(),
        Count(summary.nan_count).to_string(),
        estimate(summary.final_loss_nats, 3),
        estimate(summary.nll_nats, 3),
        estimate(summary.token_perplexity, 2),
        estimate(summary.bits_per_byte, 3),
        context(summary),
        summary.tokens_per_second.map_or("-".into(), |rate| {
            Count(rate.mean.round() as u64).to_string()
        }),
    ]
}

/// What the [settings](setting) of a record are.
pub(super) fn setting_head(record: &RunRecord) -> &'static str {
    let head = |summary: &Summary| match (summary.flops_budget, &summary.dataset) {
        (Some(_), _) => "budget",
        (None, Some(_)) => "dataset",
        (None, None) => "N",
    };
    let mut heads = record.summaries.iter().map(head);
    let first = heads.next().unwrap_or("N");
    if heads.all(|other| other == first) {
        first
    } else {
        "setting"
    }
}

/// The sequence length, or the budget or dataset where there is one.
pub(super) fn setting(summary: &Summary) -> String {
    match (summary.flops_budget, &summary.dataset) {
        (Some(budget), _) => format!("{:e} FLOPs", budget.get()),
        (None, Some(dataset)) => dataset.clone(),
        (None, None) => Count(summary.seq_len as u64).to_string(),
    }
}

/// The row of a model that is not causal, without its test against the control.
pub(super) fn incomparable(summary: &Summary) -> [String; 11] {
    row(&Summary {
        against_no_context: None,
        ..summary.clone()
    })
}

/// What mixed precision cost, where it did.
pub(super) fn overflows(summary: &Summary) -> Option<String> {
    (summary.loss_scale_overflows > 0).then(|| {
        let is_length = summary.flops_budget.is_none() && summary.dataset.is_none();
        format!(
            "{} at {}{}: {} loss-scale overflow(s); each time the batch was tried again at half the scale.",
            summary.model,
            if is_length { "N = " } else { "" },
            setting(summary),
            Count(summary.loss_scale_overflows)
        )
    })
}

fn context(summary: &Summary) -> String {
    let Some(test) = summary.against_no_context else {
        return "-".into();
    };
    let verdict = match summary.beats_no_context() {
        Some(true) => "used",
        Some(false) => "not shown to be used",
        None => {
            let half = (test.interval.high - test.interval.low) / 2.0;
            let difference = fixed(test.mean_difference, 3);
            return format!("{difference} +- {half:.3}, too few seeds");
        }
    };
    let p = summary.against_no_context_p_holm;
    format!("{verdict} (Holm {:.1e})", p.unwrap_or(test.p))
}

pub(super) fn limits_row(limits: &ModelLimits) -> [String; 3] {
    let stable = limits.max_stable_length.map_or_else(
        || format!("no claim (fewer than {STEPS_FOR_A_CLAIM} steps)"),
        limit,
    );
    [
        limits.model.clone(),
        stable,
        limit(limits.max_useful_length),
    ]
}

fn limit(limit: Limit) -> String {
    let why = match limit.censored_by {
        Censoring::None => "",
        Censoring::OutOfMemory => "out of memory",
        Censoring::TimedOut => "timed out",
        Censoring::Skipped => "skipped",
        Censoring::Failed => "failed",
        Censoring::NotMeasured => "not measured",
        Censoring::MaxTested => "not tested",
    };
    let length = limit.length.map(|length| Count(length as u64));
    match (length, limit.censored_by) {
        (Some(length), Censoring::None) => length.to_string(),
        (Some(length), Censoring::MaxTested) => format!(">= {length} (longest tested)"),
        (Some(length), _) => format!(">= {length} ({why} beyond)"),
        (None, Censoring::None) => "none".into(),
        (None, _) => format!("unknown ({why})"),
    }
}

pub(super) fn estimate(estimate: Option<Estimate>, decimals: usize) -> String {
    let Some(Estimate { mean, interval, .. }) = estimate else {
        return "-".into();
    };
    let mean = fixed(mean, decimals);
    match interval {
        Some(interval) => format!(
            "{mean} +- {:.decimals$}",
            (interval.high - interval.low) / 2.0
        ),
        None => mean,
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
        let hardly = Estimate {
            mean: -0.00001,
            ..single
        };
        assert_eq!(estimate(Some(hardly), 4), "0.0000");
    }
}
