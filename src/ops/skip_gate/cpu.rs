//! The gate on plain slices: chunks of rows in parallel, channels across vector lanes.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]

use multiversion::multiversion;
use rayon::prelude::*;

use super::CHUNK;
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// Channels computed together.
const LANES: usize = 16;

/// The inputs of a call, `[rows, channels]`, but for `skip`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// The output of the scan.
    pub y: &'a [T],
    /// Its input.
    pub u: &'a [T],
    /// `[channels]`.
    pub skip: &'a [T],
    /// The gate before its `SiLU`.
    pub z: &'a [T],
}

/// Where the gradients go: overwritten, shapes as the inputs of the same names.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// By `y`.
    pub d_y: &'a mut [T],
    /// By `u`.
    pub d_u: &'a mut [T],
    /// By `skip`.
    pub d_skip: &'a mut [T],
    /// By `z`.
    pub d_z: &'a mut [T],
}

impl<T: Real> Inputs<'_, T> {
    /// A chunk of rows.
    fn chunk(&self, index: usize) -> Self {
        let len = CHUNK * self.skip.len();
        let of = |all: &'_ [T]| index * len..all.len().min((index + 1) * len);
        Self {
            y: &self.y[of(self.y)],
            u: &self.u[of(self.u)],
            skip: self.skip,
            z: &self.z[of(self.z)],
        }
    }
}

/// `out` `[rows, channels]`.
pub fn forward<T: Real>(inputs: &Inputs<'_, T>, out: &mut [T]) {
    out.par_chunks_mut(CHUNK * inputs.skip.len())
        .enumerate()
        .for_each(|(index, out)| forward_rows(&inputs.chunk(index), out));
}

/// The gradients for the cotangent `d_out` `[rows, channels]`.
pub fn backward<T: Real>(inputs: &Inputs<'_, T>, d_out: &[T], gradients: Gradients<'_, T>) {
    let Gradients {
        d_y,
        d_u,
        d_skip,
        d_z,
    } = gradients;
    let channels = inputs.skip.len();
    let chunk = CHUNK * channels;
    let mut parts = vec![T::zero(); d_out.len().div_ceil(chunk) * channels];
    (d_y.par_chunks_mut(chunk))
        .zip(d_u.par_chunks_mut(chunk))
        .zip(d_z.par_chunks_mut(chunk))
        .zip(parts.par_chunks_mut(channels))
        .zip(d_out.par_chunks(chunk))
        .enumerate()
        .for_each(|(index, ((((d_y, d_u), d_z), d_skip), d_out))| {
            let into = Gradients {
                d_y,
                d_u,
                d_skip,
                d_z,
            };
            backward_rows(&inputs.chunk(index), d_out, into);
        });
    sum_rows(&mut parts, channels);
    d_skip.copy_from_slice(&parts[..channels]);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn forward_rows<T: Real>(inputs: &Inputs<'_, T>, out: &mut [T]) {
    let channels = inputs.skip.len();
    for (row, out) in out.chunks_exact_mut(channels).enumerate() {
        let [y, u, z] =
            [inputs.y, inputs.u, inputs.z].map(|all| &all[row * channels..][..channels]);
        let columns = y.iter().zip(u).zip(z).zip(inputs.skip);
        for (out, (((&y, &u), &z), &skip)) in out.iter_mut().zip(columns) {
            *out = (y + skip * u) * (z * sigmoid(z));
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn backward_rows<T: Real>(inputs: &Inputs<'_, T>, d_out: &[T], mut into: Gradients<'_, T>) {
    let channels = inputs.skip.len();
    let in_lanes = channels - channels % LANES;
    for row in (0..d_out.len()).step_by(channels) {
        for channel in (0..in_lanes).step_by(LANES) {
            backward_lanes::<T, LANES>(inputs, d_out, row, channel, &mut into);
        }
        for channel in in_lanes..channels {
            backward_lanes::<T, 1>(inputs, d_out, row, channel, &mut into);
        }
    }
}

/// `V` neighbouring channels of the row that starts at `row`. Whatever is read is read before anything is written,
/// without which the compiler would have to rule out that slices overlap.
#[inline(always)]
fn backward_lanes<T: Real, const V: usize>(
    inputs: &Inputs<'_, T>,
    d_out: &[T],
    row: usize,
    channel: usize,
    into: &mut Gradients<'_, T>,
) {
    let here = row + channel;
    let y: [T; V] = lanes(inputs.y, here);
    let u: [T; V] = lanes(inputs.u, here);
    let z: [T; V] = lanes(inputs.z, here);
    let d: [T; V] = lanes(d_out, here);
    let skip: [T; V] = lanes(inputs.skip, channel);
    let mut d_skip: [T; V] = lanes(into.d_skip, channel);
    let (mut d_y, mut d_u, mut d_z) = ([T::zero(); V], [T::zero(); V], [T::zero(); V]);
    for i in 0..V {
        let s = sigmoid(z[i]);
        d_y[i] = d[i] * (z[i] * s);
        d_u[i] = d_y[i] * skip[i];
        d_skip[i] = d_skip[i] + d_y[i] * u[i];
        d_z[i] = d[i] * (y[i] + skip[i] * u[i]) * (s * (T::one() + z[i] * (T::one() - s)));
    }
    into.d_y[here..here + V].copy_from_slice(&d_y);
    into.d_u[here..here + V].copy_from_slice(&d_u);
    into.d_z[here..here + V].copy_from_slice(&d_z);
    into.d_skip[channel..channel + V].copy_from_slice(&d_skip);
}

#[inline(always)]
fn lanes<T: Real, const V: usize>(values: &[T], first: usize) -> [T; V] {
    let mut lanes = [T::zero(); V];
    lanes.copy_from_slice(&values[first..first + V]);
    lanes
}

#[inline(always)]
fn sigmoid<T: Real>(v: T) -> T {
    T::one() / (T::one() + (-v).exp_lane())
}
