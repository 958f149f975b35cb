//! The gradient of a batch, and the two scalars that the host looks at.
//!
//! Long sequences go in segments, with exact gradients, in two sweeps. The first runs left to right without a
//! graph and keeps the state before each segment. The second runs right to left: it computes a segment again
//! from its state, with a graph, and its backward pass is handed the cotangent of the segment's final state,
//! which the segment to its right has just yielded. The gradients are those of the whole sequence; resident
//! are one segment and one small state a boundary.

use std::ops::Range;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use super::optimiser::{scale, squared_norm};
use crate::accounting::memory::Meter;
use crate::config::{Backpropagation, ModelConfig, Precision, TrainConfig};
use crate::hardware::read;
use crate::models::{
    BatchShape, BlockState, Dropout, Forward, LanguageModel, ModelSweep, Observer, Routing,
    StateMap,
};
use crate::ops::embedding;
use crate::ops::ledger::{self, Op};
use crate::results::FlopsPass;
use crate::{Error, Result};

/// What is minimised, mean cross-entropy plus the weighted terms of routers, and how its gradient is computed.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// Weight of the sum of the layers' load-balance terms.
    pub load_balance_weight: f64,
    /// Weight of the mean over the layers of their activity.
    pub act_penalty: f64,
    /// Mask of this step.
    pub dropout: Dropout,
    /// Rows of logits that exist at once.
    pub loss_chunk_tokens: usize,
    /// In what matrix products are computed.
    pub precision: Precision,
    /// Factor by which all that is minimised is multiplied until the gradient is complete; 1 for none.
    pub loss_scale: f64,
    /// Whether gradients cross the boundaries of segments.
    pub backpropagation: Backpropagation,
    /// Whether a segment keeps the inputs of its layers alone and computes a layer again for its backward pass.
    pub gradient_checkpointing: bool,
    /// Whether the states at the boundaries wait on the host.
    pub states_on_host: bool,
}

/// Inputs and targets of a step, row-major `[batch, seq_len]`.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// Token ids.
    pub inputs: &'a [u32],
    /// The token after each of them.
    pub targets: &'a [u32],
    /// How they fold into sequences.
    pub shape: BatchShape,
}

impl Sequences<'_> {
    /// The positions `segment` of every sequence.
    fn segment(&self, segment: &Range<usize>) -> Segment {
        let of_every_sequence = |ids: &[u32]| {
            ids.chunks(self.shape.seq_len)
                .flat_map(|sequence| &sequence[segment.clone()])
                .copied()
                .collect()
        };
        Segment {
            inputs: of_every_sequence(self.inputs),
            targets: of_every_sequence(self.targets),
            shape: BatchShape {
                batch: self.shape.batch,
                seq_len: segment.len(),
            },
            first_position: segment.start,
        }
    }
}

/// A piece of every sequence of a batch.
struct Segment {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    shape: BatchShape,
    first_position: usize,
}

/// The pieces of at most `segment_len` positions into which sequences of `seq_len` are cut, left to right.
pub fn segments(seq_len: usize, segment_len: usize) -> Vec<Range<usize>> {
    (0..seq_len)
        .step_by(segment_len)
        .map(|start| start..seq_len.min(start + segment_len))
        .collect()
}

/// Gradient of an objective at one batch, without its loss scale.
#[derive(Debug)]
pub struct Gradient {
    /// Mean cross-entropy alone, nats per token.
    pub loss_nats: f64,
    /// Norm over all parameters.
    pub norm: f64,
    /// By parameter.
    pub gradients: GradientsParams,
}

impl Objective {
    /// What `model` and `train` ask for, at one step of the training from `seed`; the loss is not scaled.
    pub fn new(model: &ModelConfig, train: &TrainConfig, seed: u64, step: u64) -> Self {
        Self {
            load_balance_weight: model.load_balance_weight,
            act_penalty: model.act_penalty,
            dropout: Dropout {
                probability: model.dropout,
                seed,
                step: step as u32,
                first_position: 0,
            },
            loss_chunk_tokens: train.loss_chunk_tokens,
            precision: train.precision,
            loss_scale: 1.0,
            backpropagation: train.backpropagation,
            gradient_checkpointing: train.gradient_checkpointing,
            states_on_host: train.cpu_offloading,
        }
    }

