//! The shell that all models share.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::layers::RmsNorm;
use super::registry::{Block, ModelShape};
use super::{BatchShape, BlockState, Dropout, Initialiser, SequenceBlock, Sweep};
use crate::ops::{embedding, linear_cross_entropy};
use crate::{Error, Result};

/// Token embedding N(0, 0.02), pre-norm residual blocks, final norm, head tied to the embedding unless the
/// shape says otherwise. No learned positions.
#[derive(Module, Debug)]
pub struct LanguageModel {
    embedding: Param<Tensor<2>>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Option<Param<Tensor<2>>>,
}

#[derive(Module, Debug)]
struct Layer {
    norm: RmsNorm,
    block: Block,
}

/// Activations before the head.
#[derive(Debug)]
pub struct Hidden {
    /// After the final norm, `[tokens, d_model]`.
    pub x: Tensor<2>,
    /// Final states, layer by layer ([`LanguageModel::infer`] only).
    pub states: Vec<BlockState>,
    /// Sum of the blocks' load-balance terms, `[1]`, where blocks route.
    pub load_balance: Option<Tensor<1>>,
}

impl LanguageModel {
    /// Draws the weights of `shape` from `seed`, equal on every device.
    pub fn new(shape: &ModelShape, seed: u64, device: &Device) -> Self {
        let mut init = Initialiser::new(seed, 0, device);
        let table = [shape.vocab_size, shape.d_model];
        let embedding = init.normal(table, 0.02);
        let head = (!shape.tied_head).then(|| init.normal(table, 0.02));
        let layers = (1..=shape.n_layers as u16)
            .map(|layer| Layer {
                norm: init.rms_norm(shape.d_model),
                block: Block::new(shape, layer, seed, device),
            })
            .collect();
        Self {
            embedding,
            layers,
            norm: init.rms_norm(shape.d_model),
            head,
        }
    }

    /// The matrix of the head, `[vocab, d_model]`.
    fn head(&self) -> Tensor<2> {
        self.head.as_ref().unwrap_or(&self.embedding).val()
    }

    /// Zero states for the start of `batch` sequences.
    pub fn initial_states(&self, batch: usize) -> Vec<BlockState> {
        let device = self.embedding.device().without_autodiff();
        self.layers
            .iter()
            .map(|layer| layer.block.initial_state(batch, &device))
            .collect()
    }

    /// Forward without a graph, from `states` on. Call it on a model without autodiff
    /// (`Module::valid`).
    ///
    /// # Errors
    /// Token ids outside the vocabulary, or a device that fails.
    pub fn infer(
        &self,
        tokens: &[u32],
        shape: BatchShape,
        states: Vec<BlockState>,
    ) -> Result<Hidden> {
        let plain = Dropout {
            probability: 0.0,
            seed: 0,
            step: 0,
        };
        self.forward(tokens, shape, states, None, plain)
    }

    /// Forward with a graph, from `states` on; `d_last` are the cotangents of the final states (zeros
    /// where the sequence ends).
    ///
    /// # Errors
    /// As [`LanguageModel::infer`].
    pub fn train(
        &self,
        tokens: &[u32],
        shape: BatchShape,
        states: Vec<BlockState>,
        d_last: &[BlockState],
        dropout: Dropout,
    ) -> Result<Hidden> {
        self.forward(tokens, shape, states, Some(d_last), dropout)
    }

    fn forward(
        &self,
        tokens: &[u32],
        shape: BatchShape,
        states: Vec<BlockState>,
        d_last: Option<&[BlockState]>,
        dropout: Dropout,
    ) -> Result<Hidden> {
        if tokens.len() != shape.n_tokens() || states.len() != self.layers.len() {
            return Err(Error::Shape {
                op: "language model",
                arg: "tokens and states",
                expected: format!("{} tokens, {} states", shape.n_tokens(), self.layers.len()),
                got: vec![tokens.len(), states.len()],
            });
        }
        let mut h = embedding::gather_rows(self.embedding.val(), tokens)?;
        let mut load_balance: Option<Tensor<1>> = None;
        let mut last_states = Vec::with_capacity(self.layers.len());
        for (i, (layer, state)) in self.layers.iter().zip(states).enumerate() {
            let sweep = match d_last {
                Some(d_last) => Sweep::Train { d_last: &d_last[i] },
                None => Sweep::Infer,
            };
            let output = layer
                .block
                .forward(layer.norm.forward(h.clone()), shape, state, sweep)?;
            h = h + dropout.apply(output.branch, i as u16 + 1, shape.seq_len);
            last_states.extend(output.state);
            load_balance = match (load_balance, output.load_balance) {
                (Some(sum), Some(term)) => Some(sum + term),
                (sum, term) => sum.or(term),
            };
        }
        Ok(Hidden {
            x: self.norm.forward(h),
            states: last_states,
            load_balance,
        })
    }

    /// `scale` times the sum of the cross-entropies of `targets`, `[1]`, in nats, with a graph.
    ///
    /// # Errors
    /// Targets outside the vocabulary, or a chunk whose logits exceed the binding limit.
    pub fn scaled_loss(
        &self,
        x: Tensor<2>,
        targets: &[u32],
        chunk_tokens: usize,
        scale: f32,
    ) -> Result<Tensor<1>> {
        linear_cross_entropy::train(x, self.head(), targets, chunk_tokens, scale)
    }

    /// Cross-entropy of each target in nats, `[tokens]`, without a graph.
    ///
    /// # Errors
    /// As [`LanguageModel::scaled_loss`].
    pub fn nll(&self, x: Tensor<2>, targets: &[u32], chunk_tokens: usize) -> Result<Tensor<1>> {
        linear_cross_entropy::infer(x, self.head(), targets, chunk_tokens)
    }

    /// `[tokens, vocab]` scores of all tokens at once: for checks on small inputs.
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.head().transpose())
    }
}
