//! The sum of the squares of a gradient.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::squared_norm::squared_norm;
use crate::results::FlopsPass;

/// Elements.
const N: usize = 1 << 22;

/// The sum of the squares, in one number.
pub fn plain(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let x = draw(0, N, -1.0, 1.0);
    let kernel = Kernel {
        operation: "squared_norm",
        pass: FlopsPass::Update,
        with_forward: false,
        sizes: &[("elements", N)],
        floats: N,
    };
    let there = bench.tensor(&x, [N]);
    bench.forward(
        &kernel,
        || {
            black_box(plain(black_box(&x)));
        },
        || Ok(there.clone()),
        |x| Ok(squared_norm(x)),
    )
}
