//! The multidataset benchmark in the shape of the benchmarking guide's files: dataset -> model -> values.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DatasetSummary, RunRecord, guide_table};
use crate::Result;

/// Values of one model on one dataset: means over completed seeds, `null` where none completed. The state is reset after
/// every window unless a name says `carry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetEntry {
    /// Held-out perplexity per token.
    pub ppl: Option<f64>,
    /// The same with the state carried through every document and reset before the next one.
    pub carry_ppl: Option<f64>,
    /// Held-out perplexity per word, where words are defined.
    pub word_ppl: Option<f64>,
    /// Held-out bits per byte.
    pub bits_per_byte: Option<f64>,
    /// Perplexity of the held-out text under the token frequencies of the training text.
    pub unigram_ppl: Option<f64>,
    /// The dataset that the model was trained on.
    pub trained_on: String,
    /// Completed seeds.
    pub n_seeds: usize,
    /// Ends of the 95 % t interval of `ppl`.
    pub ci95: Option<[f64; 2]>,
}

/// The multidataset results in the guide's shape, datasets and models in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct MultidatasetGuide {
    /// Dataset and, by model name, its values.
    pub datasets: Vec<(String, Vec<(String, DatasetEntry)>)>,
}

impl MultidatasetGuide {
    /// The summaries of a record, without those of models that are not causal.
    pub fn new(record: &RunRecord) -> Self {
        let entry = |summary: &DatasetSummary| {
            let ppl = summary.token_perplexity;
            let interval = ppl.and_then(|ppl| ppl.interval);
            DatasetEntry {
                ppl: ppl.map(|it| it.mean),
                carry_ppl: summary.carry_token_perplexity.map(|it| it.mean),
                word_ppl: summary.word_perplexity.map(|it| it.mean),
                bits_per_byte: summary.bits_per_byte.map(|it| it.mean),
                unigram_ppl: summary.unigram_ce_nats.map(|nats| nats.get().exp()),
                trained_on: summary.trained_on.clone(),
                n_seeds: summary.n_seeds,
                ci95: interval.map(|interval| [interval.low, interval.high]),
            }
        };
        let mut datasets: Vec<(String, Vec<(String, DatasetEntry)>)> = Vec::new();
        let causal = |summary: &&DatasetSummary| record.is_causal(&summary.model);
        for summary in record.multidataset.iter().filter(causal) {
            let named = (summary.model.clone(), entry(summary));
            match datasets
                .iter_mut()
                .find(|(name, _)| *name == summary.dataset)
            {
                Some((_, models)) => models.push(named),
                None => datasets.push((summary.dataset.clone(), vec![named])),
            }
        }
        Self { datasets }
    }

    /// The JSON: dataset -> model -> values.
    pub fn to_json(&self) -> Value {
        guide_table::to_json(&self.datasets, String::clone)
    }

    /// Whether the first entry of a document says what its model was trained on.
    pub(super) fn looks_like(json: &Value) -> bool {
        let first = |json: &Value| json.as_object()?.values().next().cloned();
        let entry = first(json).and_then(|models| first(&models));
        entry.is_some_and(|entry| entry.get("trained_on").is_some())
    }

    /// Reads that shape.
    pub(super) fn from_json(json: Value, path: &Path) -> Result<Self> {
        let datasets = guide_table::from_json(json, path, "a dataset", |key| Some(key.to_owned()))?;
        Ok(Self { datasets })
    }
}
