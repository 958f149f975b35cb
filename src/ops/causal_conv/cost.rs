//! What the kernels execute, read off them: the backward pass computes the sums of the taps again.

use burn::tensor::Tensor;

use super::{Activation, CHUNK};
use crate::hardware::adapter_of;
use crate::ops::ledger::{Op, SILU, counted_as};
use crate::results::FlopsPass;

/// The derivative of `SiLU`, its sigmoid computed again, times a cotangent.
const SILU_BACK: u64 = SILU - 1 + 5;

/// Sizes of one call.
pub(super) struct Sizes {
    batch: usize,
    seq: usize,
    channels: usize,
    d_conv: usize,
    activation: Activation,
    on_adapter: bool,
}

impl Sizes {
    pub(super) fn new(x: &Tensor<3>, weight: &Tensor<2>, activation: Activation) -> Self {
        let [batch, seq, channels] = x.dims();
        let [_, d_conv] = weight.dims();
        Self {
            batch,
            seq,
            channels,
            d_conv,
            activation,
            on_adapter: adapter_of(&x.device()).is_some(),
        }
    }

    /// `y`, the output.
    pub(super) fn register(&self, y: Tensor<3>) -> Tensor<3> {
        let op = Op::CausalConv {
            batch: self.batch,
            seq: self.seq,
            channels: self.channels,
            d_conv: self.d_conv,
        };
        let y = counted_as(y, op, |pass| match pass {
            FlopsPass::Backward => self.taps_back(),
            _ => op.cost(pass),
        });
        if self.activation == Activation::Identity {
            return y;
        }
        let n = self.batch * self.seq * self.channels;
        let silu = Op::Silu { n };
        counted_as(y, silu, |pass| match pass {
            FlopsPass::Backward => SILU_BACK * (self.rows_again() + self.rows_again_x0()),
            _ => silu.cost(pass),
        })
    }

    /// Elements of a time step of all sequences.
    fn step(&self) -> u64 {
        (self.batch * self.channels) as u64
    }

    /// Sums of taps that the chunks compute again: each also those that it shares with the next.
    fn rows_again(&self) -> u64 {
        let ends = (CHUNK..self.seq).step_by(CHUNK);
        let shared: usize = ends.map(|end| (self.d_conv - 1).min(self.seq - end)).sum();
        (self.seq + shared) as u64 * self.step()
    }

    /// Those that the gradient of the state computes again: the kernel for each pair of state and output anew.
    fn rows_again_x0(&self) -> u64 {
        let per_channel = if self.on_adapter {
            self.pairs_x0()
        } else {
            (self.d_conv - 1).min(self.seq) as u64
        };
        per_channel * self.step()
    }

    /// Pairs of an input before the first and an output that reads it.
    fn pairs_x0(&self) -> u64 {
        (1..self.d_conv).map(|j| j.min(self.seq) as u64).sum()
    }

    fn taps_back(&self) -> u64 {
        let taps = 2 * self.d_conv as u64;
        let silu = self.activation == Activation::Silu;
        let again = match (silu, self.on_adapter) {
            (true, _) => self.rows_again() + self.rows_again_x0(),
            // The kernel of the chunks does not look at the activation.
            (false, true) => self.rows_again(),
            (false, false) => 0,
        };
        let gradients = self.seq as u64 * self.step() * (2 * taps + 1);
        let x0 = 2 * self.pairs_x0() * self.step();
        let n_parts = self.batch * self.seq.div_ceil(CHUNK);
        let sums = (n_parts * (self.d_conv + 1) * self.channels) as u64;
        again * taps + gradients + x0 + sums
    }
}
