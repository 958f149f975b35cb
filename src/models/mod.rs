//! The language models. All share token embedding, pre-norm residual blocks, final norm and a head tied
//! to the embedding; only the block differs.
//!
//! A model is one file with one [`SequenceBlock`]; [`registry`] gives it its name.

mod experts;
pub mod language_model;
mod layers;
pub mod mamba;
pub mod registry;
pub mod resnetbk;
pub mod weights;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use language_model::LanguageModel;
pub use layers::{Dropout, Initialiser};

use crate::Result;

/// How `[tokens, d_model]` folds into sequences: `tokens = batch * seq_len`, sequences one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens a sequence.
    pub seq_len: usize,
}

impl BatchShape {
    /// Tokens in all.
    pub fn n_tokens(self) -> usize {
        self.batch * self.seq_len
    }

    /// `[tokens, channels]` as `[batch, seq_len, channels]`.
    fn unfold(self, x: Tensor<2>) -> Tensor<3> {
        let [_, channels] = x.dims();
        x.reshape([self.batch, self.seq_len, channels])
    }

    /// `[batch, seq_len, channels]` as `[tokens, channels]`.
    fn fold(self, x: Tensor<3>) -> Tensor<2> {
        let [_, _, channels] = x.dims();
        x.reshape([self.n_tokens(), channels])
    }
}

/// What a block carries from one segment of a sequence to the next; as a cotangent, its gradient.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful a model, each a few tensor handles"
)]
pub enum BlockState {
    /// Last value of the causal resolvent, `[batch, 2 * heads]` (real parts, then imaginary parts).
    ResNetBk {
        /// The value.
        g: Tensor<2>,
    },
    /// State of the convolution and of the scan.
    Mamba {
        /// Last inputs of the convolution, `[batch, d_conv - 1, d_inner]`.
        conv: Tensor<3>,
        /// State of the scan, `[batch, d_inner, d_state]`.
        scan: Tensor<3>,
    },
}

/// Which entry of the sequence operations a forward pass takes.
#[derive(Debug, Clone, Copy)]
pub enum Sweep<'a> {
    /// No graph; the final state comes out.
    Infer,
    /// A graph for the backward pass, which is handed the cotangent of the final state.
    Train {
        /// Cotangent of the block's final state; zeros at the end of a sequence.
        d_last: &'a BlockState,
    },
}

/// What a block returns.
#[derive(Debug)]
pub struct BlockOutput {
    /// The residual branch, `[tokens, d_model]`.
    pub branch: Tensor<2>,
    /// Final state ([`Sweep::Infer`] only).
    pub state: Option<BlockState>,
    /// Load-balance term of the objective, `[1]`, where the block routes.
    pub load_balance: Option<Tensor<1>>,
}

/// The part in which the models differ: a residual branch over whole sequences or segments of them.
pub trait SequenceBlock: Module {
    /// The state at the start of a sequence.
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState;

    /// The branch for normalised activations `x`, `[tokens, d_model]`, from `state` on.
    ///
    /// # Errors
    /// Shapes that do not fit, or a device that fails.
    fn forward(
        &self,
        x: Tensor<2>,
        shape: BatchShape,
        state: BlockState,
        sweep: Sweep<'_>,
    ) -> Result<BlockOutput>;
}
