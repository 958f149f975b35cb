//! The CPU path: the chunks of [`Plan`], sixteen at a time in the lanes of a vector register.
//!
//! A *strip* is sixteen independent recurrences: sixteen heads of one chunk, or one head of sixteen chunks.
//! Strips run in pairs, because one recurrence alone waits for its own division. Data come in *tiles* of
//! sixteen steps by sixteen lanes; where lanes are chunks a tile is transposed on its way in and out.
//! Shapes are as in the public functions, slices row-major.

use multiversion::multiversion;
use rayon::prelude::*;

use super::plan::Plan;
use crate::ops::flex::Real;
use crate::ops::sums::sum_rows;

/// Lanes of a strip, and steps of a tile.
const LANES: usize = 16;
type Lanes<T> = [T; LANES];
/// Row-major, a row a step.
type Tile<T> = [T; LANES * LANES];

#[derive(Debug, Clone, Copy)]
struct Complex<X> {
    re: X,
    im: X,
}

/// Sizes of the problem.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// Sequences.
    pub batch: usize,
    /// Rows of a sequence.
    pub seq: usize,
    /// Independent matrices.
    pub heads: usize,
}

/// A float whose exponent can be taken off exactly.
pub trait Scale: Real {
    /// The power of two `s` with `1 <= s * self < 2`, for a positive normal number below the last binade.
    fn inverse_power_of_two(self) -> Self;
}

impl Scale for f32 {
    #[inline(always)]
    fn inverse_power_of_two(self) -> Self {
        Self::from_bits(0x7f00_0000_u32.saturating_sub(self.to_bits() & 0x7f80_0000))
    }
}

impl Scale for f64 {
    #[inline(always)]
    fn inverse_power_of_two(self) -> Self {
        let exponent = self.to_bits() & 0x7ff0_0000_0000_0000;
        Self::from_bits(0x7fe0_0000_0000_0000_u64.saturating_sub(exponent))
    }
}

/// What the forward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// Sizes.
    pub dims: Dims,
    /// How the sequence is cut.
    pub plan: Plan,
    /// `[batch, seq, heads]`.
    pub diag: &'a [T],
    /// `[batch, seq, heads]`, or one element for all.
    pub coupling: &'a [T],
    /// `[2, heads]`.
    pub shift: &'a [T],
    /// `[batch, 2 * heads]`.
    pub g0: &'a [T],
}

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a, T> {
    /// Sizes.
    pub dims: Dims,
    /// How the sequence is cut.
    pub plan: Plan,
    /// `[batch, seq, heads]`, or one element for all.
    pub coupling: &'a [T],
    /// `[batch, 2 * heads]`.
    pub g0: &'a [T],
    /// The output of [`forward`].
    pub g: &'a [T],
    /// Cotangent of `g`.
    pub d_g: &'a [T],
    /// Cotangent of the final state, `[batch, 2 * heads]`.
    pub d_g_last: &'a [T],
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
    /// By `g0`.
    pub d_g0: &'a mut [T],
}

// ---- geometry ----

/// Sixteen recurrences of one batch row; `lanes` of them are real.
#[derive(Debug, Clone, Copy)]
struct Strip {
    dims: Dims,
    chunk: usize,
    batch: usize,
    /// Chunk of lane 0.
    first: usize,
    /// Head of lane 0.
    head: usize,
    by_head: bool,
    lanes: usize,
}

impl Strip {
    /// Chunk and head of a lane.
    #[inline(always)]
    fn lane(&self, l: usize) -> (usize, usize) {
        if self.by_head {
            (self.first, self.head + l)
        } else {
            (self.first + l, self.head)
        }
    }

    /// The row of the sequence where lane 0's step `t` lies, `t` counted from the start of its chunk.
    #[inline(always)]
    fn row(&self, t: isize) -> isize {
        (self.first * self.chunk) as isize + t
    }

    /// Whether all lanes and all rows of the tile at `t` exist.
    #[inline(always)]
    fn whole(&self, t: isize) -> bool {
        let spread = if self.by_head {
            0
        } else {
            (LANES - 1) * self.chunk
        };
        let start = self.row(t);
        self.lanes == LANES && start >= 0 && start as usize + spread + LANES <= self.dims.seq
    }
}

