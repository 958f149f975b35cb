//! The plug into burn. Nothing is differentiated here: the trait alone asks for an implementation.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use super::{STRIDE, cpu};
use crate::ops::flex::{filled, with_real};

#[backend_extension(Autodiff, Cube, Flex)]
pub(super) trait NonFiniteBackend: Backend {
    /// Counts of the parts of a flat tensor, as floats.
    fn non_finite(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: NonFiniteBackend, C: CheckpointStrategy> NonFiniteBackend for Autodiff<B, C> {
    fn non_finite(x: FloatTensor<Self>) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::non_finite(x.into_primitive()))
    }
}

impl NonFiniteBackend for Flex {
    fn non_finite(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let parts = x.shape().num_elements().div_ceil(STRIDE as usize);
        with_real!(x, T => filled([parts], |counts| cpu::count::<T>(x.storage(), counts)))
    }
}
