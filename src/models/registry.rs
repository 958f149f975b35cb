//! The models by name, their shapes, and the matching of their sizes.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::mamba::MambaBlock;
use super::quantised::Part;
use super::resnetbk::ResNetBkBlock;
use super::transformer::{FeedForward, TransformerBlock};
use super::{BatchShape, BlockOutput, BlockState, Initialiser, Pass, SequenceBlock};
use crate::config::{MatchBasis, ModelConfig, TrainConfig};
use crate::ops::ledger::Op;
use crate::results::{FlopsCategory, FlopsPass};
use crate::{Error, Result};

/// A registered model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// Causal resolvent with exact gradient, mixture of experts.
    #[serde(rename = "resnetbk")]
    ResNetBk,
    /// `resnetbk` with the resolvent's output zeroed: the control that sees no context.
    #[serde(rename = "no-mixer")]
    NoMixer,
    /// Official Mamba-1.
    #[serde(rename = "mamba")]
    Mamba,
    /// `resnetbk` with `d_model / 4` heads and one learned shift a head.
    #[serde(rename = "resnetbk-mh")]
    ResNetBkMh,
    /// The published model: whole resolvent, which sees the tokens to be predicted, published gradient, frozen
    /// router. Not causal.
    #[serde(rename = "resnetbk-published")]
    ResNetBkPublished,
    /// `resnetbk` whose experts are chosen by the phase of the resolvent.
    #[serde(rename = "resnetbk-scatter")]
    ResNetBkScatter,
    /// `resnetbk` whose router may send a token to no expert, and an objective that charges for the others.
    #[serde(rename = "resnetbk-act")]
    ResNetBkAct,
    /// Causal pre-norm Transformer: rotary positions, GELU.
    #[serde(rename = "transformer")]
    Transformer,
}

/// What a model hands from one segment of a sequence to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// A state of fixed size: sequences may go in segments.
    Finite,
    /// Nothing finite would do: whole sequences only.
    None,
}

impl Architecture {
    /// All registered models.
    pub const ALL: [Self; 8] = [
        Self::ResNetBk,
        Self::Mamba,
        Self::NoMixer,
        Self::ResNetBkMh,
        Self::ResNetBkPublished,
        Self::ResNetBkScatter,
        Self::ResNetBkAct,
        Self::Transformer,
    ];

    /// Name in flags, configs and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNetBk => "resnetbk",
            Self::NoMixer => "no-mixer",
            Self::Mamba => "mamba",
            Self::ResNetBkMh => "resnetbk-mh",
            Self::ResNetBkPublished => "resnetbk-published",
            Self::ResNetBkScatter => "resnetbk-scatter",
            Self::ResNetBkAct => "resnetbk-act",
            Self::Transformer => "transformer",
        }
    }

    /// Positions of sequences of `seq_len` that are trained on at once: a segment, or all of them where
    /// the configuration names none or nothing can be carried on.
    pub fn resident_len(self, config: &TrainConfig, seq_len: usize) -> usize {
        match (self.carry(), config.segment_len) {
            (Carry::Finite, Some(segment_len)) => segment_len.min(seq_len),
            _ => seq_len,
        }
    }

    /// Whether its gradient is meant to be that of its loss; the published model's is not.
    pub fn has_exact_gradient(self) -> bool {
        self != Self::ResNetBkPublished
    }

    /// Whether what a token costs depends on what it is.
    pub fn has_variable_cost(self) -> bool {
        matches!(self, Self::ResNetBkScatter | Self::ResNetBkAct)
    }

    /// What it carries between segments.
    pub fn carry(self) -> Carry {
        match self {
            Self::ResNetBk
            | Self::NoMixer
            | Self::Mamba
            | Self::ResNetBkMh
            | Self::ResNetBkScatter
            | Self::ResNetBkAct => Carry::Finite,
            Self::ResNetBkPublished | Self::Transformer => Carry::None,
        }
    }

    /// The model called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the names that exist.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| Error::UnknownName {
                kind: "model",
                name: name.to_owned(),
                known: Self::ALL
                    .iter()
                    .map(|model| model.name().to_owned())
                    .collect(),
            })
    }

    fn block(self, init: &mut Initialiser<'_>, shape: &ModelShape) -> Block {
        match self {
            Self::Mamba => Block::Mamba(MambaBlock::new(init, shape)),
            Self::ResNetBk
            | Self::NoMixer
            | Self::ResNetBkMh
            | Self::ResNetBkPublished
            | Self::ResNetBkScatter
            | Self::ResNetBkAct => Block::ResNetBk(ResNetBkBlock::new(init, shape)),
            Self::Transformer => Block::Transformer(TransformerBlock::new(init, shape)),
        }
    }
}

