//! Tensors of burn's CPU backend as plain slices, without copies.

#![allow(
    clippy::inline_always,
    reason = "exp_lane must be compiled for the vector level of the function that calls it"
)]

use burn::tensor::{Element, Shape, TensorData};
use burn_flex::FlexTensor;

/// A float the CPU kernels are generic over.
pub trait Real: num_traits::Float + Element + bytemuck::Pod + Send + Sync + std::iter::Sum {
    /// Bits of the significand.
    const BITS: u32;

    /// `value`, exactly, in a form that vectorises.
    fn from_f32(value: f32) -> Self;

    /// e to the power of `self`, in a form that vectorises. `f32`: within 2 ulp on [-87, 88], constant
    /// outside. NaN stays NaN.
    fn exp_lane(self) -> Self;
}

impl Real for f32 {
    const BITS: u32 = Self::MANTISSA_DIGITS;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    // No fused multiply-add: every x86 level then gives the same bits.
    #[inline(always)]
    fn exp_lane(self) -> Self {
        const LN2_HIGH: f32 = 355.0 / 512.0; // 9 bits: exact when multiplied by an exponent
        const LN2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: leaves the nearest integer in the low bits
        // Comparisons rather than min and max, which would drop a NaN.
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        // Taylor series; the first term left out is below 6e-9 at |r| = ln(2) / 2.
        let mut p = 1.0 / 5040.0;
        p = p * r + 1.0 / 720.0;
        p = p * r + 1.0 / 120.0;
        p = p * r + 1.0 / 24.0;
        p = p * r + 1.0 / 6.0;
        p = p * r + 0.5;
        p = p * r + 1.0;
        p = p * r + 1.0;
        p * Self::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
    }
}

impl Real for f64 {
    const BITS: u32 = Self::MANTISSA_DIGITS;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.into()
    }

    #[inline(always)]
    fn exp_lane(self) -> Self {
        self.exp()
    }
}

/// An output of `shape`, to be written. `FlexTensor::empty` allocates bytes, which have too small an alignment to be
/// kept: it copies them. This takes memory as the system hands it out.
pub(crate) fn output<T: Real>(shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    FlexTensor::from_data(TensorData::new(
        vec![T::zero(); shape.num_elements()],
        shape,
    ))
}

/// An output of `shape`, filled by `write`.
pub(crate) fn filled<T: Real>(shape: impl Into<Shape>, write: impl FnOnce(&mut [T])) -> FlexTensor {
    let mut tensor = output::<T>(shape);
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

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn exp_lane_is_within_two_ulp() {
        let mut worst = 0.0_f64;
        for i in 0..=1_750_000 {
            let x = -87.0 + i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
            worst = worst.max((f64::from(x.exp_lane()) - exact).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn exp_lane_keeps_nan_and_saturates() {
        assert!(f32::NAN.exp_lane().is_nan());
        let bits = |x: f32| x.exp_lane().to_bits();
        assert_eq!(bits(f32::NEG_INFINITY), bits(-87.0));
        assert_eq!(bits(f32::INFINITY), bits(88.0));
    }
}
