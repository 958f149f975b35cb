//! Launches of `shaders/linear_cross_entropy_fwd.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::autodiff::RowKernels;
use crate::ops::launch::{empty, launch, upload, workgroups_for};
use crate::ops::sums::sum_rows_wgsl;
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
        let nll = empty(&logits, [rows], logits.dtype);
        launch(
            &catalog::LINEAR_CROSS_ENTROPY_FWD,
            Spec::new()
                .u32("WG_SIZE", WG_SIZE)
                .bool("GRADIENT", scale.is_some()),
            workgroups_for(rows, 1),
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