    /// The gradient for `batch`, computed in the pieces `segments`, which lie one after another and make up the
    /// sequences. A `meter` looks at the memory after each forward and backward pass.
    ///
    /// # Errors
    /// Tokens outside the vocabulary, more memory than the meter allows, or a device that fails.
    pub fn gradient(
        &self,
        model: &LanguageModel,
        batch: &Sequences<'_>,
        segments: &[Range<usize>],
        meter: Option<&Meter>,
    ) -> Result<Gradient> {
        let first = self.first_sweep(&model.valid(), batch, segments)?;
        // Nothing follows the last segment: the state's cotangent is 0, as is the initial state.
        let mut d_last = model.initial_states(batch.shape.batch);
        let mut sum: Option<GradientsParams> = None;
        let mut losses = Vec::with_capacity(segments.len());
        for (segment, state) in segments.iter().zip(first.boundaries).rev() {
            let piece = Piece {
                objective: self,
                model,
                segment: &batch.segment(segment),
                n_all_tokens: batch.shape.n_tokens(),
                routed: first.routed.as_deref(),
                meter,
            };
            let result = piece.gradient(&state, &d_last)?;
            losses.push(result.loss);
            if self.backpropagation == Backpropagation::Exact {
                d_last = result.d_first;
            }
            piece.sync_point("the backward pass")?;
            sum = Some(match sum {
                Some(sum) => add(model, sum, result.gradients),
                None => result.gradients,
            });
        }
        let loss = Tensor::cat(losses, 0).sum_dim(0);
        Gradient::read(model, loss, sum.unwrap_or_default(), self.loss_scale)
    }

    /// The gradient for whole sequences of which the tokens `scored` alone have a target each, given by their rows in
    /// `[batch * seq_len]`; the loss is the mean over them.
    ///
    /// # Errors
    /// As [`Objective::gradient`], and rows outside the batch.
    pub fn gradient_of_answers(
        &self,
        model: &LanguageModel,
        inputs: &[u32],
        shape: BatchShape,
        scored: &[u32],
        targets: &[u32],
    ) -> Result<Gradient> {
        let zeros = model.initial_states(shape.batch);
        let how = Forward {
            shape,
            sweep: ModelSweep::Train {
                d_last: &zeros,
                routed: None,
            },
            precision: self.precision,
            dropout: self.dropout,
            pinned: &[],
            observer: None,
        };
        let hidden = model.forward(inputs, zeros.clone(), &how)?;
        let x = embedding::gather_rows(hidden.x, scored)?;
        let loss = self.mean_loss(model, x, targets, scored.len())?;
        let objective = self.with_terms(loss.clone(), &hidden.routing, model.n_layers());
        let gradients = objective.backward();
        let gradients = GradientsParams::from_grads(gradients, model);
        Gradient::read(model, loss.inner(), gradients, self.loss_scale)
    }

