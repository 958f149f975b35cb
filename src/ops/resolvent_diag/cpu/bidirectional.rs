//! G from both sides: g from the left and r from the right, a warm-up each.
//!
//! A chunk needs nothing from its neighbours. A task takes one pair of strips at a time through all passes and keeps
//! g, r and what else it computes on the way in its tiles.

use multiversion::multiversion;
use rayon::prelude::*;

use super::backward::square;
use super::forward::lane_shift;
use super::lanes::{
    Complex, LANES, Lanes, complex_mul, complex_scale, complex_zero, map2, mul, sub_mul,
};
use super::strips::{Blocks, Strip};
use super::tiles::{
    ComplexTile, Tile, load, load_complex, load_coupling, store, store_complex, touch,
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

/// Tiles of a pair of strips, from some step of theirs on. A task writes them before it reads them: tasks on one thread
/// share them, because fresh memory costs more than the arithmetic.
type Tiles<X> = Vec<[X; 2]>;

/// For `n` rows.
fn complex_tiles<T: Real>(n: usize) -> Tiles<ComplexTile<T>> {
    vec![[ComplexTile::zeros(); 2]; n / LANES]
}

/// Index and strip of each of `n` pairs of tiles.
fn each(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(|j| [(j, 0), (j, 1)])
}

/// The rows of a pair of strips that a task works on.
struct Rows<T> {
    d: Tiles<Tile<T>>,
    /// A tile more than of the diagonal, on the right; one if there is one coupling for all.
    p: Tiles<Tile<T>>,
}

impl<T: Real> Rows<T> {
    fn new(matrices: &Matrices<'_, T>, n: usize) -> Self {
        Self {
            d: vec![[Tile::zeros(); 2]; n / LANES],
            p: match matrices.coupling {
                [p] => vec![[Tile::filled(*p); 2]],
                _ => vec![[Tile::zeros(); 2]; n / LANES + 1],
            },
        }
    }

    /// Reads the rows of a pair from step `t` on. Those that the sequence does not have get the largest number there
    /// is for a diagonal: g and r are 0 there, so that nothing runs over the ends.
    #[inline(always)]
    fn fetch(&mut self, matrices: &Matrices<'_, T>, pair: &[Strip; 2], t: isize) {
        for (j, s) in each(self.d.len()) {
            let t = t + (j * LANES) as isize;
            load(
                &mut self.d[j][s],
                matrices.diag,
                &pair[s],
                t,
                T::max_value(),
            );
        }
        for (j, s) in each(self.p.len()) {
            let t = t + (j * LANES) as isize;
            load_coupling(&mut self.p[j][s], matrices.coupling, &pair[s], t);
        }
    }

    /// Diagonal and couplings of tile `j`.
    #[inline(always)]
    fn tile(&self, j: usize) -> (&[Tile<T>; 2], Couplings<'_, T>) {
        (&self.d[j], Couplings::of_tile(&self.p, j))
    }
}

/// Those of a tile's rows and of the rows after them, each to the row before.
#[derive(Clone, Copy)]
struct Couplings<'a, T>([&'a [Tile<T>; 2]; 2]);

impl<'a, T: Real> Couplings<'a, T> {
    #[inline(always)]
    fn of_tile(p: &'a Tiles<Tile<T>>, j: usize) -> Self {
        let last = p.len() - 1;
        Self([&p[j.min(last)], &p[(j + 1).min(last)]])
    }

    /// Of row `k` to the one before.
    #[inline(always)]
    fn left(&self, k: usize, s: usize) -> Lanes<T> {
        self.0[0][s].row(k)
    }

