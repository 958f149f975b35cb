//! How far a model gets: derived lengths, and why they are not larger.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, LongContextMetrics, Outcome};
use crate::config::Benchmark;
use crate::stats;

/// From this many steps on a run may speak of stability.
pub const STEPS_FOR_A_CLAIM: u64 = 200;
/// Fewer seeds than this say little about the spread.
pub const SEEDS_FOR_A_CLAIM: u64 = 5;
/// A useful model lies at least this far below the unigram cross-entropy, nats per token.
const USEFUL_NATS: f64 = 0.05;

/// The lengths one model reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Registered name of the model.
    pub model: String,
    /// The largest length at which, and at every shorter one, every seed completed; absent where a cell had fewer than
    /// [`STEPS_FOR_A_CLAIM`] steps to take.
    pub max_stable_length: Option<Limit>,
    /// The largest of those lengths, however few the steps, at which the mean held-out loss over seeds lies more than
    /// 0.05 nats below that of token frequencies and [far context helps](super::UsefulContext::is_useful) in every seed.
    pub max_useful_length: Limit,
}

/// A largest length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The length in tokens; absent where no length qualifies.
    pub length: Option<usize>,
    /// What kept the search from going further.
    pub censored_by: Censoring,
}

/// Why the true limit may lie beyond the one found. Where the seeds of a length ended differently the first of these
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Censoring {
    /// It does not: the next length was tried, and a seed diverged or the context was of no use.
    None,
    /// The next length did not fit in memory.
    OutOfMemory,
    /// The next length took too long.
    TimedOut,
    /// The next length could not have finished, and never began.
    Skipped,
    /// At the next length the device or a kernel failed.
    Failed,
    /// A longer length completed, but its use of far context was not measured, or in one window alone.
    NotMeasured,
    /// No longer length was tried with every seed.
    MaxTested,
}

/// One entry a model of the long-context benchmark, in order of first appearance. A length counts as tried once it has `n_seeds` cells, or one that
/// did not complete.
pub(super) fn limits(cells: &[Cell], n_seeds: u64) -> Vec<ModelLimits> {
    let cells = || {
        let all = cells.iter();
        all.filter(|cell| cell.benchmark == Benchmark::Longcontext)
    };
    let mut models: Vec<&str> = Vec::new();
    for cell in cells() {
        if !models.contains(&cell.model.as_str()) {
            models.push(&cell.model);
        }
    }
    models
        .into_iter()
        .map(|model| of_model(model, cells(), n_seeds))
        .collect()
}

fn of_model<'a>(model: &str, cells: impl Iterator<Item = &'a Cell>, n_seeds: u64) -> ModelLimits {
    let mut lengths: BTreeMap<usize, Vec<&Cell>> = BTreeMap::new();
    for cell in cells.filter(|cell| cell.model == model) {
        lengths.entry(cell.seq_len).or_default().push(cell);
    }
    let may_claim = lengths
        .values()
        .flatten()
        .all(|cell| cell.n_steps >= STEPS_FOR_A_CLAIM);

    let mut completed = Vec::new();
    let mut censored_by = Censoring::MaxTested;
    for (seq_len, cells) in lengths {
        if let Some(obstacle) = obstacle(&cells) {
            censored_by = obstacle;
            break;
        }
        if (cells.len() as u64) < n_seeds {
            break;
        }
        completed.push((seq_len, cells));
    }
    let stable = Limit {
        length: completed.last().map(|&(seq_len, _)| seq_len),
        censored_by,
    };
    ModelLimits {
        model: model.to_owned(),
        max_stable_length: may_claim.then_some(stable),
        max_useful_length: useful(&completed, stable),
    }
}

/// Why not every cell of a length completed; `None` if each did.
fn obstacle(cells: &[&Cell]) -> Option<Censoring> {
    let obstacle = |cell: &&Cell| match cell.outcome {
        Outcome::Completed => None,
        Outcome::Diverged { .. } => Some(Censoring::None),
        Outcome::OutOfMemory { .. } => Some(Censoring::OutOfMemory),
        Outcome::TimedOut { .. } => Some(Censoring::TimedOut),
        Outcome::Skipped { .. } => Some(Censoring::Skipped),
        Outcome::Failed { .. } => Some(Censoring::Failed),
    };
    cells.iter().filter_map(obstacle).min()
}

/// The largest useful one among the completed lengths, given in rising order.
fn useful(completed: &[(usize, Vec<&Cell>)], stable: Limit) -> Limit {
    let mut censored_by = stable.censored_by;
    for &(seq_len, ref cells) in completed.iter().rev() {
        match is_useful(cells) {
            Some(true) => {
                return Limit {
                    length: Some(seq_len),
                    censored_by,
                };
            }
            Some(false) if censored_by == Censoring::NotMeasured => {}
            Some(false) => censored_by = Censoring::None,
            None => censored_by = Censoring::NotMeasured,
        }
    }
    Limit {
        length: None,
        censored_by,
    }
}

/// Whether the model is useful at a length, given its cells, one a seed; `None` where that was not measured.
fn is_useful(cells: &[&Cell]) -> Option<bool> {
    let metrics: Vec<&LongContextMetrics> = cells
        .iter()
        .map(|cell| cell.metrics.as_ref())
        .collect::<Option<_>>()?;
    let gains: Vec<f64> = metrics
        .iter()
        .map(|m| Some(m.unigram_ce_nats.get() - m.evaluation.as_ref()?.nll_nats.get()))
        .collect::<Option<_>>()?;
    if stats::mean(&gains)? <= USEFUL_NATS {
        return Some(false);
    }
    let helps: Vec<bool> = metrics
        .iter()
        .map(|m| m.last_quarter.as_ref()?.is_useful())
        .collect::<Option<_>>()?;
    Some(helps.into_iter().all(|helps| helps))
}
