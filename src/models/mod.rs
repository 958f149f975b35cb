//! The language models. All share token embedding, pre-norm residual blocks, final norm and a head tied
//! to the embedding; only the block differs.
//!
//! A model is one file with one [`SequenceBlock`]; [`registry`] gives it its name.

pub mod budget;
pub mod checkpoint;
mod experts;
pub mod generation;
pub mod language_model;
mod layers;
mod linear;
pub mod mamba;
pub mod matrix;
mod packed_file;
pub mod published;
pub mod quantised;
pub mod registry;
pub mod resnetbk;
pub mod safetensors;
pub mod stored;
pub mod transformer;
pub mod weights;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use experts::Choices;
pub use language_model::{Forward, Hidden, LanguageModel, ModelSweep};
pub use layers::{Dropout, Initialiser};
pub use packed_file::FileSize;
pub use quantised::{Family, Size};

use crate::Result;
use crate::config::Precision;
use quantised::Part;
use transformer::FeedForward;

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
    /// Of a model that takes whole sequences only.
    Empty,
}

impl BlockState {
    /// Every tensor of the state put through `map`.
    ///
    /// # Errors
    /// The first one of `map`.
    pub fn map(&self, map: &mut impl StateMap) -> Result<Self> {
        Ok(match self {
            Self::ResNetBk { g } => Self::ResNetBk { g: map.tensor(g)? },
            Self::Mamba { conv, scan } => Self::Mamba {
                conv: map.tensor(conv)?,
                scan: map.tensor(scan)?,
            },
            Self::Empty => Self::Empty,
        })
    }
}

/// What [`BlockState::map`] does to each tensor, whatever its rank.
pub trait StateMap {
    /// The new tensor for `tensor`.
    ///
    /// # Errors
    /// A device that fails.
    fn tensor<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<Tensor<D>>;
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
        /// How many choices went to each expert over all segments, which the load balance of one segment
        /// needs; `None` where this pass sees the whole of its sequences.
        routed: Option<&'a [u64]>,
    },
}

/// How one block is passed through.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// How the tokens fold into sequences.
    pub shape: BatchShape,
    /// With or without a graph.
    pub sweep: Sweep<'a>,
    /// In what matrix products are computed.
    pub precision: Precision,
    /// Where the first tokens are to be sent, whatever the layer itself would choose.
    pub pinned: Option<&'a Choices>,
    /// The layer, from 1.
    pub layer: usize,
    /// Who looks on.
    pub observer: Option<&'a dyn Observer>,
}

impl Pass<'_> {
    /// Shows the observer, if there is one, what `op` reads or makes.
    pub fn show<const D: usize>(&self, op: &'static str, tensor: &Tensor<D>) {
        if let Some(observer) = self.observer {
            let flat = tensor.clone().inner();
            let n = flat.shape().num_elements();
            observer.see(self.layer, op, flat.reshape([n]));
        }
    }
}

/// Sees what the operations of a forward pass read and make, in the order in which they run: for finding
/// the first value that is not finite, and for judging kernels on the tensors a model really feeds them.
pub trait Observer: std::fmt::Debug {
    /// `values` is the flattened tensor, without a graph; `what` names operation and tensor, for example
    /// `selective_scan.y`. Layers count from 1; 0 is what lies outside the blocks.
    fn see(&self, layer: usize, what: &'static str, values: Tensor<1>);
}

/// What a block returns.
#[derive(Debug)]
pub struct BlockOutput {
    /// The residual branch, `[tokens, d_model]`.
    pub branch: Tensor<2>,
    /// Final state ([`Sweep::Infer`] only).
    pub state: Option<BlockState>,
    /// Where the block routes.
    pub routing: Option<Routing>,
}

/// What a block that routes tokens to experts reports.
#[derive(Debug)]
pub struct Routing {
    /// How many choices of a router in this pass went to each expert, and last to none where it may choose so; empty
    /// without a router.
    pub counts: Vec<u64>,
    /// Rows on which the experts ran together: choices that are experts.
    pub expert_rows: u64,
    /// The choices of every token.
    pub choices: Choices,
    /// Tokens for which the layer would have chosen otherwise than [`Pass::pinned`] said.
    pub flips: Vec<usize>,
    /// This pass's part of the load-balance term of the objective, `[1]`: `E * sum_e f_e P_e`, the fraction of all
    /// choices that went to each expert (a constant) times its mean probability among the experts; over a whole
    /// batch, 1 when balanced. The parts of all segments add up to that of the whole. Absent without a router, and
    /// without a graph, as is what follows.
    pub load_balance: Option<Tensor<1>>,
    /// This pass's part of the mean over all tokens of the probability that some expert is chosen, `[1]`; absent where
    /// some always is.
    pub activity: Option<Tensor<1>>,
}

/// The part in which the models differ: a residual branch over whole sequences or segments of them.
pub trait SequenceBlock: Module {
    /// The state at the start of a sequence.
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState;

    /// The branch for normalised activations `x`, `[tokens, d_model]`, from `state` on.
    ///
    /// # Errors
    /// Shapes that do not fit, or a device that fails.
    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput>;

    /// The layer's second residual branch, where it has one.
    fn feed_forward(&self) -> Option<&FeedForward> {
        None
    }

    /// The parameters that can be quantised, with their paths in the block.
    fn parts(&mut self) -> Vec<Part<'_>>;
}