    /// Of row `k` to the one after.
    #[inline(always)]
    fn right(&self, k: usize, s: usize) -> Lanes<T> {
        if k + 1 < LANES {
            self.0[0][s].row(k + 1)
        } else {
            self.0[1][s].row(0)
        }
    }
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

/// Writes G of one block; `full` is for what the right adds to the denominators, and then for G.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn forward_block<T: Real>(
    matrices: &Matrices<'_, T>,
    pairs: &[[Strip; 2]],
    (rows, full): &mut (Rows<T>, Tiles<ComplexTile<T>>),
    out: &mut [T],
) {
    let (chunk, margin) = (matrices.plan.chunk, matrices.margin());
    // The chunk's first tile.
    let own = margin / LANES;
    touch(matrices.diag, matrices.dims.heads, &pairs[0][0]);
    for pair in pairs {
        rows.fetch(matrices, pair, -(margin as isize));
        let z = [
            lane_shift(matrices.shift, &pair[0]),
            lane_shift(matrices.shift, &pair[1]),
        ];
        let mut r = [complex_zero(); 2];
        for (j, full) in full.iter_mut().enumerate().rev() {
            let (d, p) = rows.tile(own + j);
            for k in (0..LANES).rev() {
                for s in 0..2 {
                    let q = complex_scale(p.right(k, s), r[s]);
                    full[s].set_row(k, q);
                    r[s] = inverse(denominator(d[s].row(k), z[s], q));
                }
            }
        }
        let mut g = [complex_zero(); 2];
        for j in 0..own {
            let (d, p) = rows.tile(j);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p.left(k, s), g[s]);
                    g[s] = inverse(denominator(d[s].row(k), z[s], q));
                }
            }
        }
        for (j, full) in full.iter_mut().take(chunk / LANES).enumerate() {
            let (d, p) = rows.tile(own + j);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p.left(k, s), g[s]);
                    let left = denominator(d[s].row(k), z[s], q);
                    let right = full[s].row(k);
                    let both = Complex {
                        re: map2(left.re, right.re, |l, r| l - r),
                        im: map2(left.im, right.im, |l, r| l + r),
                    };
                    g[s] = inverse(left);
                    full[s].set_row(k, inverse(both));
                }
            }
        }
        for (j, s) in each(chunk / LANES) {
            let lane0 = pair[s].first - pairs[0][0].first;
            store_complex(out, &pair[s], lane0, j * LANES, &mut full[j][s]);
        }
    }
}