/// The block of any registered model.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful a model, each a few tensor handles"
)]
pub enum Block {
    /// `resnetbk` and its variants.
    ResNetBk(ResNetBkBlock),
    /// `mamba`.
    Mamba(MambaBlock),
    /// `transformer`.
    Transformer(TransformerBlock),
}

impl SequenceBlock for Block {
    fn initial_state(&self, batch: usize, device: &Device) -> BlockState {
        match self {
            Self::ResNetBk(block) => block.initial_state(batch, device),
            Self::Mamba(block) => block.initial_state(batch, device),
            Self::Transformer(block) => block.initial_state(batch, device),
        }
    }

    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput> {
        match self {
            Self::ResNetBk(block) => block.forward(x, state, pass),
            Self::Mamba(block) => block.forward(x, state, pass),
            Self::Transformer(block) => block.forward(x, state, pass),
        }
    }

    fn feed_forward(&self) -> Option<&FeedForward> {
        match self {
            Self::Transformer(block) => block.feed_forward(),
            Self::ResNetBk(_) | Self::Mamba(_) => None,
        }
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        let (name, parts) = match self {
            Self::ResNetBk(block) => ("ResNetBk", block.parts()),
            Self::Mamba(block) => ("Mamba", block.parts()),
            Self::Transformer(block) => ("Transformer", block.parts()),
        };
        parts.into_iter().map(|part| part.within(name)).collect()
    }
}

impl Block {
    /// The block of `shape`'s model for the layer whose weights `init` draws.
    pub fn new(shape: &ModelShape, init: &mut Initialiser<'_>) -> Self {
        shape.architecture.block(init, shape)
    }
}

/// Everything that fixes the parameters' shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Which model.
    pub architecture: Architecture,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Whether the head is the embedding, as in every model that is trained here, or a matrix of its own.
    pub tied_head: bool,
    /// Mamba: states a channel.
    pub d_state: usize,
    /// Mamba: width of the convolution.
    pub d_conv: usize,
    /// Mamba: `d_inner / d_model`.
    pub expand: usize,
    /// Mamba: rank of the step-size projection.
    pub dt_rank: usize,
    /// Mamba: whether the projections into and out of the block have biases.
    pub projection_bias: bool,
    /// ResNet-BK: experts.
    pub n_experts: usize,
    /// ResNet-BK: experts a token is sent to, at most.
    pub top_k: usize,
    /// Found by matching: ResNet-BK's hidden width of an expert, the Transformer's of its feed-forward network.
    pub expert_hidden: usize,
}

/// Numbers of parameters of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterCount {
    /// All.
    pub total: usize,
    /// All but embedding and head.
    pub non_embedding: usize,
    /// Those of `non_embedding` that one token uses, at most.
    pub active: usize,
}

/// Forward FLOPs of a token, [`Flops::algorithmic`](crate::results::Flops::algorithmic) ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardFlops {
    /// Logits and their cross-entropy included.
    pub with_head: f64,
    /// Up to the final norm.
    pub without_head: f64,
}

impl ModelShape {
    /// `architecture` with the sizes of `config`, its free width given.
    pub fn new(
        architecture: Architecture,
        config: &ModelConfig,
        vocab_size: usize,
        expert_hidden: usize,
    ) -> Self {
        Self {
            architecture,
            vocab_size,
            d_model: config.d_model,
            n_layers: config.n_layers,
            tied_head: true,
            d_state: config.d_state,
            d_conv: config.d_conv,
            expand: config.expand,
            dt_rank: config.d_model.div_ceil(16),
            projection_bias: false,
            n_experts: config.n_experts,
            top_k: match architecture {
                Architecture::ResNetBkScatter => config.n_experts.min(2),
                _ => config.top_k,
            },
            expert_hidden,
        }
    }

    /// Channels of Mamba's inner stream.
    pub fn d_inner(&self) -> usize {
        self.expand * self.d_model
    }

