//! The bidirectional resolvent diagonal at coupling 1 and z = i, with its exact and with its published gradient.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::resolvent_diag::Coupling;
use crate::ops::resolvent_diag::bidirectional::{Gradient, diagonal};
use crate::results::FlopsPass;

const OPERATION: &str = "resolvent_diag_bidirectional";
/// Rows of the one matrix.
const SEQ: usize = 1 << 20;

/// A complex number.
pub type Complex = [f32; 2];

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// `1 / (re - i im)`.
fn inverse(re: f32, im: f32) -> Complex {
    let inverse = 1.0 / (re * re + im * im);
    [re * inverse, im * inverse]
}

/// g, r and G of one matrix.
pub fn plain_forward(diag: &[f32], [g, r, full]: [&mut [Complex]; 3]) {
    let mut state = [0.0; 2];
    for (diag, g) in diag.iter().zip(&mut *g) {
        state = inverse(diag - state[0], 1.0 + state[1]);
        *g = state;
    }
    state = [0.0; 2];
    for (diag, r) in diag.iter().zip(&mut *r).rev() {
        state = inverse(diag - state[0], 1.0 + state[1]);
        *r = state;
    }
    for (i, full) in full.iter_mut().enumerate() {
        let before = if i > 0 { g[i - 1] } else { [0.0; 2] };
        let after = r.get(i + 1).copied().unwrap_or_default();
        *full = inverse(diag[i] - before[0] - after[0], 1.0 + before[1] + after[1]);
    }
}

/// Gradient of the diagonal; returns that of the shift.
pub fn plain_backward(
    diag: &[f32],
    d_full: &[f32],
    [g, r, full]: [&mut [Complex]; 3],
    d_diag: &mut [f32],
) -> Complex {
    plain_forward(diag, [&mut *g, &mut *r, &mut *full]);
    let (mut lambda, mut d_shift) = ([0.0; 2], [0.0; 2]);
    for i in (0..diag.len()).rev() {
        let w = [d_full[2 * i], -d_full[2 * i + 1]];
        let rho = times(w, times(full[i], full[i]));
        let beyond = times(lambda, times(g[i], g[i]));
        lambda = [rho[0] + beyond[0], rho[1] + beyond[1]];
        full[i] = rho;
        d_diag[i] = -lambda[0];
        d_shift = [d_shift[0] + lambda[0], d_shift[1] - lambda[1]];
    }
    lambda = [0.0; 2];
    for i in 0..diag.len() {
        let beyond = times(lambda, times(r[i], r[i]));
        lambda = [full[i][0] + beyond[0], full[i][1] + beyond[1]];
        d_diag[i] -= beyond[0];
        d_shift = [d_shift[0] + beyond[0], d_shift[1] - beyond[1]];
    }
    d_shift
}

/// What the published code returns as the gradient of the diagonal, row by row.
pub fn plain_published(full: &[f32], d_full: &[f32], d_diag: &mut [f32]) {
    let rows = full.chunks_exact(2).zip(d_full.chunks_exact(2));
    for ((g, w), d_diag) in rows.zip(d_diag) {
        let square = times([g[0], g[1]], [g[0], g[1]]);
        let size = g[0] * g[0] + g[1] * g[1];
        let stretch = if size < 1e-3 {
            1e-3 / (size + 1e-9)
        } else {
            1.0
        };
        let d = [stretch * square[0] + 1e-6, stretch * square[1]];
        let by_square = w[0] * square[0] - w[1] * square[1];
        let over_d = (w[0] * d[0] + w[1] * d[1]) / (d[0] * d[0] + d[1] * d[1]);
        *d_diag = (-0.5 * (by_square + over_d)).clamp(-1e3, 1e3);
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let diag = draw(0, SEQ, -5.0, 5.0);
    let d_full = draw(1, 2 * SEQ, -1.0, 1.0);
    let mut scratch = [0; 3].map(|_| vec![[0.0; 2]; SEQ]);
    let mut d_diag = vec![0.0; SEQ];
    plain_forward(&diag, scratch.each_mut().map(Vec::as_mut_slice));
    let saved = scratch[2].concat();

    let kernel = |operation, pass, floats| Kernel {
        operation,
        pass,
        with_forward: false,
        sizes: &[("batch", 1), ("seq", SEQ), ("heads", 1)],
        floats,
    };
    let shape = [1, SEQ, 1];
    let there = (
        bench.tensor(&diag, shape),
        bench.tensor(&[0.0, 1.0], [2, 1]),
    );
    bench.forward(
        &kernel(OPERATION, FlopsPass::Forward, 3 * SEQ),
        || plain_forward(&diag, black_box(scratch.each_mut().map(Vec::as_mut_slice))),
        || Ok(there.clone()),
        |(diag, shift)| diagonal(diag, Coupling::Constant(1.0), shift, 1.0, Gradient::Exact),
    )?;
    let leaves = (bench.leaf(&diag, shape), bench.leaf(&[0.0, 1.0], [2, 1]));
    let graph = |gradient| {
        let (diag, shift) = leaves.clone();
        diagonal(diag, Coupling::Constant(1.0), shift, 1.0, gradient)
    };
    let d_full_there = bench.leaf(&d_full, [1, SEQ, 2]).detach();
    bench.backward(
        &kernel(OPERATION, FlopsPass::Backward, 6 * SEQ),
        || {
            let scratch = scratch.each_mut().map(Vec::as_mut_slice);
            black_box(plain_backward(&diag, &d_full, scratch, &mut d_diag));
        },
        || graph(Gradient::Exact),
        &d_full_there,
    )?;
    let published = "resolvent_diag_bidirectional_published";
    bench.backward(
        &kernel(published, FlopsPass::Backward, 5 * SEQ),
        || plain_published(&saved, &d_full, black_box(&mut d_diag)),
        || graph(Gradient::Published),
        &d_full_there,
    )
}
