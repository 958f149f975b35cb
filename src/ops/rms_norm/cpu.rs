//! The normalisation on plain slices: chunks of rows in parallel, columns across vector lanes.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]

use burn::tensor::ElementConversion;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{CHUNK, EPSILON};
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// Running sums of a row, so that it vectorises.
pub(super) const LANES: usize = 16;

/// `y`, as `x` `[rows, width]`, for `gamma` `[width]`.
pub fn forward<T: Real>(x: &[T], gamma: &[T], y: &mut [T]) {
    let chunk = CHUNK * gamma.len();
    y.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(y, x)| forward_rows(x, gamma, y));
}

/// The gradients `d_x` and `d_gamma` for the cotangent `d_y`, as `x`; both are overwritten.
pub fn backward<T: Real>(x: &[T], gamma: &[T], d_y: &[T], d_x: &mut [T], d_gamma: &mut [T]) {
    let width = gamma.len();
    let chunk = CHUNK * width;
    let mut parts = vec![T::zero(); x.len().div_ceil(chunk) * width];
    (d_x.par_chunks_mut(chunk))
        .zip(parts.par_chunks_mut(width))
        .zip(x.par_chunks(chunk).zip(d_y.par_chunks(chunk)))
        .for_each(|((d_x, part), (x, d_y))| backward_rows(x, gamma, d_y, d_x, part));
    sum_rows(&mut parts, width);
    d_gamma.copy_from_slice(&parts[..width]);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn forward_rows<T: Real>(x: &[T], gamma: &[T], y: &mut [T]) {
    let width = gamma.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let inverse = inverse_root(x);
        for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
            *y = x * inverse * gamma;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn backward_rows<T: Real>(x: &[T], gamma: &[T], d_y: &[T], d_x: &mut [T], part: &mut [T]) {
    let width = gamma.len();
    let rows = x.chunks_exact(width).zip(d_y.chunks_exact(width));
    for ((x, d_y), d_x) in rows.zip(d_x.chunks_exact_mut(width)) {
        let inverse = inverse_root(x);
        for ((d, &d_y), &gamma) in d_x.iter_mut().zip(d_y).zip(gamma) {
            *d = d_y * gamma;
        }
        let mean = product_sum(d_x, x) * inverse / from_usize(width);
        let columns = x.iter().zip(d_y).zip(part.iter_mut());
        for (d, ((&x, &d_y), part)) in d_x.iter_mut().zip(columns) {
            let normalised = x * inverse;
            *d = (*d - normalised * mean) * inverse;
            *part = *part + d_y * normalised;
        }
    }
}

/// One over the root mean square of a row.
#[inline(always)]
fn inverse_root<T: Real>(x: &[T]) -> T {
    let mean = product_sum(x, x) / from_usize(x.len());
    (mean + EPSILON.elem()).sqrt().recip()
}

/// The sum of the products, lane by lane and then over the lanes.
#[inline(always)]
fn product_sum<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = *lane + a * b;
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = *lane + a * b;
    }
    lanes.into_iter().sum()
}

#[inline(always)]
fn from_usize<T: Real>(n: usize) -> T {
    T::from_f32(n as f32)
}
