//! What the kernels execute, read off them: the backward pass computes the sum and its gate again.

use burn::tensor::Tensor;

use super::CHUNK;
use crate::ops::ledger::{Op, SILU, counted, counted_as};
use crate::results::FlopsPass;

/// The sum y + skip u, which the gradient of the gate needs.
const SUM: u64 = 2;
/// The derivative of `SiLU`, its sigmoid computed again, times a cotangent.
const SILU_BACK: u64 = SILU - 1 + 5;

/// `out`, the output.
pub(super) fn register(out: Tensor<2>) -> Tensor<2> {
    let [rows, channels] = out.dims();
    let n = rows * channels;
    let parts = (rows.div_ceil(CHUNK) * channels) as u64;
    let skip = Op::Scale { n };
    let out = counted_as(out, skip, |pass| match pass {
        FlopsPass::Backward => skip.cost(pass) + parts,
        _ => skip.cost(pass),
    });
    let out = counted(out, Op::Add { n });
    let silu = Op::Silu { n };
    let out = counted_as(out, silu, |pass| match pass {
        FlopsPass::Backward => SILU_BACK * n as u64,
        _ => silu.cost(pass),
    });
    let gate = Op::Multiply { n };
    counted_as(out, gate, |pass| match pass {
        // Besides both gradients the sum and the silu.
        FlopsPass::Backward => gate.cost(pass) + (SUM + 1) * n as u64,
        _ => gate.cost(pass),
    })
}
