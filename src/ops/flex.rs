//! Tensors of burn's CPU backend as plain slices, without copies.

use burn::tensor::{DType, Element, Shape};
use burn_flex::FlexTensor;

/// A float the CPU kernels are generic over.
pub trait Real: num_traits::Float + Element + bytemuck::Pod + Send + Sync + std::iter::Sum {
    /// burn's name of the type.
    const DTYPE: DType;
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;
}

/// An output of `shape`, filled by `write`.
pub(crate) fn filled<T: Real>(shape: impl Into<Shape>, write: impl FnOnce(&mut [T])) -> FlexTensor {
    let mut tensor = FlexTensor::empty(shape.into(), T::DTYPE);
    write(tensor.storage_mut::<T>());
    tensor
}

/// Calls `$body` with `$t` standing for `f32` or `f64`, whichever `$tensor` holds.
macro_rules! with_real {
    ($tensor:expr, $t:ident => $body:expr) => {
        match $tensor.dtype() {
            burn::tensor::DType::F64 => {
                type $t = f64;
                $body
            }
            _ => {
                type $t = f32;
                $body
            }
        }
    };
}
pub(crate) use with_real;
