//! Whether a record can be believed: what follows from it is derived again, and the start and the end of its
//! trainings are done again.

use super::{Part, Point, Run, json};
use crate::config::Fairness;
use crate::models::{LanguageModel, weights};
use crate::results::{
    Cell, Finite, LongContextMetrics, Outcome, ReplayCheck, ReplayVerdict, RunRecord, texts,
};
use crate::train::{Checkpoint, Interrupt, Observer, Step, train};
use crate::{Error, Result};

/// Steps of a training that are taken again.
const STEPS: usize = 5;
/// What is compared of the end of a training first, or not at all.
const WEIGHTS: &str = "last weights";

fn compared<T: PartialEq + std::fmt::Debug>(recorded: &T, now: &T) -> ReplayVerdict {
    if recorded == now {
        ReplayVerdict::Same
    } else {
        ReplayVerdict::Differs(format!("recorded {recorded:?}, now {now:?}"))
    }
}

fn compared_hashes(recorded: &str, now: &str) -> ReplayVerdict {
    if recorded == now {
        ReplayVerdict::Same
    } else {
        ReplayVerdict::Differs(format!("recorded {recorded}, now {now}"))
    }
}

impl Run<'_> {
    /// Compares `record` with what it follows from, cell by cell or for the cell `only`; `each` hears of every
    /// comparison. Nothing is written.
    ///
    /// # Errors
    /// A device that fails, or an unknown cell.
    pub fn replay(
        &self,
        record: &RunRecord,
        only: Option<&str>,
        each: &mut dyn FnMut(ReplayCheck),
    ) -> Result<()> {
        if let Some(id) = only
            && record.cell(id).is_none()
        {
            return Err(Error::UnknownName {
                kind: "cell",
                name: id.into(),
                known: record.cells.iter().map(|cell| cell.id.clone()).collect(),
            });
        }
        let mut of_run = |what: &str, verdict| {
            each(ReplayCheck {
                of: "run".into(),
                what: what.into(),
                verdict,
            });
        };
        of_run(
            "content_sha256",
            match record.seal.problem() {
                None => ReplayVerdict::Same,
                Some(problem) => ReplayVerdict::Differs(problem.into()),
            },
        );
        let config = record.config.sha256()?;
        of_run(
            "config_sha256",
            compared_hashes(&record.config_sha256, &config),
        );
        of_run(
            "summaries",
            if record.is_derived() {
                ReplayVerdict::Same
            } else {
                ReplayVerdict::Differs("they do not follow from the cells".into())
            },
        );
        let recorded = texts(&record.data, record.datasets.as_ref());
        let now = texts(&self.data()?, self.datasets()?.as_ref());
        of_run("data", compared(&recorded, &now));
        let hardware = json(&self.hardware.fingerprint)?;
        let elsewhere = (record.hardware != hardware)
            .then(|| "recorded on another device or by another version".to_owned());

        let parts = self.all_parts(record);
        let trials = record.tuning.iter().flat_map(|tuning| &tuning.trials);
        let cells: Vec<&Cell> = record.cells.iter().chain(trials).collect();
        let mut done: Vec<&str> = Vec::new();
        for point in parts.iter().flat_map(Part::points) {
            let (model, seed) = (&point.planned.label, point.seed);
            let part = point.part;
            let rate = Finite::new(part.config.train.learning_rate);
            let is_it = |cell: &&&Cell| {
                (cell.benchmark, &cell.model, cell.seed) == (part.benchmark, model, seed)
                    && (cell.seq_len, cell.at_budget) == (point.seq_len, point.planned.at_budget)
                    && cell
                        .on_dataset
                        .as_ref()
                        .is_none_or(|on| on.dataset == point.part.dataset.name)
                    && Some(cell.learning_rate) == rate
            };
            let Some(&cell) = cells.iter().find(is_it) else {
                continue;
            };
            if only.is_some_and(|id| id != cell.id) || done.contains(&cell.id.as_str()) {
                continue;
            }
            done.push(&cell.id);
            let mut of_cell = |what: &str, verdict| {
                each(ReplayCheck {
                    of: format!("{model} {} seed {seed} ({})", cell.setting(), cell.id),
                    what: what.into(),
                    verdict,
                });
            };
            let ids = point.ids()?;
            of_cell("id", compared_hashes(&cell.id, &ids.cell));
            of_cell("training", compared_hashes(&cell.training, &ids.training));
            let Some(metrics) = &cell.metrics else {
                continue;
            };
            of_cell("derived values", derived(metrics));
            let first_steps = match &elsewhere {
                Some(why) => ReplayVerdict::NotCompared(why.clone()),
                None => self.first_steps(point, metrics)?,
            };
            of_cell("first steps", first_steps);
            if cell.outcome == Outcome::Completed {
                let checkpoint = match self.last_checkpoint(record, cell) {
                    Ok(checkpoint) => checkpoint,
                    Err(verdict) => {
                        of_cell(WEIGHTS, verdict);
                        continue;
                    }
                };
                let (weights, evaluation) =
                    self.end(point, &checkpoint, metrics, elsewhere.as_deref())?;
                of_cell(WEIGHTS, weights);
                of_cell("evaluation", evaluation);
            }
        }
        Ok(())
    }

    /// All that the record may hold, each as it was run.
    fn all_parts(&self, record: &RunRecord) -> Vec<Part> {
        let is_identical = record.config.fairness.contains(&Fairness::Identical);
        let identical = self.parts.iter().filter(|_| is_identical).cloned();
        let tuned = self.tuned_parts(record).into_iter();
        let trials = self.trial_parts(record).into_iter();
        identical.chain(trials).chain(tuned).collect()
    }

    /// Takes the first steps again.
    fn first_steps(&self, point: Point<'_>, metrics: &LongContextMetrics) -> Result<ReplayVerdict> {
        let interrupt = Interrupt::default();
        let mut first = FirstSteps {
            steps: Vec::new(),
            interrupt: &interrupt,
        };
        let batches = point.batches()?;
        let outcome = match train(
            &self.training(point, &batches, None, &interrupt),
            &mut first,
        ) {
            Ok(trained) => trained.outcome.name(),
            Err(Error::Interrupted) => "interrupted",
            Err(error) => return Err(error),
        };
        let curves = &metrics.curves;
        let recorded = curves.loss_nats.iter().zip(&curves.gradient_norm);
        for (index, (recorded, now)) in recorded.zip(&first.steps).enumerate() {
            let now = (Finite::new(now.loss_nats), Finite::new(now.gradient_norm));
            if (*recorded.0, *recorded.1) != now {
                return Ok(ReplayVerdict::Differs(format!(
                    "step {index}: recorded loss and gradient norm {recorded:?}, now {now:?}"
                )));
            }
        }
        let (wanted, taken) = (STEPS.min(curves.loss_nats.len()), first.steps.len());
        if wanted == 0 {
            return Ok(ReplayVerdict::NotCompared("no step was recorded".into()));
        }
        if taken < wanted {
            return Ok(ReplayVerdict::NotCompared(format!(
                "the training ended as {outcome} after {taken} of {wanted} steps"
            )));
        }
        Ok(ReplayVerdict::Same)
    }

    /// The last checkpoint of a cell's training, or what is to be said where there is none.
    fn last_checkpoint(
        &self,
        record: &RunRecord,
        cell: &Cell,
    ) -> std::result::Result<Checkpoint, ReplayVerdict> {
        let (checkpoint, damaged) = self.checkpoints.of_training(&cell.training).newest();
        checkpoint.ok_or_else(|| {
            let mut shards = record.provenance.shards.iter();
            let shard = shards.find(|shard| shard.seeds.iter().any(|seed| seed == cell.seed));
            match (damaged.into_iter().next(), shard) {
                (Some(problem), _) => ReplayVerdict::Differs(problem),
                (None, Some(shard)) => ReplayVerdict::NotCompared(format!(
                    "checkpoints stay with the shards: replay {}",
                    shard.run
                )),
                (None, None) => ReplayVerdict::NotCompared("no checkpoint was kept".into()),
            }
        })
    }

    /// Evaluates the last checkpoint again: the verdicts on its weights and on the evaluation.
    fn end(
        &self,
        point: Point<'_>,
        checkpoint: &Checkpoint,
        metrics: &LongContextMetrics,
        elsewhere: Option<&str>,
    ) -> Result<(ReplayVerdict, ReplayVerdict)> {
        let model = LanguageModel::new(point.shape, point.seed, &self.hardware.device);
        let model = checkpoint.weights(model)?;
        let weights = compared_hashes(&metrics.weights_sha256, &weights::sha256(&model)?);
        let evaluation = match elsewhere {
            Some(why) => ReplayVerdict::NotCompared(why.into()),
            None => compared(
                &metrics.evaluation,
                &point.evaluate(&model)?.map(|held_out| held_out.evaluation),
            ),
        };
        Ok((weights, evaluation))
    }
}

/// The values that are derived from the curves.
fn derived(metrics: &LongContextMetrics) -> ReplayVerdict {
    let curves = &metrics.curves;
    let recorded = (
        metrics.final_loss_nats,
        metrics.gradient_norm_mean,
        metrics.gradient_norm_std,
        metrics.gradient_norm_max,
        metrics.nan_count,
        metrics.loss_scale_overflows,
        metrics.spike_steps.clone(),
    );
    let now = (
        curves.final_loss_nats(),
        curves.gradient_norm_mean(),
        curves.gradient_norm_std(),
        curves.gradient_norm_max(),
        curves.nan_count(),
        curves.loss_scale_overflows.len() as u64,
        curves.spike_steps(),
    );
    compared(&recorded, &now)
}

/// Keeps the first steps and ends the training after them.
struct FirstSteps<'a> {
    steps: Vec<Step>,
    interrupt: &'a Interrupt,
}

impl Observer for FirstSteps<'_> {
    fn message(&mut self, _text: &str) {}

    fn start(&mut self, _first: u64) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<()> {
        self.steps.push(step);
        if self.steps.len() == STEPS {
            self.interrupt.request();
        }
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}
