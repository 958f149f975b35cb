//! The selective scan of Mamba (Gu & Dao 2023, arXiv:2312.00752). Derivation and measured errors:
//! `docs/selective_scan.md`.
//!
//! ```text
//! delta = softplus(delta_raw), or delta_raw
//! h[t]  = exp(delta[t] a) h[t-1] + delta[t] b[t] u[t]      per (batch, channel, state)
//! y[t]  = c[t] . h[t]
//! ```
//!
//! The skip `D u` and the gate are elementwise and stay with the caller. Tensors are `f32` on every
//! device, or `f64` on the CPU.

mod autodiff;
mod cost;
pub mod cpu;
mod lanes;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::compact;
use crate::hardware::adapter_of;
use crate::hardware::adapters::Class;
use crate::{Error, Result};
use autodiff::SelectiveScanBackend;

/// Time steps between two kept states.
pub(crate) const CHUNK: usize = 16;

/// Whether the forward pass runs chunk after chunk on an adapter of `class`. Where channels alone are enough for all
/// threads, that spares half of the exponentials; elsewhere chunks side by side are worth twice as many.
fn is_fused(class: Class, d_inner: usize) -> bool {
    class == Class::Software && d_inner.is_multiple_of(4)
}

/// What the recurrence reads, all on one device.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// `[batch, seq, d_inner]`.
    pub u: Tensor<3>,
    /// `[batch, seq, d_inner]`, the bias already added.
    pub delta_raw: Tensor<3>,
    /// `[d_inner, d_state]`. delta * a must not be positive, so a must be negative where delta is not.
    pub a: Tensor<2>,
    /// `[batch, seq, d_state]`.
    pub b: Tensor<3>,
    /// `[batch, seq, d_state]`.
    pub c: Tensor<3>,
    /// Whether delta is the softplus of `delta_raw` or `delta_raw` itself.
    pub softplus: bool,
}

/// `y` `[batch, seq, d_inner]` and the state after the last token `[batch, d_inner, d_state]`, outside
/// any graph. `h0` `[batch, d_inner, d_state]` is the state before the first token.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit together or a size is 0, or when there are more tokens than
/// the adapter can bind the states of: then cut the sequence into segments.
pub fn infer(inputs: Inputs, h0: Tensor<3>) -> Result<(Tensor<3>, Tensor<3>)> {
    check(&inputs, [("h0", &h0)])?;
    let [batch, seq_len, _] = inputs.u.dims();
    check_states(&inputs, batch * (seq_len.div_ceil(CHUNK) + 1))?;
    let sizes = cost::Sizes::new(&inputs);
    let (y, states) = Dispatch::selective_scan_infer(
        inputs.u.detach().into_dispatch(),
        inputs.delta_raw.detach().into_dispatch(),
        inputs.a.detach().swap_dims(0, 1).into_dispatch(),
        inputs.b.detach().into_dispatch(),
        inputs.c.detach().into_dispatch(),
        h0.detach().swap_dims(1, 2).into_dispatch(),
        inputs.softplus,
    );
    let states = Tensor::<4>::from_dispatch(states);
    let last = states.dims()[1] - 1;
    let h_last = compact(states.slice_dim(1, last..=last)).squeeze_dim::<3>(1);
    let y = sizes.register(Tensor::from_dispatch(y));
    Ok((y, h_last.swap_dims(1, 2)))
}

/// `y` as [`infer`] gives it, with exact gradients for every tensor of `inputs` and for `h0`.
/// `d_h_last` `[batch, d_inner, d_state]` is the cotangent of the state after the last token, 0 where
/// nothing follows; it only enters the gradients.
///
/// # Errors
/// As [`infer`].
pub fn train(inputs: Inputs, h0: Tensor<3>, d_h_last: Tensor<3>) -> Result<Tensor<3>> {
    check(&inputs, [("h0", &h0), ("d_h_last", &d_h_last)])?;
    let [batch, seq_len, _] = inputs.u.dims();
    check_states(&inputs, batch * 2 * seq_len.div_ceil(CHUNK))?;
    let sizes = cost::Sizes::new(&inputs);
    // The kernels keep channels fastest; burn turns the gradients back.
    let y = Tensor::from_dispatch(Dispatch::selective_scan_train(
        inputs.u.into_dispatch(),
        inputs.delta_raw.into_dispatch(),
        inputs.a.swap_dims(0, 1).into_dispatch(),
        inputs.b.into_dispatch(),
        inputs.c.into_dispatch(),
        h0.swap_dims(1, 2).into_dispatch(),
        d_h_last.swap_dims(1, 2).into_dispatch(),
        inputs.softplus,
    ));
    Ok(sizes.register(y))
}

fn check<const N: usize>(inputs: &Inputs, states: [(&'static str, &Tensor<3>); N]) -> Result<()> {
    let [batch, seq_len, d_inner] = inputs.u.dims();
    let [_, d_state] = inputs.a.dims();
    let per_channel = vec![batch, seq_len, d_inner];
    let per_state = vec![batch, seq_len, d_state];
    // No size may be 0; the others are measured by u and a.
    let mut arguments = vec![
        (
            "u",
            per_channel.iter().map(|&n| n.max(1)).collect(),
            inputs.u.dims().to_vec(),
        ),
        ("a", vec![d_inner, d_state.max(1)], inputs.a.dims().to_vec()),
        ("delta_raw", per_channel, inputs.delta_raw.dims().to_vec()),
        ("b", per_state.clone(), inputs.b.dims().to_vec()),
        ("c", per_state, inputs.c.dims().to_vec()),
    ];
    let state = vec![batch, d_inner, d_state];
    arguments.extend(states.map(|(arg, tensor)| (arg, state.clone(), tensor.dims().to_vec())));
    match arguments
        .into_iter()
        .find(|(_, expected, got)| expected != got)
    {
        None => Ok(()),
        Some((arg, expected, got)) => Err(Error::Shape {
            op: "selective_scan",
            arg,
            expected: format!("{expected:?}"),
            got,
        }),
    }
}

/// Refuses inputs of which the adapter cannot bind `states` times `[d_state, d_inner]` floats at once: the
/// states that the forward pass keeps, or those and their cotangents that the backward pass puts side by side.
fn check_states(inputs: &Inputs, states: usize) -> Result<()> {
    let Some(adapter) = adapter_of(&inputs.u.device()) else {
        return Ok(());
    };
    let [d_inner, d_state] = inputs.a.dims();
    let fit = adapter.limits.binding.0 / (4 * d_inner * d_state) as u64;
    if states as u64 <= fit {
        return Ok(());
    }
    let [batch, seq_len, _] = inputs.u.dims();
    Err(Error::Shape {
        op: "selective_scan",
        arg: "u",
        expected: format!(
            "[batch, seq, d_inner] of at most {} tokens, whose states of {d_inner} x {d_state} fill the {} \
             that {adapter} binds at once (cut the sequence into segments)",
            fit * (batch * seq_len) as u64 / states as u64,
            adapter.limits.binding,
        ),
        got: inputs.u.dims().to_vec(),
    })
}
