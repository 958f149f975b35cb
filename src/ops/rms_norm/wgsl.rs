//! Launches of `shaders/rms_norm_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::autodiff::{RmsNormBackend, RmsNormGradient};
use super::{CHUNK, EPSILON};
use crate::ops::launch::{Work, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

/// Invocations that share a row.
pub(super) const WG_SIZE: u32 = 64;

impl RmsNormBackend for CubeBackend {
    fn rms_norm(x: CubeTensor, gamma: CubeTensor) -> CubeTensor {
        let [x, gamma] = [x, gamma].map(into_contiguous);
        let [rows, width] = x.shape().dims();
        let y = empty(&x, x.shape(), x.dtype);
        launch(
            &catalog::RMS_NORM_FWD,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            rowwise(rows, width, 1),
            &[&x, &gamma, &y],
            &[rows as u32, width as u32, (EPSILON as f32).to_bits()],
        );
        y
    }
}

impl RmsNormGradient for CubeBackend {
    fn rms_norm_bwd(inputs: [CubeTensor; 2], d_y: CubeTensor) -> [CubeTensor; 2] {
        let [x, gamma] = inputs.map(into_contiguous);
        let d_y = into_contiguous(d_y);
        let [rows, width] = x.shape().dims();
        let d_x = empty(&x, x.shape(), x.dtype);
        let inverse = empty(&x, [rows], x.dtype);
        launch(
            &catalog::RMS_NORM_BWD,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            rowwise(rows, width, 2),
            &[&x, &gamma, &d_y, &d_x, &inverse],
            &[rows as u32, width as u32, (EPSILON as f32).to_bits()],
        );
        let n_parts = rows.div_ceil(CHUNK);
        let parts = empty(&x, [n_parts, width], x.dtype);
        launch(
            &catalog::RMS_NORM_BWD_GAMMA,
            &Spec::new()
                .u32("WG_SIZE", WG_SIZE)
                .u32("CHUNK", CHUNK as u32),
            Work::items(n_parts * width, WG_SIZE, CHUNK),
            &[&x, &d_y, &inverse, &parts],
            &[rows as u32, width as u32],
        );
        let d_gamma = Self::float_reshape(sum_rows_wgsl(parts, 1.0), [width].into());
        [d_x, d_gamma]
    }
}

/// A workgroup a row, which it goes through twice; then every lane combines `n_sums` sums of all lanes.
fn rowwise(rows: usize, width: usize, n_sums: usize) -> Work {
    Work {
        workgroups: rows,
        steps: 2 * width + n_sums * (WG_SIZE * WG_SIZE) as usize,
    }
}
