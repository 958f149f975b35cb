//! g.

use multiversion::multiversion;
use rayon::prelude::*;

use super::lanes::{
    Complex, LANES, Lanes, Scale, complex_mul, complex_scale, complex_zero, map2, mul_add, sub_mul,
};
use super::strips::{Blocks, Strip};
use super::tiles::{ComplexTile, Tile, load, load_coupling, set_carried, store_complex, touch};
use super::{Dims, Inputs};
use crate::ops::flex::Real;

/// `1 / (diag - z - p g)`.
#[inline(always)]
fn step<T: Real>(
    diag: Lanes<T>,
    p: Lanes<T>,
    z: Complex<Lanes<T>>,
    g: Complex<Lanes<T>>,
) -> Complex<Lanes<T>> {
    let re = sub_mul(p, g.re, map2(diag, z.re, |d, z| d - z));
    // Minus the imaginary part of the denominator: both terms are positive, nothing cancels.
    let im = mul_add(p, g.im, z.im);
    let inverse = map2(re, im, |re, im| T::one() / re.mul_add(re, im * im));
    complex_scale(inverse, Complex { re, im })
}

/// Shift of every lane; idle lanes get i.
#[inline(always)]
pub(super) fn lane_shift<T: Real>(shift: &[T], strip: &Strip) -> Complex<Lanes<T>> {
    let mut z = Complex {
        re: [T::zero(); LANES],
        im: [T::one(); LANES],
    };
    for l in 0..strip.lanes {
        let (_, head) = strip.lane(l);
        z.re[l] = shift[head];
        z.im[l] = shift[strip.dims.heads + head];
    }
    z
}

/// Writes g of one block. `carry` holds the state entering each chunk, or only that of the first:
/// the other chunks then find theirs by the warm-up.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_block<T: Real>(
    input: &Inputs<'_, T>,
    pairs: &[[Strip; 2]],
    warm_up: usize,
    carry: &[T],
    out: &mut [T],
) {
    let &Inputs {
        diag,
        coupling,
        shift,
        ..
    } = input;
    let chunk = input.plan.chunk as isize;
    let mut states = vec![[complex_zero(); 2]; pairs.len()];
    let mut d = [Tile::zeros(); 2];
    let mut p = [Tile::filled(coupling[0]); 2];
    let mut g = [ComplexTile::zeros(); 2];

    touch(diag, input.dims.heads, &pairs[0][0]);
    let mut t = -(warm_up.next_multiple_of(LANES) as isize);
    let mut skip = warm_up.next_multiple_of(LANES) - warm_up;
    while t < chunk {
        for (pair, state) in pairs.iter().zip(&mut states) {
            let z = [lane_shift(shift, &pair[0]), lane_shift(shift, &pair[1])];
            for s in 0..2 {
                load(&mut d[s], diag, &pair[s], t, T::zero());
                load_coupling(&mut p[s], coupling, &pair[s], t);
                if t == 0 {
                    set_carried(&mut state[s], carry, &pair[s]);
                }
            }
            let mut now = *state;
            for k in skip..LANES {
                for s in 0..2 {
                    now[s] = step(d[s].row(k), p[s].row(k), z[s], now[s]);
                    g[s].set_row(k, now[s]);
                }
            }
            *state = now;
            if t >= 0 {
                for s in 0..2 {
                    let lane0 = pair[s].first - pair[0].first;
                    store_complex(out, &pair[s], lane0, t as usize, &mut g[s]);
                }
            }
        }
        skip = 0;
        t += LANES as isize;
    }
}

/// Moebius map of a chunk, `[[a, b], [c, d]]` taking g to `(a g + b) / (c g + d)`, real and imaginary
/// parts alternating.
type Moebius<T> = [T; 8];