    /// Left to right, without a graph: the state before each segment, and where all tokens were sent.
    fn first_sweep(
        &self,
        model: &LanguageModel,
        batch: &Sequences<'_>,
        segments: &[Range<usize>],
    ) -> Result<FirstSweep> {
        let mut states = model.initial_states(batch.shape.batch);
        let mut boundaries = Vec::with_capacity(segments.len());
        let mut routed: Option<Vec<Vec<u64>>> = None;
        for (index, range) in segments.iter().enumerate() {
            boundaries.push(if self.states_on_host {
                map_all(&states, &mut ToHost)?
            } else {
                states.clone()
            });
            let is_last = index + 1 == segments.len();
            // A sole segment counts its own choices, and without routing the last one has nothing to tell.
            let routes = || routed.iter().flatten().any(|counts| !counts.is_empty());
            if segments.len() == 1 || (is_last && !routes()) {
                break;
            }
            let segment = batch.segment(range);
            let how = Forward {
                precision: self.precision,
                dropout: self.dropout_of(&segment),
                ..Forward::infer(segment.shape)
            };
            let hidden = ledger::repeated(|| model.forward(&segment.inputs, states, &how))?;
            states = hidden.states;
            let sums = routed.get_or_insert_with(|| vec![Vec::new(); model.n_layers()]);
            for (sum, routing) in sums.iter_mut().zip(hidden.routing) {
                let counts = routing.map(|routing| routing.counts).unwrap_or_default();
                sum.resize(counts.len(), 0);
                sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            }
        }
        Ok(FirstSweep { boundaries, routed })
    }

    /// One forward pass from left to right in segments, without a graph, in which `observer` sees what every
    /// operation reads and makes, the loss included.
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    pub fn observe(
        &self,
        model: &LanguageModel,
        batch: &Sequences<'_>,
        segment_len: usize,
        observer: &dyn Observer,
    ) -> Result<()> {
        let mut states = model.initial_states(batch.shape.batch);
        for range in segments(batch.shape.seq_len, segment_len) {
            let segment = batch.segment(&range);
            let how = Forward {
                precision: self.precision,
                dropout: self.dropout_of(&segment),
                observer: Some(observer),
                ..Forward::infer(segment.shape)
            };
            let hidden = model.forward(&segment.inputs, states, &how)?;
            states = hidden.states;
            let n_all_tokens = batch.shape.n_tokens();
            let loss = self.mean_loss(model, hidden.x, &segment.targets, n_all_tokens)?;
            observer.see(0, "loss", loss);
        }
        Ok(())
    }

    /// The cross-entropies of `targets` summed and divided by `n_tokens`, scaled, `[1]`.
    fn mean_loss(
        &self,
        model: &LanguageModel,
        x: Tensor<2>,
        targets: &[u32],
        n_tokens: usize,
    ) -> Result<Tensor<1>> {
        let scale = self.loss_scale as f32 / n_tokens as f32;
        model.scaled_loss(x, targets, self.loss_chunk_tokens, scale, self.precision)
    }

    /// What is minimised: `loss` and the terms of `routing`, some of the `n_layers` layers, with their weights, scaled.
    fn with_terms(
        &self,
        loss: Tensor<1>,
        routing: &[Option<Routing>],
        n_layers: usize,
    ) -> Tensor<1> {
        let sum = |term: fn(&Routing) -> Option<Tensor<1>>| {
            let terms = routing.iter().flatten().filter_map(term);
            terms.reduce(|sum, term| sum + term)
        };
        let balance = sum(|routing| routing.load_balance.clone());
        let activity = sum(|routing| routing.activity.clone());
        let weights = [self.load_balance_weight, self.act_penalty / n_layers as f64];
        let terms = [balance, activity].into_iter().zip(weights);
        terms.fold(loss, |objective, (term, weight)| match term {
            Some(term) => objective + term.mul_scalar(weight * self.loss_scale),
            None => objective,
        })
    }

    fn dropout_of(&self, segment: &Segment) -> Dropout {
        Dropout {
            first_position: segment.first_position,
            ..self.dropout
        }
    }
}

/// What the first sweep leaves for the second.
struct FirstSweep {
    /// States before each segment, layer by layer.
    boundaries: Vec<Vec<BlockState>>,
    /// Choices that went to each expert, layer by layer; `None` where there is one segment alone.
    routed: Option<Vec<Vec<u64>>>,
}

/// One segment of the second sweep.
struct Piece<'a> {
    objective: &'a Objective,
    model: &'a LanguageModel,
    segment: &'a Segment,
    /// Tokens of the whole batch, over which the loss is a mean.
    n_all_tokens: usize,
    routed: Option<&'a [Vec<u64>]>,
    meter: Option<&'a Meter>,
}

