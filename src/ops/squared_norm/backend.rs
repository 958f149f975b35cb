//! The plug into burn, and the CPU backend's tensors.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn_flex::FlexTensor;

use super::cpu;
use crate::ops::flex::{filled, with_real};

#[backend_extension(Cube, Flex)]
pub(super) trait SquaredNormBackend: Backend {
    /// Of a flat tensor.
    fn squared_norm(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SquaredNormBackend for Flex {
    fn squared_norm(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        with_real!(x, T => filled([1], |sum| sum[0] = cpu::squared_norm::<T>(x.storage())))
    }
}