    /// ResNet-BK: independent resolvents. Transformer: heads of attention, about 32 wide.
    pub fn n_heads(&self) -> usize {
        match self.architecture {
            Architecture::ResNetBkMh => self.d_model / 4,
            Architecture::Transformer => (self.d_model / 32).max(1),
            _ => 1,
        }
    }

    /// ResNet-BK: choices of a router, no expert among them; 0 without one.
    pub fn router_choices(&self) -> usize {
        match self.architecture {
            Architecture::ResNetBkScatter => 0,
            Architecture::ResNetBkAct => self.n_experts + 1,
            _ => self.n_experts,
        }
    }

    /// Transformer: width of a head, even because positions turn pairs of its numbers.
    pub fn head_width(&self) -> usize {
        let width = self.d_model.div_ceil(self.n_heads());
        width.next_multiple_of(2)
    }

    /// Transformer: width of all heads, `d_model` wherever that divides.
    pub fn attention_width(&self) -> usize {
        self.n_heads() * self.head_width()
    }

    /// Counts by formula; a test compares them with the built module.
    pub fn parameters(&self) -> ParameterCount {
        let (block, active) = match self.architecture {
            Architecture::Mamba => {
                let n = MambaBlock::n_parameters(self);
                (n, n)
            }
            Architecture::Transformer => {
                let n = TransformerBlock::n_parameters(self);
                (n, n)
            }
            _ => (
                ResNetBkBlock::n_parameters(self, self.n_experts),
                ResNetBkBlock::n_parameters(self, self.top_k),
            ),
        };
        let around = |block: usize| self.n_layers * (block + self.d_model) + self.d_model;
        let non_embedding = around(block);
        let matrices = if self.tied_head { 1 } else { 2 };
        ParameterCount {
            total: matrices * self.vocab_size * self.d_model + non_embedding,
            non_embedding,
            active: around(active),
        }
    }

    /// The operations of a forward pass without gradients, cross-entropy included: what [`LanguageModel`] and its
    /// blocks register when they run, at most where that depends on the tokens.
    ///
    /// [`LanguageModel`]: super::LanguageModel
    pub fn forward_ops(&self, tokens: BatchShape) -> Vec<(FlopsCategory, Op)> {
        let most = tokens.n_tokens() * self.top_k;
        self.forward_ops_as_routed(tokens, &vec![most as u64; self.n_layers])
    }

    /// The same where the experts of each layer run on so many rows together ([`Hidden::expert_rows`]).
    ///
    /// [`Hidden::expert_rows`]: super::Hidden::expert_rows
    pub fn forward_ops_as_routed(
        &self,
        tokens: BatchShape,
        expert_rows: &[u64],
    ) -> Vec<(FlopsCategory, Op)> {
        let (rows, width) = (tokens.n_tokens(), self.d_model);
        let norm = Op::RmsNorm { rows, width };
        let n = rows * width;
        let block = |expert_rows: u64| match self.architecture {
            Architecture::Mamba => MambaBlock::forward_ops(self, tokens),
            Architecture::Transformer => TransformerBlock::forward_ops(self, tokens),
            _ => ResNetBkBlock::forward_ops(self, tokens, expert_rows as usize),
        };
        let around = [norm, Op::Add { n }].map(|op| (op.category(), op));
        let layers = expert_rows.iter();
        let mut ops: Vec<_> = layers
            .flat_map(|&rows| [block(rows), around.to_vec()].concat())
            .collect();
        let vocab = self.vocab_size;
        let logits = Op::MatrixProduct {
            rows,
            inner: width,
            columns: vocab,
        };
        let head = [logits, Op::CrossEntropy { rows, vocab }].map(|op| (FlopsCategory::Head, op));
        ops.push((norm.category(), norm));
        ops.extend(head);
        ops
    }

    /// Forward FLOPs of a token of one sequence of `seq_len`, at most where that depends on the token.
    pub fn forward_flops_per_token(&self, seq_len: usize) -> ForwardFlops {
        let tokens = BatchShape { batch: 1, seq_len };
        let (mut all, mut head) = (0, 0);
        for (category, op) in self.forward_ops(tokens) {
            let cost = op.cost(FlopsPass::Forward);
            all += cost;
            if category == FlopsCategory::Head {
                head += cost;
            }
        }
        let per_token = |flops: u64| flops as f64 / seq_len as f64;
        ForwardFlops {
            with_head: per_token(all),
            without_head: per_token(all - head),
        }
    }

