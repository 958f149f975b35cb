//! The shell that all models share.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::layers::RmsNorm;
use super::matrix::Matrix;
use super::quantised::{Family, Part};
use super::registry::{Block, ModelShape};
use super::{
    BatchShape, BlockState, Choices, Dropout, Initialiser, Observer, Pass, Routing, SequenceBlock,
    Sweep,
};
use crate::config::Precision;
use crate::ops::ledger::{self, Op};
use crate::ops::{embedding, linear_cross_entropy};
use crate::results::FlopsCategory;
use crate::{Error, Result};

/// Token embedding N(0, 0.02), pre-norm residual blocks, final norm, head tied to the embedding unless the
/// shape says otherwise. No learned positions.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// `[vocab, d_model]`.
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `[vocab, d_model]`, unless it is the embedding.
    head: Option<Matrix>,
}

#[derive(Module, Debug)]
struct Layer {
    norm: RmsNorm,
    block: Block,
}

/// What [`LanguageModel::layer`] returns.
#[derive(Debug)]
pub struct LayerOutput {
    /// The residual stream after the layer, `[tokens, d_model]`.
    pub h: Tensor<2>,
    /// Final state ([`ModelSweep::Infer`] only).
    pub state: Option<BlockState>,
    /// Where the layer routes.
    pub routing: Option<Routing>,
}

/// How all layers are passed through.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// How the tokens fold into sequences.
    pub shape: BatchShape,
    /// With or without a graph.
    pub sweep: ModelSweep<'a>,
    /// In what matrix products are computed.
    pub precision: Precision,
    /// Mask of the residual branches.
    pub dropout: Dropout,
    /// Choices of routers that are taken for the first tokens instead of their own, layer by layer; none where empty.
    pub pinned: &'a [Option<Choices>],
    /// Who looks on.
    pub observer: Option<&'a dyn Observer>,
}

/// [`Sweep`] for all layers.
#[derive(Debug, Clone, Copy)]
pub enum ModelSweep<'a> {
    /// No graph: for a model without autodiff (`Module::valid`).
    Infer,
    /// A graph for the backward pass.
    Train {
        /// Cotangents of the final states, layer by layer; zeros where the sequence ends.
        d_last: &'a [BlockState],
        /// [`Sweep::Train`]'s `routed`, layer by layer (empty for layers that do not route).
        routed: Option<&'a [Vec<u64>]>,
    },
}

impl Forward<'_> {
    /// Evaluation: no graph, no dropout, f32, nobody looking on.
    pub fn infer(shape: BatchShape) -> Self {
        Self {
            shape,
            sweep: ModelSweep::Infer,
            precision: Precision::F32,
            dropout: Dropout::NONE,
            pinned: &[],
            observer: None,
        }
    }

    /// What the block at `index` (from 0) is told.
    fn pass(&self, index: usize) -> Pass<'_> {
        let sweep = match self.sweep {
            ModelSweep::Infer => Sweep::Infer,
            ModelSweep::Train { d_last, routed } => Sweep::Train {
                d_last: &d_last[index],
                routed: routed.map(|layers| layers[index].as_slice()),
            },
        };
        Pass {
            shape: self.shape,
            sweep,
            precision: self.precision,
            pinned: self.pinned.get(index).and_then(Option::as_ref),
            layer: index + 1,
            observer: self.observer,
        }
    }

    /// As [`Pass::show`], for what lies outside the blocks.
    fn show(&self, what: &'static str, tensor: &Tensor<2>) {
        Pass {
            layer: 0,
            sweep: Sweep::Infer,
            ..self.pass(0)
        }
        .show(what, tensor);
    }
}

/// Activations before the head.
#[derive(Debug)]
pub struct Hidden {
    /// After the final norm, `[tokens, d_model]`.
    pub x: Tensor<2>,
    /// Final states, layer by layer ([`ModelSweep::Infer`] only).
    pub states: Vec<BlockState>,
    /// Routing, layer by layer, where the layer routes.
    pub routing: Vec<Option<Routing>>,
}

impl Hidden {
    /// Rows on which the experts of each layer ran; 0 in layers without any.
    pub fn expert_rows(&self) -> Vec<u64> {
        let layers = self.routing.iter();
        layers
            .map(|routing| routing.as_ref().map_or(0, |routing| routing.expert_rows))
            .collect()
    }
}

