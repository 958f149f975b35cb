//! The text a run trains and evaluates on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which text, and how it becomes tokens; equal for all models of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The name of a dataset.
    pub dataset: String,
    /// A UTF-8 text, a file of json lines or parquet, or a folder, that takes the place of the dataset.
    pub text: Option<PathBuf>,
    /// The folder that holds the datasets' files; `datasets` in the cache folder where absent.
    pub dir: Option<PathBuf>,
    /// `bytes`, `gpt2` or a tokenizer.json file.
    pub tokenizer: String,
    /// Tokens of training text after which no further document of a dataset is read; all where absent.
    pub train_tokens: Option<usize>,
    /// Tokens of the held-out text that are evaluated; all where absent.
    pub eval_tokens: Option<usize>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: "embedded:kjv+austen".into(),
            text: None,
            dir: None,
            tokenizer: "gpt2".into(),
            train_tokens: None,
            eval_tokens: None,
        }
    }
}