    /// Forward FLOPs of a token without the head, as they are matched and compared: at one length for all.
    pub fn matched_flops_per_token(&self) -> usize {
        let flops = self.forward_flops_per_token(MATCHED_SEQ_LEN);
        flops.without_head.round() as usize
    }

    /// FLOPs of the forward and backward pass of a training, a token of one sequence of `seq_len`, at most where that
    /// depends on the token. Sums of gradients that meet are left out; a test holds it within 2 % of what a step
    /// registers.
    pub fn training_flops_per_token(&self, seq_len: usize) -> f64 {
        let ops = self.forward_ops(BatchShape { batch: 1, seq_len });
        let cost = |(_, op): &(FlopsCategory, Op)| {
            // A product comes back once for each of its factors.
            let times = if matches!(op, Op::MatrixProduct { .. }) {
                2
            } else {
                1
            };
            op.cost(FlopsPass::Forward) + times * op.cost(FlopsPass::Backward)
        };
        ops.iter().map(cost).sum::<u64>() as f64 / seq_len as f64
    }
}

/// Length of the sequences at which FLOPs are matched. Another length matters to attention alone, whose cost of a
/// token grows with it.
const MATCHED_SEQ_LEN: usize = 512;

/// Shapes for `models` at equal `d_model` and `n_layers`, the free width solved so that each comes as
/// near as it can to Mamba's size on the configured basis.
///
/// # Errors
/// [`Error::Config`] when two of them differ by more than 10 % all the same, as where one is too large without any
/// hidden unit, or `resnetbk-mh` cannot have `d_model / 4` heads.
pub fn matched_shapes(
    models: &[Architecture],
    config: &ModelConfig,
    vocab_size: usize,
) -> Result<Vec<ModelShape>> {
    let basis = |shape: &ModelShape| match config.match_basis {
        MatchBasis::Total => shape.parameters().non_embedding,
        MatchBasis::Active => shape.parameters().active,
        MatchBasis::Flops => shape.matched_flops_per_token(),
    };
    if models.contains(&Architecture::ResNetBkMh) && !config.d_model.is_multiple_of(4) {
        return Err(Error::Config {
            problems: vec!["model.d_model must be a multiple of 4 for resnetbk-mh".into()],
        });
    }
    let shape = |architecture, expert_hidden| {
        ModelShape::new(architecture, config, vocab_size, expert_hidden)
    };
    let size = |architecture, hidden| basis(&shape(architecture, hidden));
    let target = size(Architecture::Mamba, 0);
    let solve = |architecture| match architecture {
        Architecture::Mamba => shape(architecture, 0),
        Architecture::ResNetBk
        | Architecture::NoMixer
        | Architecture::ResNetBkMh
        | Architecture::ResNetBkPublished
        | Architecture::ResNetBkScatter
        | Architecture::ResNetBkAct
        | Architecture::Transformer => {
            // The count is linear in the hidden width.
            let slope = size(architecture, 2) - size(architecture, 1);
            let fixed = size(architecture, 1) - slope;
            let hidden = (target.saturating_sub(fixed) + slope / 2) / slope;
            shape(architecture, hidden.max(1))
        }
    };
    let shapes: Vec<ModelShape> = models.iter().map(|&model| solve(model)).collect();
    let sizes: Vec<usize> = shapes.iter().map(basis).collect();
    let (min, max) = (sizes.iter().min(), sizes.iter().max());
    if let (Some(&min), Some(&max)) = (min, max)
        && max as f64 / min as f64 - 1.0 > 0.10
    {
        let list = models
            .iter()
            .zip(&sizes)
            .map(|(m, n)| format!("{} {n}", m.name()));
        let is_too_large = |shape: &&ModelShape| shape.expert_hidden == 1 && basis(shape) > target;
        let advice = match shapes.iter().find(is_too_large) {
            Some(shape) => format!(
                "{} is the larger one even with a hidden width of 1: take a larger d_model, or another model.match",
                shape.architecture.name()
            ),
            None => "change d_model, n_layers or n_experts".into(),
        };
        return Err(Error::Config {
            problems: vec![format!(
                "the models cannot be matched within 10 % ({}); {advice}",
                list.collect::<Vec<_>>().join(", ")
            )],
        });
    }
    Ok(shapes)
}
