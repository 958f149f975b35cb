//! How long runs last.

use serde::{Deserialize, Serialize};

/// A step at which runs diverged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurvivalRow {
    /// The step.
    pub step: u64,
    /// Runs that reached it.
    pub at_risk: usize,
    /// Those of them that diverged at it.
    pub diverged: usize,
    /// Estimated probability of lasting beyond it.
    pub surviving: f64,
}

/// One row a step at which a run diverged, in rising order. A run is the step that it reached and whether it diverged
/// there; one that ended otherwise counts for the steps up to its end.
///
/// Source: Kaplan and Meier (1958).
pub fn survival(runs: &[(u64, bool)]) -> Vec<SurvivalRow> {
    let mut steps: Vec<u64> = runs.iter().filter(|run| run.1).map(|run| run.0).collect();
    steps.sort_unstable();
    steps.dedup();
    let mut surviving = 1.0;
    let row = |step: u64| {
        let at_risk = runs.iter().filter(|run| run.0 >= step).count();
        let diverged = runs.iter().filter(|run| **run == (step, true)).count();
        surviving *= 1.0 - diverged as f64 / at_risk as f64;
        SurvivalRow {
            step,
            at_risk,
            diverged,
            surviving,
        }
    };
    steps.into_iter().map(row).collect()
}