/// A run of rows that one task works on: every head of one chunk, or of two strips of chunks.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    dims: Dims,
    plan: Plan,
    by_head: bool,
}

impl Blocks {
    fn new(dims: Dims, plan: Plan) -> Self {
        Self {
            dims,
            plan,
            by_head: dims.heads >= LANES / 2,
        }
    }

    fn n_chunks(&self) -> usize {
        self.plan.n_chunks(self.dims.seq)
    }

    /// Chunks a block.
    fn chunks(&self) -> usize {
        if self.by_head { 1 } else { 2 * LANES }
    }

    /// Blocks a batch row.
    fn count(&self) -> usize {
        self.n_chunks().div_ceil(self.chunks())
    }

    /// The strips of block `index` (batch rows outermost), in pairs; an odd one gets an idle partner.
    fn strips(&self, index: usize) -> Vec<[Strip; 2]> {
        let (batch, block) = (index / self.count(), index % self.count());
        let first = block * self.chunks();
        let strip = |first: usize, head: usize| {
            let (left, by_head) = match self.by_head {
                true => (self.dims.heads.saturating_sub(head), true),
                false => (self.n_chunks().saturating_sub(first), false),
            };
            let (dims, chunk, lanes) = (self.dims, self.plan.chunk, left.min(LANES));
            Strip {
                dims,
                chunk,
                batch,
                first,
                head,
                by_head,
                lanes,
            }
        };
        if self.by_head {
            let heads = (0..self.dims.heads).step_by(2 * LANES);
            heads
                .map(|head| [strip(first, head), strip(first, head + LANES)])
                .collect()
        } else {
            let heads = 0..self.dims.heads;
            heads
                .map(|head| [strip(first, head), strip(first + LANES, head)])
                .collect()
        }
    }

    /// Cuts `x`, which has `rows` rows a batch row, into the parts that belong to the blocks in order,
    /// `rows_per_block` rows each.
    fn split<'a, X>(&self, x: &'a mut [X], rows: usize, rows_per_block: usize) -> Vec<&'a mut [X]> {
        let width = x.len() / (self.dims.batch * rows);
        x.chunks_mut(rows * width)
            .flat_map(|x| x.chunks_mut(rows_per_block * width))
            .collect()
    }
}

// ---- tiles ----

fn zero_tiles<T: Real>() -> [Tile<T>; 2] {
    [[T::zero(); LANES * LANES]; 2]
}

/// 16 x 16 transpose: four perfect shuffles, each a run of two-register permutations.
#[inline(always)]
fn transpose<T: Real>(tile: &mut Tile<T>) {
    let mut scratch = [T::zero(); LANES * LANES];
    shuffle(tile, &mut scratch);
    shuffle(&scratch, tile);
    shuffle(tile, &mut scratch);
    shuffle(&scratch, tile);
}

#[inline(always)]
fn shuffle<T: Real>(from: &Tile<T>, to: &mut Tile<T>) {
    const HALF: usize = LANES * LANES / 2;
    for i in 0..HALF {
        to[2 * i] = from[i];
        to[2 * i + 1] = from[i + HALF];
    }
}

/// Reads steps `t..t + 16` of every lane from a tensor of `width` columns, of which the strip's heads
/// start at `column`. What does not exist is zero.
#[inline(always)]
fn load<T: Real>(
    tile: &mut Tile<T>,
    x: &[T],
    width: usize,
    column: usize,
    strip: &Strip,
    t: isize,
) {
    if strip.lanes == 0 {
        return;
    }
    let seq = strip.dims.seq;
    let x = &x[strip.batch * seq * width..][..seq * width];
    let column = column + strip.head;
    let whole = strip.whole(t);
    if !whole {
        *tile = [T::zero(); LANES * LANES];
    }
    if strip.by_head {
        for k in 0..LANES {
            let row = strip.row(t) + k as isize;
            if row >= 0 && (row as usize) < seq {
                let from = &x[row as usize * width + column..];
                if strip.lanes == LANES {
                    tile[k * LANES..][..LANES].copy_from_slice(&from[..LANES]);
                } else {
                    for l in 0..strip.lanes {
                        tile[k * LANES + l] = from[l];
                    }
                }
            }
        }
        return;
    }
    for l in 0..strip.lanes {
        let row = strip.row(t) + (l * strip.chunk) as isize;
        let lane = &mut tile[l * LANES..][..LANES];
        if whole && width == 1 {
            lane.copy_from_slice(&x[row as usize..][..LANES]);
        } else {
            for (k, value) in lane.iter_mut().enumerate() {
                let row = row + k as isize;
                if row >= 0 && (row as usize) < seq {
                    *value = x[row as usize * width + column];
                }
            }
        }
    }
    transpose(tile);
}

