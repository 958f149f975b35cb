//! The recall probe as a plain-text table.

use super::table::aligned_rows;
use crate::results::{RecallBucket, RecallResult, RecallVerdict, RunRecord};
use crate::stats::{self, Interval};

/// Accuracy by distance (rows) and model (columns): means over the seeds that were measured with their 95 % t interval, that of
/// one seed over its sequences, `-` where there is none; then what the probe's controls say. `None` where the probe did not
/// run.
pub fn table(record: &RunRecord) -> Option<String> {
    let verdict = verdict(record)?;
    let (models, rows) = rows(record);
    let head = std::iter::once("recall over".to_owned()).chain(models);
    let rows = rows.into_iter().map(|(distance, accuracies)| {
        let distance = std::iter::once(distance.to_string());
        distance.chain(accuracies).collect()
    });
    let rows: Vec<Vec<String>> = std::iter::once(head.collect()).chain(rows).collect();
    let mut lines = aligned_rows(&rows);
    lines.push(INTERVALS.to_owned());
    lines.push(verdict);
    Some(lines.join("\n") + "\n")
}

/// What the intervals of [`rows`] are.
pub(super) const INTERVALS: &str = "Means over n seeds with the 95 % t interval, of one seed over its sequences; none where no two values differ.";

/// What the probe's controls say; `None` where it did not run.
pub(super) fn verdict(record: &RunRecord) -> Option<String> {
    let verdict = match record.recall_verdict.as_ref()? {
        RecallVerdict::Sound => "sound".to_owned(),
        RecallVerdict::Broken { reason } => format!("broken, its numbers mean nothing: {reason}"),
    };
    Some(format!("Chance is 1/64 = 0.016. The probe is {verdict}."))
}

/// The models, each with its number of seeds, and by distance the accuracy of each.
pub(super) fn rows(record: &RunRecord) -> (Vec<String>, Vec<(usize, Vec<String>)>) {
    let mut models: Vec<&str> = Vec::new();
    let mut distances: Vec<usize> = Vec::new();
    for result in &record.recall {
        if !models.contains(&result.model.as_str()) {
            models.push(&result.model);
        }
        if result.buckets.len() > distances.len() {
            distances = result
                .buckets
                .iter()
                .map(|bucket| bucket.distance)
                .collect();
        }
    }
    let row = |distance| {
        let of_model = |model: &&str| accuracy(&record.recall, model, distance);
        (distance, models.iter().map(of_model).collect())
    };
    let rows = distances.into_iter().map(row).collect();
    let head = |model: &&str| {
        let measured = |it: &&RecallResult| it.model == *model && !it.buckets.is_empty();
        let n = record.recall.iter().filter(measured).count();
        format!("{model} (n = {n})")
    };
    (models.iter().map(head).collect(), rows)
}

fn accuracy(results: &[RecallResult], model: &str, distance: usize) -> String {
    let buckets: Vec<&RecallBucket> = results
        .iter()
        .filter(|result| result.model == model)
        .flat_map(|result| &result.buckets)
        .filter(|bucket| bucket.distance == distance)
        .collect();
    let accuracies: Vec<f64> = buckets.iter().map(|it| it.accuracy.get()).collect();
    let Some(mean) = stats::mean(&accuracies) else {
        return "-".into();
    };
    let interval = match buckets[..] {
        [bucket] => bucket.interval,
        _ => stats::t_interval(&accuracies).filter(|it| it.low < it.high),
    };
    let interval = interval.map_or(String::new(), |Interval { low, high }| {
        // No accuracy lies beyond these.
        format!(" [{:.3}, {:.3}]", low.max(0.0), high.min(1.0))
    });
    format!("{mean:.3}{interval}")
}
