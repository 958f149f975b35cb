//! Arithmetic on sixteen lanes at once. Functions take and return arrays by value: LLVM keeps them in
//! vector registers.

use crate::ops::flex::Real;

/// Lanes of a strip, and steps of a tile.
pub(super) const LANES: usize = 16;
pub(super) type Lanes<T> = [T; LANES];

#[derive(Debug, Clone, Copy)]
pub(super) struct Complex<X> {
    pub(super) re: X,
    pub(super) im: X,
}

/// A float whose exponent can be taken off exactly.
pub trait Scale: Real {
    /// The power of two `s` with `1 <= s * self < 2`, for a positive normal number below the last binade.
    #[must_use]
    fn inverse_power_of_two(self) -> Self;
}

impl Scale for f32 {
    #[inline(always)]
    fn inverse_power_of_two(self) -> Self {
        Self::from_bits(0x7f00_0000_u32.saturating_sub(self.to_bits() & 0x7f80_0000))
    }
}

impl Scale for f64 {
    #[inline(always)]
    fn inverse_power_of_two(self) -> Self {
        let exponent = self.to_bits() & 0x7ff0_0000_0000_0000;
        Self::from_bits(0x7fe0_0000_0000_0000_u64.saturating_sub(exponent))
    }
}

#[inline(always)]
pub(super) fn map2<T: Real>(a: Lanes<T>, b: Lanes<T>, f: impl Fn(T, T) -> T) -> Lanes<T> {
    let mut out = a;
    for l in 0..LANES {
        out[l] = f(a[l], b[l]);
    }
    out
}

#[inline(always)]
pub(super) fn map3<T: Real>(
    a: Lanes<T>,
    b: Lanes<T>,
    c: Lanes<T>,
    f: impl Fn(T, T, T) -> T,
) -> Lanes<T> {
    let mut out = a;
    for l in 0..LANES {
        out[l] = f(a[l], b[l], c[l]);
    }
    out
}

/// `a b + c`, rounded once.
#[inline(always)]
pub(super) fn mul_add<T: Real>(a: Lanes<T>, b: Lanes<T>, c: Lanes<T>) -> Lanes<T> {
    map3(a, b, c, T::mul_add)
}

/// `c - a b`, rounded once.
#[inline(always)]
pub(super) fn sub_mul<T: Real>(a: Lanes<T>, b: Lanes<T>, c: Lanes<T>) -> Lanes<T> {
    map3(a, b, c, |a, b, c| (-a).mul_add(b, c))
}

#[inline(always)]
pub(super) fn mul<T: Real>(a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
    map2(a, b, |a, b| a * b)
}

#[inline(always)]
pub(super) fn complex_mul<T: Real>(
    a: Complex<Lanes<T>>,
    b: Complex<Lanes<T>>,
) -> Complex<Lanes<T>> {
    Complex {
        re: sub_mul(a.im, b.im, mul(a.re, b.re)),
        im: mul_add(a.re, b.im, mul(a.im, b.re)),
    }
}

#[inline(always)]
pub(super) fn complex_scale<T: Real>(s: Lanes<T>, a: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: mul(s, a.re),
        im: mul(s, a.im),
    }
}

#[inline(always)]
pub(super) fn complex_zero<T: Real>() -> Complex<Lanes<T>> {
    Complex {
        re: [T::zero(); LANES],
        im: [T::zero(); LANES],
    }
}
