//! Depthwise causal convolution along the sequence, followed by `SiLU`: the short filter in front of Mamba's
//! scan (Gu & Dao 2023, arXiv:2312.00752). Derivation and measured errors: `docs/causal_conv.md`.
//!
//! ```text
//! xs = concat(x0, x)                                 along the sequence
//! y[b, t, c] = silu(bias[c] + sum_k weight[c, k] * xs[b, t + k, c])
//! ```
//!
//! Tensors are `f32` on every device, or `f64` on the CPU.

mod autodiff;
mod cost;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::compact;
use crate::{Error, Result};
use autodiff::CausalConvBackend;

const OP: &str = "causal_conv";

/// Time steps that one invocation, or one task on the CPU, handles.
const CHUNK: usize = 32;

/// What is applied to the sum of the taps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `v * sigmoid(v)`.
    Silu,
    /// Nothing.
    Identity,
}

/// The convolution of `x` `[batch, seq, channels]` with `weight` `[channels, d_conv]` and `bias`
/// `[channels]`, outside any graph. `x0` `[batch, d_conv - 1, channels]` are the inputs before the first.
///
/// Returns `y`, of the shape of `x`, and `x_last`, the `x0` of the sequence that follows.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit together, `d_conv` is below 2, or a size is 0.
pub fn infer(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    x0: Tensor<3>,
    activation: Activation,
) -> Result<(Tensor<3>, Tensor<3>)> {
    check(&x, &weight, &bias, [("x0", &x0)])?;
    let (x, x0) = (x.detach(), x0.detach());
    let [_, seq_len, _] = x.dims();
    let [_, n_state, _] = x0.dims();
    let x_last = if seq_len < n_state {
        Tensor::cat(
            vec![x0.clone().slice_dim(1, seq_len..n_state), x.clone()],
            1,
        )
    } else {
        compact(x.clone().slice_dim(1, seq_len - n_state..seq_len))
    };
    let sizes = cost::Sizes::new(&x, &weight, activation);
    let y = Tensor::from_dispatch(Dispatch::causal_conv_infer(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        x0.into_dispatch(),
        activation,
    ));
    Ok((sizes.register(y), x_last))
}

/// As [`infer`], with exact gradients for `x`, `weight`, `bias` and `x0`. `d_x_last`
/// `[batch, d_conv - 1, channels]` is the cotangent of the final state, 0 where nothing follows; it only
/// enters the gradients.
///
/// # Errors
/// As [`infer`].
pub fn train(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    x0: Tensor<3>,
    d_x_last: Tensor<3>,
    activation: Activation,
) -> Result<Tensor<3>> {
    check(&x, &weight, &bias, [("x0", &x0), ("d_x_last", &d_x_last)])?;
    let sizes = cost::Sizes::new(&x, &weight, activation);
    let y = Tensor::from_dispatch(Dispatch::causal_conv_train(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        x0.into_dispatch(),
        d_x_last.into_dispatch(),
        activation,
    ));
    Ok(sizes.register(y))
}

fn check<const N: usize>(
    x: &Tensor<3>,
    weight: &Tensor<2>,
    bias: &Tensor<1>,
    states: [(&'static str, &Tensor<3>); N],
) -> Result<()> {
    let shape = |arg, expected: &str, got: &[usize]| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected: expected.to_owned(),
            got: got.to_vec(),
        })
    };
    let [batch, seq_len, channels] = x.dims();
    let [_, d_conv] = weight.dims();
    if batch * seq_len * channels == 0 {
        return shape("x", "[batch, seq, channels], none of them 0", &x.dims());
    }
    if weight.dims()[0] != channels || d_conv < 2 {
        return shape(
            "weight",
            &format!("[{channels}, d_conv >= 2]"),
            &weight.dims(),
        );
    }
    if bias.dims() != [channels] {
        return shape("bias", &format!("[{channels}]"), &bias.dims());
    }
    let state = [batch, d_conv - 1, channels];
    for (arg, tensor) in states {
        if tensor.dims() != state {
            return shape(arg, &format!("{state:?}"), &tensor.dims());
        }
    }
    Ok(())
}
