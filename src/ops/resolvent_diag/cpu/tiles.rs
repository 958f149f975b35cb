//! Tiles of sixteen steps by sixteen lanes: reading, writing, transposing.

use super::Dims;
use super::lanes::{Complex, LANES, Lanes};
use super::strips::Strip;
use crate::ops::flex::Real;

/// Row-major, a row a step.
pub(super) type Tile<T> = [T; LANES * LANES];

pub(super) fn zero_tiles<T: Real>() -> [Tile<T>; 2] {
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
    pub(super) const HALF: usize = LANES * LANES / 2;
    for i in 0..HALF {
        to[2 * i] = from[i];
        to[2 * i + 1] = from[i + HALF];
    }
}

/// Reads steps `t..t + 16` of every lane from a tensor of `width` columns, of which the strip's heads
/// start at `column`. What does not exist is zero.
#[inline(always)]
pub(super) fn load<T: Real>(
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
pub(super) fn load_complex<T: Real>(
    re: &mut Tile<T>,
    im: &mut Tile<T>,
    x: &[T],
    strip: &Strip,
    t: isize,
) {
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
pub(super) fn store<T: Real>(
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
pub(super) fn store_complex<T: Real>(
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
pub(super) fn load_coupling<T: Real>(tile: &mut Tile<T>, coupling: &[T], strip: &Strip, t: isize) {
    if coupling.len() > 1 {
        load(tile, coupling, strip.dims.heads, 0, strip, t);
    }
}

#[inline(always)]
pub(super) fn row<T: Real>(tile: &Tile<T>, k: usize) -> Lanes<T> {
    let mut lanes = [T::zero(); LANES];
    lanes.copy_from_slice(&tile[k * LANES..][..LANES]);
    lanes
}

#[inline(always)]
pub(super) fn set_row<T: Real>(tile: &mut Tile<T>, k: usize, lanes: Lanes<T>) {
    tile[k * LANES..][..LANES].copy_from_slice(&lanes);
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
