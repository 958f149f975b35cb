//! Launches of `shaders/linear_cross_entropy_fwd.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::autodiff::RowKernels;
use super::cost;
use crate::ops::launch::{Work, empty, launch, upload};
use crate::ops::sums::sum_rows_wgsl;
use crate::results::FlopsPass;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 64;

impl RowKernels for CubeBackend {
    fn row_nll(
        logits: CubeTensor,
        targets: &[u32],
        scale: Option<f32>,
    ) -> (CubeTensor, CubeTensor) {
        let logits = into_contiguous(logits);
        let [rows, vocab] = logits.shape().dims();
        cost::rows([rows, vocab], scale, |op, pass| match pass {
            // Exponential and softmax once more; difference and factor everywhere.
            FlopsPass::Backward => 5 * (rows * vocab) as u64,
            // Every lane combines what all lanes found, twice.
            _ => op.cost(pass) + (rows * 2 * (WG_SIZE * WG_SIZE) as usize) as u64,
        });
        // A row is read two or three times; then every lane goes through what all lanes found, twice.
        let passes = if scale.is_some() { 3 } else { 2 };
        let steps = passes * vocab + 2 * (WG_SIZE * WG_SIZE) as usize;
        let nll = empty(&logits, [rows], logits.dtype);
        launch(
            &catalog::LINEAR_CROSS_ENTROPY_FWD,
            &Spec::new()
                .u32("WG_SIZE", WG_SIZE)
                .bool("GRADIENT", scale.is_some()),
            Work {
                workgroups: rows,
                steps,
            },
            &[&upload(&logits, targets), &logits, &nll],
            &[rows as u32, vocab as u32, scale.unwrap_or(0.0).to_bits()],
        );
        (nll, logits)
    }

    fn scaled_sum(nll: CubeTensor, scale: f32) -> CubeTensor {
        let rows = nll.shape()[0];
        let parts = into_contiguous(Self::float_reshape(nll, [rows, 1].into()));
        Self::float_reshape(sum_rows_wgsl(parts, scale), [1].into())
    }
}
