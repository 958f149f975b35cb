//! Settings of the multidataset benchmark.

use serde::{Deserialize, Serialize};

/// Which datasets, and the trainings on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultidatasetConfig {
    /// Names of datasets; the benchmark runs on those that are here.
    pub datasets: Vec<String>,
    /// Sequence length of the training and of the evaluation's windows, in tokens.
    pub seq_len: usize,
    /// Sequences a step: this benchmark's value of `train.batch_size`.
    pub batch_size: usize,
}

impl Default for MultidatasetConfig {
    fn default() -> Self {
        let datasets = ["wikitext-2", "wikitext-103", "ptb", "c4", "pile"];
        Self {
            datasets: datasets.map(str::to_owned).to_vec(),
            seq_len: 512,
            batch_size: 8,
        }
    }
}
