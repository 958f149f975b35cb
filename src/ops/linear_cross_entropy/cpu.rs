//! Negative log-likelihood of rows of logits on plain slices: rows in parallel, words across vector lanes.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]

use burn::tensor::ElementConversion;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::ops::flex::Real;

const LANES: usize = 16;

/// Words summed before they join the row's total, so that the error does not grow with the vocabulary.
const BLOCK: usize = 64 * LANES;

/// Overwrites `nll` `[rows]` with the negative log-likelihood of `targets` `[rows]`, each below `vocab`. With a
/// scale, `logits` `[rows, vocab]` become `scale * (softmax - one_hot)`; without, they are used up.
pub fn row_nll<T: Real>(logits: &mut [T], targets: &[u32], scale: Option<f32>, nll: &mut [T]) {
    let scale = scale.map(ElementConversion::elem);
    let vocab = logits.len() / targets.len();
    logits
        .par_chunks_exact_mut(vocab)
        .zip(targets)
        .zip(nll)
        .for_each(|((row, &target), nll)| *nll = one_row(row, target as usize, scale));
}

/// `scale` times the sum of `nll`, added up in `f64`.
pub fn scaled_sum<T: Real>(nll: &[T], scale: f32) -> T {
    let sum: f64 = nll.iter().map(|nll| nll.elem::<f64>()).sum();
    (f64::from(scale) * sum).elem()
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn one_row<T: Real>(row: &mut [T], target: usize, scale: Option<T>) -> T {
    let largest = largest(row);
    let of_target = row[target] - largest;
    let mut sum = T::zero();
    for block in row.chunks_mut(BLOCK) {
        sum = sum + replace_by_exp(block, largest);
    }
    if let Some(scale) = scale {
        let factor = scale / sum;
        for v in row.iter_mut() {
            *v = *v * factor;
        }
        row[target] = row[target] - scale;
    }
    sum.ln() - of_target
}

#[inline(always)]
fn largest<T: Real>(row: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::neg_infinity(); LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(T::neg_infinity(), |a, &b| larger(a, b))
}

/// Replaces every element by exp(element - `largest`) and returns the sum.
#[inline(always)]
fn replace_by_exp<T: Real>(block: &mut [T], largest: T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (chunks, rest) = block.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *v = (*v - largest).exp_lane();
            *lane = *lane + *v;
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *v = (*v - largest).exp_lane();
        *lane = *lane + *v;
    }
    lanes.into_iter().sum()
}
