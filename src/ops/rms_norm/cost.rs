//! What the kernels execute, read off them: the backward pass computes the roots again.

use burn::tensor::Tensor;

use super::CHUNK;
use super::wgsl::WG_SIZE;
use crate::hardware::adapter_of;
use crate::ops::ledger::{Op, counted_as};
use crate::results::FlopsPass;

/// Reciprocal of the root: mean, epsilon, root, reciprocal.
const INVERSE_ROOT: u64 = 4;

/// Sizes of one call.
pub(super) struct Sizes {
    rows: usize,
    width: usize,
    on_adapter: bool,
}

impl Sizes {
    pub(super) fn new(x: &Tensor<2>) -> Self {
        let [rows, width] = x.dims();
        Self {
            rows,
            width,
            on_adapter: adapter_of(&x.device()).is_some(),
        }
    }

    /// `y`, the output.
    pub(super) fn register(&self, y: Tensor<2>) -> Tensor<2> {
        let (rows, width) = (self.rows as u64, self.width as u64);
        let op = Op::RmsNorm {
            rows: self.rows,
            width: self.width,
        };
        counted_as(y, op, |pass| match pass {
            FlopsPass::Backward => {
                // Squares; by gamma and by x; over the root, its share of the mean, the difference, over the root.
                // Weight: over the root, which the kernels of an adapter do twice, by the cotangent, summed.
                let column = 2 + 3 + 4 + 2 + u64::from(self.on_adapter);
                // Two factors of the mean.
                let row = INVERSE_ROOT + 2;
                let parts = rows.div_ceil(CHUNK as u64) * width;
                rows * (column * width + row + 2 * self.combined()) + parts
            }
            // Squares, and two factors.
            _ => rows * (4 * width + INVERSE_ROOT + self.combined()),
        })
    }

    /// Sums of lanes that make one of a row: on an adapter every lane makes it.
    fn combined(&self) -> u64 {
        if self.on_adapter {
            u64::from(WG_SIZE * WG_SIZE)
        } else {
            super::cpu::LANES as u64
        }
    }
}
