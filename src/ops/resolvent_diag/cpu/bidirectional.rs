//! G from both sides: g from the left and r from the right, a warm-up each.
//!
//! A chunk needs nothing from its neighbours. Every pass takes one pair of strips at a time and keeps g, r
//! and what else it computes on the way in tiles of its own.

use multiversion::multiversion;
use rayon::prelude::*;

use super::backward::square;
use super::forward::lane_shift;
use super::lanes::{
    Complex, LANES, Lanes, complex_mul, complex_scale, complex_zero, map2, mul, sub_mul,
};
use super::strips::{Blocks, Strip};
use super::tiles::{
    ComplexTile, Tile, load, load_complex, load_inner_coupling, store, store_complex,
};
use super::{Dims, Plan};
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// The matrices, one a sequence and head.
#[derive(Debug, Clone, Copy)]
pub struct Matrices<'a, T> {
    /// Sizes.
    pub dims: Dims,
    /// How the sequence is cut; with a warm-up ([`Plan::independent`]).
    pub plan: Plan,
    /// `[batch, seq, heads]`.
    pub diag: &'a [T],
    /// `[batch, seq, heads]`, or one element for all. Element 0 of a sequence couples nothing.
    pub coupling: &'a [T],
    /// `[2, heads]`.
    pub shift: &'a [T],
}

impl<T> Matrices<'_, T> {
    /// Rows before and after a chunk.
    fn margin(&self) -> usize {
        super::margin(self.plan.warm_up.unwrap_or(0))
    }
}

/// Complex tiles of a pair of strips.
type Tiles<T> = Vec<[ComplexTile<T>; 2]>;

/// Tiles for `rows` rows. A task writes them before it reads them: tasks on one thread share them, because
/// fresh memory costs more than the arithmetic.
fn scratch<T: Real>(rows: usize) -> Tiles<T> {
    vec![[ComplexTile::zeros(); 2]; rows / LANES]
}

/// `diag - z - q`, with minus its imaginary part, a sum of positive terms.
#[inline(always)]
fn denominator<T: Real>(
    diag: Lanes<T>,
    z: Complex<Lanes<T>>,
    q: Complex<Lanes<T>>,
) -> Complex<Lanes<T>> {
    Complex {
        re: map2(map2(diag, z.re, |d, z| d - z), q.re, |s, q| s - q),
        im: map2(z.im, q.im, |z, q| z + q),
    }
}

/// One over a [`denominator`].
#[inline(always)]
fn inverse<T: Real>(d: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    let scale = map2(d.re, d.im, |re, im| T::one() / re.mul_add(re, im * im));
    complex_scale(scale, d)
}

/// Reads the diagonal of the tile at `t`, and the couplings of its rows to the rows `side` later.
#[inline(always)]
fn load_rows<T: Real>(
    d: &mut [Tile<T>; 2],
    p: &mut [Tile<T>; 2],
    matrices: &Matrices<'_, T>,
    pair: &[Strip; 2],
    t: isize,
    side: isize,
) {
    for s in 0..2 {
        load(&mut d[s], matrices.diag, &pair[s], t);
        load_inner_coupling(&mut p[s], matrices.coupling, &pair[s], t + side);
    }
}

