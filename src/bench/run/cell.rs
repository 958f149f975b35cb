//! One cell: a training, its evaluation, and what is recorded of them.

use super::{Ids, Part, Point, Run};
use crate::bench::{Progress, memory, multidataset, quantization};
use crate::config::Benchmark;
use crate::data::Batches;
use crate::eval::{Evaluator, HeldOut, audit, kernel_errors};
use crate::models::checkpoint::{Loaded, Origin};
use crate::models::registry::{Carry, ModelShape, ParameterCount};
use crate::models::{BatchShape, LanguageModel, weights};
use crate::results::{
    AtBudget, AuditCheck, AuditReport, AuditedWeights, Cell, Evaluation, FailureKind, Finite,
    GivenWeights, KernelError, LongContextMetrics, Memory, MemoryLedger, OnDataset, Outcome,
    Parameters, QuantizationMetrics, RunRecord, RunWriter, StepLine,
};
use crate::train::{
    CheckpointFolder, Interrupt, Observer, Step, Trained, Training, learning_rate, train,
};
use crate::{Error, Result};

/// What became of a cell that was begun.
struct Ended {
    outcome: Outcome,
    metrics: Option<LongContextMetrics>,
    /// The model in fewer bits.
    quantization: Option<QuantizationMetrics>,
    /// Held-out text with the state carried through its documents.
    carry: Option<Evaluation>,
    /// The last weights, where the device lived to tell.
    model: Option<LanguageModel>,
}

impl Ended {
    fn without_model(outcome: Outcome) -> Self {
        Self {
            outcome,
            metrics: None,
            quantization: None,
            carry: None,
            model: None,
        }
    }
}

