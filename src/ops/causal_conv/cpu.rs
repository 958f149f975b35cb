//! The convolution on plain slices: chunks of time steps in parallel, channels across vector lanes.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]

use multiversion::multiversion;
use rayon::prelude::*;

use super::{Activation, CHUNK};
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// The inputs of a call, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// Time steps of a sequence.
    pub seq_len: usize,
    /// Channels.
    pub channels: usize,
    /// Taps.
    pub d_conv: usize,
    /// Applied to the sum of the taps.
    pub activation: Activation,
    /// `[batch, seq_len, channels]`.
    pub x: &'a [T],
    /// `[channels, d_conv]`.
    pub weight: &'a [T],
    /// `[channels]`.
    pub bias: &'a [T],
    /// `[batch, d_conv - 1, channels]`, the inputs before the first.
    pub x0: &'a [T],
}

/// Where the gradients go: overwritten, shapes as the inputs of the same names.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// By `x`.
    pub d_x: &'a mut [T],
    /// By `weight`.
    pub d_weight: &'a mut [T],
    /// By `bias`.
    pub d_bias: &'a mut [T],
    /// By `x0`.
    pub d_x0: &'a mut [T],
}

impl<'a, T: Real> Inputs<'a, T> {
    fn batch(&self) -> usize {
        self.x.len() / (self.seq_len * self.channels)
    }

    /// The weights as `[d_conv, channels]`: one contiguous row a tap.
    fn taps(&self) -> Vec<T> {
        transposed(self.weight, self.channels)
    }

    /// Time step `t` of the concatenation of `x0` and `x`.
    #[inline(always)]
    fn xs(&self, batch: usize, t: usize) -> &'a [T] {
        let n_state = self.d_conv - 1;
        if t < n_state {
            row(self.x0, batch * n_state + t, self.channels)
        } else {
            row(self.x, batch * self.seq_len + t - n_state, self.channels)
        }
    }

    /// `bias + sum_k weight[k] * xs[t + k]`.
    #[inline(always)]
    fn pre_activation(&self, taps: &[T], batch: usize, t: usize, pre: &mut [T]) {
        pre.copy_from_slice(self.bias);
        for (k, taps) in taps.chunks_exact(self.channels).enumerate() {
            add_product(pre, taps, self.xs(batch, t + k));
        }
    }

    /// `d_y[t] * activation'(pre[t])`.
    #[inline(always)]
    fn d_pre_activation(&self, taps: &[T], d_y: &[T], batch: usize, t: usize, d_pre: &mut [T]) {
        let d_y = row(d_y, batch * self.seq_len + t, self.channels);
        match self.activation {
            Activation::Identity => d_pre.copy_from_slice(d_y),
            Activation::Silu => {
                self.pre_activation(taps, batch, t, d_pre);
                for (d, &d_y) in d_pre.iter_mut().zip(d_y) {
                    let s = sigmoid(*d);
                    *d = d_y * s * (T::one() + *d * (T::one() - s));
                }
            }
        }
    }
}

/// `y` `[batch, seq_len, channels]`.
pub fn forward<T: Real>(inputs: &Inputs<'_, T>, y: &mut [T]) {
    let taps = inputs.taps();
    y.par_chunks_mut(inputs.seq_len * inputs.channels)
        .enumerate()
        .for_each(|(batch, y)| {
            y.par_chunks_mut(CHUNK * inputs.channels)
                .enumerate()
                .for_each(|(chunk, y)| forward_chunk(inputs, &taps, [batch, chunk * CHUNK], y));
        });
}