impl LanguageModel {
    /// Draws the weights of `shape` from `seed`, equal on every device.
    pub fn new(shape: &ModelShape, seed: u64, device: &Device) -> Self {
        Self::from_stream(shape, seed, 0, device)
    }

    /// The same with other draws, one set a number: for models that differ in chance alone.
    pub fn from_stream(shape: &ModelShape, seed: u64, stream: u32, device: &Device) -> Self {
        Self::drawn_by(shape, |layer| {
            Initialiser::new(seed, layer, device).from_stream(stream)
        })
    }

    /// A model of `shape` that is nothing yet: its weights come from elsewhere, and none is drawn.
    pub fn blank(shape: &ModelShape, device: &Device) -> Self {
        Self::drawn_by(shape, |_| Initialiser::blank(device))
    }

    /// `init_of` draws the weights of a layer (from 1; 0 for what lies outside the blocks).
    fn drawn_by<'a>(shape: &ModelShape, init_of: impl Fn(u16) -> Initialiser<'a>) -> Self {
        let mut init = init_of(0);
        let table = [shape.vocab_size, shape.d_model];
        let embedding = Matrix::Dense(init.normal(table, 0.02));
        let head = (!shape.tied_head).then(|| Matrix::Dense(init.normal(table, 0.02)));
        let layers = (1..=shape.n_layers as u16)
            .map(|layer| Layer {
                norm: init.rms_norm(shape.d_model),
                block: Block::new(shape, &mut init_of(layer)),
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
    fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The parameters that can be quantised.
    pub(super) fn parts(&mut self) -> Vec<Part<'_>> {
        let embedding = Part::matrix("embedding", Family::Embedding, &mut self.embedding);
        let head = self.head.as_mut();
        let head = head.map(|head| Part::matrix("head", Family::Head, head));
        let layers = self.layers.iter_mut().enumerate();
        let in_layers = layers.flat_map(|(i, layer)| {
            let parts = layer.block.parts().into_iter();
            parts.map(move |part| part.within(&format!("layers.{i}.block")))
        });
        [embedding]
            .into_iter()
            .chain(head)
            .chain(in_layers)
            .collect()
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        match &self.embedding {
            Matrix::Dense(table) => table.dims()[0],
            Matrix::Packed(table) => table.layout().rows,
        }
    }

    /// Where the model lives, without autodiff.
    pub fn device(&self) -> Device {
        self.embedding.device().without_autodiff()
    }

    /// Zero states for the start of `batch` sequences.
    pub fn initial_states(&self, batch: usize) -> Vec<BlockState> {
        let device = self.device();
        self.layers
            .iter()
            .map(|layer| layer.block.initial_state(batch, &device))
            .collect()
    }

    /// Evaluates from `states` on. Call it on a model without autodiff (`Module::valid`).
    ///
    /// # Errors
    /// Token ids outside the vocabulary, or a device that fails.
    pub fn infer(
        &self,
        tokens: &[u32],
        shape: BatchShape,
        states: Vec<BlockState>,
    ) -> Result<Hidden> {
        self.forward(tokens, states, &Forward::infer(shape))
    }

    /// All layers, from `states` on.
    ///
    /// # Errors
    /// As [`LanguageModel::infer`].
    pub fn forward(
        &self,
        tokens: &[u32],
        states: Vec<BlockState>,
        how: &Forward<'_>,
    ) -> Result<Hidden> {
        if tokens.len() != how.shape.n_tokens() || states.len() != self.layers.len() {
            return Err(Error::Shape {
                op: "language model",
                arg: "tokens and states",
                expected: format!(
                    "{} tokens, {} states",
                    how.shape.n_tokens(),
                    self.layers.len()
                ),
                got: vec![tokens.len(), states.len()],
            });
        }
        let mut h = self.embed(tokens)?;
        how.show("embedding", &h);
        let mut last_states = Vec::with_capacity(self.layers.len());
        let mut routing = Vec::with_capacity(self.layers.len());
        for (index, state) in states.into_iter().enumerate() {
            let output = self.layer(index, h, state, how)?;
            h = output.h;
            last_states.extend(output.state);
            routing.push(output.routing);
        }
        let x = self.finish(h)?;
        how.show("final norm", &x);
        Ok(Hidden {
            x,
            states: last_states,
            routing,
        })
    }

    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The residual stream before the first layer, `[tokens, d_model]`.
    ///
    /// # Errors
    /// Token ids outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor<2>> {
        match &self.embedding {
            Matrix::Dense(table) => embedding::gather_rows(table.val(), tokens),
            Matrix::Packed(table) => table.gather_rows(tokens),
        }
    }

    /// The layer at `index` (from 0): the residual stream `h`, `[tokens, d_model]`, with its branch added.
    ///
    /// # Errors
    /// A device that fails.
    pub fn layer(
        &self,
        index: usize,
        h: Tensor<2>,
        state: BlockState,
        how: &Forward<'_>,
    ) -> Result<LayerOutput> {
        let (layer, pass) = (&self.layers[index], how.pass(index));
        let h = ledger::shared(h, 2);
        let x = layer.norm.forward(h.clone())?;
        pass.show("norm", &x);
        let output = layer.block.forward(x, state, &pass)?;
        let branch = how
            .dropout
            .apply(output.branch, index as u16 + 1, how.shape.seq_len);
        let n = how.shape.n_tokens() * h.dims()[1];
        let mut h = ledger::counted(h + branch, Op::Add { n });
        if let Some(feed_forward) = layer.block.feed_forward() {
            let stream = ledger::shared(h, 2);
            let branch = feed_forward.forward(stream.clone(), &pass)?;
            // Masks of its own: those after the layers'.
            let mask = (self.layers.len() + index) as u16 + 1;
            let branch = how.dropout.apply(branch, mask, how.shape.seq_len);
            h = ledger::counted(stream + branch, Op::Add { n });
        }
        Ok(LayerOutput {
            h,
            state: output.state,
            routing: output.routing,
        })
    }

    /// The final norm.
    ///
    /// # Errors
    /// Activations of another width.
    pub fn finish(&self, h: Tensor<2>) -> Result<Tensor<2>> {
        self.norm.forward(h)
    }

    /// `scale` times the sum of the cross-entropies of `targets`, `[1]`, in nats, with a graph.
    ///
    /// # Errors
    /// Targets outside the vocabulary, a chunk whose logits exceed the binding limit, or a head that is packed.
    pub fn scaled_loss(
        &self,
        x: Tensor<2>,
        targets: &[u32],
        chunk_tokens: usize,
        scale: f32,
        precision: Precision,
    ) -> Result<Tensor<1>> {
        let Matrix::Dense(head) = self.head() else {
            let problem = "a model with packed matrices cannot be trained";
            return Err(Error::CheckFailed(problem.into()));
        };
        let n_readers = if self.head.is_some() { 1 } else { 2 };
        let head = of_head(|| ledger::shared(head.val(), n_readers));
        linear_cross_entropy::train(x, head, targets, chunk_tokens, scale, precision)
    }

    /// Cross-entropy of each target in nats, `[tokens]`, without a graph and in f32.
    ///
    /// # Errors
    /// Targets outside the vocabulary, or a chunk whose logits exceed the binding limit.
    pub fn nll(&self, x: Tensor<2>, targets: &[u32], chunk_tokens: usize) -> Result<Tensor<1>> {
        match self.head() {
            Matrix::Dense(head) => {
                linear_cross_entropy::infer(x, head.val(), targets, chunk_tokens)
            }
            Matrix::Packed(head) => {
                let vocab = head.layout().rows;
                let logits = |rows| of_head(|| head.multiply(rows));
                linear_cross_entropy::infer_by(&x, vocab, targets, chunk_tokens, logits)
            }
        }
    }

    /// `[tokens, vocab]` scores of all tokens at once: for checks on small inputs.
    ///
    /// # Errors
    /// A head that is packed, and activations of another width.
    pub fn logits(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        of_head(|| match self.head() {
            Matrix::Dense(head) => {
                let (x, head) = ledger::matrix_product(x, head.val().transpose());
                Ok(x.matmul(head))
            }
            Matrix::Packed(head) => head.multiply(x),
        })
    }
}

/// What runs in `f` counts as the head.
fn of_head<R>(f: impl FnOnce() -> R) -> R {
    ledger::within(FlopsCategory::Head, f)
}
