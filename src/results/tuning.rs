//! Equal tuning: every model is tried at the same learning rates, and reported at the best of its own.

use serde::{Deserialize, Serialize};

use super::{Cell, Finite, Outcome};
use crate::config::Benchmark;

/// The learning rates that every model is tried at.
pub const GRID: [f64; 4] = [3e-4, 1e-3, 3e-3, 1e-2];
/// Added for all models of a setting, once, where the best of one of them lies at the lower end of the grid,
const BELOW: f64 = 1e-4;
/// and at its upper end.
const ABOVE: f64 = 3e-2;
/// The seed of every trial, which is none of a run's own: those end before it.
pub const TUNING_SEED: u64 = u64::MAX;

/// Steps of a trial, its whole schedule: a quarter of those that are reported, rounded up.
pub fn trial_steps(n_steps: u64) -> u64 {
    n_steps.div_ceil(4)
}

/// What was tried, and what was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Manifest of the text: what was trained on, and, as its evaluation text, what was chosen by.
    pub data: serde_json::Value,
    /// The same of the further texts of a run that has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_data: Vec<serde_json::Value>,
    /// One entry a benchmark, setting, learning rate and model, in the order in which they ran; its evaluation is of
    /// the text to choose by.
    pub trials: Vec<Cell>,
    /// One entry a benchmark, setting and model; derived from the trials.
    pub chosen: Vec<ChosenRate>,
}

/// The learning rate at which a model is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenRate {
    /// The benchmark.
    pub benchmark: Benchmark,
    /// Key of the setting, [`Cell::setting`].
    pub setting: String,
    /// The model, as its cells name it.
    pub model: String,
    /// The rate whose trial had the lowest loss, the lower one of two; absent where no trial completed.
    pub learning_rate: Option<Finite>,
    /// That loss, nats per token.
    pub validation_nats: Option<Finite>,
    /// Whether it is the lowest or the highest rate that was tried: a better one may lie beyond.
    pub at_edge: bool,
}

impl Tuning {
    /// Nothing tried yet, on the texts of these manifests; `None` without any.
    pub fn new(texts: Vec<serde_json::Value>) -> Option<Self> {
        let mut texts = texts.into_iter();
        Some(Self {
            data: texts.next()?,
            further_data: texts.collect(),
            trials: Vec::new(),
            chosen: Vec::new(),
        })
    }

    /// Enters a trial and brings the choices up to date.
    pub fn push(&mut self, trial: Cell) {
        self.trials.push(trial);
        self.derive();
    }

    /// Chooses anew.
    pub fn derive(&mut self) {
        self.chosen.clear();
        for (i, trial) in self.trials.iter().enumerate() {
            let (benchmark, setting) = (trial.benchmark, trial.setting());
            let is_same = |other: &&Cell| {
                let other = (other.benchmark, other.setting(), &other.model);
                other == (benchmark, trial.setting(), &trial.model)
            };
            if self.trials[..i].iter().any(|other| is_same(&other)) {
                continue;
            }
            let tried = self.trials.iter().filter(is_same);
            let rates: Vec<f64> = tried
                .clone()
                .map(|trial| trial.learning_rate.get())
                .collect();
            let best = best(tried);
            let at_edge = best.is_some_and(|(rate, _)| {
                rates.iter().all(|&other| rate.get() <= other)
                    || rates.iter().all(|&other| rate.get() >= other)
            });
            self.chosen.push(ChosenRate {
                benchmark,
                setting,
                model: trial.model.clone(),
                learning_rate: best.map(|(rate, _)| rate),
                validation_nats: best.map(|(_, loss)| loss),
                at_edge,
            });
        }
    }

    /// What was chosen for a model.
    pub fn chosen(&self, benchmark: Benchmark, setting: &str, model: &str) -> Option<&ChosenRate> {
        let wanted = (benchmark, setting, model);
        let mut chosen = self.chosen.iter();
        chosen.find(|it| (it.benchmark, it.setting.as_str(), it.model.as_str()) == wanted)
    }

    /// The learning rates at which all of `models` are to be tried at a setting: the grid, and once all were tried at
    /// it, what is added because the best of one lies at an end.
    pub fn rates(&self, benchmark: Benchmark, setting: &str, models: &[&str]) -> Vec<f64> {
        let at = |trial: &&Cell| trial.benchmark == benchmark && trial.setting() == setting;
        let trials: Vec<&Cell> = self.trials.iter().filter(at).collect();
        let on_grid = |model: &str| -> Vec<&Cell> {
            let trials = trials.iter().copied();
            trials
                .filter(|trial| trial.model == model && GRID.contains(&trial.learning_rate.get()))
                .collect()
        };
        let mut rates = GRID.to_vec();
        if models.iter().any(|model| on_grid(model).len() < GRID.len()) {
            return rates;
        }
        let bests = models
            .iter()
            .filter_map(|model| best(on_grid(model).into_iter()))
            .map(|(rate, _)| rate.get());
        let bests: Vec<f64> = bests.collect();
        if bests.contains(&GRID[0]) {
            rates.insert(0, BELOW);
        }
        if bests.contains(&GRID[GRID.len() - 1]) {
            rates.push(ABOVE);
        }
        rates
    }

    /// The first of those rates at which not every one of `models` has been tried; absent once the choice is made.
    pub fn untried(&self, benchmark: Benchmark, setting: &str, models: &[&str]) -> Option<f64> {
        let is_tried = |rate: f64| {
            let mut models = models.iter();
            models.all(|model| self.has_tried(benchmark, setting, model, rate))
        };
        let rates = self.rates(benchmark, setting, models);
        rates.into_iter().find(|&rate| !is_tried(rate))
    }

    /// Whether a model was tried at a learning rate.
    pub fn has_tried(&self, benchmark: Benchmark, setting: &str, model: &str, rate: f64) -> bool {
        self.trials.iter().any(|trial| {
            trial.benchmark == benchmark
                && trial.model == model
                && trial.learning_rate.get().total_cmp(&rate).is_eq()
                && trial.setting() == setting
        })
    }
}

/// Rate and loss of the best of some trials.
fn best<'a>(trials: impl Iterator<Item = &'a Cell>) -> Option<(Finite, Finite)> {
    let completed = trials.filter(|trial| trial.outcome == Outcome::Completed);
    let found =
        completed.filter_map(|trial| Some((trial.learning_rate, trial.evaluation()?.nll_nats)));
    found.min_by(|(rate, loss), (other_rate, other_loss)| {
        let by_loss = loss.get().total_cmp(&other_loss.get());
        by_loss.then(rate.get().total_cmp(&other_rate.get()))
    })
}
