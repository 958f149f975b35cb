//! What the kernels execute, read off them: on an adapter most chunks are scanned twice, and everywhere the backward
//! pass computes the states of a chunk again.

use burn::tensor::Tensor;

use super::cpu::{BLOCK, LANES};
use super::{CHUNK, Inputs, is_fused};
use crate::hardware::adapter_of;
use crate::ops::ledger::{Op, SOFTPLUS, counted_as};
use crate::results::FlopsPass;

/// The derivative of softplus, its exponential computed again, times a cotangent.
const SOFTPLUS_BACK: u64 = 8;

/// Sizes of one call.
pub(super) struct Sizes {
    batch: usize,
    seq: usize,
    d_inner: usize,
    d_state: usize,
    softplus: bool,
    on_adapter: bool,
    is_fused: bool,
}

impl Sizes {
    pub(super) fn new(inputs: &Inputs) -> Self {
        let [batch, seq, d_inner] = inputs.u.dims();
        let [_, d_state] = inputs.a.dims();
        let adapter = adapter_of(&inputs.u.device());
        Self {
            batch,
            seq,
            d_inner,
            d_state,
            softplus: inputs.softplus,
            on_adapter: adapter.is_some(),
            is_fused: adapter.is_some_and(|adapter| is_fused(adapter.class, d_inner)),
        }
    }

    /// `y`, the output.
    pub(super) fn register(&self, y: Tensor<3>) -> Tensor<3> {
        let scan = Op::SelectiveScan {
            batch: self.batch,
            seq: self.seq,
            d_inner: self.d_inner,
            d_state: self.d_state,
        };
        let y = counted_as(y, scan, |pass| match (pass, self.on_adapter) {
            (FlopsPass::Backward, false) => self.cpu_back(),
            (FlopsPass::Backward, true) => self.adapter_back(),
            (_, false) => self.cpu(),
            (_, true) if self.is_fused => self.fused(),
            (_, true) => self.adapter(),
        });
        if !self.softplus {
            return y;
        }
        let softplus = Op::Softplus {
            n: self.batch * self.seq * self.d_inner,
        };
        counted_as(y, softplus, |pass| match (pass, self.on_adapter) {
            (FlopsPass::Backward, false) => {
                SOFTPLUS * self.cpu_steps(self.padded_seq())
                    + SOFTPLUS_BACK * self.cpu_steps(self.seq)
            }
            (FlopsPass::Backward, true) => (2 * SOFTPLUS + SOFTPLUS_BACK) * self.steps(self.seq),
            (_, false) => SOFTPLUS * self.cpu_steps(self.padded_seq()),
            (_, true) if self.is_fused => SOFTPLUS * self.steps(self.seq),
            (_, true) => 2 * SOFTPLUS * self.steps(self.seq),
        })
    }

    fn n_chunks(&self) -> usize {
        self.seq.div_ceil(CHUNK)
    }

    fn padded_seq(&self) -> usize {
        self.n_chunks() * CHUNK
    }

    /// Channels of so many time steps.
    fn steps(&self, n: usize) -> u64 {
        (self.batch * n * self.d_inner) as u64
    }

    /// The same on the CPU, whose lanes are filled up.
    fn cpu_steps(&self, n: usize) -> u64 {
        (self.batch * n * self.d_inner.next_multiple_of(LANES)) as u64
    }

    fn cpu(&self) -> u64 {
        let states = self.d_state as u64;
        // delta u; the rates to another base; per state delta a, exponential, x b, two multiply-adds.
        self.cpu_steps(self.padded_seq())
            + self.cpu_steps(1) * states
            + self.cpu_steps(self.seq) * 7 * states
    }

    fn cpu_back(&self) -> u64 {
        let states = self.d_state as u64;
        // Again: decay 2, decayed 1, state 2. Gradients: c 2, cotangent 3, exponent 1, a, delta, x and b 2 each.
        let state = 5 + 2 + 3 + 1 + 4 * 2;
        // The exponent's base, x u, delta.
        let step = 1 + 2 + 1;
        let chunks = self.cpu_steps(self.n_chunks() + 2) * states; // sums of a; rates and initial state
        // Of b and c: across the lanes, and over the blocks of channels.
        let blocks = self.d_inner.div_ceil(BLOCK) as u64;
        let across = 2 * (self.batch * self.seq) as u64 * states * blocks * LANES as u64;
        self.cpu_steps(self.padded_seq())
            + self.cpu_steps(self.seq) * (step + state * states)
            + chunks
            + across
            + self.steps(1) * states
    }

    fn fused(&self) -> u64 {
        let states = self.d_state as u64;
        // delta u, sum of delta; per state decay 2, x b, from both states 2 each, y 2. Per chunk 4 a state.
        self.steps(self.seq)
            + self.steps(self.padded_seq()) * (1 + 9 * states)
            + self.steps(self.n_chunks()) * 4 * states
    }

    fn adapter(&self) -> u64 {
        let states = self.d_state as u64;
        // Reduce: delta u, sum of delta, 5 a state. Spine: 4. Apply: delta u, 7 a state.
        2 * self.steps(self.seq)
            + self.steps(self.padded_seq()) * (1 + 12 * states)
            + self.steps(self.n_chunks()) * 4 * states
    }

    fn adapter_back(&self) -> u64 {
        let states = self.d_state as u64;
        // Reduce: sum of delta, 5 a state. Spine: 4. By channel: delta u and what follows the states, 13 a state.
        // By state: 17 a state and time step.
        let sums = self.steps(self.n_chunks()) * states
            + 2 * (self.batch * self.seq * self.d_inner.div_ceil(BLOCK)) as u64 * states;
        self.steps(self.padded_seq()) * (1 + (5 + 13) * states)
            + self.steps(self.n_chunks()) * 4 * states
            + self.steps(self.seq) * (1 + 3 + 17 * states)
            + sums
    }
}
