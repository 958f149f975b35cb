//! The adjoint. Cotangents are w = dL/dRe - i dL/dIm. With `e[i] = p[i+1] q[i+1]`, the part that comes from
//! the right:
//!
//! ```text
//! q[i] = g[i]^2 (w[i] + e[i]),    e[i-1] = p[i] q[i]
//! ```

use multiversion::multiversion;
use rayon::prelude::*;

use super::lanes::{
    Complex, LANES, Lanes, complex_mul, complex_scale, complex_zero, map2, mul, sub_mul,
};
use super::strips::{Blocks, Strip};
use super::tiles::{ComplexTile, Tile, load_complex, load_coupling, set_carried, store, touch};
use super::{Dims, Gradients, Saved};
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// Loads w of a tile; the cotangent of the final state joins that of the last row.
#[inline(always)]
fn load_cotangent<T: Real>(
    tile: &mut ComplexTile<T>,
    saved: &Saved<'_, T>,
    strip: &Strip,
    t: isize,
) {
    load_complex(tile, saved.d_g, strip, t);
    let Dims { seq, heads, .. } = strip.dims;
    for l in 0..strip.lanes {
        let (chunk, head) = strip.lane(l);
        let k = (seq - 1) as isize - (chunk * strip.chunk) as isize - t;
        if (0..LANES as isize).contains(&k) {
            let last = &saved.d_g_last[strip.batch * 2 * heads..];
            tile.update(k as usize, l, |w| Complex {
                re: w.re + last[head],
                im: w.im + last[heads + head],
            });
        }
    }
}

/// g^2.
#[inline(always)]
pub(super) fn square<T: Real>(g: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: sub_mul(g.im, g.im, mul(g.re, g.re)),
        im: map2(g.re, g.im, |re, im| (re + re) * im),
    }
}

/// q of one step from g, the output's (dL/dRe, dL/dIm) and e.
#[inline(always)]
fn step_back<T: Real>(
    g: Complex<Lanes<T>>,
    d_g: Complex<Lanes<T>>,
    e: Complex<Lanes<T>>,
) -> Complex<Lanes<T>> {
    let lambda = Complex {
        re: map2(e.re, d_g.re, |e, d| e + d),
        im: map2(e.im, d_g.im, |e, d| e - d),
    };
    complex_mul(square(g), lambda)
}

/// The outputs of one block: rows of `diag` and `coupling`, a row of the shift's partial sums a chunk,
/// and the cotangent that leaves the block's first chunk on the left.
#[derive(Debug)]
struct BackwardBlock<'a, T> {
    diag: &'a mut [T],
    coupling: &'a mut [T],
    shift: &'a mut [T],
    left: &'a mut [T],
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_block<T: Real>(
    saved: &Saved<'_, T>,
    pairs: &[[Strip; 2]],
    warm_up: usize,
    carry: &[T],
    out: &mut BackwardBlock<'_, T>,
) {
    let heads = saved.dims.heads;
    let chunk = saved.plan.chunk;
    let mut states = vec![[complex_zero::<T>(); 2]; pairs.len()];
    let mut sums = states.clone();
    let (mut g, mut w) = ([ComplexTile::zeros(); 2], [ComplexTile::zeros(); 2]);
    let mut p = [Tile::filled(saved.coupling[0]); 2];
    let mut d = [Tile::zeros(); 2];

    touch(saved.g, 2 * heads, &pairs[0][0]);
    touch(saved.d_g, 2 * heads, &pairs[0][0]);
    let end = chunk + warm_up;
    for t in (0..end).step_by(LANES).rev() {
        let own = t < chunk;
        let n = LANES.min(end - t);
        for (pair, (state, sum)) in pairs.iter().zip(states.iter_mut().zip(&mut sums)) {
            for s in 0..2 {
                let strip = &pair[s];
                load_complex(&mut g[s], saved.g, strip, t as isize);
                load_cotangent(&mut w[s], saved, strip, t as isize);
                load_coupling(&mut p[s], saved.coupling, strip, t as isize);
                if t + LANES == chunk {
                    set_carried(&mut state[s], carry, strip);
                }
            }
            let (mut e, mut total) = (*state, *sum);
            for k in (0..n).rev() {
                for s in 0..2 {
                    let q = step_back(g[s].row(k), w[s].row(k), e[s]);
                    e[s] = complex_scale(p[s].row(k), q);
                    total[s].re = map2(total[s].re, q.re, |a, b| a + b);
                    total[s].im = map2(total[s].im, q.im, |a, b| a - b);
                    d[s].set_row(k, map2(q.re, q.re, |q, _| -q));
                    // q takes the place of w, which is used up.
                    w[s].set_row(k, q);
                }
            }
            *state = e;
            if !own {
                continue;
            }
            *sum = total;
            for s in 0..2 {
                let strip = &pair[s];
                let lane0 = strip.first - pair[0].first;
                store(out.diag, strip, lane0, t, &mut d[s]);
                if !out.coupling.is_empty() {
                    load_before(&mut g[s], saved, strip, t);
                    for k in 0..LANES {
                        let (q, before) = (w[s].row(k), g[s].row(k));
                        d[s].set_row(k, sub_mul(q.im, before.im, mul(q.re, before.re)));
                    }
                    store(out.coupling, strip, lane0, t, &mut d[s]);
                }
            }
        }
    }
    let first = pairs[0][0].first;
    for (strip, (e, sum)) in pairs
        .iter()
        .flatten()
        .zip(states.iter().flatten().zip(sums.iter().flatten()))
    {
        for l in 0..strip.lanes {
            let (chunk, head) = strip.lane(l);
            let sums = &mut out.shift[(chunk - first) * 2 * heads..];
            (sums[head], sums[heads + head]) = (sum.re[l], sum.im[l]);
            if chunk == first {
                (out.left[head], out.left[heads + head]) = (e.re[l], -e.im[l]);
            }
        }
    }
}

