//! What lies between Mamba's scan and its output projection (Gu & Dao 2023, arXiv:2312.00752, fig. 3), in one pass
//! over memory. Derivation and measured errors: `docs/skip_gate.md`.
//!
//! ```text
//! out[r, c] = (y[r, c] + skip[c] * u[r, c]) * silu(z[r, c])
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
use autodiff::SkipGateBackend;

const OP: &str = "skip_gate";

/// Rows that one invocation, or one task on the CPU, handles.
const CHUNK: usize = 32;

/// What is gated, `[rows, channels]`, but for the weight of the skip connection.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The output of the scan.
    pub y: Tensor<2>,
    /// Its input.
    pub u: Tensor<2>,
    /// `[channels]`, by which its input is added to its output.
    pub skip: Tensor<1>,
    /// The gate before its `SiLU`.
    pub z: Tensor<2>,
}

/// The gated sum, `[rows, channels]`, with exact gradients for all inputs.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit together or a size is 0.
pub fn gated(inputs: Inputs) -> Result<Tensor<2>> {
    let shape = |arg, expected: String, got: &[usize]| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected,
            got: got.to_vec(),
        })
    };
    let Inputs { y, u, skip, z } = inputs;
    let [rows, channels] = y.dims();
    if rows * channels == 0 {
        let expected = "[rows, channels], none of them 0".to_owned();
        return shape("y", expected, &y.dims());
    }
    for (arg, tensor) in [("u", &u), ("z", &z)] {
        if tensor.dims() != [rows, channels] {
            return shape(arg, format!("[{rows}, {channels}]"), &tensor.dims());
        }
    }
    if skip.dims() != [channels] {
        return shape("skip", format!("[{channels}]"), &skip.dims());
    }
    let out = Tensor::from_dispatch(Dispatch::skip_gate(
        y.into_dispatch(),
        u.into_dispatch(),
        skip.into_dispatch(),
        z.into_dispatch(),
    ));
    Ok(cost::register(out))
}
