//! Tiles of sixteen steps by sixteen lanes: reading, writing, transposing.

use std::hint::black_box;

use super::Dims;
use super::lanes::{Complex, LANES, Lanes, complex_zero};
use super::strips::Strip;
use crate::ops::flex::Real;

/// Row-major, a row a step. Aligned, because a vector across two cache lines costs two accesses.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Tile<T>([T; LANES * LANES]);

impl<T: Real> Tile<T> {
    pub(super) fn filled(value: T) -> Self {
        Self([value; LANES * LANES])
    }

    pub(super) fn zeros() -> Self {
        Self::filled(T::zero())
    }

    #[inline(always)]
    pub(super) fn row(&self, k: usize) -> Lanes<T> {
        let mut lanes = [T::zero(); LANES];
        lanes.copy_from_slice(&self.0[k * LANES..][..LANES]);
        lanes
    }

    #[inline(always)]
    pub(super) fn set_row(&mut self, k: usize, lanes: Lanes<T>) {
        self.0[k * LANES..][..LANES].copy_from_slice(&lanes);
    }
}

/// Four perfect shuffles, each a run of two-register permutations.
#[inline(always)]
fn transpose<T: Real>(square: &mut [T; LANES * LANES]) {
    let Tile(mut scratch) = Tile::zeros();
    shuffle(square, &mut scratch);
    shuffle(&scratch, square);
    shuffle(square, &mut scratch);
    shuffle(&scratch, square);
}

#[inline(always)]
fn shuffle<T: Real>(from: &[T; LANES * LANES], to: &mut [T; LANES * LANES]) {
    const HALF: usize = LANES * LANES / 2;
    for i in 0..HALF {
        to[2 * i] = from[i];
        to[2 * i + 1] = from[i + HALF];
    }
}

/// As [`Tile`], complex: two rows a step, the real parts and the imaginary parts.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct ComplexTile<T>([T; 2 * LANES * LANES]);

impl<T: Real> ComplexTile<T> {
    pub(super) fn zeros() -> Self {
        Self([T::zero(); 2 * LANES * LANES])
    }

    #[inline(always)]
    pub(super) fn row(&self, k: usize) -> Complex<Lanes<T>> {
        let mut lanes = complex_zero();
        lanes.re.copy_from_slice(&self.0[2 * k * LANES..][..LANES]);
        lanes
            .im
            .copy_from_slice(&self.0[(2 * k + 1) * LANES..][..LANES]);
        lanes
    }

    #[inline(always)]
    pub(super) fn set_row(&mut self, k: usize, lanes: Complex<Lanes<T>>) {
        self.0[2 * k * LANES..][..LANES].copy_from_slice(&lanes.re);
        self.0[(2 * k + 1) * LANES..][..LANES].copy_from_slice(&lanes.im);
    }

    /// Sets lane `l` of step `k` to what `f` makes of it.
    #[inline(always)]
    pub(super) fn update(&mut self, k: usize, l: usize, f: impl Fn(Complex<T>) -> Complex<T>) {
        let (re, im) = (2 * k * LANES + l, (2 * k + 1) * LANES + l);
        let new = f(Complex {
            re: self.0[re],
            im: self.0[im],
        });
        (self.0[re], self.0[im]) = (new.re, new.im);
    }

    /// The steps of lane `l`, eight in each half, before the halves are transposed or after: real and
    /// imaginary parts alternate, as in the memory of a tensor of one head.
    #[inline(always)]
    fn lane(&mut self, l: usize) -> [&mut [T]; 2] {
        let (low, high) = self.0.split_at_mut(LANES * LANES);
        [low, high].map(|half| &mut half[l * LANES..][..LANES])
    }

    #[inline(always)]
    fn transpose(&mut self) {
        for half in self.0.as_chunks_mut().0 {
            transpose(half);
        }
    }
}

