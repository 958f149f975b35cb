//! The causal resolvent diagonal at coupling 1 and z = i.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::resolvent_diag::{Coupling, infer, train};
use crate::results::FlopsPass;

const OPERATION: &str = "resolvent_diag";

/// `g[i] = 1 / (diag[i] - i - g[i-1])`; sequences of `seq` rows of `HEADS`, complex rows in two halves.
pub fn plain_forward<const HEADS: usize>(seq: usize, diag: &[f32], g: &mut [f32]) {
    let sequences = diag.chunks(seq * HEADS).zip(g.chunks_mut(2 * seq * HEADS));
    for (diag, g) in sequences {
        let (mut re, mut im) = ([0.0; HEADS], [0.0; HEADS]);
        for (diag, g) in diag.chunks_exact(HEADS).zip(g.chunks_exact_mut(2 * HEADS)) {
            for h in 0..HEADS {
                let (d_re, d_im) = (diag[h] - re[h], 1.0 + im[h]);
                let inverse = 1.0 / (d_re * d_re + d_im * d_im);
                (re[h], im[h]) = (d_re * inverse, d_im * inverse);
                (g[h], g[HEADS + h]) = (re[h], im[h]);
            }
        }
    }
}

/// Gradients of the diagonal and, `[2, HEADS]`, of the shift.
pub fn plain_backward<const HEADS: usize>(
    seq: usize,
    (g, d_g): (&[f32], &[f32]),
    d_diag: &mut [f32],
    d_shift: &mut [f32],
) {
    d_shift.fill(0.0);
    let (d_re, d_im) = d_shift.split_at_mut(HEADS);
    let width = 2 * seq * HEADS;
    let sequences = g.chunks(width).zip(d_g.chunks(width));
    for ((g, d_g), d_diag) in sequences.zip(d_diag.chunks_mut(seq * HEADS)) {
        let (mut e_re, mut e_im) = ([0.0; HEADS], [0.0; HEADS]);
        let rows = g.chunks_exact(2 * HEADS).zip(d_g.chunks_exact(2 * HEADS));
        for ((g, d_g), d_diag) in rows.zip(d_diag.chunks_exact_mut(HEADS)).rev() {
            for h in 0..HEADS {
                let (re, im) = (g[h], g[HEADS + h]);
                let (w_re, w_im) = (d_g[h] + e_re[h], e_im[h] - d_g[HEADS + h]);
                let (s_re, s_im) = (re * re - im * im, 2.0 * re * im);
                (e_re[h], e_im[h]) = (s_re * w_re - s_im * w_im, s_re * w_im + s_im * w_re);
                d_diag[h] = -e_re[h];
                d_re[h] += e_re[h];
                d_im[h] -= e_im[h];
            }
        }
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    at::<1>(bench, 1, 1 << 20)?;
    at::<64>(bench, 1, 1 << 14)?;
    at::<256>(bench, 8, 512)
}

fn at<const HEADS: usize>(bench: &mut Bench<'_>, batch: usize, seq: usize) -> Result<()> {
    let n = batch * seq * HEADS;
    let diag = draw(0, n, -5.0, 5.0);
    let d_g = draw(1, 2 * n, -1.0, 1.0);
    let (mut g, mut d_diag, mut d_shift) = (vec![0.0; 2 * n], vec![0.0; n], vec![0.0; 2 * HEADS]);
    plain_forward::<HEADS>(seq, &diag, &mut g);
    let saved = g.clone();

    let sizes = [("batch", batch), ("seq", seq), ("heads", HEADS)];
    let kernel = |pass, floats| Kernel {
        operation: OPERATION,
        pass,
        with_forward: false,
        sizes: &sizes,
        floats,
    };
    let shift = [vec![0.0; HEADS], vec![1.0; HEADS]].concat();
    let empty = vec![0.0; batch * 2 * HEADS];
    let there = (
        bench.tensor(&diag, [batch, seq, HEADS]),
        bench.tensor(&shift, [2, HEADS]),
        bench.tensor(&empty, [batch, 2 * HEADS]),
    );
    bench.forward(
        &kernel(FlopsPass::Forward, 3 * n),
        || plain_forward::<HEADS>(seq, &diag, black_box(&mut g)),
        || Ok(there.clone()),
        |(diag, shift, g0)| Ok(infer(diag, Coupling::Constant(1.0), shift, g0, 1.0)?.0),
    )?;
    let leaves = (
        bench.leaf(&diag, [batch, seq, HEADS]),
        bench.leaf(&shift, [2, HEADS]),
        bench.leaf(&empty, [batch, 2 * HEADS]),
    );
    let graph = || {
        let (diag, shift, g0) = leaves.clone();
        let d_last = g0.clone().detach();
        train(diag, Coupling::Constant(1.0), shift, g0, d_last, 1.0)
    };
    let d_g_there = bench.leaf(&d_g, [batch, seq, 2 * HEADS]).detach();
    bench.backward(
        &kernel(FlopsPass::Backward, 5 * n),
        || plain_backward::<HEADS>(seq, (&saved, &d_g), black_box(&mut d_diag), &mut d_shift),
        graph,
        &d_g_there,
    )
}