/// What a segment yields.
struct PieceGradient {
    /// Its part of the mean cross-entropy, scaled, `[1]`, without a graph.
    loss: Tensor<1>,
    /// Its part of the scaled gradient.
    gradients: GradientsParams,
    /// Cotangents of the states before it.
    d_first: Vec<BlockState>,
}

impl Piece<'_> {
    fn gradient(&self, state: &[BlockState], d_last: &[BlockState]) -> Result<PieceGradient> {
        let state = map_all(state, &mut Track(&self.model.device()))?;
        let how = Forward {
            shape: self.segment.shape,
            sweep: ModelSweep::Train {
                d_last,
                routed: self.routed,
            },
            precision: self.objective.precision,
            dropout: self.objective.dropout_of(self.segment),
            pinned: &[],
            observer: None,
        };
        if self.objective.gradient_checkpointing {
            self.layer_by_layer(&state, &how)
        } else {
            self.at_once(&state, &how)
        }
    }

    /// One graph through all layers.
    fn at_once(&self, state: &[BlockState], how: &Forward<'_>) -> Result<PieceGradient> {
        let hidden = self
            .model
            .forward(&self.segment.inputs, state.to_vec(), how)?;
        let loss = self.loss(hidden.x)?;
        let n_layers = self.model.n_layers();
        let objective = self.objective;
        let objective = objective.with_terms(loss.clone(), &hidden.routing, n_layers);
        self.sync_point("the forward pass")?;
        let gradients = objective.backward();
        Ok(PieceGradient {
            loss: loss.inner(),
            d_first: map_all(state, &mut Cotangent(&gradients))?,
            gradients: GradientsParams::from_grads(gradients, self.model),
        })
    }

    /// A graph a layer, from the last layer to the first, each computed again from its kept input.
    fn layer_by_layer(&self, state: &[BlockState], how: &Forward<'_>) -> Result<PieceGradient> {
        let plain = self.model.valid();
        let infer = Forward {
            sweep: ModelSweep::Infer,
            ..*how
        };
        let mut inputs = Vec::with_capacity(plain.n_layers());
        let mut h = ledger::repeated(|| plain.embed(&self.segment.inputs))?;
        for (index, state) in map_all(state, &mut Detach)?.into_iter().enumerate() {
            inputs.push(h.clone());
            h = ledger::repeated(|| plain.layer(index, h, state, &infer))?.h;
        }

        let leaf = Tensor::from_inner(h).require_grad();
        let loss = self.loss(self.model.finish(leaf.clone())?)?;
        let backward = loss.clone().backward();
        let mut d_h = gradient_of(&leaf, &backward);
        let mut sum = GradientsParams::from_grads(backward, self.model);
        let mut d_first = Vec::with_capacity(state.len());
        for (index, input) in inputs.into_iter().enumerate().rev() {
            let leaf = Tensor::from_inner(input).require_grad();
            let output = self
                .model
                .layer(index, leaf.clone(), state[index].clone(), how)?;
            let product = inner_product(output.h, d_h);
            let objective =
                self.objective
                    .with_terms(product, &[output.routing], self.model.n_layers());
            self.sync_point("a layer's forward pass")?;
            let backward = objective.backward();
            d_h = gradient_of(&leaf, &backward);
            d_first.push(state[index].map(&mut Cotangent(&backward))?);
            let more = GradientsParams::from_grads(backward, self.model);
            sum = add(self.model, sum, more);
        }
        d_first.reverse();
        let embedded = self.model.embed(&self.segment.inputs)?;
        let backward = inner_product(embedded, d_h).backward();
        let more = GradientsParams::from_grads(backward, self.model);
        Ok(PieceGradient {
            loss: loss.inner(),
            gradients: add(self.model, sum, more),
            d_first,
        })
    }

    fn sync_point(&self, doing: &str) -> Result<()> {
        self.meter.map_or(Ok(()), |meter| meter.sync_point(doing))
    }

    /// This segment's part of the mean cross-entropy, scaled.
    fn loss(&self, x: Tensor<2>) -> Result<Tensor<1>> {
        self.objective
            .mean_loss(self.model, x, &self.segment.targets, self.n_all_tokens)
    }
}

