//! Whether a record can be believed: what follows from it is derived again, and the start and the end of its
//! trainings are done again.

use super::{Point, Run, json};
use crate::models::{LanguageModel, weights};
use crate::results::{Cell, Finite, LongContextMetrics, Outcome, RunRecord};
use crate::train::{Interrupt, Observer, Step, train};
use crate::{Error, Result};

/// Steps of a training that are taken again.
const STEPS: usize = 5;

/// One comparison of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The cell in words, or `run`.
    pub of: String,
    /// What was compared.
    pub what: &'static str,
    /// How it ended.
    pub verdict: Verdict,
}

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Equal, to the bit where it is a number.
    Same,
    /// Not equal; says what was recorded and what came out.
    Differs(String),
    /// Could not be compared; says why.
    NotCompared(String),
}

impl Verdict {
    fn of<T: PartialEq + std::fmt::Debug>(recorded: &T, now: &T) -> Self {
        if recorded == now {
            Self::Same
        } else {
            Self::Differs(format!("recorded {recorded:?}, now {now:?}"))
        }
    }

    fn of_hashes(recorded: &str, now: &str) -> Self {
        if recorded == now {
            Self::Same
        } else {
            Self::Differs(format!("recorded {recorded}, now {now}"))
        }
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
        each: &mut dyn FnMut(Check),
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
        let mut of_run = |what, verdict| {
            each(Check {
                of: "run".into(),
                what,
                verdict,
            });
        };
        let config = record.config.sha256()?;
        of_run(
            "config_sha256",
            Verdict::of_hashes(&record.config_sha256, &config),
        );
        of_run(
            "summaries",
            if record.is_derived() {
                Verdict::Same
            } else {
                Verdict::Differs("they do not follow from the cells".into())
            },
        );
        let data = self.data()?;
        let now = (&data, &self.datasets()?);
        of_run("data", Verdict::of(&(&record.data, &record.datasets), &now));
        let hardware = json(&self.hardware.fingerprint)?;
        let elsewhere = (record.hardware != hardware)
            .then(|| "recorded on another device or by another version".to_owned());

        for point in self.points() {
            let (model, seed) = (point.shape.architecture.name(), point.seed);
            let benchmark = point.part.benchmark;
            let is_it = |cell: &&Cell| {
                (cell.benchmark, cell.model.as_str(), cell.seed) == (benchmark, model, seed)
                    && (cell.seq_len, cell.at_budget) == (point.seq_len, point.planned.at_budget)
                    && cell
                        .on_dataset
                        .as_ref()
                        .is_none_or(|on| on.dataset == point.part.dataset.name)
            };
            let Some(cell) = record.cells.iter().find(is_it) else {
                continue;
            };
            if only.is_some_and(|id| id != cell.id) {
                continue;
            }
            let mut of_cell = |what, verdict| {
                each(Check {
                    of: format!("{model} {} seed {seed} ({})", cell.setting(), cell.id),
                    what,
                    verdict,
                });
            };
            let ids = point.ids()?;
            of_cell("id", Verdict::of_hashes(&cell.id, &ids.cell));
            of_cell(
                "training",
                Verdict::of_hashes(&cell.training, &ids.training),
            );
            let Some(metrics) = &cell.metrics else {
                continue;
            };
            of_cell("derived values", derived(metrics));
            let first_steps = match &elsewhere {
                Some(why) => Verdict::NotCompared(why.clone()),
                None => self.first_steps(point, metrics)?,
            };
            of_cell("first steps", first_steps);
            if cell.outcome == Outcome::Completed {
                for (what, verdict) in self.end(point, cell, metrics, elsewhere.as_deref())? {
                    of_cell(what, verdict);
                }
            }
        }
        Ok(())
    }

    /// Takes the first steps again.
    fn first_steps(&self, point: Point<'_>, metrics: &LongContextMetrics) -> Result<Verdict> {
        let interrupt = Interrupt::default();
        let mut first = FirstSteps {
            steps: Vec::new(),
            interrupt: &interrupt,
        };
        let batches = point.batches()?;
        match train(
            &self.training(point, &batches, None, &interrupt),
            &mut first,
        ) {
            Ok(_) | Err(Error::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let curves = &metrics.curves;
        let recorded = curves.loss_nats.iter().zip(&curves.gradient_norm);
        for (index, (recorded, now)) in recorded.zip(&first.steps).enumerate() {
            let now = (Finite::new(now.loss_nats), Finite::new(now.gradient_norm));
            if (*recorded.0, *recorded.1) != now {
                return Ok(Verdict::Differs(format!(
                    "step {index}: recorded loss and gradient norm {recorded:?}, now {now:?}"
                )));
            }
        }
        if curves.loss_nats.is_empty() {
            return Ok(Verdict::NotCompared("no step was recorded".into()));
        }
        Ok(Verdict::Same)
    }

    /// Evaluates the last checkpoint again, where it was kept.
    fn end(
        &self,
        point: Point<'_>,
        cell: &Cell,
        metrics: &LongContextMetrics,
        elsewhere: Option<&str>,
    ) -> Result<Vec<(&'static str, Verdict)>> {
        const WEIGHTS: &str = "last weights";
        const EVALUATION: &str = "evaluation";
        let (checkpoint, damaged) = self.checkpoints.of_training(&cell.training).newest();
        let Some(checkpoint) = checkpoint else {
            let verdict = match damaged.into_iter().next() {
                Some(problem) => Verdict::Differs(problem),
                None => Verdict::NotCompared("no checkpoint was kept".into()),
            };
            return Ok(vec![(WEIGHTS, verdict)]);
        };
        let model = LanguageModel::new(point.shape, point.seed, &self.hardware.device);
        let model = checkpoint.weights(model)?;
        let weights = Verdict::of_hashes(&metrics.weights_sha256, &weights::sha256(&model)?);
        let evaluation = match elsewhere {
            Some(why) => Verdict::NotCompared(why.into()),
            None => Verdict::of(
                &metrics.evaluation,
                &Some(point.evaluate(&model)?.evaluation),
            ),
        };
        Ok(vec![(WEIGHTS, weights), (EVALUATION, evaluation)])
    }
}

/// The values that are derived from the curves.
fn derived(metrics: &LongContextMetrics) -> Verdict {
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
    Verdict::of(&recorded, &now)
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
