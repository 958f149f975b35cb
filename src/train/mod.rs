//! The training loop: whole sequences, seeded, one readback a step.

mod checkpoint;
mod diagnosis;
mod gradient;
pub mod optimiser;
mod schedule;
pub mod stability;

use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use sha2::{Digest, Sha256};

pub use checkpoint::Checkpoint;
pub use diagnosis::diagnose;
pub use gradient::{Gradient, Objective, Sequences, segments};
pub use schedule::learning_rate;
use stability::Stability;

use crate::accounting::memory::Meter;
use crate::config::{ModelConfig, TrainConfig};
use crate::data::{Batch, Batches};
use crate::models::registry::ModelShape;
use crate::models::{BatchShape, LanguageModel};
use crate::results::{Curves, Fault, NonFinite, Outcome};
use crate::units::Bytes;
use crate::{Error, Result};

/// Steps that are not timed: the first ones build pipelines and grow the memory pools.
const UNTIMED_STEPS: u64 = 3;

/// What is trained, on what, for how long.
#[derive(Debug)]
pub struct Training<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// What all models share: dropout, weight of the load balance.
    pub model: &'a ModelConfig,
    /// Hyper-parameters.
    pub config: &'a TrainConfig,
    /// Where the tokens come from.
    pub batches: &'a Batches,
    /// How a batch folds into sequences.
    pub batch_shape: BatchShape,
    /// Optimiser steps to take.
    pub n_steps: u64,
    /// Seed of weights and masks; the batches have been given the same one.
    pub seed: u64,
    /// Device without autodiff.
    pub device: &'a Device,
    /// The most bytes it may add to what is in use.
    pub memory_limit: Option<Bytes>,
    /// Folder of the checkpoint.
    pub checkpoint: PathBuf,
}

/// What a step reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Number of the step, from 0.
    pub index: u64,
    /// Cross-entropy of its batch before the update, nats per token.
    pub loss_nats: f64,
    /// Norm of the gradient over all parameters before clipping.
    pub gradient_norm: f64,
    /// Tokens it trained on.
    pub n_tokens: u64,
}

impl Step {
    fn is_finite(&self) -> bool {
        self.loss_nats.is_finite() && self.gradient_norm.is_finite()
    }
}

/// A training that ended.
#[derive(Debug)]
pub struct Trained {
    /// The last weights, without autodiff.
    pub model: LanguageModel,
    /// Completed, diverged, or out of memory.
    pub outcome: Outcome,
    /// Every step's values.
    pub curves: Curves,
    /// Steps that changed no weight.
    pub skipped_steps: u64,
    /// Wall-clock time of the loop.
    pub seconds: f64,
    /// Training tokens a second of the steps, data included, checkpoints and the first three steps left
    /// out; absent in shorter runs.
    pub tokens_per_second: Option<f64>,
    /// The most bytes it held, above those in use at its start ([`Meter::peak`]).
    pub peak_memory: Bytes,
    /// Bytes in use at its start.
    pub memory_at_start: Bytes,
    /// sha256 of the tokens in the order in which they were trained on.
    pub data_order_sha256: String,
}

