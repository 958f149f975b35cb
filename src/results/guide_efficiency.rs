//! The benchmarking guide's JSON of the efficiency benchmark: budget -> model -> values.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EfficiencyPoint, RunRecord, guide_table};
use crate::Result;

const PREFIX: &str = "flops_";

/// Values of one model under one budget: means over completed seeds, `null` where none completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EfficiencyEntry {
    /// Held-out perplexity per token.
    pub ppl: Option<f64>,
    /// FLOPs of a forward pass a token, head included; measured on the held-out text where they depend on it.
    pub avg_flops_per_token: f64,
    /// The same without the head; this and what follows is more than the guide has.
    #[serde(default)]
    pub flops_per_token_without_head: Option<f64>,
    /// FLOPs of the whole training.
    #[serde(default)]
    pub training_flops_total: Option<f64>,
    /// Held-out bits per byte.
    #[serde(default)]
    pub bits_per_byte: Option<f64>,
    /// Completed seeds.
    #[serde(default)]
    pub n_seeds: Option<usize>,
    /// Ends of the 95 % t interval of `ppl`.
    #[serde(default)]
    pub ci95: Option<[f64; 2]>,
    /// Whether the model has no point with fewer FLOPs and as low a loss.
    #[serde(default)]
    pub on_front: Option<bool>,
}

/// The efficiency results in the guide's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct EfficiencyGuide {
    /// Budget and, by model name, its values, in ascending order of budgets.
    pub budgets: Vec<(f64, Vec<(String, EfficiencyEntry)>)>,
}

impl EfficiencyGuide {
    /// The points of a record.
    pub fn new(record: &RunRecord) -> Self {
        let entry = |point: &EfficiencyPoint| {
            let (ppl, flops) = (point.token_perplexity, point.forward_flops_per_token());
            let interval = ppl.and_then(|ppl| ppl.interval);
            EfficiencyEntry {
                ppl: ppl.map(|ppl| ppl.mean),
                avg_flops_per_token: flops.with_head.get(),
                flops_per_token_without_head: Some(flops.without_head.get()),
                training_flops_total: Some(point.at.training_flops_total.get()),
                bits_per_byte: point.bits_per_byte.map(|it| it.mean),
                n_seeds: Some(point.n_seeds),
                ci95: interval.map(|interval| [interval.low, interval.high]),
                on_front: Some(point.on_front),
            }
        };
        let mut budgets: Vec<(f64, Vec<(String, EfficiencyEntry)>)> = Vec::new();
        for point in &record.efficiency {
            let budget = point.at.budget.get();
            let named = (point.model.clone(), entry(point));
            match budgets
                .iter_mut()
                .find(|(known, _)| known.total_cmp(&budget).is_eq())
            {
                Some((_, models)) => models.push(named),
                None => budgets.push((budget, vec![named])),
            }
        }
        Self { budgets }
    }

    /// The guide's JSON: budget -> model -> values.
    pub fn to_json(&self) -> Value {
        guide_table::to_json(&self.budgets, |budget| format!("{PREFIX}{budget:e}"))
    }

    /// Whether a document has keys of this shape.
    pub(super) fn looks_like(json: &Value) -> bool {
        guide_table::has_key(json, |key| key.starts_with(PREFIX))
    }

    /// Reads the guide's shape.
    pub(super) fn from_json(json: Value, path: &Path) -> Result<Self> {
        let mut budgets = guide_table::from_json(json, path, "flops_<budget>", |key| {
            let budget: f64 = key.strip_prefix(PREFIX)?.parse().ok()?;
            (budget.is_finite() && budget > 0.0).then_some(budget)
        })?;
        budgets.sort_by(|(a, _): &(f64, _), (b, _)| a.total_cmp(b));
        Ok(Self { budgets })
    }
}
