//! The recall probe of every model and seed of a run.

use super::Progress;
use super::run::{Part, Run, failure_kind, parameters};
use crate::eval::recall::{PROTOCOL, distances, measure, task, train};
use crate::models::registry::{Carry, ModelShape};
use crate::results::{Outcome, RecallKey, RecallResult, RecallVerdict, RunRecord, RunWriter};
use crate::{Error, Result};

impl Run<'_> {
    /// Probes what `record` does not hold yet; the record is saved after every model and seed.
    pub(super) fn probe_recall(
        &self,
        part: &Part,
        record: &mut RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let distances = distances(&PROTOCOL, part.grid.longest());
        for &seed in &part.grid.seeds {
            for shape in part.grid.shapes() {
                // The sizes are matched without the embedding, so that they still are with another vocabulary.
                let shape = ModelShape {
                    vocab_size: task::VOCAB_SIZE,
                    ..shape
                };
                let model = shape.architecture.name();
                let parameters = parameters(shape.parameters());
                let common = &self.config.model;
                let key = RecallKey::new(&PROTOCOL, common, model, parameters, seed, &distances);
                let id = key.id()?;
                if record.recall.iter().any(|result| result.id == id) {
                    continue;
                }
                if self.interrupt.requested() {
                    return Err(Error::Interrupted);
                }
                progress.start_cell(&format!("recall {model} seed {seed}"), PROTOCOL.n_steps);
                let mut result = RecallResult {
                    id,
                    model: model.to_owned(),
                    seed,
                    parameters,
                    outcome: Outcome::Completed,
                    buckets: Vec::new(),
                    trained_accuracy: None,
                    shuffled: None,
                };
                match self.recall(&shape, seed, &distances, &mut result, progress) {
                    Ok(()) => {}
                    // What a device cannot do is an outcome; the run goes on.
                    Err(Error::Device { doing, reason }) => {
                        let reason = format!("while {doing}: {reason}");
                        let failure = failure_kind(&reason);
                        result.outcome = Outcome::Failed { failure, reason };
                    }
                    Err(Error::OutOfMemory { requested, .. }) => {
                        result.outcome = Outcome::OutOfMemory {
                            requested_bytes: requested,
                        };
                    }
                    Err(error) => return Err(error),
                }
                progress.finish_cell(&describe(&result));
                record.push_recall(result);
                writer.save(record)?;
            }
        }
        if let Some(RecallVerdict::Broken { reason }) = &record.recall_verdict {
            progress.message(&format!("the recall probe is broken: {reason}"));
        }
        Ok(())
    }

    /// Trains and measures one model, and enters what came of it.
    fn recall(
        &self,
        shape: &ModelShape,
        seed: u64,
        distances: &[usize],
        result: &mut RecallResult,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if shape.architecture.carry() == Carry::None {
            result.outcome = Outcome::Skipped {
                reason: "far queries are reached by carrying a state".to_owned(),
                needs: "a state of fixed size".to_owned(),
                have: "none".to_owned(),
            };
            return Ok(());
        }
        let mut n_tokens = 0;
        let (model, outcome) = train(
            shape,
            &self.config.model,
            &PROTOCOL,
            seed,
            &self.hardware.device,
            &mut |step, loss| {
                n_tokens += (PROTOCOL.batch_size * PROTOCOL.sequences(step - 1).seq_len) as u64;
                progress.step(step, loss, n_tokens);
                if self.interrupt.requested() {
                    return Err(Error::Interrupted);
                }
                Ok(())
            },
        )?;
        result.outcome = outcome;
        if result.outcome == Outcome::Completed {
            let recalled = measure(&model, &PROTOCOL, seed, distances)?;
            result.buckets = recalled.buckets;
            result.trained_accuracy = recalled.trained_accuracy;
            result.shuffled = Some(recalled.shuffled);
        }
        Ok(())
    }
}

fn describe(result: &RecallResult) -> String {
    let name = result.outcome.name();
    match (result.trained_accuracy, result.buckets.last()) {
        (Some(trained), Some(last)) => format!(
            "{name}: accuracy {:.3} at trained distances, {:.3} over {} tokens",
            trained.get(),
            last.accuracy.get(),
            last.distance
        ),
        _ => name.to_owned(),
    }
}