/// Writes G of one block; `right` is for what the right adds to the denominators.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_block<T: Real>(
    matrices: &Matrices<'_, T>,
    pairs: &[[Strip; 2]],
    right: &mut Tiles<T>,
    out: &mut [T],
) {
    let (chunk, margin) = (matrices.plan.chunk, matrices.margin());
    let mut d = [Tile::zeros(); 2];
    let mut p = [Tile::zeros(); 2];
    let mut full = [ComplexTile::zeros(); 2];
    for pair in pairs {
        let z = [
            lane_shift(matrices.shift, &pair[0]),
            lane_shift(matrices.shift, &pair[1]),
        ];
        let mut r = [complex_zero(); 2];
        for (j, right) in right.iter_mut().enumerate().rev() {
            let t = (j * LANES) as isize;
            load_rows(&mut d, &mut p, matrices, pair, t, 1);
            for k in (0..LANES).rev() {
                for s in 0..2 {
                    let q = complex_scale(p[s].row(k), r[s]);
                    right[s].set_row(k, q);
                    r[s] = inverse(denominator(d[s].row(k), z[s], q));
                }
            }
        }
        let mut g = [complex_zero(); 2];
        for j in 0..margin / LANES {
            let t = (j * LANES) as isize - margin as isize;
            load_rows(&mut d, &mut p, matrices, pair, t, 0);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p[s].row(k), g[s]);
                    g[s] = inverse(denominator(d[s].row(k), z[s], q));
                }
            }
        }
        for (j, right) in right.iter().take(chunk / LANES).enumerate() {
            let t = j * LANES;
            load_rows(&mut d, &mut p, matrices, pair, t as isize, 0);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p[s].row(k), g[s]);
                    let left = denominator(d[s].row(k), z[s], q);
                    let right = right[s].row(k);
                    let both = Complex {
                        re: map2(left.re, right.re, |l, r| l - r),
                        im: map2(left.im, right.im, |l, r| l + r),
                    };
                    g[s] = inverse(left);
                    full[s].set_row(k, inverse(both));
                }
            }
            for s in 0..2 {
                let lane0 = pair[s].first - pair[0].first;
                store_complex(out, &pair[s], lane0, t, &mut full[s]);
            }
        }
    }
}

/// Fills `out` `[batch, seq, 2 * heads]` with G.
pub fn forward<T: Real>(matrices: &Matrices<'_, T>, out: &mut [T]) {
    let blocks = Blocks::new(matrices.dims, matrices.plan);
    let rows = blocks.chunks() * matrices.plan.chunk;
    let parts = blocks.split(out, matrices.dims.seq, rows);
    let tiles = || scratch(matrices.plan.chunk + matrices.margin());
    parts
        .into_par_iter()
        .enumerate()
        .for_each_init(tiles, |right, (i, out)| {
            forward_block(matrices, &blocks.strips(i), right, out);
        });
}

/// Where the gradients go: overwritten, shapes as the inputs of the same names.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// By `diag`.
    pub d_diag: &'a mut [T],
    /// By `coupling`; empty to leave it out.
    pub d_coupling: &'a mut [T],
    /// By `shift`.
    pub d_shift: &'a mut [T],
}

/// The outputs of one block: rows of `diag` and `coupling`, a row of the shift's partial sums a chunk.
#[derive(Debug)]
struct BackwardBlock<'a, T> {
    diag: &'a mut [T],
    coupling: &'a mut [T],
    shift: &'a mut [T],
}

#[inline(always)]
fn sum<T: Real>(a: Complex<Lanes<T>>, b: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: map2(a.re, b.re, |a, b| a + b),
        im: map2(a.im, b.im, |a, b| a + b),
    }
}

#[inline(always)]
fn conjugate<T: Real>(a: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: a.re,
        im: map2(a.im, a.im, |im, _| -im),
    }
}

/// Real part of a product.
#[inline(always)]
fn real_product<T: Real>(a: Complex<Lanes<T>>, b: Complex<Lanes<T>>) -> Lanes<T> {
    sub_mul(a.im, b.im, mul(a.re, b.re))
}