/// As [`load`], from a complex tensor: real parts of all heads, then imaginary parts.
#[inline(always)]
fn load_complex<T: Real>(re: &mut Tile<T>, im: &mut Tile<T>, x: &[T], strip: &Strip, t: isize) {
    let Dims { seq, heads, .. } = strip.dims;
    if heads == 1 && strip.whole(t) {
        // Real and imaginary parts alternate: read them together.
        let x = &x[strip.batch * seq * 2..][..seq * 2];
        for l in 0..LANES {
            let from = &x[2 * (strip.row(t) as usize + l * strip.chunk)..][..2 * LANES];
            for k in 0..LANES {
                re[l * LANES + k] = from[2 * k];
                im[l * LANES + k] = from[2 * k + 1];
            }
        }
        transpose(re);
        transpose(im);
    } else {
        load(re, x, 2 * heads, 0, strip, t);
        load(im, x, 2 * heads, heads, strip, t);
    }
}

/// Writes a tile into `out`, which starts at the first row of the block; spoils the tile.
#[inline(always)]
fn store<T: Real>(
    out: &mut [T],
    width: usize,
    column: usize,
    strip: &Strip,
    lane0: usize,
    t: usize,
    tile: &mut Tile<T>,
) {
    if strip.lanes == 0 {
        return;
    }
    let column = column + strip.head;
    if strip.by_head {
        for k in 0..LANES {
            let at = (t + k) * width + column;
            if at >= out.len() {
                return;
            }
            let to = &mut out[at..];
            if strip.lanes == LANES {
                to[..LANES].copy_from_slice(&tile[k * LANES..][..LANES]);
            } else {
                for l in 0..strip.lanes {
                    to[l] = tile[k * LANES + l];
                }
            }
        }
        return;
    }
    transpose(tile);
    for l in 0..strip.lanes {
        let at = ((lane0 + l) * strip.chunk + t) * width;
        let Some(out) = out.get_mut(at..) else { return };
        if width == 1 && out.len() >= LANES {
            out[..LANES].copy_from_slice(&tile[l * LANES..][..LANES]);
        } else {
            for (row, value) in out.chunks_exact_mut(width).zip(&tile[l * LANES..][..LANES]) {
                row[column] = *value;
            }
        }
    }
}

/// As [`store`], into a complex tensor.
#[inline(always)]
fn store_complex<T: Real>(
    out: &mut [T],
    strip: &Strip,
    lane0: usize,
    t: usize,
    re: &mut Tile<T>,
    im: &mut Tile<T>,
) {
    let heads = strip.dims.heads;
    if heads == 1 && strip.whole(t as isize) {
        transpose(re);
        transpose(im);
        for l in 0..LANES {
            let to = &mut out[2 * ((lane0 + l) * strip.chunk + t)..][..2 * LANES];
            for k in 0..LANES {
                to[2 * k] = re[l * LANES + k];
                to[2 * k + 1] = im[l * LANES + k];
            }
        }
    } else {
        store(out, 2 * heads, 0, strip, lane0, t, re);
        store(out, 2 * heads, heads, strip, lane0, t, im);
    }
}

#[inline(always)]
fn load_coupling<T: Real>(tile: &mut Tile<T>, coupling: &[T], strip: &Strip, t: isize) {
    if coupling.len() > 1 {
        load(tile, coupling, strip.dims.heads, 0, strip, t);
    }
}

#[inline(always)]
fn row<T: Real>(tile: &Tile<T>, k: usize) -> Lanes<T> {
    let mut lanes = [T::zero(); LANES];
    lanes.copy_from_slice(&tile[k * LANES..][..LANES]);
    lanes
}

