//! A step of `AdamW` (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2) in one pass over a parameter, its
//! gradient and its moments. Measured errors and times: `docs/adamw.md`.
//!
//! ```text
//! m = beta_1 m + (1 - beta_1) g        v = beta_2 v + (1 - beta_2) g^2
//! p = (1 - rate weight_decay) p - rate (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
//! ```
//!
//! Nothing is differentiated. Tensors are `f32` on every device, or `f64` on the CPU.

mod backend;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ledger::{self, Op};
use crate::results::FlopsPass;
use backend::AdamWBackend;

/// Factors of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Decay of either moment.
    pub betas: [f32; 2],
    /// What the moments are divided by: 1 minus a beta to the power of the step's number, from 1.
    pub corrections: [f32; 2],
    /// Added to the root.
    pub epsilon: f32,
    /// Learning rate.
    pub rate: f32,
    /// 1 minus learning rate times weight decay, where the parameter decays.
    pub decay: Option<f32>,
}

/// `parameter` after a step along `gradient`, and its moments, those of the gradient and of its square; 0 before the
/// first step. All are of one shape and outside any graph.
pub fn step<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<[Tensor<D>; 2]>,
    step: Step,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let n = gradient.shape().num_elements();
    let update = Op::AdamW { n };
    // The kernels multiply by a decay of 1 where there is none.
    let extra = if step.decay.is_none() { n as u64 } else { 0 };
    ledger::register_as(update, FlopsPass::Update, || {
        update.cost(FlopsPass::Update) + extra
    });
    if step.decay.is_some() {
        ledger::register(Op::WeightDecay { n }, FlopsPass::Update);
    }
    let [first, second] = moments.unwrap_or_else(|| [(); 2].map(|()| gradient.zeros_like()));
    let (parameter, first, second) = Dispatch::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    let moments = [first, second].map(Tensor::from_dispatch);
    (Tensor::from_dispatch(parameter), moments)
}