/// Trains from scratch; `on_step` hears of every step.
///
/// # Errors
/// A device that fails, or a checkpoint that cannot be written.
pub fn train(training: &Training<'_>, on_step: &mut dyn FnMut(Step)) -> Result<Trained> {
    let meter = Meter::start(training.device, training.memory_limit);
    let mut trainer = Trainer::new(training);
    let mut curves = Curves::default();
    let mut outcome = Outcome::Completed;
    let mut stability = Stability::new(training.shape.vocab_size, training.n_steps);
    let mut skipped_steps = 0;
    let mut data_order = Sha256::new();
    let began = Instant::now();
    let mut last_checkpoint = began;
    let (mut timed_seconds, mut timed_tokens) = (0.0, 0);

    for index in 0..training.n_steps {
        let step_began = Instant::now();
        let batch = training.batches.batch(index);
        data_order.update(bytemuck::cast_slice::<u32, u8>(&batch.inputs));
        let (step, fault) = match trainer.step(index, &batch, &meter) {
            Err(Error::OutOfMemory { requested, .. }) => {
                outcome = Outcome::OutOfMemory {
                    requested_bytes: requested,
                };
                break;
            }
            step => step?,
        };
        if index >= UNTIMED_STEPS {
            timed_seconds += step_began.elapsed().as_secs_f64();
            timed_tokens += step.n_tokens;
        }
        curves.push(step.loss_nats, step.gradient_norm);
        on_step(step);

        if !step.is_finite() {
            skipped_steps += 1;
            curves.faults.push(Fault {
                step: index,
                first: fault,
            });
        }
        if let Some(cause) = stability.step(step.loss_nats, step.gradient_norm) {
            outcome = Outcome::Diverged { step: index, cause };
            break;
        }
        let every = training.config.checkpoint_every_seconds;
        if index + 1 == training.n_steps || last_checkpoint.elapsed().as_secs_f64() >= every {
            let checkpoint = Checkpoint {
                step: index + 1,
                curves: curves.clone(),
            };
            checkpoint.save(&training.checkpoint, &trainer.model, &trainer.optimiser)?;
            last_checkpoint = Instant::now();
        }
    }
    // The last update may still be queued; a device that failed says so when the weights are read.
    let _ = training.device.sync();
    Ok(Trained {
        model: trainer.model.valid(),
        outcome,
        curves,
        skipped_steps,
        seconds: began.elapsed().as_secs_f64(),
        tokens_per_second: (timed_tokens > 0).then(|| timed_tokens as f64 / timed_seconds),
        peak_memory: meter.peak(),
        memory_at_start: meter.at_start(),
        data_order_sha256: format!("{:x}", data_order.finalize()),
    })
}

/// A model with its optimiser.
struct Trainer<'a> {
    training: &'a Training<'a>,
    model: LanguageModel,
    optimiser: ModuleOptimizer,
}

impl<'a> Trainer<'a> {
    fn new(training: &'a Training<'a>) -> Self {
        let device = training.device.clone().autodiff();
        let model = LanguageModel::new(training.shape, training.seed, &device);
        let optimiser = optimiser::adamw(&model, training.config, optimiser::Decay::Standard);
        Self {
            training,
            model,
            optimiser,
        }
    }

    /// One optimiser step. One that is not finite changes nothing, and is looked into.
    fn step(
        &mut self,
        index: u64,
        batch: &Batch,
        meter: &Meter,
    ) -> Result<(Step, Option<NonFinite>)> {
        let Training {
            config,
            model,
            seed,
            n_steps,
            batch_shape,
            ..
        } = *self.training;
        let objective = Objective::new(model, config, seed, index);
        let sequences = Sequences {
            inputs: &batch.inputs,
            targets: &batch.targets,
            shape: batch_shape,
        };
        let seq_len = batch_shape.seq_len;
        let resident = self
            .training
            .shape
            .architecture
            .resident_len(config, seq_len);
        let segments = segments(seq_len, resident);
        let gradient = objective.gradient(&self.model, &sequences, &segments, Some(meter))?;
        let step = Step {
            index,
            loss_nats: gradient.loss_nats,
            gradient_norm: gradient.norm,
            n_tokens: batch.inputs.len() as u64,
        };
        let mut fault = None;
        if step.is_finite() {
            let gradients = gradient.clipped(&self.model, config.gradient_clip_norm);
            let rate = learning_rate(config, index, n_steps);
            self.update(rate, gradients);
            meter.sync_point("the optimiser's step")?;
        } else {
            let gradients = &gradient.gradients;
            fault = diagnose(&objective, &self.model, &sequences, resident, gradients)?;
        }
        Ok((step, fault))
    }

    /// On the host where the moments are kept there.
    fn update(&mut self, rate: f64, gradients: GradientsParams) {
        let (model, device) = (self.model.clone(), self.training.device.clone());
        self.model = if self.training.config.cpu_offloading {
            let gradients = gradients.to_device(&Device::flex(), &model);
            let model = model.to_device(&Device::flex());
            self.optimiser
                .step(rate, model, gradients)
                .to_device(&device)
        } else {
            self.optimiser.step(rate, model, gradients)
        };
    }
}
