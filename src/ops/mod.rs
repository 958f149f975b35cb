//! Custom differentiable operations: WGSL on wgpu devices, the same algorithm on the CPU backend.
//!
//! One folder an operation: `mod.rs` (public functions), `wgsl.rs` (launches), `cpu.rs` (plain slices,
//! `f32` and `f64`), `autodiff.rs` (the burn plug). Layout everywhere `[batch, seq, channel]`.
//! A sequence operation has two entries: `infer(.., h0) -> (y, h_last)` without a graph, and
//! `train(.., h0, d_h_last) -> y`, whose backward takes the cotangent of the final state and yields that
//! of the initial one.
//!
//! Every operation writes what it costs to the [`ledger`]; `cost.rs` in its folder says what its kernels execute.

pub mod adamw;
pub mod attention;
pub mod causal_conv;
pub mod cotangent;
pub mod embedding;
mod flex;
mod launch;
pub mod ledger;
pub mod linear_cross_entropy;
pub mod non_finite;
pub mod packed_matmul;
pub mod resolvent_diag;
pub mod rms_norm;
pub mod selective_scan;
pub mod skip_gate;
pub mod squared_norm;
mod sums;

use burn::tensor::Tensor;

pub use launch::dispatches;

/// The values of a slice in memory of their own: a slice keeps all of what it was cut from, which for the last
/// state of a segment is the whole segment.
pub(crate) fn compact<const D: usize>(slice: Tensor<D>) -> Tensor<D> {
    // Had the slice only one owner, the product would be written over it, in the memory that it is cut from.
    let _second_owner = slice.clone();
    slice.mul_scalar(1)
}
