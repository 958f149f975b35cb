//! Rows over their root mean square, times a weight.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::rms_norm::normalise;
use crate::results::FlopsPass;

/// Rows and width: a batch of 8 x 512 tokens, and a long segment of a narrow model.
const SIZES: [[usize; 2]; 2] = [[4096, 256], [4096, 64]];

/// One over the root mean square of a row.
fn inverse_root(x: &[f32]) -> f32 {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    1.0 / (squares / x.len() as f32 + 1e-5).sqrt()
}

/// The rows normalised, times `gamma`.
pub fn plain_forward(x: &[f32], gamma: &[f32], y: &mut [f32]) {
    let width = gamma.len();
    for (x, y) in x.chunks(width).zip(y.chunks_mut(width)) {
        let inverse = inverse_root(x);
        for ((y, x), gamma) in y.iter_mut().zip(x).zip(gamma) {
            *y = x * inverse * gamma;
        }
    }
}

/// Gradients of the rows and of `gamma`.
pub fn plain_backward(x: &[f32], gamma: &[f32], d_y: &[f32], d_x: &mut [f32], d_gamma: &mut [f32]) {
    d_gamma.fill(0.0);
    let width = gamma.len();
    let rows = x.chunks(width).zip(d_y.chunks(width));
    for ((x, d_y), d_x) in rows.zip(d_x.chunks_mut(width)) {
        let inverse = inverse_root(x);
        let mut projection = 0.0;
        for i in 0..width {
            d_gamma[i] += d_y[i] * x[i] * inverse;
            projection += d_y[i] * gamma[i] * x[i];
        }
        let along = projection * inverse * inverse / width as f32;
        for i in 0..width {
            d_x[i] = inverse * (d_y[i] * gamma[i] - along * x[i]);
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for [rows, width] in SIZES {
        let n = rows * width;
        let (x, d_y) = (draw(0, n, -1.0, 1.0), draw(1, n, -1.0, 1.0));
        let gamma = draw(2, width, 0.5, 1.5);
        let (mut y, mut d_gamma) = (vec![0.0; n], vec![0.0; width]);

        let sizes = [("rows", rows), ("width", width)];
        let kernel = |pass, per_element: usize| Kernel {
            operation: "rms_norm",
            pass,
            with_forward: false,
            sizes: &sizes,
            floats: per_element * n,
        };
        let there = (
            bench.tensor(&x, [rows, width]),
            bench.tensor(&gamma, [width]),
        );
        bench.forward(
            &kernel(FlopsPass::Forward, 2),
            || plain_forward(&x, &gamma, black_box(&mut y)),
            || Ok(there.clone()),
            |(x, gamma)| normalise(x, gamma),
        )?;
        let leaves = (bench.leaf(&x, [rows, width]), bench.leaf(&gamma, [width]));
        let d_y_there = bench.leaf(&d_y, [rows, width]).detach();
        bench.backward(
            &kernel(FlopsPass::Backward, 3),
            || plain_backward(&x, &gamma, &d_y, black_box(&mut y), &mut d_gamma),
            || normalise(leaves.0.clone(), leaves.1.clone()),
            &d_y_there,
        )?;
    }
    Ok(())
}
