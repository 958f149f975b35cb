//! Reading values back from a device.
//!
//! wgpu failures travel silently with the tensors: a sync says `Ok`, and the error, or a panic on burn's
//! device thread, comes at the read. Everything that reads goes through here and gets a [`Result`].

use burn::tensor::{Element, Int, Tensor, TensorData};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Error, Result};

/// All elements of a float tensor as `f32`, row-major.
///
/// # Errors
/// [`Error::Device`] when the device failed at this tensor or at anything it depends on.
pub fn floats<const D: usize>(tensor: Tensor<D>, doing: &str) -> Result<Vec<f32>> {
    read(doing, || {
        tensor.try_into_data().map_err(|e| format!("{e:?}"))
    })
}

/// All elements of a float tensor as `f64`, row-major.
///
/// # Errors
/// As [`floats`].
pub fn doubles<const D: usize>(tensor: Tensor<D>, doing: &str) -> Result<Vec<f64>> {
    read(doing, || {
        tensor.try_into_data().map_err(|e| format!("{e:?}"))
    })
}

/// All elements of an integer tensor, row-major.
///
/// # Errors
/// As [`floats`].
pub fn ints<const D: usize>(tensor: Tensor<D, Int>, doing: &str) -> Result<Vec<i64>> {
    read(doing, || {
        tensor.try_into_data().map_err(|e| format!("{e:?}"))
    })
}

fn read<E: Element>(
    doing: &str,
    data: impl FnOnce() -> Result<TensorData, String>,
) -> Result<Vec<E>> {
    // burn re-raises a panic of its device thread here; the device answers again afterwards.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        data()?
            .convert::<E>()
            .try_into_vec::<E>()
            .map_err(|e| format!("{e:?}"))
    }));
    let failed = |reason| Error::Device {
        doing: doing.to_owned(),
        reason,
    };
    match outcome {
        Ok(values) => values.map_err(failed),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(failed(
                text.unwrap_or_else(|| "the device thread panicked".to_owned()),
            ))
        }
    }
}