/// Reduces every chunk of a block to its map, rescaled by a power of two at every step.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_reduce_block<T: Scale>(
    input: &Inputs<'_, T>,
    pairs: &[[Strip; 2]],
    maps: &mut [Moebius<T>],
) {
    let heads = input.dims.heads;
    let mut d = Tile::zeros();
    let mut p = Tile::filled(input.coupling[0]);
    let one = Complex {
        re: [T::one(); LANES],
        im: [T::zero(); LANES],
    };
    for strip in pairs.iter().flatten() {
        let z = lane_shift(input.shift, strip);
        let (mut top, mut bottom) = ([one, complex_zero()], [complex_zero(), one]);
        for t in (0..input.plan.chunk as isize).step_by(LANES) {
            load(&mut d, input.diag, strip, t, T::zero());
            load_coupling(&mut p, input.coupling, strip, t);
            for k in 0..LANES {
                let s = Complex {
                    re: map2(d.row(k), z.re, |d, z| d - z),
                    im: map2(z.im, z.im, |z, _| -z),
                };
                let mut next = [complex_mul(s, bottom[0]), complex_mul(s, bottom[1])];
                for (next, top) in next.iter_mut().zip(&top) {
                    next.re = sub_mul(p.row(k), top.re, next.re);
                    next.im = sub_mul(p.row(k), top.im, next.im);
                }
                let larger = |a: T, b: T| if a > b { a } else { b };
                let size = |a: Complex<Lanes<T>>| map2(a.re, a.im, |x, y| larger(x.abs(), y.abs()));
                let size = map2(size(next[0]), size(next[1]), larger);
                let scale = map2(size, size, |x, _| x.inverse_power_of_two());
                top = [
                    complex_scale(scale, bottom[0]),
                    complex_scale(scale, bottom[1]),
                ];
                bottom = [complex_scale(scale, next[0]), complex_scale(scale, next[1])];
            }
        }
        for l in 0..strip.lanes {
            let (chunk, head) = strip.lane(l);
            let map = &mut maps[(chunk - pairs[0][0].first) * heads + head];
            for (i, x) in [top[0], top[1], bottom[0], bottom[1]].iter().enumerate() {
                (map[2 * i], map[2 * i + 1]) = (x.re[l], x.im[l]);
            }
        }
    }
}

/// The state entering every chunk, `[batch, n_chunks, 2 * heads]`.
fn carry_forward<T: Scale>(input: &Inputs<'_, T>, blocks: &Blocks) -> Vec<T> {
    let Dims { batch, heads, .. } = input.dims;
    let n_chunks = blocks.n_chunks();
    let mut maps = vec![[T::zero(); 8]; batch * n_chunks * heads];
    let parts = blocks.split(&mut maps, n_chunks, blocks.chunks());
    parts.into_par_iter().enumerate().for_each(|(i, maps)| {
        forward_reduce_block(input, &blocks.strips(i), maps);
    });
    let mut carry = vec![T::zero(); batch * n_chunks * 2 * heads];
    for b in 0..batch {
        for h in 0..heads {
            let row = &input.g0[b * 2 * heads..];
            let (mut re, mut im) = (row[h], row[heads + h]);
            for c in b * n_chunks..(b + 1) * n_chunks {
                (carry[c * 2 * heads + h], carry[c * 2 * heads + heads + h]) = (re, im);
                let m = &maps[c * heads + h];
                // a g + b, or c g + d
                let affine = |i: usize| Complex {
                    re: m[i] * re - m[i + 1] * im + m[i + 2],
                    im: m[i] * im + m[i + 1] * re + m[i + 3],
                };
                let (n, d) = (affine(0), affine(4));
                let inverse = T::one() / (d.re * d.re + d.im * d.im);
                re = (n.re * d.re + n.im * d.im) * inverse;
                im = (n.im * d.re - n.re * d.im) * inverse;
            }
        }
    }
    carry
}

/// Fills `out` `[batch, seq, 2 * heads]` with g.
pub fn forward<T: Scale>(input: &Inputs<'_, T>, out: &mut [T]) {
    let blocks = Blocks::new(input.dims, input.plan);
    let carried;
    let (warm_up, carry) = if let Some(warm_up) = input.plan.warm_up {
        (warm_up, input.g0)
    } else {
        carried = carry_forward(input, &blocks);
        (0, carried.as_slice())
    };
    let parts = blocks.split(out, input.dims.seq, blocks.chunks() * input.plan.chunk);
    parts.into_par_iter().enumerate().for_each(|(i, out)| {
        forward_block(input, &blocks.strips(i), warm_up, carry, out);
    });
}