/// Reads steps `t..t + 16` of every lane from a tensor `[batch, seq, heads]`. What does not exist is `outside`.
#[inline(always)]
pub(super) fn load<T: Real>(tile: &mut Tile<T>, x: &[T], strip: &Strip, t: isize, outside: T) {
    if strip.lanes == 0 {
        return;
    }
    let Dims { seq, heads, .. } = strip.dims;
    let x = &x[strip.batch * seq * heads..][..seq * heads];
    let whole = strip.whole(t);
    if !whole {
        *tile = Tile::filled(outside);
    }
    if strip.by_head {
        for k in 0..LANES {
            if let Some(row) = strip.row_in_range(t + k as isize) {
                copy_lanes(
                    &mut tile.0[k * LANES..],
                    &x[row * heads + strip.head..],
                    strip.lanes,
                );
            }
        }
        return;
    }
    if whole && heads == 1 {
        let x = &x[strip.row(t) as usize..];
        for l in 0..LANES {
            tile.0[l * LANES..][..LANES].copy_from_slice(&x[l * strip.chunk..][..LANES]);
        }
        transpose(&mut tile.0);
        return;
    }
    for l in 0..strip.lanes {
        let lane = &mut tile.0[l * LANES..][..LANES];
        let t = t + (l * strip.chunk) as isize;
        for (k, value) in lane.iter_mut().enumerate() {
            if let Some(row) = strip.row_in_range(t + k as isize) {
                *value = x[row * heads + strip.head];
            }
        }
    }
    transpose(&mut tile.0);
}

/// As [`load`], from a complex tensor `[batch, seq, 2 * heads]`. What does not exist is zero.
#[inline(always)]
pub(super) fn load_complex<T: Real>(tile: &mut ComplexTile<T>, x: &[T], strip: &Strip, t: isize) {
    if strip.lanes == 0 {
        return;
    }
    let Dims { seq, heads, .. } = strip.dims;
    let x = &x[strip.batch * seq * 2 * heads..][..seq * 2 * heads];
    let whole = strip.whole(t);
    if !whole {
        *tile = ComplexTile::zeros();
    }
    if strip.by_head {
        for k in 0..LANES {
            if let Some(row) = strip.row_in_range(t + k as isize) {
                let to = &mut tile.0[2 * k * LANES..];
                let from = &x[row * 2 * heads + strip.head..];
                copy_lanes(to, from, strip.lanes);
                copy_lanes(&mut to[LANES..], &from[heads..], strip.lanes);
            }
        }
        return;
    }
    if whole && heads == 1 {
        let x = &x[2 * strip.row(t) as usize..];
        for l in 0..LANES {
            let from = &x[2 * l * strip.chunk..][..2 * LANES];
            let [low, high] = tile.lane(l);
            low.copy_from_slice(&from[..LANES]);
            high.copy_from_slice(&from[LANES..]);
        }
        tile.transpose();
        return;
    }
    for l in 0..strip.lanes {
        let t = t + (l * strip.chunk) as isize;
        let [low, high] = tile.lane(l);
        let steps = low.chunks_exact_mut(2).chain(high.chunks_exact_mut(2));
        for (k, to) in steps.enumerate() {
            if let Some(row) = strip.row_in_range(t + k as isize) {
                let from = &x[row * 2 * heads + strip.head..];
                (to[0], to[1]) = (from[0], from[heads]);
            }
        }
    }
    tile.transpose();
}

/// Reads the rows of a block of chunks in order, of a tensor `[batch, seq, width]`: what strips read with a stride,
/// which no prefetcher follows, is then near.
#[inline(always)]
pub(super) fn touch<T: Real>(x: &[T], width: usize, strip: &Strip) {
    if strip.by_head {
        return;
    }
    let (seq, start) = (strip.dims.seq, strip.first * strip.chunk);
    let end = seq.min(start + 2 * LANES * strip.chunk);
    let x = &x[(strip.batch * seq + start) * width..(strip.batch * seq + end) * width];
    let one_a_line = x.iter().step_by(64 / size_of::<T>());
    black_box(one_a_line.fold(T::zero(), |sum, &x| sum + x));
}

