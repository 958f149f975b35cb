//! The plug into burn, and the CPU backend's tensors.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn_flex::FlexTensor;

use super::{Step, cpu};
use crate::ops::flex::with_real;

#[backend_extension(Cube, Flex)]
pub(super) trait AdamWBackend: Backend {
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: Step,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl AdamWBackend for Flex {
    /// In place where nobody else holds a tensor.
    fn adamw(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        step: Step,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [mut parameter, gradient, mut first, mut second] =
            [parameter, gradient, first, second].map(|t| t.to_contiguous());
        with_real!(gradient, T => {
            cpu::step::<T>(
                parameter.storage_mut(),
                gradient.storage(),
                [first.storage_mut(), second.storage_mut()],
                step,
            );
        });
        (parameter, first, second)
    }
}
