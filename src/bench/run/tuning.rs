//! Equal tuning: every model of a setting is tried at the same learning rates, on a text that nothing is reported on,
//! and then reported at the best of its own.

use super::{Part, Point, Run, Setting};
use crate::bench::Progress;
use crate::config::Benchmark;
use crate::results::{RunRecord, RunWriter, TUNING_SEED, Tuning, Warning, trial_steps};
use crate::{Error, Result};

impl Part {
    /// Key of a setting, [`Cell::setting`](crate::results::Cell::setting) of its cells.
    fn key(&self, setting: &Setting) -> String {
        let at_budget = setting.models.iter().find_map(|planned| planned.at_budget);
        match (self.benchmark, at_budget) {
            (Benchmark::Multidataset, _) => self.dataset.name.clone(),
            (_, Some(at)) => at.setting(),
            (_, None) => format!("seq_len_{}", setting.seq_len),
        }
    }

    /// The same with another learning rate.
    fn at_rate(&self, learning_rate: f64) -> Self {
        let mut part = self.clone();
        part.config.train.learning_rate = learning_rate;
        part
    }

    /// The trials of a setting at a learning rate; `None` where there is no text for them.
    pub(super) fn trials(&self, setting: &Setting, learning_rate: f64) -> Option<Self> {
        let mut part = self.at_rate(learning_rate);
        part.dataset = self.to_tune_on.clone()?;
        part.three_gram_ce_nats = None;
        part.grid.settings = vec![setting.clone()];
        part.grid.seeds = vec![TUNING_SEED];
        part.grid.n_steps = trial_steps(self.grid.n_steps);
        Some(part)
    }

    /// What is reported at the learning rates that were chosen: one part a rate, with the models that have it.
    fn tuned(&self, tuning: &Tuning) -> Vec<Self> {
        let chosen = tuning.chosen.iter();
        let chosen = chosen.filter(|chosen| chosen.benchmark == self.benchmark);
        let mut rates: Vec<f64> = chosen
            .filter_map(|chosen| Some(chosen.learning_rate?.get()))
            .collect();
        rates.sort_unstable_by(f64::total_cmp);
        rates.dedup();
        let at_rate = |&rate: &f64| {
            let mut part = self.at_rate(rate);
            for setting in &mut part.grid.settings {
                let key = self.key(setting);
                setting.models.retain(|planned| {
                    let chosen = tuning.chosen(self.benchmark, &key, &planned.label);
                    let chosen = chosen.and_then(|chosen| chosen.learning_rate);
                    chosen.is_some_and(|chosen| chosen.get().total_cmp(&rate).is_eq())
                });
            }
            part.grid
                .settings
                .retain(|setting| !setting.models.is_empty());
            part
        };
        rates.iter().map(at_rate).collect()
    }
}

impl Point<'_> {
    /// Whether it is there to choose a learning rate by, and not to be reported.
    pub(super) fn is_trial(&self) -> bool {
        self.seed == TUNING_SEED
    }
}

impl Run<'_> {
    /// Runs the trials that the record does not hold yet: the grid of every setting, then what is added to it.
    pub(super) fn tune(
        &self,
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        for part in self.parts {
            for setting in &part.grid.settings {
                while let Some(trials) = untried(part, setting, record.tuning.as_ref()) {
                    for point in trials.points() {
                        self.trial(point, record, writer, progress)?;
                    }
                }
                let found = warnings(part, setting, record);
                for warning in &found {
                    progress.message(&format!("warning: {warning}"));
                }
                record.warnings.extend(found);
            }
        }
        writer.save(record)
    }

    /// What is reported at the learning rates that the record's trials chose.
    pub(super) fn tuned_parts(&self, record: &RunRecord) -> Vec<Part> {
        let tuned = |tuning: &Tuning| {
            let parts = self.parts.iter();
            parts.flat_map(|part| part.tuned(tuning)).collect()
        };
        record.tuning.as_ref().map_or_else(Vec::new, tuned)
    }

    /// The trials that the record holds, each as it was run.
    pub(super) fn trial_parts(&self, record: &RunRecord) -> Vec<Part> {
        let of_setting = |part: &Part, setting: &Setting| -> Vec<Part> {
            let mut rates: Vec<f64> = Vec::new();
            for trial in record.tuning.iter().flat_map(|tuning| &tuning.trials) {
                let rate = trial.learning_rate.get();
                let is_here =
                    (trial.benchmark, trial.setting()) == (part.benchmark, part.key(setting));
                if is_here && !rates.contains(&rate) {
                    rates.push(rate);
                }
            }
            let trials = rates.iter().filter_map(|&rate| part.trials(setting, rate));
            trials.collect()
        };
        let settings = |part: &'_ Part| -> Vec<Part> {
            let settings = part.grid.settings.iter();
            settings
                .flat_map(|setting| of_setting(part, setting))
                .collect()
        };
        self.parts.iter().flat_map(settings).collect()
    }

    /// One trial, unless the record holds it.
    fn trial(
        &self,
        point: Point<'_>,
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let ids = point.ids()?;
        let is_done = |tuning: &Tuning| tuning.trials.iter().any(|trial| trial.id == ids.cell);
        if record.tuning.as_ref().is_none_or(is_done) {
            return Ok(());
        }
        if self.interrupt.requested() {
            return Err(Error::Interrupted);
        }
        let (trial, _) = self.cell(point, &ids, record, writer, progress)?;
        if let Some(tuning) = &mut record.tuning {
            tuning.push(trial);
        }
        writer.save(record)?;
        self.checkpoints.of_training(&ids.training).keep(0)
    }
}

/// The trials of a setting at the first learning rate at which not every model has been tried.
fn untried(part: &Part, setting: &Setting, tuning: Option<&Tuning>) -> Option<Part> {
    let tuning = tuning?;
    let (benchmark, key) = (part.benchmark, part.key(setting));
    let models: Vec<&str> = setting.models.iter().map(|it| it.label.as_str()).collect();
    let rate = tuning.untried(benchmark, &key, &models)?;
    part.trials(setting, rate)
}

/// What is to be known of the choices at a setting, and is not yet said.
fn warnings(part: &Part, setting: &Setting, record: &RunRecord) -> Vec<Warning> {
    let (benchmark, key) = (part.benchmark, part.key(setting));
    let of_model = |model: &String| {
        let chosen = record.tuning.as_ref()?.chosen(benchmark, &key, model)?;
        let (model, setting) = (model.clone(), key.clone());
        match chosen.learning_rate {
            None => Some(Warning::NotTuned { model, setting }),
            Some(learning_rate) => chosen.at_edge.then_some(Warning::EdgeOfGrid {
                model,
                setting,
                learning_rate,
            }),
        }
    };
    let models = setting.models.iter().map(|planned| &planned.label);
    let found = models.filter_map(of_model);
    found
        .filter(|warning| !record.warnings.contains(warning))
        .collect()
}
