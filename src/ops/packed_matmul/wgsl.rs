//! Launches of `shaders/packed_matmul_*.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};
use burn::tensor::DType;

use super::DECODE_TOKENS;
use super::backend::PackedMatmulBackend;
use crate::ops::launch::{Work, empty, launch, upload};
use crate::quant::Layout;
use crate::shader::{Spec, catalog};

/// Invocations of a workgroup that decodes, and how many of them share a row of the matrix.
const DECODE_SIZE: u32 = 64;
pub(super) const LANES: u32 = 8;
/// Rows of `x`, and rows of the matrix, of a workgroup that prefills.
pub(super) const TILE: usize = 32;
/// What llvmpipe takes for a column of such a tile, in steps of [`Work`].
const TILE_STEPS: usize = 128;
const GATHER_SIZE: u32 = 256;

impl PackedMatmulBackend for CubeBackend {
    fn packed_matmul(x: CubeTensor, words: CubeTensor, layout: Layout) -> CubeTensor {
        let (x, words) = (into_contiguous(x), into_contiguous(words));
        let Layout { rows, columns, .. } = layout;
        let tokens = x.shape()[0];
        let y = empty(&x, [tokens, rows], x.dtype);
        let (kernel, spec, work) = if tokens < DECODE_TOKENS {
            let rows_at_once = (DECODE_SIZE / LANES) as usize;
            let work = Work {
                workgroups: tokens * rows.div_ceil(rows_at_once),
                steps: rows_at_once * columns,
            };
            let spec = spec(layout).u32("WG_SIZE", DECODE_SIZE);
            (
                &catalog::PACKED_MATMUL_DECODE,
                spec.u32("LANES", LANES),
                work,
            )
        } else {
            let work = Work {
                workgroups: tokens.div_ceil(TILE) * rows.div_ceil(TILE),
                steps: TILE_STEPS * columns,
            };
            (&catalog::PACKED_MATMUL_PREFILL, spec(layout), work)
        };
        let params = [tokens as u32, rows as u32, columns as u32];
        launch(kernel, &spec, work, &[&x, &words, &y], &params);
        y
    }

    fn packed_rows(words: CubeTensor, layout: Layout, ids: &[u32]) -> CubeTensor {
        let words = into_contiguous(words);
        let Layout { rows, columns, .. } = layout;
        let y = empty(&words, [ids.len(), columns], DType::F32);
        launch(
            &catalog::PACKED_MATMUL_GATHER,
            &spec(layout).u32("WG_SIZE", GATHER_SIZE),
            Work::items(ids.len() * columns, GATHER_SIZE, 4),
            &[&upload(&words, ids), &words, &y],
            &[ids.len() as u32, rows as u32, columns as u32],
        );
        y
    }
}

fn spec(layout: Layout) -> Spec {
    Spec::new().u32("BITS", layout.width.bits())
}
