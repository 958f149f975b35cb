//! The plug into burn, and the CPU backend's tensors.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::cpu;
use crate::ops::flex::{filled, with_real};
use crate::quant::Layout;

#[backend_extension(Cube, Flex)]
pub(super) trait PackedMatmulBackend: Backend {
    fn packed_matmul(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;

    fn packed_rows(words: IntTensor<Self>, layout: Layout, ids: &[u32]) -> FloatTensor<Self>;
}

impl PackedMatmulBackend for Flex {
    fn packed_matmul(x: FlexTensor, words: FlexTensor, layout: Layout) -> FlexTensor {
        let (x, words) = (x.to_contiguous(), words.to_contiguous());
        let tokens = x.shape()[0];
        with_real!(x, T => {
            filled([tokens, layout.rows], |y| {
                cpu::matmul::<T>(x.storage(), layout, words.storage(), y);
            })
        })
    }

    fn packed_rows(words: FlexTensor, layout: Layout, ids: &[u32]) -> FlexTensor {
        let words = words.to_contiguous();
        filled([ids.len(), layout.columns], |y| {
            cpu::gather_rows::<f32>(layout, words.storage(), ids, y);
        })
    }
}