/// Writes the gradients of one block. The tiles are for g, r, rho and the totals from the right; a row's total is
/// the cotangent of minus a denominator: of its own G, rho, and of the rows beyond.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_block<T: Real>(
    matrices: &Matrices<'_, T>,
    full: &[T],
    d_full: &[T],
    pairs: &[[Strip; 2]],
    [g, r, rho, from_right]: &mut [Tiles<T>; 4],
    out: &mut BackwardBlock<'_, T>,
) {
    let heads = matrices.dims.heads;
    let (chunk, margin) = (matrices.plan.chunk, matrices.margin());
    // Tile `own` is the chunk's first.
    let (own, end) = (margin / LANES, (margin + chunk) / LANES);
    let at = |j: usize| (j * LANES) as isize - margin as isize;
    let first = pairs[0][0].first;

    let mut d = [Tile::zeros(); 2];
    let mut p = [Tile::zeros(); 2];
    let mut p_left = [Tile::zeros(); 2];
    let mut w = [ComplexTile::zeros(); 2];
    for pair in pairs {
        let z = [
            lane_shift(matrices.shift, &pair[0]),
            lane_shift(matrices.shift, &pair[1]),
        ];
        let mut d_shift = [complex_zero::<T>(); 2];

        let mut now = [complex_zero(); 2];
        for (j, g) in g.iter_mut().enumerate() {
            load_rows(&mut d, &mut p, matrices, pair, at(j), 0);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p[s].row(k), now[s]);
                    now[s] = inverse(denominator(d[s].row(k), z[s], q));
                    g[s].set_row(k, now[s]);
                }
            }
        }

        // Right to left: r, rho and, over g^2, the cotangent of g.
        let mut now = [complex_zero(); 2];
        let mut lambda = [complex_zero(); 2];
        let tiles = g
            .iter()
            .zip(&mut *r)
            .zip(rho.iter_mut().zip(&mut *from_right));
        for (j, ((g, r), (rho, from_right))) in tiles.enumerate().rev() {
            load_rows(&mut d, &mut p, matrices, pair, at(j), 1);
            for s in 0..2 {
                load_inner_coupling(&mut p_left[s], matrices.coupling, &pair[s], at(j));
                load_complex(&mut rho[s], full, &pair[s], at(j));
                load_complex(&mut w[s], d_full, &pair[s], at(j));
            }
            for k in (0..LANES).rev() {
                for s in 0..2 {
                    let q = complex_scale(p[s].row(k), now[s]);
                    now[s] = inverse(denominator(d[s].row(k), z[s], q));
                    r[s].set_row(k, now[s]);

                    let own = complex_mul(conjugate(w[s].row(k)), square(rho[s].row(k)));
                    rho[s].set_row(k, own);
                    let total = sum(own, complex_mul(lambda[s], square(g[s].row(k))));
                    from_right[s].set_row(k, total);
                    lambda[s] = complex_scale(p_left[s].row(k), total);
                }
            }
        }

        // Left to right: over r^2, the cotangent of r, and the gradients.
        let mut lambda = [complex_zero(); 2];
        let mut total = [complex_zero(); 2];
        for j in 0..end {
            let (r, rho, from_right) = (&r[j], &rho[j], &from_right[j]);
            for s in 0..2 {
                load_inner_coupling(&mut p[s], matrices.coupling, &pair[s], at(j) + 1);
            }
            let mut g_before = [complex_zero(); 2];
            if j > 0 {
                g_before = [g[j - 1][0].row(LANES - 1), g[j - 1][1].row(LANES - 1)];
            }
            for k in 0..LANES {
                for s in 0..2 {
                    let (r, right) = (r[s].row(k), from_right[s].row(k));
                    let beyond = complex_mul(lambda[s], square(r));
                    let coupling = map2(
                        real_product(right, g_before[s]),
                        real_product(total[s], r),
                        |a, b| a + b,
                    );
                    // The totals share the row's own rho.
                    let both = sum(right, beyond);
                    w[s].set_row(k, both);
                    d[s].set_row(k, coupling);
                    total[s] = sum(rho[s].row(k), beyond);
                    lambda[s] = complex_scale(p[s].row(k), total[s]);
                    g_before[s] = g[j][s].row(k);
                }
            }
            if j < own {
                continue;
            }
            let t = (j - own) * LANES;
            for s in 0..2 {
                let lane0 = pair[s].first - first;
                if !out.coupling.is_empty() {
                    store(out.coupling, &pair[s], lane0, t, &mut d[s]);
                }
                for k in 0..LANES {
                    let both = w[s].row(k);
                    d[s].set_row(k, map2(both.re, both.re, |x, _| -x));
                    d_shift[s] = sum(d_shift[s], conjugate(both));
                }
                store(out.diag, &pair[s], lane0, t, &mut d[s]);
            }
        }
        for (strip, d_shift) in pair.iter().zip(&d_shift) {
            for l in 0..strip.lanes {
                let (chunk, head) = strip.lane(l);
                let sums = &mut out.shift[(chunk - first) * 2 * heads..];
                (sums[head], sums[heads + head]) = (d_shift.re[l], d_shift.im[l]);
            }
        }
    }
}