#[inline(always)]
fn set_row<T: Real>(tile: &mut Tile<T>, k: usize, lanes: Lanes<T>) {
    tile[k * LANES..][..LANES].copy_from_slice(&lanes);
}

// ---- lanes ----

#[inline(always)]
fn map2<T: Real>(a: Lanes<T>, b: Lanes<T>, f: impl Fn(T, T) -> T) -> Lanes<T> {
    let mut out = a;
    for l in 0..LANES {
        out[l] = f(a[l], b[l]);
    }
    out
}

#[inline(always)]
fn map3<T: Real>(a: Lanes<T>, b: Lanes<T>, c: Lanes<T>, f: impl Fn(T, T, T) -> T) -> Lanes<T> {
    let mut out = a;
    for l in 0..LANES {
        out[l] = f(a[l], b[l], c[l]);
    }
    out
}

/// `a b + c`, rounded once.
#[inline(always)]
fn mul_add<T: Real>(a: Lanes<T>, b: Lanes<T>, c: Lanes<T>) -> Lanes<T> {
    map3(a, b, c, |a, b, c| a.mul_add(b, c))
}

/// `c - a b`, rounded once.
#[inline(always)]
fn sub_mul<T: Real>(a: Lanes<T>, b: Lanes<T>, c: Lanes<T>) -> Lanes<T> {
    map3(a, b, c, |a, b, c| (-a).mul_add(b, c))
}

#[inline(always)]
fn mul<T: Real>(a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
    map2(a, b, |a, b| a * b)
}

#[inline(always)]
fn complex_mul<T: Real>(a: Complex<Lanes<T>>, b: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: sub_mul(a.im, b.im, mul(a.re, b.re)),
        im: mul_add(a.re, b.im, mul(a.im, b.re)),
    }
}

#[inline(always)]
fn complex_scale<T: Real>(s: Lanes<T>, a: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
    Complex {
        re: mul(s, a.re),
        im: mul(s, a.im),
    }
}

#[inline(always)]
fn complex_zero<T: Real>() -> Complex<Lanes<T>> {
    Complex {
        re: [T::zero(); LANES],
        im: [T::zero(); LANES],
    }
}

