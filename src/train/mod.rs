//! The training loop: seeded, sequences whole or in segments, checkpoints from which it goes on.

mod checkpoint;
mod diagnosis;
mod gradient;
mod interrupt;
mod loss_scale;
mod moments;
pub mod optimiser;
mod schedule;
pub mod stability;

use std::fmt;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use sha2::{Digest, Sha256};

pub use checkpoint::{Checkpoint, CheckpointFolder, TrainState, moments_sha256};
pub use diagnosis::diagnose;
pub use gradient::{Gradient, Objective, Sequences, segments};
pub use interrupt::Interrupt;
pub use loss_scale::LossScale;
pub use schedule::learning_rate;
use stability::Stability;

use crate::accounting::memory::{self, Meter};
use crate::config::{ModelConfig, TrainConfig};
use crate::data::{Batch, Batches};
use crate::models::registry::ModelShape;
use crate::models::{BatchShape, LanguageModel};
use crate::results::{Curves, Fault, Finite, NonFinite, Outcome};
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
    /// Number of the set of initial weights: 0 but for the second of two equal models.
    pub stream: u32,
    /// Device without autodiff.
    pub device: &'a Device,
    /// The most bytes it may add to what is in use.
    pub memory_limit: Option<Bytes>,
    /// Where checkpoints are kept; none are where absent.
    pub checkpoints: Option<&'a CheckpointFolder>,
    /// Ends it early.
    pub interrupt: &'a Interrupt,
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
pub struct Trained {
    /// The last weights, without autodiff.
    pub model: LanguageModel,
    /// With the last moments.
    pub optimiser: ModuleOptimizer,
    /// Completed, diverged, out of memory, or timed out.
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

impl fmt::Debug for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // burn's optimiser has no such form.
        f.debug_struct("Trained")
            .field("outcome", &self.outcome)
            .field("curves", &self.curves)
            .finish_non_exhaustive()
    }
}

/// Hears of a training as it goes; an error it returns ends the training.
pub trait Observer {
    /// Something worth a line.
    fn message(&mut self, text: &str);
    /// Training begins with step `first`: 0, or where a checkpoint stands. What it heard of that step and
    /// later ones before is void.
    ///
    /// # Errors
    /// What ends the training.
    fn start(&mut self, first: u64) -> Result<()>;
    /// A step is done.
    ///
    /// # Errors
    /// What ends the training.
    fn step(&mut self, step: Step) -> Result<()>;
    /// A checkpoint is about to be written: what it heard so far must be on the disk before.
    ///
    /// # Errors
    /// What ends the training.
    fn before_checkpoint(&mut self) -> Result<()>;
}

/// Nobody listens.
impl Observer for () {
    fn message(&mut self, _text: &str) {}
    fn start(&mut self, _first: u64) -> Result<()> {
        Ok(())
    }
    fn step(&mut self, _step: Step) -> Result<()> {
        Ok(())
    }
    fn before_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Trains, from the newest checkpoint where there is one and from scratch elsewhere. A training that goes on
/// ends with the bits of one that was never stopped.
///
/// # Errors
/// [`Error::Interrupted`] after a checkpoint, on request; a device that fails; a checkpoint that cannot be
/// written; what `observer` returns.
pub fn train(training: &Training<'_>, observer: &mut dyn Observer) -> Result<Trained> {
    memory::keep_freed();
    memory::take_what_stays(training.device);
    let meter = Meter::start(training.device, training.memory_limit);
    let (mut trainer, mut state) = Trainer::start(training, observer)?;
    meter.forget_peak();
    observer.start(state.step)?;
    let (vocab_size, n_steps) = (training.shape.vocab_size, training.n_steps);
    let mut stability = Stability::replay(vocab_size, n_steps, &state.curves);
    let memory_at_start = *state.memory_at_start.get_or_insert(meter.at_start());
    // A hash cannot be stored half-way; batches depend on nothing but their step.
    let mut data_order = Sha256::new();
    for index in 0..state.step {
        data_order.update(ordered(&training.batches.batch(index)));
    }
    let first = state.step;
    let seconds_before = state.seconds;
    let began = Instant::now();
    let mut last_checkpoint = began;

    let outcome = loop {
        if state.step == training.n_steps {
            break Outcome::Completed;
        }
        let index = state.step;
        let step_began = Instant::now();
        let batch = training.batches.batch(index);
        data_order.update(ordered(&batch));
        let taken = match trainer.step(index, &batch, state.loss_scale, &meter) {
            Err(Error::OutOfMemory { requested, .. }) => {
                break Outcome::OutOfMemory {
                    requested_bytes: requested,
                };
            }
            taken => taken?,
        };
        let step = taken.step;
        if index >= first + UNTIMED_STEPS {
            state.timed_seconds += step_began.elapsed().as_secs_f64();
            state.timed_tokens += step.n_tokens;
        }
        state.step += 1;
        state.curves.push(step.loss_nats, step.gradient_norm);
        let overflows = std::iter::repeat_n(index, taken.n_overflows);
        state.curves.loss_scale_overflows.extend(overflows);
        state.loss_scale = taken.loss_scale;
        if !step.is_finite() {
            state.skipped_steps += 1;
            state.curves.faults.push(Fault {
                step: index,
                first: taken.fault,
            });
        }
        state.peak_memory = state.peak_memory.max(Some(meter.peak()));
        state.seconds = seconds_before + began.elapsed().as_secs_f64();
        observer.step(step)?;

        if let Some(cause) = stability.step(step.loss_nats, step.gradient_norm) {
            break Outcome::Diverged { step: index, cause };
        }
        let interrupted = training.interrupt.requested();
        let every = training.config.checkpoint_every_seconds;
        if let Some(checkpoints) = training.checkpoints
            && (interrupted
                || state.step == training.n_steps
                || last_checkpoint.elapsed().as_secs_f64() >= every)
        {
            observer.before_checkpoint()?;
            checkpoints.save(&state, &trainer.model, &trainer.optimiser)?;
            last_checkpoint = Instant::now();
        }
        if interrupted {
            return Err(Error::Interrupted);
        }
        if let Some(seconds) = training.config.max_cell_seconds
            && state.seconds >= seconds
            && state.step < training.n_steps
        {
            break Outcome::TimedOut {
                seconds: Finite::new(seconds).unwrap_or_default(),
            };
        }
    };
    // The last update may still be queued; a device that failed says so when the weights are read.
    let _ = training.device.sync();
    Ok(Trained {
        model: trainer.model.valid(),
        optimiser: trainer.optimiser,
        outcome,
        tokens_per_second: (state.timed_tokens > 0)
            .then(|| state.timed_tokens as f64 / state.timed_seconds),
        curves: state.curves,
        skipped_steps: state.skipped_steps,
        seconds: seconds_before + began.elapsed().as_secs_f64(),
        peak_memory: state
            .peak_memory
            .map_or(meter.peak(), |peak| peak.max(meter.peak())),
        memory_at_start,
        data_order_sha256: format!("{:x}", data_order.finalize()),
    })
}

/// A step and what it leaves beside the weights.
struct Taken {
    step: Step,
    /// Where a step that is not finite stopped being so.
    fault: Option<NonFinite>,
    /// Times that its batch was tried again at half the loss scale.
    n_overflows: usize,
    /// That of the next step.
    loss_scale: Option<LossScale>,
}

/// What of a batch its place in the order is hashed from.
fn ordered(batch: &Batch) -> &[u8] {
    bytemuck::cast_slice(&batch.inputs)
}

/// A model with its optimiser.
struct Trainer<'a> {
    training: &'a Training<'a>,
    model: LanguageModel,
    optimiser: ModuleOptimizer,
}

