//! Launches of `shaders/squared_norm.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::CHUNK;
use super::backend::SquaredNormBackend;
use crate::ops::launch::{Work, empty, launch};
use crate::ops::sums::sum_rows_wgsl;
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 64;

impl SquaredNormBackend for CubeBackend {
    fn squared_norm(x: CubeTensor) -> CubeTensor {
        let x = into_contiguous(x);
        let n = x.shape().num_elements();
        let n_parts = n.div_ceil(CHUNK);
        let parts = empty(&x, [n_parts, 1], x.dtype);
        launch(
            &catalog::SQUARED_NORM,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            Work::items(n_parts, WG_SIZE, CHUNK),
            &[&x, &parts],
            &[n as u32, n_parts as u32],
        );
        Self::float_reshape(sum_rows_wgsl(parts, 1.0), [1].into())
    }
}
