//! Launch of `shaders/non_finite.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::STRIDE;
use super::autodiff::NonFiniteBackend;
use crate::ops::launch::{Work, empty, launch};
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 256;

impl NonFiniteBackend for CubeBackend {
    fn non_finite(x: CubeTensor) -> CubeTensor {
        let x = into_contiguous(x);
        let n = x.shape().num_elements();
        let parts = n.div_ceil((WG_SIZE * STRIDE) as usize) * WG_SIZE as usize;
        let counts = empty(&x, [parts], x.dtype);
        launch(
            &catalog::NON_FINITE,
            &Spec::new().u32("WG_SIZE", WG_SIZE).u32("STRIDE", STRIDE),
            Work::items(parts, WG_SIZE, STRIDE as usize),
            &[&x, &counts],
            &[n as u32],
        );
        counts
    }
}
