//! Means over seeds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::ALPHA;
use super::{Cell, Finite, LongContextMetrics, Outcome, RunRecord, SEEDS_FOR_A_CLAIM};
use crate::config::Benchmark;
use crate::stats::{self, Estimate, PairedT, paired_t};

/// Registered name of the control that sees no context.
pub const NO_CONTEXT: &str = "no-mixer";

/// One model at one setting over all seeds. Estimates are over the completed seeds; absent where none completed
/// or one of them lacks the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The benchmark that the cells belong to.
    pub benchmark: Benchmark,
    /// Registered name of the model.
    pub model: String,
    /// Sequence length, in tokens.
    pub seq_len: usize,
    /// Budget of FLOPs, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_budget: Option<Finite>,
    /// Dataset, where the benchmark has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Seeds that completed.
    pub n_seeds: usize,
    /// Number of cells by the name of their outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Whether any seed diverged.
    pub diverged: bool,
    /// Sum over all seeds of the steps that were not finite.
    pub nan_count: u64,
    /// Sum over all seeds of the batches that were tried again at half the loss scale.
    #[serde(default)]
    pub loss_scale_overflows: u64,
    /// Sum over all seeds of the spikes of the training loss.
    pub spikes: usize,
    /// Final training loss, nats per token.
    pub final_loss_nats: Option<Estimate>,
    /// Mean gradient norm of a training.
    pub gradient_norm_mean: Option<Estimate>,
    /// Standard deviation of the gradient norm within a training.
    pub gradient_norm_std: Option<Estimate>,
    /// Held-out loss, nats per token.
    pub nll_nats: Option<Estimate>,
    /// Held-out perplexity per token.
    pub token_perplexity: Option<Estimate>,
    /// Held-out bits per byte.
    pub bits_per_byte: Option<Estimate>,
    /// Training tokens per second.
    pub tokens_per_second: Option<Estimate>,
    /// Held-out loss, nats per token, minus that of [`NO_CONTEXT`] at this length, paired by seed; absent for that model
    /// itself, unless every seed of both was evaluated, and for one seed.
    pub against_no_context: Option<PairedT>,
    /// Its p by Holm's procedure over the tests of all models and settings of the benchmark: the one that decides. Absent for a
    /// model that sees the tokens it predicts, which is in no test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_no_context_p_holm: Option<f64>,
}

impl Summary {
    /// Key of the setting in the guide's JSON, as that of its cells.
    pub fn setting(&self) -> String {
        match (self.flops_budget, &self.dataset) {
            (Some(budget), _) => format!("flops_{:e}", budget.get()),
            (None, Some(dataset)) => dataset.clone(),
            (None, None) => format!("seq_len_{}", self.seq_len),
        }
    }

    /// Whether the model is shown to beat the control that sees no context, with an adjusted p below 0.05; `None` where that
    /// could not be tested, and with too few seeds to tell.
    pub fn beats_no_context(&self) -> Option<bool> {
        let (test, p) = (self.against_no_context?, self.against_no_context_p_holm?);
        let n_seeds = test.df as u64 + 1;
        (n_seeds >= SEEDS_FOR_A_CLAIM).then_some(test.mean_difference < 0.0 && p < ALPHA)
    }
}

/// Adjusts the tests against the control over all models and settings of each benchmark, models that are not causal left
/// out. Benchmarks apart, for each is looked at alone, too ([`RunRecord::only`]).
pub(super) fn adjust(record: &mut RunRecord) {
    let mut summaries = std::mem::take(&mut record.summaries);
    for &benchmark in &record.config.benchmarks {
        let (tested, p): (Vec<&mut Summary>, Vec<f64>) = summaries
            .iter_mut()
            .filter(|summary| summary.benchmark == benchmark && record.is_causal(&summary.model))
            .filter_map(|summary| {
                let p = summary.against_no_context?.p;
                Some((summary, p))
            })
            .unzip();
        for (summary, p) in tested.into_iter().zip(stats::holm(&p)) {
            summary.against_no_context_p_holm = Some(p);
        }
    }
    record.summaries = summaries;
}

/// The same of a record that was written before these tests were adjusted.
pub(super) fn adjust_if_absent(record: &mut RunRecord) {
    let is_adjusted = |it: &Summary| it.against_no_context_p_holm.is_some();
    if !record.summaries.iter().any(is_adjusted) {
        adjust(record);
    }
}

