//! Launches of `shaders/skip_gate_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::CHUNK;
use super::autodiff::{SkipGateBackend, SkipGateGradient};
use crate::ops::launch::{Work, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 256;

impl SkipGateBackend for CubeBackend {
    fn skip_gate(y: CubeTensor, u: CubeTensor, skip: CubeTensor, z: CubeTensor) -> CubeTensor {
        let [y, u, skip, z] = [y, u, skip, z].map(into_contiguous);
        let [rows, channels] = y.shape().dims();
        let out = empty(&y, y.shape(), y.dtype);
        launch(
            &catalog::SKIP_GATE_FWD,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            Work::items(rows * channels, WG_SIZE, 4),
            &[&y, &u, &skip, &z, &out],
            &[rows as u32, channels as u32],
        );
        out
    }
}

impl SkipGateGradient for CubeBackend {
    fn skip_gate_bwd(inputs: [CubeTensor; 4], d_out: CubeTensor) -> [CubeTensor; 4] {
        let [y, u, skip, z] = inputs.map(into_contiguous);
        let d_out = into_contiguous(d_out);
        let [rows, channels] = y.shape().dims();
        let n_parts = rows.div_ceil(CHUNK);
        let d_y = empty(&y, y.shape(), y.dtype);
        let d_z = empty(&y, y.shape(), y.dtype);
        let parts = empty(&y, [n_parts, channels], y.dtype);
        launch(
            &catalog::SKIP_GATE_BWD,
            &Spec::new()
                .u32("WG_SIZE", WG_SIZE)
                .u32("CHUNK", CHUNK as u32),
            Work::items(n_parts * channels, WG_SIZE, 8 * CHUNK),
            &[&y, &u, &skip, &z, &d_out, &d_y, &d_z, &parts],
            &[rows as u32, channels as u32],
        );
        // A ninth buffer would exceed the default limits.
        let weights = Self::float_reshape(skip, [1, channels].into());
        let d_u = Self::float_mul(d_y.clone(), weights);
        let d_skip = Self::float_reshape(sum_rows_wgsl(parts, 1.0), [channels].into());
        [d_y, d_u, d_skip, d_z]
    }
}