/// The gradients for the cotangents `d_y` `[batch, seq_len, channels]` and `d_x_last`
/// `[batch, d_conv - 1, channels]`.
pub fn backward<T: Real>(
    inputs: &Inputs<'_, T>,
    d_y: &[T],
    d_x_last: &[T],
    gradients: Gradients<'_, T>,
) {
    let Inputs {
        seq_len,
        channels,
        d_conv,
        ..
    } = *inputs;
    let Gradients {
        d_x,
        d_weight,
        d_bias,
        d_x0,
    } = gradients;
    let taps = inputs.taps();
    let part_len = (d_conv + 1) * channels;
    let mut parts = vec![T::zero(); inputs.batch() * seq_len.div_ceil(CHUNK) * part_len];
    (d_x.par_chunks_mut(seq_len * channels))
        .zip(parts.par_chunks_mut(seq_len.div_ceil(CHUNK) * part_len))
        .zip(d_x0.par_chunks_mut((d_conv - 1) * channels))
        .enumerate()
        .for_each(|(batch, ((d_x, parts), d_x0))| {
            backward_x0(inputs, &taps, d_y, d_x_last, batch, d_x0);
            (d_x.par_chunks_mut(CHUNK * channels))
                .zip(parts.par_chunks_mut(part_len))
                .enumerate()
                .for_each(|(chunk, (d_x, part))| {
                    let at = [batch, chunk * CHUNK];
                    backward_chunk(inputs, &taps, d_y, d_x_last, at, d_x, part);
                });
        });
    sum_rows(&mut parts, part_len);
    let (d_taps, d_bias_sum) = parts[..part_len].split_at(d_conv * channels);
    d_weight.copy_from_slice(&transposed(d_taps, d_conv));
    d_bias.copy_from_slice(d_bias_sum);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn forward_chunk<T: Real>(
    inputs: &Inputs<'_, T>,
    taps: &[T],
    [batch, first]: [usize; 2],
    y: &mut [T],
) {
    for (i, y) in y.chunks_exact_mut(inputs.channels).enumerate() {
        inputs.pre_activation(taps, batch, first + i, y);
        if inputs.activation == Activation::Silu {
            for y in y {
                *y = *y * sigmoid(*y);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn backward_chunk<T: Real>(
    inputs: &Inputs<'_, T>,
    taps: &[T],
    d_y: &[T],
    d_x_last: &[T],
    [batch, first]: [usize; 2],
    d_x: &mut [T],
    part: &mut [T],
) {
    let &Inputs {
        seq_len,
        channels,
        d_conv,
        ..
    } = inputs;
    let n_state = d_conv - 1;
    let end = first + d_x.len() / channels;
    // d_x[t] needs d_pre up to t + n_state: the chunk reads that far into the next one.
    let mut d_pre = vec![T::zero(); (end + n_state - first) * channels];
    for (i, d_pre) in d_pre
        .chunks_exact_mut(channels)
        .enumerate()
        .take(seq_len - first)
    {
        inputs.d_pre_activation(taps, d_y, batch, first + i, d_pre);
    }
    for (i, d_x) in d_x.chunks_exact_mut(channels).enumerate() {
        // The place of x[t] in the concatenation is t + n_state.
        let place = first + i + n_state;
        if place < seq_len {
            d_x.fill(T::zero());
        } else {
            d_x.copy_from_slice(row(d_x_last, batch * n_state + place - seq_len, channels));
        }
        for (k, taps) in taps.chunks_exact(channels).enumerate() {
            add_product(d_x, taps, row(&d_pre, i + n_state - k, channels));
        }
    }
    part.fill(T::zero());
    let (d_taps, d_bias) = part.split_at_mut(d_conv * channels);
    for (i, d_pre) in d_pre.chunks_exact(channels).enumerate().take(end - first) {
        for (k, d_tap) in d_taps.chunks_exact_mut(channels).enumerate() {
            add_product(d_tap, d_pre, inputs.xs(batch, first + i + k));
        }
        for (d_bias, &d) in d_bias.iter_mut().zip(d_pre) {
            *d_bias = *d_bias + d;
        }
    }
}

fn backward_x0<T: Real>(
    inputs: &Inputs<'_, T>,
    taps: &[T],
    d_y: &[T],
    d_x_last: &[T],
    batch: usize,
    d_x0: &mut [T],
) {
    let &Inputs {
        seq_len,
        channels,
        d_conv,
        ..
    } = inputs;
    let n_state = d_conv - 1;
    let mut d_pre = vec![T::zero(); n_state.min(seq_len) * channels];
    for (t, d_pre) in d_pre.chunks_exact_mut(channels).enumerate() {
        inputs.d_pre_activation(taps, d_y, batch, t, d_pre);
    }
    for (j, d_x0) in d_x0.chunks_exact_mut(channels).enumerate() {
        if j < seq_len {
            d_x0.fill(T::zero());
        } else {
            d_x0.copy_from_slice(row(d_x_last, batch * n_state + j - seq_len, channels));
        }
        for (t, d_pre) in d_pre.chunks_exact(channels).enumerate().take(j + 1) {
            add_product(d_x0, row(taps, j - t, channels), d_pre);
        }
    }
}

#[inline(always)]
fn sigmoid<T: Real>(v: T) -> T {
    T::one() / (T::one() + (-v).exp_lane())
}

/// `sum += a * b`, element by element.
#[inline(always)]
fn add_product<T: Real>(sum: &mut [T], a: &[T], b: &[T]) {
    for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
        *sum = *sum + a * b;
    }
}

#[inline(always)]
fn row<T>(matrix: &[T], index: usize, len: usize) -> &[T] {
    &matrix[index * len..][..len]
}

/// The transpose of a matrix of `rows` rows.
fn transposed<T: Copy>(matrix: &[T], rows: usize) -> Vec<T> {
    let cols = matrix.len() / rows;
    (0..cols)
        .flat_map(|c| (0..rows).map(move |r| matrix[r * cols + c]))
        .collect()
}
