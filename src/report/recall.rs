//! The recall probe as a plain-text table.

use crate::results::{RecallResult, RecallVerdict, RunRecord};
use crate::stats;

/// Accuracy by distance (rows) and model (columns): means over the seeds that were measured, `-` where there is none;
/// then what the probe's controls say. `None` where the probe did not run.
pub fn table(record: &RunRecord) -> Option<String> {
    let verdict = verdict(record)?;
    let (models, rows) = rows(record);
    let head = models.iter().map(|model| format!("{model:>12}"));
    let mut lines = vec![format!("recall over{}", head.collect::<String>())];
    for (distance, accuracies) in rows {
        let cells = accuracies.iter().map(|accuracy| format!("{accuracy:>12}"));
        lines.push(format!("{distance:>11}{}", cells.collect::<String>()));
    }
    lines.push(verdict);
    Some(lines.join("\n") + "\n")
}

/// What the probe's controls say; `None` where it did not run.
pub(super) fn verdict(record: &RunRecord) -> Option<String> {
    let verdict = match record.recall_verdict.as_ref()? {
        RecallVerdict::Sound => "sound".to_owned(),
        RecallVerdict::Broken { reason } => format!("broken, its numbers mean nothing: {reason}"),
    };
    Some(format!("Chance is 1/64 = 0.016. The probe is {verdict}."))
}

/// The models, and by distance the accuracy of each.
pub(super) fn rows(record: &RunRecord) -> (Vec<&str>, Vec<(usize, Vec<String>)>) {
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
        let of_model = |model: &&str| {
            let accuracy = accuracy(&record.recall, model, distance);
            accuracy.map_or("-".to_owned(), |it| format!("{it:.3}"))
        };
        (distance, models.iter().map(of_model).collect())
    };
    let rows = distances.into_iter().map(row).collect();
    (models, rows)
}

fn accuracy(results: &[RecallResult], model: &str, distance: usize) -> Option<f64> {
    let accuracies: Vec<f64> = results
        .iter()
        .filter(|result| result.model == model)
        .flat_map(|result| &result.buckets)
        .filter(|bucket| bucket.distance == distance)
        .map(|bucket| bucket.accuracy.get())
        .collect();
    stats::mean(&accuracies)
}