/// g one row earlier than the tile at `t`; before the first row lies the carried state.
#[inline(always)]
fn load_before<T: Real>(tile: &mut ComplexTile<T>, saved: &Saved<'_, T>, strip: &Strip, t: usize) {
    load_complex(tile, saved.g, strip, t as isize - 1);
    let heads = strip.dims.heads;
    for l in 0..strip.lanes {
        let (chunk, head) = strip.lane(l);
        if chunk == 0 && t == 0 {
            let g0 = &saved.g0[strip.batch * 2 * heads..];
            tile.update(0, l, |_| Complex {
                re: g0[head],
                im: g0[heads + head],
            });
        }
    }
}

/// Map of a chunk from the right: e leaves as `a e + b`; a then b, real then imaginary part.
type Affine<T> = [T; 4];

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_reduce_block<T: Real>(
    saved: &Saved<'_, T>,
    pairs: &[[Strip; 2]],
    maps: &mut [Affine<T>],
) {
    let heads = saved.dims.heads;
    let [mut g, mut w] = [ComplexTile::zeros(); 2];
    let mut p = Tile::filled(saved.coupling[0]);
    touch(saved.g, 2 * heads, &pairs[0][0]);
    touch(saved.d_g, 2 * heads, &pairs[0][0]);
    for strip in pairs.iter().flatten() {
        let mut a = Complex {
            re: [T::one(); LANES],
            im: [T::zero(); LANES],
        };
        let mut b = complex_zero();
        for t in (0..saved.plan.chunk).step_by(LANES).rev() {
            load_complex(&mut g, saved.g, strip, t as isize);
            load_cotangent(&mut w, saved, strip, t as isize);
            load_coupling(&mut p, saved.coupling, strip, t as isize);
            for k in (0..LANES).rev() {
                let (g, w) = (g.row(k), w.row(k));
                a = complex_scale(p.row(k), complex_mul(square(g), a));
                b = complex_scale(p.row(k), step_back(g, w, b));
            }
        }
        for l in 0..strip.lanes {
            let (chunk, head) = strip.lane(l);
            maps[(chunk - pairs[0][0].first) * heads + head] = [a.re[l], a.im[l], b.re[l], b.im[l]];
        }
    }
}

/// e entering every chunk from the right, `[batch, n_chunks, 2 * heads]`.
fn carry_backward<T: Real>(saved: &Saved<'_, T>, blocks: &Blocks) -> Vec<T> {
    let Dims { batch, heads, .. } = saved.dims;
    let n_chunks = blocks.n_chunks();
    let mut maps = vec![[T::zero(); 4]; batch * n_chunks * heads];
    let parts = blocks.split(&mut maps, n_chunks, blocks.chunks());
    parts.into_par_iter().enumerate().for_each(|(i, maps)| {
        backward_reduce_block(saved, &blocks.strips(i), maps);
    });
    let mut carry = vec![T::zero(); batch * n_chunks * 2 * heads];
    for b in 0..batch {
        for h in 0..heads {
            // The cotangent of the final state is part of the last row's w.
            let (mut re, mut im) = (T::zero(), T::zero());
            for c in (b * n_chunks..(b + 1) * n_chunks).rev() {
                (carry[c * 2 * heads + h], carry[c * 2 * heads + heads + h]) = (re, im);
                let [a_re, a_im, b_re, b_im] = maps[c * heads + h];
                (re, im) = (a_re * re - a_im * im + b_re, a_re * im + a_im * re + b_im);
            }
        }
    }
    carry
}

/// Fills all of `out`; sums over chunks and batch in a fixed order.
pub fn backward<T: Real>(saved: &Saved<'_, T>, out: Gradients<'_, T>) {
    let Gradients {
        d_diag,
        d_coupling,
        d_shift,
        d_g0,
    } = out;
    let blocks = Blocks::new(saved.dims, saved.plan);
    let Dims { batch, seq, heads } = saved.dims;
    let (n_chunks, rows) = (blocks.n_chunks(), blocks.chunks() * saved.plan.chunk);
    let carried;
    let (warm_up, carry) = if let Some(warm_up) = saved.plan.warm_up {
        (warm_up, &[][..])
    } else {
        carried = carry_backward(saved, &blocks);
        (0, carried.as_slice())
    };
    let mut sums = vec![T::zero(); batch * n_chunks * 2 * heads];
    let mut left = vec![T::zero(); batch * blocks.count() * 2 * heads];
    let coupling: Vec<&mut [T]> = match d_coupling.len() {
        0 => (0..batch * blocks.count())
            .map(|_| <&mut [T]>::default())
            .collect(),
        _ => blocks.split(d_coupling, seq, rows),
    };
    let mut tasks: Vec<_> = blocks
        .split(d_diag, seq, rows)
        .into_iter()
        .zip(coupling)
        .zip(blocks.split(&mut sums, n_chunks, blocks.chunks()))
        .zip(blocks.split(&mut left, blocks.count(), 1))
        .map(|(((diag, coupling), shift), left)| BackwardBlock {
            diag,
            coupling,
            shift,
            left,
        })
        .collect();
    tasks.par_iter_mut().enumerate().for_each(|(i, out)| {
        backward_block(saved, &blocks.strips(i), warm_up, carry, out);
    });
    sum_rows(&mut sums, 2 * heads);
    d_shift.copy_from_slice(&sums[..2 * heads]);
    for (b, d_g0) in d_g0.chunks_mut(2 * heads).enumerate() {
        d_g0.copy_from_slice(&left[b * blocks.count() * 2 * heads..][..2 * heads]);
    }
}
