//! How the learning rates of compared models are set.

use serde::{Deserialize, Serialize};

/// A way to treat models equally. A claim needs both to agree: with one learning rate for all, a model may look worse
/// because it wants another; with one chosen for each, the choice itself may favour one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fairness {
    /// `train.learning_rate` for every model: the benchmarking guide's way.
    Identical,
    /// For each model and setting the best of the same grid of learning rates, by the same number of trials.
    EqualTuning,
}

impl Fairness {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Identical, Self::EqualTuning];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::EqualTuning => "equal_tuning",
        }
    }

    /// What it stands for, in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Identical => "one learning rate for all models",
            Self::EqualTuning => "learning rates tuned equally for each model",
        }
    }
}