// ---- forward ----

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
fn lane_shift<T: Real>(shift: &[T], strip: &Strip) -> Complex<Lanes<T>> {
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

/// Sets the lanes whose chunk has a row in `carry` `[batch, n_carried, 2 * heads]`.
#[inline(always)]
fn set_carried<T: Real>(state: &mut Complex<Lanes<T>>, carry: &[T], strip: &Strip) {
    let Dims { batch, heads, .. } = strip.dims;
    let n_carried = carry.len() / (batch * 2 * heads);
    for l in 0..strip.lanes {
        let (chunk, head) = strip.lane(l);
        if chunk < n_carried {
            let row = &carry[(strip.batch * n_carried + chunk) * 2 * heads..];
            state.re[l] = row[head];
            state.im[l] = row[heads + head];
        }
    }
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
    let heads = input.dims.heads;
    let chunk = input.plan.chunk as isize;
    let mut states = vec![[complex_zero(); 2]; pairs.len()];
    let mut d = zero_tiles();
    let mut p = [[coupling[0]; LANES * LANES]; 2];
    let (mut re, mut im) = (zero_tiles(), zero_tiles());

    let mut t = -(warm_up.next_multiple_of(LANES) as isize);
    let mut skip = warm_up.next_multiple_of(LANES) - warm_up;
    while t < chunk {
        for (pair, g) in pairs.iter().zip(&mut states) {
            let z = [lane_shift(shift, &pair[0]), lane_shift(shift, &pair[1])];
            for s in 0..2 {
                load(&mut d[s], diag, heads, 0, &pair[s], t);
                load_coupling(&mut p[s], coupling, &pair[s], t);
                if t == 0 {
                    set_carried(&mut g[s], carry, &pair[s]);
                }
            }
            let mut now = *g;
            for k in skip..LANES {
                for s in 0..2 {
                    now[s] = step(row(&d[s], k), row(&p[s], k), z[s], now[s]);
                    set_row(&mut re[s], k, now[s].re);
                    set_row(&mut im[s], k, now[s].im);
                }
            }
            *g = now;
            if t >= 0 {
                for s in 0..2 {
                    let lane0 = pair[s].first - pair[0].first;
                    store_complex(out, &pair[s], lane0, t as usize, &mut re[s], &mut im[s]);
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
    let mut d = [T::zero(); LANES * LANES];
    let mut p = [input.coupling[0]; LANES * LANES];
    let one = Complex {
        re: [T::one(); LANES],
        im: [T::zero(); LANES],
    };
    for strip in pairs.iter().flatten() {
        let z = lane_shift(input.shift, strip);
        let (mut top, mut bottom) = ([one, complex_zero()], [complex_zero(), one]);
        for t in (0..input.plan.chunk as isize).step_by(LANES) {
            load(&mut d, input.diag, heads, 0, strip, t);
            load_coupling(&mut p, input.coupling, strip, t);
            for k in 0..LANES {
                let s = Complex {
                    re: map2(row(&d, k), z.re, |d, z| d - z),
                    im: map2(z.im, z.im, |z, _| -z),
                };
                let mut next = [complex_mul(s, bottom[0]), complex_mul(s, bottom[1])];
                for (next, top) in next.iter_mut().zip(&top) {
                    next.re = sub_mul(row(&p, k), top.re, next.re);
                    next.im = sub_mul(row(&p, k), top.im, next.im);
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
    let (warm_up, carry) = match input.plan.warm_up {
        Some(warm_up) => (warm_up, input.g0),
        None => {
            carried = carry_forward(input, &blocks);
            (0, carried.as_slice())
        }
    };
    let parts = blocks.split(out, input.dims.seq, blocks.chunks() * input.plan.chunk);
    parts.into_par_iter().enumerate().for_each(|(i, out)| {
        forward_block(input, &blocks.strips(i), warm_up, carry, out);
    });
}

// ---- backward ----
//
// Cotangents are w = dL/dRe - i dL/dIm. With e[i] = p[i+1] q[i+1], the part that comes from the right:
//     q[i] = g[i]^2 (w[i] + e[i])      e[i-1] = p[i] q[i]

/// Loads w of a tile; the cotangent of the final state joins that of the last row.
#[inline(always)]
fn load_cotangent<T: Real>(
    re: &mut Tile<T>,
    im: &mut Tile<T>,
    saved: &Saved<'_, T>,
    strip: &Strip,
    t: isize,
) {
    load_complex(re, im, saved.d_g, strip, t);
    let Dims { seq, heads, .. } = strip.dims;
    for l in 0..strip.lanes {
        let (chunk, head) = strip.lane(l);
        let k = (seq - 1) as isize - (chunk * strip.chunk) as isize - t;
        if (0..LANES as isize).contains(&k) {
            let last = &saved.d_g_last[strip.batch * 2 * heads..];
            let at = k as usize * LANES + l;
            re[at] = re[at] + last[head];
            im[at] = im[at] + last[heads + head];
        }
    }
}

/// g^2.
#[inline(always)]
fn square<T: Real>(g: Complex<Lanes<T>>) -> Complex<Lanes<T>> {
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
    let (mut g_re, mut g_im) = (zero_tiles(), zero_tiles());
    let (mut w_re, mut w_im) = (zero_tiles(), zero_tiles());
    let mut p = [[saved.coupling[0]; LANES * LANES]; 2];
    let mut d = zero_tiles();

    let end = chunk + warm_up;
    for t in (0..end).step_by(LANES).rev() {
        let own = t < chunk;
        let n = LANES.min(end - t);
        for (pair, (state, sum)) in pairs.iter().zip(states.iter_mut().zip(&mut sums)) {
            for s in 0..2 {
                let strip = &pair[s];
                load_complex(&mut g_re[s], &mut g_im[s], saved.g, strip, t as isize);
                load_cotangent(&mut w_re[s], &mut w_im[s], saved, strip, t as isize);
                load_coupling(&mut p[s], saved.coupling, strip, t as isize);
                if t + LANES == chunk {
                    set_carried(&mut state[s], carry, strip);
                }
            }
            let (mut e, mut total) = (*state, *sum);
            for k in (0..n).rev() {
                for s in 0..2 {
                    let g = Complex {
                        re: row(&g_re[s], k),
                        im: row(&g_im[s], k),
                    };
                    let w = Complex {
                        re: row(&w_re[s], k),
                        im: row(&w_im[s], k),
                    };
                    let q = step_back(g, w, e[s]);
                    e[s] = complex_scale(row(&p[s], k), q);
                    total[s].re = map2(total[s].re, q.re, |a, b| a + b);
                    total[s].im = map2(total[s].im, q.im, |a, b| a - b);
                    set_row(&mut d[s], k, map2(q.re, q.re, |q, _| -q));
                    // q takes the place of w, which is used up.
                    set_row(&mut w_re[s], k, q.re);
                    set_row(&mut w_im[s], k, q.im);
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
                store(out.diag, heads, 0, strip, lane0, t, &mut d[s]);
                if !out.coupling.is_empty() {
                    load_before(&mut g_re[s], &mut g_im[s], saved, strip, t);
                    for k in 0..LANES {
                        let re = mul(row(&w_re[s], k), row(&g_re[s], k));
                        let both = sub_mul(row(&w_im[s], k), row(&g_im[s], k), re);
                        set_row(&mut d[s], k, both);
                    }
                    store(out.coupling, heads, 0, strip, lane0, t, &mut d[s]);
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
fn load_before<T: Real>(
    re: &mut Tile<T>,
    im: &mut Tile<T>,
    saved: &Saved<'_, T>,
    strip: &Strip,
    t: usize,
) {
    load_complex(re, im, saved.g, strip, t as isize - 1);
    let heads = strip.dims.heads;
    for l in 0..strip.lanes {
        let (chunk, head) = strip.lane(l);
        if chunk == 0 && t == 0 {
            let g0 = &saved.g0[strip.batch * 2 * heads..];
            (re[l], im[l]) = (g0[head], g0[heads + head]);
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
    let [mut g_re, mut g_im] = zero_tiles();
    let [mut w_re, mut w_im] = zero_tiles();
    let mut p = [saved.coupling[0]; LANES * LANES];
    for strip in pairs.iter().flatten() {
        let mut a = Complex {
            re: [T::one(); LANES],
            im: [T::zero(); LANES],
        };
        let mut b = complex_zero();
        for t in (0..saved.plan.chunk).step_by(LANES).rev() {
            load_complex(&mut g_re, &mut g_im, saved.g, strip, t as isize);
            load_cotangent(&mut w_re, &mut w_im, saved, strip, t as isize);
            load_coupling(&mut p, saved.coupling, strip, t as isize);
            for k in (0..LANES).rev() {
                let g = Complex {
                    re: row(&g_re, k),
                    im: row(&g_im, k),
                };
                let w = Complex {
                    re: row(&w_re, k),
                    im: row(&w_im, k),
                };
                a = complex_scale(row(&p, k), complex_mul(square(g), a));
                b = complex_scale(row(&p, k), step_back(g, w, b));
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
    let blocks = Blocks::new(saved.dims, saved.plan);
    let Dims { batch, seq, heads } = saved.dims;
    let (n_chunks, rows) = (blocks.n_chunks(), blocks.chunks() * saved.plan.chunk);
    let carried;
    let (warm_up, carry) = match saved.plan.warm_up {
        Some(warm_up) => (warm_up, &[][..]),
        None => {
            carried = carry_backward(saved, &blocks);
            (0, carried.as_slice())
        }
    };
    let mut sums = vec![T::zero(); batch * n_chunks * 2 * heads];
    let mut left = vec![T::zero(); batch * blocks.count() * 2 * heads];
    let coupling: Vec<&mut [T]> = match out.d_coupling.len() {
        0 => (0..batch * blocks.count())
            .map(|_| <&mut [T]>::default())
            .collect(),
        _ => blocks.split(out.d_coupling, seq, rows),
    };
    let mut tasks: Vec<_> = blocks
        .split(out.d_diag, seq, rows)
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
    out.d_shift.copy_from_slice(&sums[..2 * heads]);
    for (b, d_g0) in out.d_g0.chunks_mut(2 * heads).enumerate() {
        d_g0.copy_from_slice(&left[b * blocks.count() * 2 * heads..][..2 * heads]);
    }
}
