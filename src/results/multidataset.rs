//! What the multidataset benchmark measures in one cell, its means over seeds, and which datasets were here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Cell, Evaluation, Finite, Outcome};
use crate::stats::Estimate;

/// The texts of a cell, and what is measured beside the held-out loss in windows, which is the cell's `evaluation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDataset {
    /// The dataset whose held-out text is scored.
    pub dataset: String,
    /// The dataset that the model was trained on: the same, where it has a training split.
    pub trained_on: String,
    /// Words of the held-out text, ends of sentences included; absent where words are not defined.
    pub n_words: Option<u64>,
    /// The held-out text with the state carried through every document and reset before the next one; its `window` is the longest
    /// document. Absent where the cell did not complete or its loss is not finite, and for a model that carries no state.
    pub carry: Option<Evaluation>,
}

impl OnDataset {
    /// `exp(nll_sum_nats / n_words)`; `None` where words are not defined, or where that overflows.
    pub fn word_perplexity(&self, evaluation: &Evaluation) -> Option<Finite> {
        let n_words = self.n_words.filter(|&n| n > 0)?;
        Finite::new((evaluation.nll_sum_nats.get() / n_words as f64).exp())
    }
}

/// One model on one dataset over all seeds. Estimates are over the completed seeds; absent where none completed or one
/// of them lacks the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSummary {
    /// The dataset whose held-out text is scored.
    pub dataset: String,
    /// The dataset that the model was trained on.
    pub trained_on: String,
    /// Registered name of the model.
    pub model: String,
    /// Seeds that completed.
    pub n_seeds: usize,
    /// Held-out loss, nats per token, the state reset after every window.
    pub nll_nats: Option<Estimate>,
    /// Perplexity per token, likewise: the headline.
    pub token_perplexity: Option<Estimate>,
    /// Perplexity per word, likewise.
    pub word_perplexity: Option<Estimate>,
    /// Bits per byte, likewise.
    pub bits_per_byte: Option<Estimate>,
    /// Perplexity per token with the state carried.
    pub carry_token_perplexity: Option<Estimate>,
    /// Perplexity per word, likewise.
    pub carry_word_perplexity: Option<Estimate>,
    /// Bits per byte, likewise.
    pub carry_bits_per_byte: Option<Estimate>,
    /// What is reached without any context, nats per token; absent where no cell began.
    pub unigram_ce_nats: Option<Finite>,
}

/// The datasets of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datasets {
    /// Manifests of what was evaluated on, in the order in which it ran: the datasets that are here, or where none is
    /// the run's own text.
    pub present: Vec<Value>,
    /// The datasets that were asked for and are not here.
    pub absent: Vec<AbsentDataset>,
}

/// A dataset that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsentDataset {
    /// Its name.
    pub name: String,
    /// What brings it.
    pub advice: String,
}

impl Datasets {
    /// `2 of 5 datasets are present: c4, pile`; `wanted` are those that were asked for.
    pub fn in_words(&self, wanted: &[String]) -> String {
        let is_absent = |name: &&String| self.absent.iter().any(|absent| absent.name == **name);
        let present = wanted.iter().filter(|name| !is_absent(name));
        let present: Vec<&str> = present.map(String::as_str).collect();
        let head = format!("{} of {} datasets are present", present.len(), wanted.len());
        if present.is_empty() {
            let own = self
                .present
                .iter()
                .filter_map(|it| it.get("name")?.as_str());
            let own: Vec<&str> = own.collect();
            return format!(
                "{head}; the benchmark runs on {}, which is none of them",
                own.join(", ")
            );
        }
        format!("{head}: {}", present.join(", "))
    }
}

/// One entry a dataset and model, in the order of the cells.
pub(super) fn summarise(cells: &[Cell]) -> Vec<DatasetSummary> {
    let mut groups: Vec<Vec<(&Cell, &OnDataset)>> = Vec::new();
    for cell in cells {
        let Some(on) = &cell.on_dataset else { continue };
        let is_it = |group: &&mut Vec<(&Cell, &OnDataset)>| {
            (&group[0].0.model, &group[0].1.dataset) == (&cell.model, &on.dataset)
        };
        match groups.iter_mut().find(is_it) {
            Some(group) => group.push((cell, on)),
            None => groups.push(vec![(cell, on)]),
        }
    }
    groups.iter().map(|group| summary(group)).collect()
}

/// Summarises the cells, at least one, of one model on one dataset.
fn summary(cells: &[(&Cell, &OnDataset)]) -> DatasetSummary {
    let is_completed = |(cell, _): &&(&Cell, &OnDataset)| cell.outcome == Outcome::Completed;
    let completed: Vec<&(&Cell, &OnDataset)> = cells.iter().filter(is_completed).collect();
    let over_seeds = |value: &dyn Fn(&Cell, &OnDataset) -> Option<Finite>| {
        // All or nothing: a mean that leaves out a seed would not say so.
        let values = completed
            .iter()
            .map(|(cell, on)| Some(value(cell, on)?.get()));
        Estimate::of(&values.collect::<Option<Vec<f64>>>()?)
    };
    let (cell, on) = cells[0];
    let metrics = cells.iter().find_map(|(cell, _)| cell.metrics.as_ref());
    DatasetSummary {
        dataset: on.dataset.clone(),
        trained_on: on.trained_on.clone(),
        model: cell.model.clone(),
        n_seeds: completed.len(),
        nll_nats: over_seeds(&|cell, _| Some(cell.evaluation()?.nll_nats)),
        token_perplexity: over_seeds(&|cell, _| cell.evaluation()?.token_perplexity),
        word_perplexity: over_seeds(&|cell, on| on.word_perplexity(cell.evaluation()?)),
        bits_per_byte: over_seeds(&|cell, _| Some(cell.evaluation()?.bits_per_byte)),
        carry_token_perplexity: over_seeds(&|_, on| on.carry.as_ref()?.token_perplexity),
        carry_word_perplexity: over_seeds(&|_, on| on.word_perplexity(on.carry.as_ref()?)),
        carry_bits_per_byte: over_seeds(&|_, on| Some(on.carry.as_ref()?.bits_per_byte)),
        unigram_ce_nats: metrics.map(|metrics| metrics.unigram_ce_nats),
    }
}
