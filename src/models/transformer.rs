//! A causal pre-norm Transformer (Vaswani et al. 2017; Xiong et al. 2020): rotary positions (Su et al. 2021), GELU,
//! no biases.
//!
//! A layer has two residual branches, attention and then a feed-forward network, each behind a norm of its own. It
//! carries nothing from segment to segment: what it knows of the past grows with it.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::layers::RmsNorm;
use super::linear::Linear;
use super::quantised::{Family, Part};
use super::registry::ModelShape;
use super::{BatchShape, BlockOutput, BlockState, Initialiser, Pass, SequenceBlock};
use crate::ops::attention;
use crate::ops::ledger::{self, Op};
use crate::results::FlopsCategory;
use crate::{Error, Result};

/// Slowest of the wavelengths in which positions are told, over 2 pi.
const ROTATION_BASE: f64 = 10_000.0;
/// Of `x^3` beside `x` in the approximation of GELU.
const GELU_CUBIC: f64 = 0.044_715;

/// Attention without its norm and residual connection, and the feed-forward network behind it.
#[derive(Module, Debug)]
pub struct TransformerBlock {
    /// Queries, keys and values.
    input: Linear,
    output: Linear,
    feed_forward: FeedForward,
    #[module(skip)]
    n_heads: usize,
}

/// The second branch with its norm: `down(gelu(up(norm(h))))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    norm: RmsNorm,
    up: Linear,
    down: Linear,
}

impl TransformerBlock {
    /// Kaiming uniform, the last matrix of either branch divided by the root of the depth.
    pub fn new(init: &mut Initialiser<'_>, shape: &ModelShape) -> Self {
        let (d_model, hidden, width) =
            (shape.d_model, shape.expert_hidden, shape.attention_width());
        let depth = (shape.n_layers as f64).sqrt();
        Self {
            input: init.linear(d_model, 3 * width, false, 1.0),
            output: init.linear(width, d_model, false, depth),
            feed_forward: FeedForward {
                norm: init.rms_norm(d_model),
                up: init.linear(d_model, hidden, false, 1.0),
                down: init.linear(hidden, d_model, false, depth),
            },
            n_heads: shape.n_heads(),
        }
    }

    /// Parameters of one block, the norm of the second branch included.
    pub fn n_parameters(shape: &ModelShape) -> usize {
        let d_model = shape.d_model;
        4 * d_model * shape.attention_width() + d_model + 2 * d_model * shape.expert_hidden
    }

    /// The operations of a forward pass, all of the second branch included.
    pub fn forward_ops(shape: &ModelShape, tokens: BatchShape) -> Vec<(FlopsCategory, Op)> {
        let (width, rows) = (shape.d_model, tokens.n_tokens());
        let (inner, hidden) = (shape.attention_width(), shape.expert_hidden);
        let BatchShape { batch, seq_len } = tokens;
        let products = [
            [width, 3 * inner],
            [inner, width],
            [width, hidden],
            [hidden, width],
        ];
        let others = [
            Op::Rotation {
                n: 2 * rows * inner,
            },
            Op::Attention {
                batch,
                seq: seq_len,
                heads: shape.n_heads(),
                width: shape.head_width(),
            },
            Op::RmsNorm { rows, width },
            Op::Gelu { n: rows * hidden },
            Op::Add { n: rows * width },
        ];
        let linear = |sizes| Linear::forward_ops(rows, sizes, false);
        (products.into_iter().flat_map(linear))
            .chain(others)
            .map(|op| (op.category(), op))
            .collect()
    }
}

impl SequenceBlock for TransformerBlock {
    fn initial_state(&self, _batch: usize, _device: &Device) -> BlockState {
        BlockState::Empty
    }

