//! What a comparison sees of a record: one held-out loss a setting, model and seed.

use super::{Cell, Evaluation, Outcome, RunRecord, Summary};
use crate::config::{Benchmark, Config};
use crate::quant::BitWidth;

/// One model at one setting with one seed.
#[derive(Debug, Clone)]
pub(super) struct Observation<'a> {
    /// Key of the setting in the guide's JSON: `seq_len_8192`, `int8`, the name of a dataset.
    pub(super) setting: String,
    /// Where it comes from.
    pub(super) cell: &'a Cell,
    /// Held-out text at this setting; absent where the cell did not complete or the loss is not finite.
    pub(super) evaluation: Option<&'a Evaluation>,
}

/// Held-out loss, nats per token, of a completed cell.
pub(super) fn nll_nats(observation: &Observation<'_>) -> Option<f64> {
    let completed = observation.cell.outcome == Outcome::Completed;
    let evaluation = observation.evaluation.filter(|_| completed)?;
    Some(evaluation.nll_nats.get())
}

/// The loss as rank tests see it: infinite, the worst rank, where the training diverged, ran out of memory, or
/// ended in a loss that is not finite. `None` where something else kept the cell from its end.
pub(super) fn rank_value(observation: &Observation<'_>) -> Option<f64> {
    match observation.cell.outcome {
        Outcome::Completed => Some(nll_nats(observation).unwrap_or(f64::INFINITY)),
        Outcome::Diverged { .. } | Outcome::OutOfMemory { .. } => Some(f64::INFINITY),
        Outcome::TimedOut { .. } | Outcome::Skipped { .. } | Outcome::Failed { .. } => None,
    }
}

/// All observations, setting by setting within a cell, in the order of the cells.
pub(super) fn observations(record: &RunRecord) -> Vec<Observation<'_>> {
    let cells = record.cells.iter();
    cells
        .flat_map(|cell| of_cell(cell, &record.config))
        .collect()
}

fn of_cell<'a>(cell: &'a Cell, config: &Config) -> Vec<Observation<'a>> {
    match cell.benchmark {
        Benchmark::Longcontext | Benchmark::Efficiency | Benchmark::Multidataset => {
            vec![Observation {
                setting: cell.setting(),
                cell,
                evaluation: cell.evaluation(),
            }]
        }
        Benchmark::Quantization => {
            let widths = config.quantization.widths().unwrap_or_default();
            let at = |width: BitWidth| {
                let entries = &cell.quantization.as_ref()?.widths;
                let entry = entries.iter().find(|at| at.width == width)?;
                entry.evaluation.as_ref()
            };
            let observation = |width: BitWidth| Observation {
                setting: width.name().to_owned(),
                cell,
                evaluation: at(width),
            };
            widths.into_iter().map(observation).collect()
        }
    }
}

impl Observation<'_> {
    /// Whether it is one of `benchmark` at `setting`.
    pub(super) fn is_at(&self, benchmark: Benchmark, setting: &str) -> bool {
        self.cell.benchmark == benchmark && self.setting == setting
    }
}

/// The settings, each with its benchmark, in order of first appearance.
pub(super) fn settings(observations: &[Observation<'_>]) -> Vec<(Benchmark, String)> {
    let mut settings: Vec<(Benchmark, String)> = Vec::new();
    for observation in observations {
        let setting = (observation.cell.benchmark, observation.setting.clone());
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    settings
}

/// Whether the model of a cell was shown to beat the control that sees no context, at the cell's setting; `None` where
/// that was not tested.
pub(super) fn beats_no_context(record: &RunRecord, cell: &Cell) -> Option<bool> {
    let of = |s: &&Summary| (s.benchmark, &s.model) == (cell.benchmark, &cell.model);
    let mut summaries = record.summaries.iter().filter(of);
    let summary = summaries.find(|summary| summary.setting() == cell.setting())?;
    summary.beats_no_context()
}
