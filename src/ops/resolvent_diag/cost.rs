//! What the kernels execute, read off them: warm-ups, three phases where none is short enough, and on the CPU the
//! lanes that have nothing to do.

use burn::tensor::Tensor;

use super::Bounds;
use super::bidirectional::Gradient;
use super::cpu::{self, Dims};
use super::plan::Plan;
use crate::hardware::adapter_of;
use crate::ops::ledger::{
    Op, RESOLVENT_COUPLING_BACK, RESOLVENT_ROW, RESOLVENT_ROW_BACK, counted_as,
};
use crate::results::FlopsPass;

/// Reducing a chunk to a map, a row: two complex products, a real multiple of two numbers taken off, rescaling.
const REDUCE_ROW: u64 = 37;
/// Applying the map of a chunk.
const SPINE: u64 = 28;
/// The same of the adjoint, whose maps are affine.
const REDUCE_ROW_BACK: u64 = 30;
const SPINE_BACK: u64 = 8;

/// Both sides of a row together: sum, and one over it.
const BOTH: u64 = 8;
/// rho of a row; what one side adds, times a square; on to the next row with its coupling's gradient.
const RHO: u64 = 13;
const SIDE_BACK: u64 = 12 + 2 + 2 + 3;
/// Gradients of diagonal and shift.
const SUMS_BACK: u64 = 4;

/// Sizes of one call.
pub(super) struct Sizes {
    dims: Dims,
    /// Couplings that have a gradient.
    couplings: usize,
    bounds: Bounds,
    /// Bits of the significand.
    bits: u32,
    on_adapter: bool,
}

impl Sizes {
    pub(super) fn new(diag: &Tensor<3>, coupling: &Tensor<3>, bounds: Bounds) -> Self {
        let [batch, seq, heads] = diag.dims();
        let varies = coupling.dims() == diag.dims();
        Self {
            dims: Dims { batch, seq, heads },
            couplings: if varies { batch * seq * heads } else { 0 },
            bounds,
            bits: if diag.dtype().size() == 8 {
                f64::MANTISSA_DIGITS
            } else {
                f32::MANTISSA_DIGITS
            },
            on_adapter: adapter_of(&diag.device()).is_some(),
        }
    }

    /// `g`, the output.
    pub(super) fn register(&self, g: Tensor<3>) -> Tensor<3> {
        let Dims { batch, seq, heads } = self.dims;
        let op = Op::ResolventDiag {
            batch,
            seq,
            heads,
            couplings: self.couplings,
        };
        let plan = Plan::new(self.bits, self.bounds.eta_min, self.bounds.p_max, seq);
        counted_as(g, op, |pass| match pass {
            FlopsPass::Backward => self.causal_back(plan),
            _ => self.causal(plan),
        })
    }

    /// `full`, the output of the bidirectional operation.
    pub(super) fn register_bidirectional(&self, full: Tensor<3>, gradient: Gradient) -> Tensor<3> {
        let Dims { batch, seq, heads } = self.dims;
        let plan = Plan::independent(self.bits, self.bounds.eta_min, self.bounds.p_max, seq);
        let op = match gradient {
            Gradient::Exact => Op::ResolventDiagBidirectional {
                batch,
                seq,
                heads,
                couplings: self.couplings - self.couplings.min(batch * heads),
            },
            Gradient::Published => Op::ResolventDiagPublished { batch, seq, heads },
        };
        counted_as(full, op, |pass| match (pass, gradient) {
            (FlopsPass::Backward, Gradient::Exact) => self.bidirectional_back(plan),
            (FlopsPass::Backward, Gradient::Published) => op.cost(pass),
            _ => self.bidirectional(plan),
        })
    }

    /// Rows that run where each chunk takes `own` of its own and so many around it.
    fn rows(&self, plan: Plan, around: usize) -> u64 {
        let Dims { batch, seq, heads } = self.dims;
        if self.on_adapter {
            // No warm-up reaches over an end of the sequence.
            let ends = (plan.chunk..seq).step_by(plan.chunk);
            let warm: usize = ends.map(|end| around.min(end).min(seq - end)).sum();
            ((seq + warm) * batch * heads) as u64
        } else {
            (cpu::lanes_run(self.dims, plan) * (plan.chunk + around)) as u64
        }
    }

    fn per_chunk(&self, plan: Plan) -> u64 {
        (self.dims.batch * self.dims.heads * plan.n_chunks(self.dims.seq)) as u64
    }

    fn causal(&self, plan: Plan) -> u64 {
        let rows = match plan.warm_up {
            Some(warm_up) => RESOLVENT_ROW * self.rows(plan, warm_up),
            None => {
                (REDUCE_ROW + RESOLVENT_ROW) * self.rows(plan, 0) + SPINE * self.per_chunk(plan)
            }
        };
        // The sign of Im z.
        rows + self.per_chunk(plan)
    }

    fn causal_back(&self, plan: Plan) -> u64 {
        let rows = match plan.warm_up {
            Some(warm_up) => RESOLVENT_ROW_BACK * self.rows(plan, warm_up),
            None => {
                (REDUCE_ROW_BACK + RESOLVENT_ROW_BACK) * self.rows(plan, 0)
                    + SPINE_BACK * self.per_chunk(plan)
            }
        };
        let sums = 2 * self.per_chunk(plan);
        rows + RESOLVENT_COUPLING_BACK * self.couplings as u64 + sums
    }

    fn bidirectional(&self, plan: Plan) -> u64 {
        let around = self.margin(plan);
        2 * RESOLVENT_ROW * self.rows(plan, around) + BOTH * self.rows(plan, 0)
    }

    fn bidirectional_back(&self, plan: Plan) -> u64 {
        // On the CPU all rows around a chunk go through both recurrences and one of the sides back.
        let around = self.margin(plan);
        let both = if self.on_adapter { around } else { 2 * around };
        let again = 2 * RESOLVENT_ROW * self.rows(plan, both);
        let back = 2 * (RHO + SIDE_BACK) * self.rows(plan, around);
        again + back + SUMS_BACK * self.rows(plan, 0) + 2 * self.per_chunk(plan)
    }

    /// Rows before or after a chunk; on the CPU whole tiles.
    fn margin(&self, plan: Plan) -> usize {
        let warm_up = plan.warm_up.unwrap_or(0);
        if self.on_adapter {
            warm_up
        } else {
            cpu::margin(warm_up)
        }
    }
}
