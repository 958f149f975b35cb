//! The trials by which learning rates were chosen, as a plain-text table.

use serde_json::Value;

use super::table::aligned;
use crate::results::{ChosenRate, Finite, Outcome, RunRecord, Tuning};

pub(super) const COLUMNS: [&str; 4] = [
    "setting",
    "model",
    "chosen",
    "validation loss by learning rate",
];

/// One row a setting and model, and how they came about; `None` where no learning rate was chosen.
pub fn table(record: &RunRecord) -> Option<String> {
    record.tuning.as_ref()?;
    let mut lines = vec!["Learning rates, chosen for each model by the same trials:".to_owned()];
    lines.extend(aligned(COLUMNS, rows(record).into_iter()));
    lines.push(procedure(record));
    Some(lines.join("\n") + "\n")
}

/// One row a benchmark, setting and model.
pub(super) fn rows(record: &RunRecord) -> Vec<[String; 4]> {
    let of_tuning = |tuning: &Tuning| -> Vec<[String; 4]> {
        let row = |chosen: &ChosenRate| {
            let rate = chosen.learning_rate.map_or("none".into(), rate);
            [
                chosen.setting.clone(),
                chosen.model.clone(),
                if chosen.at_edge {
                    format!("{rate}, the edge of what was tried")
                } else {
                    rate
                },
                tried(tuning, chosen),
            ]
        };
        tuning.chosen.iter().map(row).collect()
    };
    record.tuning.as_ref().map_or_else(Vec::new, of_tuning)
}

/// The trials of a model at a setting: `1e-3 2.345, 3e-3 diverged`, the lowest rate first.
fn tried(tuning: &Tuning, chosen: &ChosenRate) -> String {
    let here = tuning.trials.iter().filter(|trial| {
        (trial.benchmark, &trial.model) == (chosen.benchmark, &chosen.model)
            && trial.setting() == chosen.setting
    });
    let mut trials: Vec<(Finite, String)> = here
        .map(|trial| {
            let loss = trial.evaluation().map(|it| it.nll_nats.get());
            let ended = match (&trial.outcome, loss) {
                (Outcome::Completed, Some(loss)) => format!("{loss:.3}"),
                (outcome, _) => outcome.name().replace('_', " "),
            };
            (trial.learning_rate, ended)
        })
        .collect();
    trials.sort_by(|(one, _), (other, _)| one.get().total_cmp(&other.get()));
    let words = trials
        .into_iter()
        .map(|(tried, ended)| format!("{} {ended}", rate(tried)));
    words.collect::<Vec<_>>().join(", ")
}

fn rate(rate: Finite) -> String {
    format!("{:e}", rate.get())
}

/// What the trials were, in a sentence.
pub(super) fn procedure(record: &RunRecord) -> String {
    let tuning = record.tuning.as_ref();
    let trial = tuning.and_then(|tuning| tuning.trials.first());
    let steps = trial.map_or("no trial has run yet".to_owned(), |trial| {
        format!(
            "each trial took {} steps from a seed of its own",
            trial.n_steps
        )
    });
    format!(
        "Every model of a setting was tried at the same learning rates; {steps}; the lowest loss of {} decided, which is not \
         the text that results are reported on.",
        tuning.map_or_else(String::new, texts)
    )
}

/// The texts that rates were chosen by, those of one rule together; with their names where there are several rules.
fn texts(tuning: &Tuning) -> String {
    let mut by_rule: Vec<(&str, Vec<&str>)> = Vec::new();
    for manifest in std::iter::once(&tuning.data).chain(&tuning.further_data) {
        let word = |key: &str| manifest.get(key).and_then(Value::as_str);
        let rule = word("held_out_rule").unwrap_or("a text that the record does not name");
        let name = word("name").unwrap_or("not named");
        match by_rule.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => by_rule.push((rule, vec![name])),
        }
    }
    if let [(rule, _)] = by_rule[..] {
        return rule.to_owned();
    }
    let words = by_rule
        .iter()
        .map(|(rule, names)| format!("{rule} ({})", names.join(", ")));
    words.collect::<Vec<_>>().join(" or ")
}