/// `sum(a * b)` as `[1]`, `b` a constant: its gradient is `b`.
fn inner_product(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let products = a * Tensor::from_inner(b);
    products.sum_dim(1).sum_dim(0).reshape([1])
}

/// The gradient at a leaf; zeros where nothing depends on it.
fn gradient_of<const D: usize>(leaf: &Tensor<D>, gradients: &Gradients) -> Tensor<D> {
    leaf.grad(gradients)
        .unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

fn map_all(states: &[BlockState], map: &mut impl StateMap) -> Result<Vec<BlockState>> {
    states.iter().map(|state| state.map(map)).collect()
}

/// Leaves of a graph on a device.
struct Track<'a>(&'a Device);

impl StateMap for Track<'_> {
    fn tensor<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<Tensor<D>> {
        Ok(Tensor::from_inner(tensor.clone().to_device(self.0)).require_grad())
    }
}

/// The values of leaves.
struct Detach;

impl StateMap for Detach {
    fn tensor<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<Tensor<D>> {
        Ok(tensor.clone().inner())
    }
}

/// The gradients at leaves.
struct Cotangent<'a>(&'a Gradients);

impl StateMap for Cotangent<'_> {
    fn tensor<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<Tensor<D>> {
        Ok(gradient_of(tensor, self.0))
    }
}

/// A copy in the host's memory.
struct ToHost;

impl StateMap for ToHost {
    fn tensor<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<Tensor<D>> {
        let values = read::floats(tensor.clone(), "moving a state to the host")?;
        let data = TensorData::new(values, tensor.dims());
        Ok(Tensor::from_data(data, &Device::flex()))
    }
}

/// The sum of two gradients, parameter by parameter.
fn add<M: Module>(module: &M, sum: GradientsParams, more: GradientsParams) -> GradientsParams {
    struct Adder {
        sum: GradientsParams,
        more: GradientsParams,
    }
    impl ModuleVisitor for Adder {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(more) = self.more.remove::<D>(param.id) {
                let sum = match self.sum.remove::<D>(param.id) {
                    Some(sum) => {
                        let n = more.shape().num_elements();
                        let op = Op::GradientSum { n };
                        ledger::repeated(|| ledger::register(op, FlopsPass::Backward));
                        sum + more
                    }
                    None => more,
                };
                self.sum.register(param.id, sum);
            }
        }
    }
    let mut adder = Adder { sum, more };
    module.visit(&mut adder);
    adder.sum
}

impl Gradient {
    /// Takes the scale off the mean loss, `[1]`, and its gradients, and reads the loss and the norm back, both at
    /// once.
    fn read(
        model: &LanguageModel,
        loss: Tensor<1>,
        mut gradients: GradientsParams,
        loss_scale: f64,
    ) -> Result<Self> {
        if loss_scale > 1.0 {
            gradients = scale(model, gradients, loss_scale.recip());
        }
        let squared = squared_norm(model, &gradients)
            .ok_or_else(|| Error::CheckFailed("no parameter has a gradient".into()))?;
        let pair = Tensor::cat(vec![loss, squared], 0);
        let pair = read::doubles(pair, "reading loss and gradient norm")?;
        Ok(Self {
            loss_nats: pair[0] / loss_scale,
            norm: pair[1].sqrt(),
            gradients,
        })
    }

    /// The gradients, scaled down to `max_norm` where they exceed it.
    pub fn clipped<M: Module>(self, module: &M, max_norm: f64) -> GradientsParams {
        if self.norm > max_norm {
            scale(module, self.gradients, max_norm / self.norm)
        } else {
            self.gradients
        }
    }
}
