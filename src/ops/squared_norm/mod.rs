//! The sum of the squares of a tensor, in an order that depends on its size alone: for the norm over all gradients.
//!
//! Nothing is differentiated. Tensors are `f32` on every device, or `f64` on the CPU.

mod backend;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ledger::{self, Op};
use crate::results::FlopsPass;
use backend::SquaredNormBackend;

/// Elements that one invocation, or one task on the CPU, sums.
const CHUNK: usize = 1 << 10;

/// The sum of the squares of `x`, `[1]`, outside any graph.
pub fn squared_norm<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.shape().num_elements();
    if n == 0 {
        return Tensor::zeros([1], (&x.device(), x.dtype()));
    }
    ledger::register(Op::SquaredNorm { n }, FlopsPass::Update);
    let x = x.reshape([n]);
    Tensor::from_dispatch(Dispatch::squared_norm(x.into_dispatch()))
}