/// Fills `out` `[batch, seq, 2 * heads]` with G.
pub fn forward<T: Real>(matrices: &Matrices<'_, T>, out: &mut [T]) {
    let blocks = Blocks::new(matrices.dims, matrices.plan);
    let (chunk, margin) = (matrices.plan.chunk, matrices.margin());
    let parts = blocks.split(out, matrices.dims.seq, blocks.chunks() * chunk);
    let tiles = || {
        let rows = Rows::new(matrices, chunk + 2 * margin);
        (rows, complex_tiles(chunk + margin))
    };
    parts
        .into_par_iter()
        .enumerate()
        .for_each_init(tiles, |tiles, (i, out)| {
            forward_block(matrices, &blocks.strips(i), tiles, out);
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

/// What the backward pass of a pair keeps. A row's total is the cotangent of minus a denominator: of its own G,
/// rho, and of the rows beyond.
struct Kept<T> {
    rows: Rows<T>,
    g: Tiles<ComplexTile<T>>,
    r: Tiles<ComplexTile<T>>,
    /// G, then rho.
    rho: Tiles<ComplexTile<T>>,
    /// The cotangent of G, then the totals from the right.
    from_right: Tiles<ComplexTile<T>>,
    d_coupling: Tiles<Tile<T>>,
}

/// Writes the gradients of one block.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn backward_block<T: Real>(
    matrices: &Matrices<'_, T>,
    full: &[T],
    d_full: &[T],
    pairs: &[[Strip; 2]],
    kept: &mut Kept<T>,
    out: &mut BackwardBlock<'_, T>,
) {
    let Kept {
        rows,
        g,
        r,
        rho,
        from_right,
        d_coupling,
    } = kept;
    let heads = matrices.dims.heads;
    let (chunk, margin) = (matrices.plan.chunk, matrices.margin());
    // Tile `own` is the chunk's first.
    let (own, end) = (margin / LANES, (margin + chunk) / LANES);
    let first = pairs[0][0].first;
    touch(matrices.diag, heads, &pairs[0][0]);
    touch(full, 2 * heads, &pairs[0][0]);
    touch(d_full, 2 * heads, &pairs[0][0]);
    for pair in pairs {
        rows.fetch(matrices, pair, -(margin as isize));
        for (j, s) in each(rho.len()) {
            let t = (j * LANES) as isize - margin as isize;
            load_complex(&mut rho[j][s], full, &pair[s], t);
            load_complex(&mut from_right[j][s], d_full, &pair[s], t);
        }
        let z = [
            lane_shift(matrices.shift, &pair[0]),
            lane_shift(matrices.shift, &pair[1]),
        ];

        let mut now = [complex_zero(); 2];
        for (j, g) in g.iter_mut().enumerate() {
            let (d, p) = rows.tile(j);
            for k in 0..LANES {
                for s in 0..2 {
                    let q = complex_scale(p.left(k, s), now[s]);
                    now[s] = inverse(denominator(d[s].row(k), z[s], q));
                    g[s].set_row(k, now[s]);
                }
            }
        }

        // Right to left: r, rho and, over g^2, the cotangent of g.
        let mut now = [complex_zero(); 2];
        let mut lambda = [complex_zero(); 2];
        for j in (0..g.len()).rev() {
            let (d, p) = rows.tile(j);
            let (g, r) = (&g[j], &mut r[j]);
            let (rho, from_right) = (&mut rho[j], &mut from_right[j]);
            for k in (0..LANES).rev() {
                for s in 0..2 {
                    let q = complex_scale(p.right(k, s), now[s]);
                    now[s] = inverse(denominator(d[s].row(k), z[s], q));
                    r[s].set_row(k, now[s]);

                    let w = conjugate(from_right[s].row(k));
                    let own = complex_mul(w, square(rho[s].row(k)));
                    rho[s].set_row(k, own);
                    let total = sum(own, complex_mul(lambda[s], square(g[s].row(k))));
                    from_right[s].set_row(k, total);
                    lambda[s] = complex_scale(p.left(k, s), total);
                }
            }
        }

        // Left to right: over r^2, the cotangent of r, and the gradients, that of the diagonal in its place. What the
        // warm-up writes is overwritten.
        let mut lambda = [complex_zero(); 2];
        let mut total = [complex_zero(); 2];
        let mut g_before = [complex_zero(); 2];
        let mut d_shift = [complex_zero::<T>(); 2];
        for j in 0..end {
            if j == own {
                d_shift = [complex_zero(); 2];
            }
            let p = Couplings::of_tile(&rows.p, j);
            let (d_diag, g, r) = (&mut rows.d[j], &g[j], &r[j]);
            let (rho, from_right) = (&rho[j], &from_right[j]);
            let mut d_coupling = d_coupling.get_mut(j.saturating_sub(own));
            for k in 0..LANES {
                for s in 0..2 {
                    let (r, right) = (r[s].row(k), from_right[s].row(k));
                    let beyond = complex_mul(lambda[s], square(r));
                    // The totals share the row's own rho.
                    let both = sum(right, beyond);
                    if let Some(d_coupling) = &mut d_coupling {
                        let d_left = real_product(right, g_before[s]);
                        let d_right = real_product(total[s], r);
                        d_coupling[s].set_row(k, map2(d_left, d_right, |a, b| a + b));
                    }
                    d_diag[s].set_row(k, map2(both.re, both.re, |x, _| -x));
                    d_shift[s] = sum(d_shift[s], conjugate(both));
                    total[s] = sum(rho[s].row(k), beyond);
                    lambda[s] = complex_scale(p.right(k, s), total[s]);
                    g_before[s] = g[s].row(k);
                }
            }
        }
        for (j, s) in each(end - own) {
            let lane0 = pair[s].first - first;
            store(
                out.diag,
                &pair[s],
                lane0,
                j * LANES,
                &mut rows.d[own + j][s],
            );
            if let Some(d_coupling) = d_coupling.get_mut(j) {
                store(out.coupling, &pair[s], lane0, j * LANES, &mut d_coupling[s]);
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
    let varies = !d_coupling.is_empty();
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
    let n = matrices.plan.chunk + 2 * matrices.margin();
    let kept = || Kept {
        rows: Rows::new(matrices, n),
        g: complex_tiles(n),
        r: complex_tiles(n),
        rho: complex_tiles(n),
        from_right: complex_tiles(n),
        d_coupling: vec![
            [Tile::zeros(); 2];
            if varies {
                matrices.plan.chunk / LANES
            } else {
                0
            }
        ],
    };
    tasks
        .par_iter_mut()
        .enumerate()
        .for_each_init(kept, |kept, (i, out)| {
            let strips = blocks.strips(i);
            backward_block(matrices, full, d_full, &strips, kept, out);
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
