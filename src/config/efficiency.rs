//! Settings of the efficiency benchmark.

use serde::{Deserialize, Serialize};

/// What a budget is a budget of. Either way a multiply-add is 2, and the head is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetUnit {
    /// FLOPs of a forward pass a token.
    #[default]
    ForwardFlopsPerToken,
    /// FLOPs of all forward and backward passes of a training.
    TrainingFlopsTotal,
}

/// Budgets of FLOPs, and the trainings under them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EfficiencyConfig {
    /// Budgets in [`EfficiencyConfig::budget_unit`]; under each, every model gets a shape of its own.
    pub flops_budgets: Vec<f64>,
    /// Their unit.
    pub budget_unit: BudgetUnit,
    /// Sequence length of the training and of the evaluation's windows, in tokens.
    pub seq_len: usize,
    /// Sequences a step: this benchmark's value of `train.batch_size`.
    pub batch_size: usize,
}

impl Default for EfficiencyConfig {
    fn default() -> Self {
        Self {
            flops_budgets: vec![1e9, 2e9, 5e9, 1e10],
            budget_unit: BudgetUnit::ForwardFlopsPerToken,
            seq_len: 512,
            batch_size: 8,
        }
    }
}
