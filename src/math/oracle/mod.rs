//! The textbook formulas, sequential, without chunks or threads: the judge of every kernel.
//!
//! Used only by tests, `verify`, audits and the FLOPs check. It shares no code with the kernels or with
//! their CPU twins, so that a mistake there cannot hide here. Slices are row-major in the project's
//! layout `[batch, seq, channel]`.

pub mod causal_conv;
pub mod embedding;
pub mod linear_cross_entropy;
pub mod packed_matmul;
pub mod resolvent_diag;
pub mod resolvent_diag_bidirectional;
pub mod selective_scan;

use std::ops::{Add, Div, Mul, Neg, Sub};

/// The arithmetic the oracle needs: `f64`, or a number that counts its operations.
pub trait Number:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The number nearest to `x`.
    fn from_f64(x: f64) -> Self;
    /// e to the power of `self`.
    #[must_use]
    fn exp(self) -> Self;
    /// Natural logarithm.
    #[must_use]
    fn ln(self) -> Self;
}

impl Number for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn exp(self) -> Self {
        Self::exp(self)
    }
    fn ln(self) -> Self {
        Self::ln(self)
    }
}