impl Run<'_> {
    pub(super) fn cell(
        &self,
        point: Point<'_>,
        ids: &Ids,
        record: &RunRecord,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<(Cell, Option<AuditReport>)> {
        let Point {
            part,
            shape,
            planned,
            seq_len,
            seed,
        } = point;
        let model = &planned.label;
        let (n_steps, learning_rate) = (part.grid.n_steps, part.config.train.learning_rate);
        let budget = planned.at_budget.map_or(String::new(), |at| {
            let AtBudget {
                d_model, n_layers, ..
            } = at;
            format!(" {:e} FLOPs ({n_layers} x {d_model})", at.budget.get())
        });
        let on_dataset = (part.benchmark == Benchmark::Multidataset)
            .then(|| multidataset::on_dataset(&part.dataset));
        let on = on_dataset
            .as_ref()
            .map_or(String::new(), |on| format!(" on {}", on.dataset));
        let which = if point.is_trial() {
            format!("learning rate {learning_rate}, trial")
        } else {
            format!("seed {seed}")
        };
        let name = format!("{model}{on} N={seq_len}{budget} {which}");
        progress.start_cell(&name, n_steps);
        let mut audit = None;
        let misfit = match &part.given {
            Some(_) => None,
            None => planned
                .misfit
                .clone()
                .or_else(|| memory::misfit(shape, seq_len, &part.config, self.hardware)),
        };
        let twin = record.trained_by(&ids.training);
        if let Some(twin) = twin {
            progress.message(&format!(
                "trained already, as cell {} of {}",
                twin.id,
                twin.benchmark.name()
            ));
        }
        let broken = twin.filter(|twin| twin.outcome != Outcome::Completed);
        let ended = if let Some(skipped) = misfit {
            Ended::without_model(skipped)
        } else if let Some(twin) = broken {
            Ended {
                metrics: twin.metrics.clone(),
                ..Ended::without_model(twin.outcome.clone())
            }
        } else {
            self.trained(point, ids, writer, progress)?
        };
        let Ended {
            outcome, metrics, ..
        } = ended;
        // Logits that are not finite differ from themselves, which is no leak.
        let is_finite = |metrics: &LongContextMetrics| metrics.evaluation.is_some();
        let is_audited = !point.is_trial() && metrics.as_ref().is_none_or(is_finite);
        if let Some(model) = ended.model.filter(|_| is_audited) {
            audit = self.audit_trained(shape, seed, &outcome, &model, record)?;
        }
        progress.finish_cell(&describe(&outcome, metrics.as_ref()));
        let on_dataset = on_dataset.map(|on| OnDataset {
            carry: ended.carry,
            ..on
        });
        let cell = Cell {
            id: ids.cell.clone(),
            benchmark: part.benchmark,
            training: ids.training.clone(),
            model: model.clone(),
            seq_len,
            seed,
            n_steps,
            learning_rate: Finite::new(learning_rate).unwrap_or_default(),
            parameters: parameters(shape.parameters()),
            outcome,
            warnings: part.repeated_data(seq_len).into_iter().collect(),
            metrics,
            quantization: ended.quantization,
            at_budget: planned.at_budget,
            on_dataset,
            given: part.given.as_ref().map(given_weights),
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
        let n_tokens = audit::n_tokens(&self.config.seq_lengths());
        let findings = audit::leaks(trained, shape.vocab_size, n_tokens, seed)?;
        Ok(Some(AuditReport {
            model: model.to_owned(),
            weights: AuditedWeights::Final,
            seed,
            checks: findings.into_iter().map(AuditCheck::from).collect(),
        }))
    }

    /// Trains and evaluates. What a device cannot do is the cell's outcome; where it failed, it gets a second
    /// chance from the last checkpoint.
    fn trained(
        &self,
        point: Point<'_>,
        ids: &Ids,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<Ended> {
        let mut failed_before = false;
        loop {
            match self.train(point, ids, writer, progress) {
                Ok(ended) => return Ok(ended),
                Err(Error::OutOfMemory { requested, .. }) => {
                    let requested_bytes = requested;
                    return Ok(Ended::without_model(Outcome::OutOfMemory {
                        requested_bytes,
                    }));
                }
                Err(Error::Device { doing, reason }) if failed_before => {
                    let failure = failure_kind(&reason);
                    let reason = format!("while {doing}: {reason}");
                    return Ok(Ended::without_model(Outcome::Failed { failure, reason }));
                }
                Err(Error::Device { doing, reason }) => {
                    failed_before = true;
                    progress.message(&format!(
                        "the device failed while {doing} ({reason}); trying once more from the last checkpoint"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn train(
        &self,
        point: Point<'_>,
        ids: &Ids,
        writer: &mut RunWriter,
        progress: &mut dyn Progress,
    ) -> Result<Ended> {
        if let Some(given) = &point.part.given {
            return Ok(Ended {
                quantization: point.quantization(&given.model, progress)?,
                model: Some(given.model.clone()),
                ..Ended::without_model(Outcome::Completed)
            });
        }
        let checkpoints = self.checkpoints.of_training(&ids.training);
        let checkpoints = checkpoints.describing(point.description()?);
        let batches = point.batches()?;
        let training = self.training(point, &batches, Some(&checkpoints), self.interrupt);
        let mut log = Log {
            id: &ids.cell,
            training: &training,
            writer,
            progress,
        };
        let trained = train(&training, &mut log)?;
        let held_out = match trained.outcome {
            Outcome::Completed => point.evaluate(&trained.model)?,
            _ => None,
        };
        // Weights that give no finite loss tell nothing of kernels and cannot be packed.
        let is_measured = held_out.is_some() && !point.is_trial();
        let kernel_errors = if is_measured {
            point.kernel_errors(&trained.model)?
        } else {
            Vec::new()
        };
        let unigram = point.part.dataset.manifest.unigram_ce_nats;
        let tensors = memory::tensors(self.hardware);
        let config = &point.part.config.train;
        let estimated = memory::needs(point.shape, point.seq_len, config, tensors);
        let flops = held_out.as_ref().map(|held_out| held_out.flops);
        let varies = point.shape.architecture.has_variable_cost();
        let mut metrics = metrics(&trained, held_out, kernel_errors, unigram, estimated)?;
        metrics.three_gram_ce_nats = point.part.three_gram_ce_nats;
        metrics.forward_flops_per_token = flops.filter(|_| varies);
        let (quantization, carry) = if is_measured {
            (
                point.quantization(&trained.model, progress)?,
                point.carried(&trained.model)?,
            )
        } else {
            (None, None)
        };
        Ok(Ended {
            outcome: trained.outcome,
            metrics: Some(metrics),
            quantization,
            carry,
            model: Some(trained.model),
        })
    }

    pub(super) fn training<'a>(
        &'a self,
        point: Point<'a>,
        batches: &'a Batches,
        checkpoints: Option<&'a CheckpointFolder>,
        interrupt: &'a Interrupt,
    ) -> Training<'a> {
        let Part { config, grid, .. } = point.part;
        Training {
            shape: point.shape,
            model: &config.model,
            config: &config.train,
            batches,
            batch_shape: BatchShape {
                batch: config.train.batch_size,
                seq_len: point.seq_len,
            },
            n_steps: grid.n_steps,
            seed: point.seed,
            stream: point.planned.stream(),
            device: &self.hardware.device,
            memory_limit: config.device.memory_limit(),
            checkpoints,
            interrupt,
        }
    }
}

impl Point<'_> {
    pub(super) fn batches(&self) -> Result<Batches> {
        let Part {
            config, dataset, ..
        } = self.part;
        let (tokens, batch) = (dataset.train.clone(), config.train.batch_size);
        Batches::new(tokens, self.seq_len, batch, self.seed)
    }

    /// `None` where the loss is not finite.
    pub(super) fn evaluate(&self, model: &LanguageModel) -> Result<Option<HeldOut>> {
        let evaluator = self.evaluator(model);
        evaluator.evaluate(&self.part.dataset.eval, self.eval_bytes(), self.seq_len)
    }

    fn evaluator<'a>(&self, model: &'a LanguageModel) -> Evaluator<'a> {
        let config = &self.part.config.train;
        Evaluator {
            model,
            segment: self.shape.architecture.resident_len(config, self.seq_len),
            loss_chunk_tokens: config.loss_chunk_tokens,
        }
    }

    /// Bytes of the held-out text.
    fn eval_bytes(&self) -> u64 {
        self.part.dataset.manifest.eval.n_bytes as u64
    }

    /// The trained model in fewer bits, where that is the benchmark.
    fn quantization(
        &self,
        model: &LanguageModel,
        progress: &mut dyn Progress,
    ) -> Result<Option<QuantizationMetrics>> {
        let Part {
            benchmark,
            config,
            dataset,
            ..
        } = self.part;
        if *benchmark != Benchmark::Quantization {
            return Ok(None);
        }
        progress.message("measuring the model in fewer bits");
        let study = quantization::Study {
            evaluator: self.evaluator(model),
            decodes: self.shape.architecture.carry() == Carry::Finite,
            tokens: &dataset.eval,
            n_bytes: self.eval_bytes(),
            window: self.seq_len,
        };
        study.measure(&config.quantization.widths()?).map(Some)
    }

    /// The held-out text with the state carried, where that is the benchmark.
    fn carried(&self, model: &LanguageModel) -> Result<Option<Evaluation>> {
        if self.part.benchmark != Benchmark::Multidataset {
            return Ok(None);
        }
        let carry = self.shape.architecture.carry();
        multidataset::carried(self.evaluator(model), carry, &self.part.dataset)
    }

    /// On the first window of the training text, which no cell is too long for.
    fn kernel_errors(&self, model: &LanguageModel) -> Result<Vec<KernelError>> {
        let evaluator = self.evaluator(model);
        let tokens = self.part.dataset.train.get(0..self.seq_len);
        kernel_errors(model, &tokens, evaluator.segment)
    }
}

/// Writes and shows the steps of a cell.
struct Log<'a> {
    id: &'a str,
    training: &'a Training<'a>,
    writer: &'a mut RunWriter,
    progress: &'a mut dyn Progress,
}

impl Observer for Log<'_> {
    fn message(&mut self, text: &str) {
        self.progress.message(text);
    }

    fn start(&mut self, first: u64) -> Result<()> {
        if first > 0 {
            self.progress.continue_cell(first);
        }
        self.writer.forget_from(self.id, first)
    }

    fn step(&mut self, step: Step) -> Result<()> {
        let rate = learning_rate(self.training.config, step.index, self.training.n_steps);
        self.writer.step(&StepLine {
            cell: self.id,
            step: step.index,
            loss_nats: Finite::new(step.loss_nats),
            gradient_norm: Finite::new(step.gradient_norm),
            learning_rate: Finite::new(rate).unwrap_or_default(),
        })?;
        let n_tokens = (step.index + 1) * step.n_tokens;
        self.progress.step(step.index + 1, step.loss_nats, n_tokens);
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        self.writer.sync_steps()
    }
}

fn metrics(
    trained: &Trained,
    held_out: Option<HeldOut>,
    kernel_errors: Vec<KernelError>,
    unigram_ce_nats: f64,
    estimated: MemoryLedger,
) -> Result<LongContextMetrics> {
    let curves = trained.curves.clone();
    let (evaluation, nll_by_position, last_quarter) = match held_out {
        Some(held_out) => (
            Some(held_out.evaluation),
            held_out.nll_by_position,
            held_out.last_quarter,
        ),
        None => (None, Vec::new(), None),
    };
    Ok(LongContextMetrics {
        final_loss_nats: curves.final_loss_nats(),
        gradient_norm_mean: curves.gradient_norm_mean(),
        gradient_norm_std: curves.gradient_norm_std(),
        gradient_norm_max: curves.gradient_norm_max(),
        nan_count: curves.nan_count(),
        loss_scale_overflows: curves.loss_scale_overflows.len() as u64,
        spike_steps: curves.spike_steps(),
        curves,
        skipped_steps: trained.skipped_steps,
        evaluation,
        nll_by_position,
        forward_flops_per_token: None,
        last_quarter,
        kernel_errors,
        unigram_ce_nats: Finite::new(unigram_ce_nats).unwrap_or_default(),
        three_gram_ce_nats: None,
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

fn given_weights(given: &Loaded) -> GivenWeights {
    let (layout, steps) = match given.origin {
        Origin::Bkbench { step } => ("bkbench", Some(step)),
        Origin::Published => ("published", None),
    };
    GivenWeights {
        path: given.path.clone(),
        layout: layout.to_owned(),
        steps,
        file_sha256: given.file_sha256.clone(),
    }
}

pub(in crate::bench) fn parameters(count: ParameterCount) -> Parameters {
    Parameters {
        total: count.total as u64,
        non_embedding: count.non_embedding as u64,
        active: count.active as u64,
    }
}

/// What kind of failure a backend's words speak of.
pub(in crate::bench) fn failure_kind(reason: &str) -> FailureKind {
    let reason = reason.to_lowercase();
    let lost = ["device is lost", "device lost", "device was lost"];
    if lost.iter().any(|words| reason.contains(words)) {
        FailureKind::DeviceLost
    } else {
        FailureKind::Error
    }
}

fn describe(outcome: &Outcome, metrics: Option<&LongContextMetrics>) -> String {
    let evaluation = metrics.and_then(|metrics| metrics.evaluation.as_ref());
    let flops = metrics.and_then(|metrics| metrics.forward_flops_per_token);
    let flops = flops.map(|flops| format!(", {:.0} FLOPs a token", flops.with_head.get()));
    match evaluation {
        Some(evaluation) => format!(
            "{}: held-out {:.4} nats per token, {:.4} bits per byte{}",
            outcome.name(),
            evaluation.nll_nats.get(),
            evaluation.bits_per_byte.get(),
            flops.unwrap_or_default()
        ),
        None if *outcome == Outcome::Completed && metrics.is_some() => {
            format!("{}: held-out loss not finite", outcome.name())
        }
        None => outcome.name().to_owned(),
    }
}