impl<'a> Trainer<'a> {
    /// At the newest undamaged checkpoint, or at the start.
    fn start(
        training: &'a Training<'a>,
        observer: &mut dyn Observer,
    ) -> Result<(Self, TrainState)> {
        let device = training.device.clone().autodiff();
        let Training {
            shape,
            seed,
            stream,
            ..
        } = *training;
        let mut model = LanguageModel::from_stream(shape, seed, stream, &device);
        let (checkpoint, damaged) = training
            .checkpoints
            .map_or((None, Vec::new()), CheckpointFolder::newest);
        let goes_on = checkpoint.as_ref().map_or(0, |found| found.state.step);
        for problem in damaged {
            observer.message(&format!("{problem}; going on from step {goes_on}"));
        }
        if let Some(checkpoint) = &checkpoint {
            model = checkpoint.weights(model)?;
        }
        let mut optimiser = optimiser::adamw(&model, training.config, optimiser::Decay::Standard);
        if let Some(checkpoint) = &checkpoint {
            optimiser = checkpoint.moments(optimiser)?;
        }
        let trainer = Self {
            training,
            model,
            optimiser,
        };
        let at_first = TrainState {
            loss_scale: LossScale::new(training.config.precision),
            ..TrainState::default()
        };
        Ok((trainer, checkpoint.map_or(at_first, |found| found.state)))
    }

    /// One optimiser step. A gradient alone that is not finite is computed again at half the loss scale, as long as
    /// there is one above 1. A step that is not finite all the same changes nothing, the scale that it began with
    /// included, and is looked into.
    fn step(
        &mut self,
        index: u64,
        batch: &Batch,
        loss_scale: Option<LossScale>,
        meter: &Meter,
    ) -> Result<Taken> {
        let Training {
            config,
            model,
            seed,
            n_steps,
            batch_shape,
            ..
        } = *self.training;
        let mut objective = Objective::new(model, config, seed, index);
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
        let (mut scale, mut n_overflows) = (loss_scale, 0);
        let gradient = loop {
            objective.loss_scale = scale.map_or(1.0, |scale| scale.factor);
            let gradient = objective.gradient(&self.model, &sequences, &segments, Some(meter))?;
            let overflowed = gradient.loss_nats.is_finite() && !gradient.norm.is_finite();
            match scale.and_then(LossScale::halved) {
                Some(halved) if overflowed => {
                    scale = Some(halved);
                    n_overflows += 1;
                }
                _ => break gradient,
            }
        };
        let step = Step {
            index,
            loss_nats: gradient.loss_nats,
            gradient_norm: gradient.norm,
            n_tokens: batch.inputs.len() as u64,
        };
        let (mut fault, mut next_scale) = (None, loss_scale);
        if step.is_finite() {
            next_scale = scale.map(LossScale::held);
            let gradients = gradient.clipped(&self.model, config.gradient_clip_norm);
            let rate = learning_rate(config, index, n_steps);
            self.update(rate, gradients);
            meter.sync_point("the optimiser's step")?;
        } else {
            let gradients = &gradient.gradients;
            fault = diagnose(&objective, &self.model, &sequences, resident, gradients)?;
        }
        Ok(Taken {
            step,
            fault,
            n_overflows,
            loss_scale: next_scale,
        })
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