#[inline(always)]
fn copy_lanes<T: Real>(to: &mut [T], from: &[T], lanes: usize) {
    if lanes == LANES {
        to[..LANES].copy_from_slice(&from[..LANES]);
    } else {
        to[..lanes].copy_from_slice(&from[..lanes]);
    }
}

/// Writes a tile into `out` `[rows, heads]`, which starts at the block's first row, `lane0` chunks before
/// the strip's; spoils the tile.
#[inline(always)]
pub(super) fn store<T: Real>(
    out: &mut [T],
    strip: &Strip,
    lane0: usize,
    t: usize,
    tile: &mut Tile<T>,
) {
    if strip.lanes == 0 {
        return;
    }
    let heads = strip.dims.heads;
    if strip.by_head {
        let rows = out.chunks_exact_mut(heads).skip(t);
        for (to, from) in rows.zip(tile.0.chunks_exact(LANES)) {
            copy_lanes(&mut to[strip.head..], from, strip.lanes);
        }
        return;
    }
    transpose(&mut tile.0);
    if heads == 1 && strip.whole(t as isize) {
        let out = &mut out[lane0 * strip.chunk + t..];
        for l in 0..LANES {
            out[l * strip.chunk..][..LANES].copy_from_slice(&tile.0[l * LANES..][..LANES]);
        }
        return;
    }
    for l in 0..strip.lanes {
        let row = (lane0 + l) * strip.chunk + t;
        let Some(out) = out.get_mut(row * heads..) else {
            return;
        };
        let lane = &tile.0[l * LANES..][..LANES];
        for (to, from) in out.chunks_exact_mut(heads).zip(lane) {
            to[strip.head] = *from;
        }
    }
}

/// As [`store`], into a complex tensor `[rows, 2 * heads]`.
#[inline(always)]
pub(super) fn store_complex<T: Real>(
    out: &mut [T],
    strip: &Strip,
    lane0: usize,
    t: usize,
    tile: &mut ComplexTile<T>,
) {
    if strip.lanes == 0 {
        return;
    }
    let heads = strip.dims.heads;
    if strip.by_head {
        let from = tile.0.chunks_exact(2 * LANES);
        for (to, from) in out.chunks_exact_mut(2 * heads).skip(t).zip(from) {
            let (re, im) = to.split_at_mut(heads);
            copy_lanes(&mut re[strip.head..], from, strip.lanes);
            copy_lanes(&mut im[strip.head..], &from[LANES..], strip.lanes);
        }
        return;
    }
    tile.transpose();
    if heads == 1 && strip.whole(t as isize) {
        let out = &mut out[2 * (lane0 * strip.chunk + t)..];
        for l in 0..LANES {
            let to = &mut out[2 * l * strip.chunk..][..2 * LANES];
            let [low, high] = tile.lane(l);
            to[..LANES].copy_from_slice(low);
            to[LANES..].copy_from_slice(high);
        }
        return;
    }
    for l in 0..strip.lanes {
        let row = (lane0 + l) * strip.chunk + t;
        let Some(out) = out.get_mut(row * 2 * heads..) else {
            return;
        };
        let [low, high] = tile.lane(l);
        let steps = low.chunks_exact(2).chain(high.chunks_exact(2));
        for (to, from) in out.chunks_exact_mut(2 * heads).zip(steps) {
            (to[strip.head], to[heads + strip.head]) = (from[0], from[1]);
        }
    }
}

#[inline(always)]
pub(super) fn load_coupling<T: Real>(tile: &mut Tile<T>, coupling: &[T], strip: &Strip, t: isize) {
    if coupling.len() > 1 {
        load(tile, coupling, strip, t, T::zero());
    }
}

/// Sets the lanes whose chunk has a row in `carry` `[batch, n_carried, 2 * heads]`.
#[inline(always)]
pub(super) fn set_carried<T: Real>(state: &mut Complex<Lanes<T>>, carry: &[T], strip: &Strip) {
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
