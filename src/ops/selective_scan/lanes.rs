//! The arithmetic of the CPU path: a group of channels at a time.

#![expect(
    clippy::inline_always,
    reason = "the vector target features reach inlined code only"
)]

use crate::ops::flex::Real;

/// Channels that advance together: one AVX-512 register of `f32`.
pub(super) const LANES: usize = 16;
/// One value per channel of a group, aligned so that no access straddles two cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes<T>(pub(super) [T; LANES]);

/// The functions of one float type that decide speed and accuracy.
pub trait Scalar: Real {
    /// What `a` is multiplied by before [`Scalar::decay`]: log2 of its base.
    const LOG_BASE: Self;
    /// 1 / `LOG_BASE`.
    const INV_LOG_BASE: Self;
    /// base^y for y <= 0; 0 where that underflows.
    fn decay(y: Self) -> Self;
    /// ln(1 + e^x) with a small relative error for every x.
    fn softplus(x: Self) -> Self;
    /// 1 / (1 + e^-x), the derivative of softplus.
    fn sigmoid(x: Self) -> Self;
}

impl Scalar for f32 {
    const LOG_BASE: Self = std::f32::consts::LOG2_E;
    const INV_LOG_BASE: Self = std::f32::consts::LN_2;

    /// 2^y: split into an integer and a rest in [-1/2, 1/2], the rest by a minimax polynomial that is
    /// exact at 0 (relative error 2.0e-9 before rounding).
    #[inline(always)]
    fn decay(y: Self) -> Self {
        // 1.5 * 2^23 rounds to an integer; the bias of the exponent rides along.
        const ROUND: f32 = 12_582_912.0 + 127.0;
        let y = if y < -127.0 { -127.0 } else { y };
        let shifted = y + ROUND;
        let rest = y - (shifted - ROUND);
        let mut p = 1.535_342_6e-4_f32;
        p = p.mul_add(rest, 1.339_889_6e-3);
        p = p.mul_add(rest, 9.618_437e-3);
        p = p.mul_add(rest, 5.550_332_4e-2);
        p = p.mul_add(rest, 2.402_264_8e-1);
        p = p.mul_add(rest, 6.931_472e-1);
        p = p.mul_add(rest, 1.0);
        p * Self::from_bits(shifted.to_bits() << 23)
    }

    /// max(x, 0) + 2 atanh(w / (2 + w)) with w = e^-|x|, atanh(s) = s p(s^2) (relative error 4.0e-9
    /// before rounding).
    #[inline(always)]
    fn softplus(x: Self) -> Self {
        let w = Self::decay(-x.abs() * Self::LOG_BASE);
        let s = w / (2.0 + w);
        let t = s * s;
        let mut p = 1.408_916_8e-1_f32;
        p = p.mul_add(t, 1.398_03e-1);
        p = p.mul_add(t, 2.001_245_5e-1);
        p = p.mul_add(t, 3.333_315_7e-1);
        p = p.mul_add(t, 1.0);
        let positive = if x < 0.0 { 0.0 } else { x };
        (2.0 * s).mul_add(p, positive)
    }

    #[inline(always)]
    fn sigmoid(x: Self) -> Self {
        let w = Self::decay(-x.abs() * Self::LOG_BASE);
        let numerator = if x < 0.0 { w } else { 1.0 };
        numerator / (1.0 + w)
    }
}

impl Scalar for f64 {
    const LOG_BASE: Self = 1.0;
    const INV_LOG_BASE: Self = 1.0;

    #[inline(always)]
    fn decay(y: Self) -> Self {
        y.exp()
    }

    #[inline(always)]
    fn softplus(x: Self) -> Self {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }

    #[inline(always)]
    fn sigmoid(x: Self) -> Self {
        let w = (-x.abs()).exp();
        if x < 0.0 {
            w / (1.0 + w)
        } else {
            1.0 / (1.0 + w)
        }
    }
}

/// One value per lane. A plain loop: `array::map` and `from_fn` keep the vector features out.
#[inline(always)]
pub(super) fn lanes<T: Scalar>(f: impl Fn(usize) -> T) -> Lanes<T> {
    let mut out = Lanes::zero();
    for (i, out) in out.0.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

impl<T: Scalar> Lanes<T> {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self([T::zero(); LANES])
    }

    #[inline(always)]
    pub(super) fn add(self, other: Self) -> Self {
        lanes(|i| self.0[i] + other.0[i])
    }

    #[inline(always)]
    pub(super) fn mul(self, other: Self) -> Self {
        lanes(|i| self.0[i] * other.0[i])
    }

    #[inline(always)]
    pub(super) fn scale(self, factor: T) -> Self {
        lanes(|i| self.0[i] * factor)
    }

    /// `self` + x * y.
    #[inline(always)]
    pub(super) fn plus(self, x: Self, y: Self) -> Self {
        lanes(|i| x.0[i].mul_add(y.0[i], self.0[i]))
    }

    /// `self` + x * y with one y for all lanes.
    #[inline(always)]
    pub(super) fn plus_scaled(self, x: Self, y: T) -> Self {
        lanes(|i| x.0[i].mul_add(y, self.0[i]))
    }

    /// [`Scalar::decay`] of `self` * a.
    #[inline(always)]
    pub(super) fn decay(self, a: Self) -> Self {
        lanes(|i| T::decay(self.0[i] * a.0[i]))
    }

    /// Sum of the lanes, pairwise.
    #[inline(always)]
    pub(super) fn sum(mut self) -> T {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                self.0[i] = self.0[i] + self.0[i + half];
            }
            half /= 2;
        }
        self.0[0]
    }
}
