//! One cell: a training, its evaluation, and what is recorded of them.

use std::fs;
use std::path::Path;

use super::Run;
use crate::bench::{Progress, memory};
use crate::data::Batches;
use crate::eval::{audit, evaluate};
use crate::models::registry::{ModelShape, ParameterCount};
use crate::models::{BatchShape, LanguageModel, weights};
use crate::results::{
    AuditCheck, AuditReport, AuditedWeights, Cell, CellKey, Evaluation, Finite, LongContextMetrics,
    Memory, MemoryLedger, Outcome, Parameters, RunRecord, RunWriter, StepLine,
};
use crate::train::{Trained, Training, learning_rate, train};
use crate::{Error, Result};

impl Run<'_> {
    pub(super) fn cell(
        &self,
        shape: &ModelShape,
        seq_len: usize,
        seed: u64,
        record: &RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<(Cell, Option<AuditReport>)> {
        let model = shape.architecture.name();
        let parameters = parameters(shape.parameters());
        let n_steps = self.grid.n_steps;
        let key = CellKey::new(
            self.config,
            &record.data,
            model,
            parameters,
            seq_len,
            seed,
            n_steps,
        );
        let id = key.id()?;
        progress.start_cell(&format!("{model} N={seq_len} seed {seed}"), n_steps);
        let mut audit = None;
        let (outcome, metrics) = match memory::misfit(shape, seq_len, self.config, self.hardware) {
            Some(skipped) => (skipped, None),
            None => match self.train(shape, seq_len, seed, &id, writer, progress) {
                Ok((outcome, metrics, trained)) => {
                    audit = self.audit_trained(shape, seed, &outcome, &trained, record)?;
                    (outcome, Some(metrics))
                }
                // What a device cannot do is the cell's outcome; the run goes on.
                Err(Error::OutOfMemory { requested, .. }) => {
                    let requested_bytes = requested;
                    (Outcome::OutOfMemory { requested_bytes }, None)
                }
                Err(Error::Device { doing, reason }) => {
                    let reason = format!("while {doing}: {reason}");
                    (Outcome::Failed { reason }, None)
                }
                Err(error) => return Err(error),
            },
        };
        progress.finish_cell(&describe(&outcome, metrics.as_ref()));
        let cell = Cell {
            id,
            benchmark: self.config.benchmark,
            model: model.to_owned(),
            seq_len,
            seed,
            n_steps,
            parameters,
            outcome,
            warnings: self.repeated_data(seq_len).into_iter().collect(),
            metrics,
        };
        Ok((cell, audit))
    }

    /// Looks for leaks in the weights of a model's first completed training.
    fn audit_trained(
        &self,
        shape: &ModelShape,
        seed: u64,
        outcome: &Outcome,
        trained: &LanguageModel,
        record: &RunRecord,
    ) -> Result<Option<AuditReport>> {
        let model = shape.architecture.name();
        let is_done =
            |audit: &AuditReport| audit.model == model && audit.weights == AuditedWeights::Final;
        if *outcome != Outcome::Completed || record.audits.iter().any(is_done) {
            return Ok(None);
        }
        let n_tokens = audit::n_tokens(&self.config.longcontext.seq_lengths);
        let findings = audit::leaks(trained, shape.vocab_size, n_tokens, seed)?;
        Ok(Some(AuditReport {
            model: model.to_owned(),
            weights: AuditedWeights::Final,
            seed,
            checks: findings.into_iter().map(AuditCheck::from).collect(),
        }))
    }

    fn train(
        &self,
        shape: &ModelShape,
        seq_len: usize,
        seed: u64,
        id: &str,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<(Outcome, LongContextMetrics, LanguageModel)> {
        let config = &self.config.train;
        let batch = config.batch_size;
        let training = Training {
            shape,
            model: &self.config.model,
            config,
            batches: &Batches::new(self.dataset.train.clone(), seq_len, batch, seed)?,
            batch_shape: BatchShape { batch, seq_len },
            n_steps: self.grid.n_steps,
            seed,
            device: &self.hardware.device,
            memory_limit: self.config.device.memory_limit(),
            checkpoint: self.checkpoints.dir.join(id),
        };
        let mut logged = Ok(());
        let trained = train(&training, &mut |step| {
            let rate = learning_rate(config, step.index, training.n_steps);
            let line = StepLine {
                cell: id,
                step: step.index,
                loss_nats: Finite::new(step.loss_nats),
                gradient_norm: Finite::new(step.gradient_norm),
                learning_rate: Finite::new(rate).unwrap_or_default(),
            };
            if logged.is_ok() {
                logged = writer.step(&line);
            }
            let n_tokens = (step.index + 1) * step.n_tokens;
            progress.step(step.index + 1, step.loss_nats, n_tokens);
        })?;
        logged?;
        let evaluation = match trained.outcome {
            Outcome::Completed => Some(evaluate(
                &trained.model,
                &self.dataset.eval,
                self.dataset.manifest.eval.n_bytes as u64,
                seq_len,
                config.loss_chunk_tokens,
            )?),
            _ => None,
        };
        if !self.checkpoints.keep {
            remove_checkpoint(&training.checkpoint)?;
        }
        let unigram = self.dataset.manifest.unigram_ce_nats;
        let tensors = memory::tensors(self.hardware);
        let estimated = memory::needs(shape, seq_len, config, tensors);
        let metrics = metrics(&trained, evaluation, unigram, estimated)?;
        Ok((trained.outcome, metrics, trained.model))
    }
}

/// A cell that ended needs no checkpoint any more, nor does the folder of the last one.
fn remove_checkpoint(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
    }
    if let Some(parent) = folder.parent() {
        // Fails, and may, while other cells have theirs in it.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn metrics(
    trained: &Trained,
    evaluation: Option<Evaluation>,
    unigram_ce_nats: f64,
    estimated: MemoryLedger,
) -> Result<LongContextMetrics> {
    let curves = trained.curves.clone();
    Ok(LongContextMetrics {
        final_loss_nats: curves.final_loss_nats(),
        gradient_norm_mean: curves.gradient_norm_mean(),
        gradient_norm_std: curves.gradient_norm_std(),
        gradient_norm_max: curves.gradient_norm_max(),
        nan_count: curves.nan_count(),
        spike_steps: curves.spike_steps(),
        curves,
        skipped_steps: trained.skipped_steps,
        evaluation,
        last_quarter: None,
        unigram_ce_nats: Finite::new(unigram_ce_nats).unwrap_or_default(),
        train_seconds: Finite::new(trained.seconds).unwrap_or_default(),
        tokens_per_second: trained.tokens_per_second.and_then(Finite::new),
        memory: Memory {
            estimated,
            peak_memory_bytes: trained.peak_memory,
            at_start_bytes: trained.memory_at_start,
        },
        weights_sha256: weights::sha256(&trained.model)?,
        data_order_sha256: trained.data_order_sha256.clone(),
    })
}

fn parameters(count: ParameterCount) -> Parameters {
    Parameters {
        total: count.total as u64,
        non_embedding: count.non_embedding as u64,
        active: count.active as u64,
    }
}

fn describe(outcome: &Outcome, metrics: Option<&LongContextMetrics>) -> String {
    let evaluation = metrics.and_then(|metrics| metrics.evaluation.as_ref());
    match evaluation {
        Some(evaluation) => format!(
            "{}: held-out {:.4} nats per token, {:.4} bits per byte",
            outcome.name(),
            evaluation.nll_nats.get(),
            evaluation.bits_per_byte.get()
        ),
        None => outcome.name().to_owned(),
    }
}
