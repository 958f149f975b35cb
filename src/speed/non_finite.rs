//! Counting values that are not finite.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::non_finite::parts;
use crate::results::FlopsPass;

const N: usize = 1 << 22;

/// How many values are infinite or no number.
pub fn plain(x: &[f32]) -> usize {
    x.iter().filter(|x| !x.is_finite()).count()
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let x = draw(0, N, -1.0, 1.0);
    let kernel = Kernel {
        operation: "non_finite",
        pass: FlopsPass::Forward,
        with_forward: false,
        sizes: &[("values", N)],
        floats: N,
    };
    let there = bench.tensor(&x, [N]);
    bench.forward(
        &kernel,
        || {
            black_box(plain(black_box(&x)));
        },
        || Ok(there.clone()),
        |x| Ok(parts(x)),
    )
}
