//! Counting values that are infinite or no number, by their bits: compilers may assume that floats are
//! finite, and comparisons with NaN are what they then optimise away.

mod autodiff;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::hardware::read;
use crate::{Error, Result};
use autodiff::NonFiniteBackend;

/// Values that one part counts.
const STRIDE: u32 = 64;

/// How many of `x` are infinite or no number. Waits for the device. `f32` on every device, or `f64` on the CPU.
///
/// # Errors
/// [`Error::Shape`] when `x` is empty, [`Error::Device`] for a device that fails.
pub fn count(x: Tensor<1>) -> Result<u64> {
    let [n] = x.dims();
    if n == 0 {
        return Err(Error::Shape {
            op: "non_finite",
            arg: "x",
            expected: "[at least one]".into(),
            got: vec![0],
        });
    }
    // A part counts few values, which a float holds exactly; their sum is taken here.
    let parts = read::floats(parts(x), "counting values that are not finite")?;
    Ok(parts.into_iter().map(|n| n as u64).sum())
}

/// The counts of parts of `x`, which is not empty, on its device.
pub(crate) fn parts(x: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::non_finite(x.inner().into_dispatch()))
}