/// Fills all of `out` with the exact gradients. `full` is the output of [`forward`] and `d_full` its
/// cotangent; sums over chunks and batch in a fixed order.
pub fn backward<T: Real>(
    matrices: &Matrices<'_, T>,
    full: &[T],
    d_full: &[T],
    out: Gradients<'_, T>,
) {
    let Gradients {
        d_diag,
        d_coupling,
        d_shift,
    } = out;
    let blocks = Blocks::new(matrices.dims, matrices.plan);
    let Dims { batch, seq, heads } = matrices.dims;
    let (n_chunks, rows) = (blocks.n_chunks(), blocks.chunks() * matrices.plan.chunk);
    let mut sums = vec![T::zero(); batch * n_chunks * 2 * heads];
    let coupling: Vec<&mut [T]> = match d_coupling.len() {
        0 => (0..batch * blocks.count())
            .map(|_| <&mut [T]>::default())
            .collect(),
        _ => blocks.split(&mut *d_coupling, seq, rows),
    };
    let mut tasks: Vec<_> = blocks
        .split(d_diag, seq, rows)
        .into_iter()
        .zip(coupling)
        .zip(blocks.split(&mut sums, n_chunks, blocks.chunks()))
        .map(|((diag, coupling), shift)| BackwardBlock {
            diag,
            coupling,
            shift,
        })
        .collect();
    let rows = matrices.plan.chunk + 2 * matrices.margin();
    let tiles = || [(); 4].map(|()| scratch(rows));
    tasks
        .par_iter_mut()
        .enumerate()
        .for_each_init(tiles, |tiles, (i, out)| {
            let strips = blocks.strips(i);
            backward_block(matrices, full, d_full, &strips, tiles, out);
        });
    for sequence in d_coupling.chunks_mut(seq * heads) {
        sequence[..heads].fill(T::zero()); // couples nothing
    }
    sum_rows(&mut sums, 2 * heads);
    d_shift.copy_from_slice(&sums[..2 * heads]);
}

/// Rows that one task of [`published`] takes.
const PUBLISHED_ROWS: usize = 4096;

/// Fills `d_diag` `[rows, heads]` with the gradient of the published code, from G `full` and its cotangent
/// `d_full`, both `[rows, 2 * heads]`.
pub fn published<T: Real>(heads: usize, full: &[T], d_full: &[T], d_diag: &mut [T]) {
    let width = PUBLISHED_ROWS * heads;
    let tasks = d_diag
        .par_chunks_mut(width)
        .zip(full.par_chunks(2 * width))
        .zip(d_full.par_chunks(2 * width));
    tasks.for_each(|((d_diag, full), d_full)| published_rows(heads, full, d_full, d_diag));
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn published_rows<T: Real>(heads: usize, full: &[T], d_full: &[T], d_diag: &mut [T]) {
    let number = |x: f64| T::from(x).unwrap_or_else(T::nan);
    let (floor, epsilon, tiny) = (number(1e-3), number(1e-6), number(1e-9));
    let (half, bound) = (number(0.5), number(1e3));
    let rows = full
        .chunks_exact(2 * heads)
        .zip(d_full.chunks_exact(2 * heads));
    for (d_diag, (full, d_full)) in d_diag.chunks_exact_mut(heads).zip(rows) {
        for (h, d_diag) in d_diag.iter_mut().enumerate() {
            let (re, im) = (full[h], full[heads + h]);
            let (w_re, w_im) = (d_full[h], d_full[heads + h]);
            let (square_re, square_im) = (re * re - im * im, (re + re) * im);
            let size = re * re + im * im;
            let stretch = if size < floor {
                floor / (size + tiny)
            } else {
                T::one()
            };
            let (d_re, d_im) = (square_re * stretch + epsilon, square_im * stretch);
            let jacobian = w_re * square_re - w_im * square_im;
            let heuristic = (w_re * d_re + w_im * d_im) / (d_re * d_re + d_im * d_im);
            let value = -half * (jacobian + heuristic);
            // Comparisons rather than min and max, which would drop a NaN.
            let value = if value > bound { bound } else { value };
            *d_diag = if value < -bound { -bound } else { value };
        }
    }
}
