//! Launches of `shaders/embedding_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::Plan;
use super::autodiff::{EmbeddingBackend, EmbeddingGradient};
use crate::ops::launch::{Work, empty, launch, upload};
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 256;

impl EmbeddingBackend for CubeBackend {
    fn gather_rows(weight: CubeTensor, ids: &[u32]) -> CubeTensor {
        let weight = into_contiguous(weight);
        let [_, d] = weight.shape().dims();
        let y = empty(&weight, [ids.len(), d], weight.dtype);
        launch(
            &catalog::EMBEDDING_FWD,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            Work::items(ids.len() * d, WG_SIZE, 4),
            &[&upload(&weight, ids), &weight, &y],
            &[ids.len() as u32, d as u32],
        );
        y
    }
}

impl EmbeddingGradient for CubeBackend {
    fn scatter_sum(d_y: CubeTensor, plan: &Plan) -> CubeTensor {
        let d_y = into_contiguous(d_y);
        let [_, d] = d_y.shape().dims();
        let (rows, groups) = (plan.row_groups.len() - 1, plan.bounds.len() - 1);
        let parts = empty(&d_y, [groups, d], d_y.dtype);
        let spec = Spec::new().u32("WG_SIZE", WG_SIZE);
        launch(
            &catalog::EMBEDDING_BWD_REDUCE,
            &spec,
            Work::items(groups * d, WG_SIZE, plan.order.len().div_ceil(groups)),
            &[
                &upload(&d_y, &plan.order),
                &upload(&d_y, &plan.bounds),
                &d_y,
                &parts,
            ],
            &[groups as u32, d as u32],
        );
        let d_weight = empty(&d_y, [rows, d], d_y.dtype);
        launch(
            &catalog::EMBEDDING_BWD_APPLY,
            &spec,
            Work::items(rows * d, WG_SIZE, 1 + groups.div_ceil(rows)),
            &[&upload(&d_y, &plan.row_groups), &parts, &d_weight],
            &[rows as u32, d as u32],
        );
        d_weight
    }
}
