//! The textbook formulas, sequential, without chunks or threads: the judge of every kernel.
//!
//! Used only by tests, `verify`, audits and the FLOPs check. It shares no code with the kernels or with
//! their CPU twins, so that a mistake there cannot hide here. Slices are row-major in the project's
//! layout `[batch, seq, channel]`.

pub mod attention;
pub mod causal_conv;
mod counting;
pub mod embedding;
pub mod layers;
pub mod linear_cross_entropy;
pub mod optimiser;
pub mod packed_matmul;
pub mod resolvent_diag;
pub mod resolvent_diag_bidirectional;
pub mod selective_scan;
pub mod skip_gate;

use std::ops::{Add, Div, Mul, Neg, Sub};

pub use counting::{Counting, operations};

/// The arithmetic the oracle needs: `f64`, or [`Counting`]. The number of operations must follow from the shapes
/// alone: a formula that takes a branch does the same arithmetic on both sides of it.
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
    /// ln(1 + `self`), exact near 0.
    #[must_use]
    fn ln_1p(self) -> Self;
    /// Square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// Absolute value.
    #[must_use]
    fn abs(self) -> Self;
    /// Angle between the first axis and the point (`other`, `self`), in (-pi, pi].
    #[must_use]
    fn atan2(self, other: Self) -> Self;
    /// The larger of the two.
    #[must_use]
    fn max(self, other: Self) -> Self;
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
    fn ln_1p(self) -> Self {
        Self::ln_1p(self)
    }
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }
    fn abs(self) -> Self {
        Self::abs(self)
    }
    fn atan2(self, other: Self) -> Self {
        Self::atan2(self, other)
    }
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

fn sigmoid<T: Number>(x: T) -> T {
    let one = T::from_f64(1.0);
    one / (one + (-x).exp())
}
