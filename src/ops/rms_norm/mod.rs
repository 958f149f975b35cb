//! Rows over their root mean square, times a weight (Zhang & Sennrich 2019, arXiv:1910.07467), in one pass over
//! memory. Derivation and measured errors: `docs/rms_norm.md`.
//!
//! ```text
//! y[r, i] = gamma[i] * x[r, i] / sqrt(mean_i(x[r, i]^2) + 1e-5)
//! ```
//!
//! Tensors are `f32` on every device, or `f64` on the CPU.

mod autodiff;
mod cost;
pub mod cpu;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::{Error, Result};
use autodiff::RmsNormBackend;

const OP: &str = "rms_norm";

/// Added to the mean square.
const EPSILON: f64 = 1e-5;

/// Rows that one task handles, and whose gradients of gamma are summed first.
const CHUNK: usize = 32;

/// `x` `[rows, width]` normalised, times `gamma` `[width]`; with exact gradients for both.
///
/// # Errors
/// [`Error::Shape`] when `x` is empty or `gamma` has another width.
pub fn normalise(x: Tensor<2>, gamma: Tensor<1>) -> Result<Tensor<2>> {
    let shape = |arg, expected: String, got| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected,
            got,
        })
    };
    let [rows, width] = x.dims();
    if rows * width == 0 {
        let expected = "[rows, width], none of them 0".to_owned();
        return shape("x", expected, vec![rows, width]);
    }
    if gamma.dims() != [width] {
        return shape("gamma", format!("[{width}]"), gamma.dims().to_vec());
    }
    let sizes = cost::Sizes::new(&x);
    let y = Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), gamma.into_dispatch()));
    Ok(sizes.register(y))
}
