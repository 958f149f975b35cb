//! The sum on plain slices: chunks of elements in parallel, elements across vector lanes.

use multiversion::multiversion;
use rayon::prelude::*;

use super::CHUNK;
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

const LANES: usize = 16;

/// The sum of the squares of `x`.
pub fn squared_norm<T: Real>(x: &[T]) -> T {
    let mut parts: Vec<T> = x.par_chunks(CHUNK).map(chunk_sum).collect();
    sum_rows(&mut parts, 1);
    parts.first().copied().unwrap_or(T::zero())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn chunk_sum<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + x * x;
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = *lane + x * x;
    }
    lanes.into_iter().sum()
}
