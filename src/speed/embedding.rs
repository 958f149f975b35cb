//! Gathering rows of a matrix, and the sum of their gradients.

use std::hint::black_box;

use super::{Bench, Kernel, draw, indices};
use crate::Result;
use crate::ops::embedding::gather_rows;
use crate::results::FlopsPass;

const OPERATION: &str = "embedding";
const POSITIONS: usize = 8192;
const WIDTH: usize = 256;
/// Rows: bytes, and the words of GPT-2.
const ROWS: [usize; 2] = [256, 50_257];

/// Rows `ids` of `weight`, `width` values each.
pub fn plain_forward(weight: &[f32], ids: &[u32], width: usize, y: &mut [f32]) {
    for (y, &id) in y.chunks_mut(width).zip(ids) {
        y.copy_from_slice(&weight[id as usize * width..][..width]);
    }
}

/// For each row the sum over the positions that gathered it.
pub fn plain_backward(d_y: &[f32], ids: &[u32], width: usize, d_weight: &mut [f32]) {
    d_weight.fill(0.0);
    for (d_y, &id) in d_y.chunks(width).zip(ids) {
        let row = &mut d_weight[id as usize * width..][..width];
        for (sum, &part) in row.iter_mut().zip(d_y) {
            *sum += part;
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let n = POSITIONS * WIDTH;
    let d_y = draw(0, n, -1.0, 1.0);
    for rows in ROWS {
        let ids = indices(POSITIONS, rows);
        let weight = draw(1, rows * WIDTH, -1.0, 1.0);
        let (mut y, mut d_weight) = (vec![0.0; n], vec![0.0; rows * WIDTH]);

        let sizes = [("positions", POSITIONS), ("width", WIDTH), ("rows", rows)];
        let kernel = |pass, floats| Kernel {
            operation: OPERATION,
            pass,
            with_forward: false,
            sizes: &sizes,
            floats,
        };
        let there = bench.tensor(&weight, [rows, WIDTH]);
        bench.forward(
            &kernel(FlopsPass::Forward, 2 * n),
            || plain_forward(&weight, &ids, WIDTH, black_box(&mut y)),
            || Ok(there.clone()),
            |weight| gather_rows(weight, &ids),
        )?;
        let leaf = bench.leaf(&weight, [rows, WIDTH]);
        let d_y_there = bench.leaf(&d_y, [POSITIONS, WIDTH]).detach();
        bench.backward(
            &kernel(FlopsPass::Backward, n + rows * WIDTH),
            || plain_backward(&d_y, &ids, WIDTH, black_box(&mut d_weight)),
            || gather_rows(leaf.clone(), &ids),
            &d_y_there,
        )?;
    }
    Ok(())
}
