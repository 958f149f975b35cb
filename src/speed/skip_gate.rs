//! The skip connection and the gate behind Mamba's scan.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::skip_gate::{Inputs, gated};
use crate::results::FlopsPass;

/// Rows and channels: a batch of 8 x 512 tokens of Mamba at `d_model` 256.
const SIZES: [usize; 2] = [4096, 512];

fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// `(y + skip u) silu(z)`, of `[y, u, z]`.
pub fn plain_forward([y, u, z]: [&[f32]; 3], skip: &[f32], out: &mut [f32]) {
    for i in 0..out.len() {
        let silu = z[i] * sigmoid(z[i]);
        out[i] = (y[i] + skip[i % skip.len()] * u[i]) * silu;
    }
}

/// Gradients of `[y, u, z]` and of `skip`.
pub fn plain_backward(
    [y, u, z]: [&[f32]; 3],
    skip: &[f32],
    d_out: &[f32],
    [d_y, d_u, d_z]: [&mut [f32]; 3],
    d_skip: &mut [f32],
) {
    d_skip.fill(0.0);
    for i in 0..d_out.len() {
        let (c, s) = (i % skip.len(), sigmoid(z[i]));
        d_y[i] = d_out[i] * z[i] * s;
        d_u[i] = d_y[i] * skip[c];
        d_skip[c] += d_y[i] * u[i];
        d_z[i] = d_out[i] * (y[i] + skip[c] * u[i]) * s * (1.0 + z[i] * (1.0 - s));
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let [rows, channels] = SIZES;
    let n = rows * channels;
    let inputs = [0, 1, 2].map(|row| draw(row, n, -1.0, 1.0));
    let (d_out, skip) = (draw(3, n, -1.0, 1.0), draw(4, channels, -1.0, 1.0));
    let mut out = vec![0.0; n];
    let mut d = [0; 3].map(|_| vec![0.0; n]);
    let mut d_skip = vec![0.0; channels];

    let kernel = |pass, per_element: usize| Kernel {
        operation: "skip_gate",
        pass,
        with_forward: false,
        sizes: &[("rows", SIZES[0]), ("channels", SIZES[1])],
        floats: per_element * n,
    };
    let slices = || inputs.each_ref().map(Vec::as_slice);
    let [y, u, z] = slices().map(|values| bench.tensor(values, SIZES));
    let skip_there = bench.tensor(&skip, [channels]);
    let there = Inputs {
        y,
        u,
        skip: skip_there,
        z,
    };
    bench.forward(
        &kernel(FlopsPass::Forward, 4),
        || plain_forward(slices(), &skip, black_box(&mut out)),
        || Ok(there.clone()),
        gated,
    )?;
    let [y, u, z] = slices().map(|values| bench.leaf(values, SIZES));
    let skip_leaf = bench.leaf(&skip, [channels]);
    let leaves = Inputs {
        y,
        u,
        skip: skip_leaf,
        z,
    };
    let d_out_there = bench.leaf(&d_out, SIZES).detach();
    bench.backward(
        &kernel(FlopsPass::Backward, 7),
        || {
            let into = d.each_mut().map(Vec::as_mut_slice);
            plain_backward(slices(), &skip, &d_out, black_box(into), &mut d_skip);
        },
        || gated(leaves.clone()),
        &d_out_there,
    )
}