    fn forward(&self, x: Tensor<2>, state: BlockState, pass: &Pass<'_>) -> Result<BlockOutput> {
        let BlockState::Empty = state else {
            return Err(Error::CheckFailed(
                "a transformer block was given another block's state".into(),
            ));
        };
        let (BatchShape { batch, seq_len }, n_heads) = (pass.shape, self.n_heads);
        let qkv = ledger::cut(self.input.forward(x, pass.precision)?, 2);
        pass.show("input", &qkv);
        let [rows, three] = qkv.dims();
        let (inner, width) = (three / 3, three / 3 / n_heads);
        let v = qkv.clone().narrow(1, 2 * inner, inner);
        let v = v.reshape([batch, seq_len, n_heads, width]).swap_dims(1, 2);
        let qk = qkv.narrow(1, 0, 2 * inner);
        let qk = rotated(qk.reshape([batch, seq_len, 2 * n_heads, width]));
        let qk = ledger::cut(qk, 2).swap_dims(1, 2);
        let q = qk.clone().narrow(1, 0, n_heads);
        let k = qk.narrow(1, n_heads, n_heads);
        let y = attention::causal(q, k, v)?;
        let y = y.swap_dims(1, 2).reshape([rows, inner]);
        pass.show("attention", &y);
        let branch = self.output.forward(y, pass.precision)?;
        pass.show("output", &branch);
        Ok(BlockOutput {
            branch,
            state: Some(BlockState::Empty),
            routing: None,
        })
    }

    fn feed_forward(&self) -> Option<&FeedForward> {
        Some(&self.feed_forward)
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        let FeedForward { up, down, .. } = &mut self.feed_forward;
        let matrices = [
            ("input.weight", Family::AttentionIn, &mut self.input),
            ("output.weight", Family::AttentionOut, &mut self.output),
            ("feed_forward.up.weight", Family::FeedForwardUp, up),
            ("feed_forward.down.weight", Family::FeedForwardDown, down),
        ];
        matrices
            .into_iter()
            .map(|(path, family, linear)| Part::matrix(path, family, &mut linear.weight))
            .collect()
    }
}

impl FeedForward {
    /// The branch for the residual stream `h`, `[tokens, d_model]`.
    ///
    /// # Errors
    /// A device that fails.
    pub fn forward(&self, h: Tensor<2>, pass: &Pass<'_>) -> Result<Tensor<2>> {
        let x = self.norm.forward(h)?;
        pass.show("feed_forward.norm", &x);
        let hidden = self.up.forward(x, pass.precision)?;
        pass.show("feed_forward.up", &hidden);
        let branch = self.down.forward(gelu(hidden), pass.precision)?;
        pass.show("feed_forward.down", &branch);
        Ok(branch)
    }
}

/// `x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))`, the approximation of `x Phi(x)` by Hendrycks & Gimpel (2016).
fn gelu(x: Tensor<2>) -> Tensor<2> {
    let linear = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let n = x.shape().num_elements();
    let factor = (x.clone() * x.clone()).mul_scalar(GELU_CUBIC * linear);
    let gate = sigmoid(x.clone() * factor.add_scalar(linear));
    ledger::counted(x * gate, Op::Gelu { n })
}

/// Queries and keys, `[batch, seq, heads, width]`, turned by their positions: the number at `i` and the one half a width
/// behind it by `position * base^(-2 i / width)`, so that their products tell how far apart two positions are.
fn rotated(x: Tensor<4>) -> Tensor<4> {
    let [batch, seq, heads, width] = x.dims();
    let half = width / 2;
    let speed = |i| ROTATION_BASE.powf(-2.0 * i as f64 / width as f64);
    let speeds: Vec<f64> = (0..half).map(speed).collect();
    let table = |of: fn(f64) -> f64, options: (&Device, DType)| {
        let at = |position: usize| speeds.iter().map(move |speed| of(position as f64 * speed));
        let values: Vec<f64> = (0..seq).flat_map(at).collect();
        Tensor::<4>::from_data(TensorData::new(values, [1, seq, 1, half]), options)
    };
    let (device, dtype) = (x.device(), x.dtype());
    let [cos, sin] = [f64::cos, f64::sin].map(|of| table(of, (&device, dtype)));
    let (re, im) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let turned = [
        re.clone() * cos.clone() - im.clone() * sin.clone(),
        re * sin + im * cos,
    ];
    let n = batch * seq * heads * width;
    ledger::counted(Tensor::cat(turned.to_vec(), 3), Op::Rotation { n })
}