/// Groups the cells that were trained by setting and model, each in order of first appearance.
pub(super) fn summarise(cells: &[Cell]) -> Vec<Summary> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.given.is_none()) {
        match groups
            .iter_mut()
            .find(|group| (setting(group[0]), &group[0].model) == (setting(cell), &cell.model))
        {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    let control_at = |at: (Benchmark, String)| {
        groups
            .iter()
            .find(|group| setting(group[0]) == at && group[0].model == NO_CONTEXT)
    };
    groups
        .iter()
        .map(|group| summary(group, control_at(setting(group[0]))))
        .collect()
}

/// Benchmark and setting.
fn setting(cell: &Cell) -> (Benchmark, String) {
    (cell.benchmark, cell.setting())
}

/// Compares the held-out losses of two models at one length, seed by seed.
fn against(cells: &[&Cell], control: &[&Cell]) -> Option<PairedT> {
    if cells[0].model == control[0].model || cells.len() != control.len() {
        return None;
    }
    let nll = |cell: &Cell| Some(cell.evaluation()?.nll_nats.get());
    let pairs: Option<Vec<(f64, f64)>> = cells
        .iter()
        .map(|cell| {
            let partner = control.iter().find(|other| other.seed == cell.seed)?;
            Some((nll(cell)?, nll(partner)?))
        })
        .collect();
    let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs?.into_iter().unzip();
    paired_t(&ours, &theirs)
}

/// Summarises the cells, at least one, of one model at one length, beside those of the control there.
fn summary(cells: &[&Cell], control: Option<&Vec<&Cell>>) -> Summary {
    let mut outcomes = BTreeMap::new();
    for cell in cells {
        *outcomes.entry(cell.outcome.name().to_owned()).or_default() += 1;
    }
    let completed: Vec<&LongContextMetrics> = cells
        .iter()
        .filter(|cell| cell.outcome == Outcome::Completed)
        .filter_map(|cell| cell.metrics.as_ref())
        .collect();
    let over_seeds = |value: fn(&LongContextMetrics) -> Option<Finite>| {
        // All or nothing: a mean that leaves out a seed would not say so.
        let values: Option<Vec<f64>> = completed
            .iter()
            .map(|metrics| Some(value(metrics)?.get()))
            .collect();
        Estimate::of(&values?)
    };
    Summary {
        benchmark: cells[0].benchmark,
        model: cells[0].model.clone(),
        seq_len: cells[0].seq_len,
        flops_budget: cells[0].at_budget.map(|at| at.budget),
        dataset: cells[0].on_dataset.as_ref().map(|on| on.dataset.clone()),
        n_seeds: completed.len(),
        diverged: outcomes.contains_key("diverged"),
        outcomes,
        nan_count: cells
            .iter()
            .filter_map(|cell| cell.metrics.as_ref())
            .map(|metrics| metrics.nan_count)
            .fold(0, u64::saturating_add),
        loss_scale_overflows: cells
            .iter()
            .filter_map(|cell| cell.metrics.as_ref())
            .map(|metrics| metrics.loss_scale_overflows)
            .fold(0, u64::saturating_add),
        spikes: cells
            .iter()
            .filter_map(|cell| cell.metrics.as_ref())
            .map(|metrics| metrics.spike_steps.len())
            .sum(),
        final_loss_nats: over_seeds(|metrics| metrics.final_loss_nats),
        gradient_norm_mean: over_seeds(|metrics| metrics.gradient_norm_mean),
        gradient_norm_std: over_seeds(|metrics| metrics.gradient_norm_std),
        nll_nats: over_seeds(|metrics| Some(metrics.evaluation.as_ref()?.nll_nats)),
        token_perplexity: over_seeds(|metrics| metrics.evaluation.as_ref()?.token_perplexity),
        bits_per_byte: over_seeds(|metrics| Some(metrics.evaluation.as_ref()?.bits_per_byte)),
        tokens_per_second: over_seeds(|metrics| metrics.tokens_per_second),
        against_no_context: control.and_then(|control| against(cells, control)),
        against_no_context_p_holm: None,
    }
}
