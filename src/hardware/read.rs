//! Reading values back from a device.
//!
//! wgpu failures travel silently with the tensors: a sync says `Ok`, and the error, or a panic on burn's
//! device thread, comes at the read. Everything that reads goes through here and gets a [`Result`].

use burn::tensor::{Element, Tensor, TensorData};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::units::Bytes;
use crate::{Error, Result};

/// All elements of a float tensor as `f32`, row-major.
///
/// # Errors
/// [`Error::Device`] when the device failed at this tensor or at anything it depends on,
/// [`Error::OutOfMemory`] when what it lacked was memory.
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

/// The error behind what a backend said. That memory ran out it says in words alone: cubecl's, in which a
/// size follows, or wgpu's.
fn failure(doing: &str, reason: String) -> Error {
    const WITH_SIZE: [&str; 2] = [
        "can't allocate buffer of size: ",
        "out of device memory allocating ",
    ];
    const WITHOUT: [&str; 2] = ["out-of-memory", "Not enough memory"];
    let size = WITH_SIZE.iter().find_map(|words| {
        let (_, after) = reason.split_once(words)?;
        let end = after.find(|c: char| !c.is_ascii_digit());
        after[..end.unwrap_or(after.len())].parse().ok()
    });
    let doing = doing.to_owned();
    if size.is_some() || WITHOUT.iter().any(|words| reason.contains(words)) {
        Error::OutOfMemory {
            doing,
            requested: size.map(Bytes),
            limit: None,
        }
    } else {
        Error::Device { doing, reason }
    }
}

fn read<E: Element>(
    doing: &str,
    data: impl FnOnce() -> Result<TensorData, String>,
) -> Result<Vec<E>> {
    guarded(doing, || {
        data()?
            .convert::<E>()
            .try_into_vec::<E>()
            .map_err(|e| format!("{e:?}"))
    })
}

/// The result of something in burn that reads from a device, such as writing a module to memory.
///
/// # Errors
/// [`Error::Device`] when `f` says so or panics.
pub fn guarded<T>(doing: &str, f: impl FnOnce() -> Result<T, String>) -> Result<T> {
    let failed = |reason| failure(doing, reason);
    // burn re-raises a panic of its device thread here; the device answers again afterwards.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => value.map_err(failed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures_with_the_size_where_it_is_known() {
        let requested = |reason: &str| match failure("reading", reason.to_owned()) {
            Error::OutOfMemory { requested, .. } => Some(requested),
            _ => None,
        };
        let sizes = [
            "Generic(\"can't allocate buffer of size: 134221824\\nbacktrace\")",
            "out of device memory allocating 4096 bytes",
        ];
        assert_eq!(
            sizes.map(requested),
            [Some(Some(Bytes(134_221_824))), Some(Some(Bytes(4096)))]
        );
        assert_eq!(requested("Not enough memory left."), Some(None));
        assert_eq!(requested("device lost"), None);
    }
}
