//! Products with a packed matrix on plain slices.
//!
//! A few rows of `x`: codes become floats in registers and meet `x` at once. Many rows: sixteen rows of the matrix are
//! unpacked into a panel that stays in a core's cache, and multiplied in register blocks.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]
// Lanes are loops over indices: iterators over several arrays keep the vector features out.
#![allow(clippy::needless_range_loop, reason = "see above")]

use multiversion::multiversion;
use rayon::prelude::*;

use super::DECODE_TOKENS;
use crate::ops::flex::Real;
use crate::quant::{BitWidth, Layout};

/// Codes that are unpacked together: at every width whole words, and no group of codes ends within.
pub(super) const CHUNK: usize = 32;
/// Partial sums of a product, and rows of the matrix in a panel.
pub(super) const LANES: usize = 16;
/// Rows of the matrix that meet `x` together.
const ROWS: usize = 4;
/// Rows of `x` in a register block.
const BLOCK: usize = 6;
/// Columns of a register block that are multiplied between two looks at the bounds.
const UNROLLED: usize = 8;
/// Rows of `x` in a task; each unpacks the matrix for itself.
pub(super) const TASK: usize = 11 * BLOCK;
/// Weights that are worth a task.
const TASK_WEIGHTS: usize = 1 << 16;
/// Multiplications for which waking other threads costs less than it saves.
const WORTH_WAKING: usize = 1 << 18;

type Lanes<T> = [T; LANES];

/// Calls `$function::<T, BITS>` for the bits of `$layout`.
macro_rules! for_width {
    ($layout:expr, $function:ident::<$t:ident>($($argument:expr),*)) => {
        match $layout.width {
            BitWidth::Fp32 => $function::<$t, 32>($($argument),*),
            BitWidth::Fp16 => $function::<$t, 16>($($argument),*),
            BitWidth::Int8 => $function::<$t, 8>($($argument),*),
            BitWidth::Int4 => $function::<$t, 4>($($argument),*),
            BitWidth::Int2 => $function::<$t, 2>($($argument),*),
        }
    };
}

/// Overwrites `y` `[tokens, rows]` with the products of `x` `[tokens, columns]` and the rows of the matrix in `words`.
pub fn matmul<T: Real>(x: &[T], layout: Layout, words: &[u32], y: &mut [T]) {
    if x.len() < DECODE_TOKENS * layout.columns {
        decode(x, layout, words, y);
    } else {
        prefill(x, layout, words, y);
    }
}

/// Overwrites `y` `[ids, columns]` with rows `ids` of the matrix.
pub fn gather_rows<T: Real>(layout: Layout, words: &[u32], ids: &[u32], y: &mut [T]) {
    let n_ids = TASK_WEIGHTS / layout.columns + 1;
    let work = y.len();
    in_tasks(y, n_ids * layout.columns, work, |task, y| {
        let ids = &ids[task * n_ids..];
        for (y, &id) in y.chunks_exact_mut(layout.columns).zip(ids) {
            for_width!(layout, unpack_row::<T>(layout, words, id as usize, y));
        }
    });
}

fn decode<T: Real>(x: &[T], layout: Layout, words: &[u32], y: &mut [T]) {
    let Layout { rows, columns, .. } = layout;
    let n_rows = (TASK_WEIGHTS / columns + 1).next_multiple_of(ROWS);
    for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(rows)) {
        in_tasks(y, n_rows, rows * columns, |task, y| {
            for_width!(layout, dots::<T>(x, layout, words, task * n_rows, y));
        });
    }
}

fn prefill<T: Real>(x: &[T], layout: Layout, words: &[u32], y: &mut [T]) {
    let Layout { rows, columns, .. } = layout;
    in_tasks(y, TASK * rows, x.len() * rows, |task, y| {
        let x = &x[task * TASK * columns..][..y.len() / rows * columns];
        let mut panel = vec![[T::zero(); LANES]; columns];
        for first in (0..rows).step_by(LANES) {
            for_width!(layout, unpack_panel::<T>(layout, words, first, &mut panel));
            multiply_panel(x, layout, &panel, first, y);
        }
    });
}

/// Hands every `len` values of `y`, with their number, to `task`: on this thread alone unless `work`, all their
/// multiplications, is worth waking others.
fn in_tasks<T: Real>(
    y: &mut [T],
    len: usize,
    work: usize,
    task: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    if work < WORTH_WAKING {
        y.chunks_mut(len).enumerate().for_each(|(i, y)| task(i, y));
    } else {
        y.par_chunks_mut(len)
            .enumerate()
            .for_each(|(i, y)| task(i, y));
    }
}

/// `x` times the rows of the matrix from `first` on, as many as `y` has places.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma"
))]
fn dots<T: Real, const BITS: usize>(
    x: &[T],
    layout: Layout,
    words: &[u32],
    first: usize,
    y: &mut [T],
) {
    let (blocks, rest) = y.as_chunks_mut::<ROWS>();
    let n_in_blocks = blocks.len() * ROWS;
    for (i, block) in blocks.iter_mut().enumerate() {
        *block = dot::<T, BITS, ROWS>(x, layout, words, first + i * ROWS);
    }
    for (i, y) in rest.iter_mut().enumerate() {
        [*y] = dot::<T, BITS, 1>(x, layout, words, first + n_in_blocks + i);
    }
}

/// `x` times `N` rows of the matrix. Codes are summed without their scale, group by group.
#[inline(always)]
fn dot<T: Real, const BITS: usize, const N: usize>(
    x: &[T],
    layout: Layout,
    words: &[u32],
    first: usize,
) -> [T; N] {
    let matrix = Matrix { layout, words };
    let rows: [&[u32]; N] = std::array::from_fn(|r| matrix.codes(first + r));
    let group_len = layout.group_len();
    let mut total = [[T::zero(); LANES]; N];
    for (group, x) in x.chunks(group_len).enumerate() {
        let rows = rows.map(|row| &row[group * group_len * BITS / 32..]);
        let mut sum = [[T::zero(); LANES]; N];
        let (whole, rest) = x.as_chunks::<CHUNK>();
        for (k, x) in whole.iter().enumerate() {
            for r in 0..N {
                let (codes, _) = rows[r][k * BITS..].as_chunks::<BITS>();
                sum[r] = plus_product(sum[r], unpack(&codes[0]), x);
            }
        }
        if !rest.is_empty() {
            let x = padded::<T, CHUNK>(rest);
            for r in 0..N {
                let codes = padded::<u32, BITS>(&rows[r][whole.len() * BITS..]);
                sum[r] = plus_product(sum[r], unpack(&codes), &x);
            }
        }
        for r in 0..N {
            total[r] = plus_scaled(total[r], sum[r], matrix.scale(first + r, group));
        }
    }
    total.map(total_of)
}

/// Overwrites `y` `[columns]` with a row of the matrix.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma"
))]
fn unpack_row<T: Real, const BITS: usize>(layout: Layout, words: &[u32], row: usize, y: &mut [T]) {
    let matrix = Matrix { layout, words };
    let (codes, group_len) = (matrix.codes(row), layout.group_len());
    for (group, y) in y.chunks_mut(group_len).enumerate() {
        let codes = &codes[group * group_len * BITS / 32..];
        let scale: T = matrix.scale(row, group);
        for (y, codes) in y.chunks_mut(CHUNK).zip(codes.chunks(BITS)) {
            let codes = unpack::<T, BITS>(&padded(codes));
            for (y, &code) in y.iter_mut().zip(&codes) {
                *y = code * scale;
            }
        }
    }
}

/// Overwrites `panel` `[columns, LANES]` with the transpose of the rows from `first` on, zeros after the last.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma"
))]
fn unpack_panel<T: Real, const BITS: usize>(
    layout: Layout,
    words: &[u32],
    first: usize,
    panel: &mut [Lanes<T>],
) {
    let matrix = Matrix { layout, words };
    let n_rows = (layout.rows - first).min(LANES);
    let mut rows: [&[u32]; LANES] = [&[]; LANES];
    for r in 0..n_rows {
        rows[r] = matrix.codes(first + r);
    }
    let group_len = layout.group_len();
    for (group, panel) in panel.chunks_mut(group_len).enumerate() {
        let mut scales = [T::zero(); LANES];
        for r in 0..n_rows {
            scales[r] = matrix.scale(first + r, group);
        }
        // A word of every row at a time.
        for (k, columns) in panel.chunks_mut(32 / BITS).enumerate() {
            let at = group * group_len * BITS / 32 + k;
            let mut words = [0; LANES];
            for r in 0..n_rows {
                words[r] = rows[r][at];
            }
            for (place, out) in columns.iter_mut().enumerate() {
                for r in 0..LANES {
                    out[r] = code::<T, BITS>(words[r], place) * scales[r];
                }
            }
        }
    }
}

/// Writes to the rows of `y` the products of `x` with the unpacked rows in `panel`, the first of which is `first`.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma"
))]
fn multiply_panel<T: Real>(x: &[T], layout: Layout, panel: &[Lanes<T>], first: usize, y: &mut [T]) {
    let Layout { rows, columns, .. } = layout;
    let n_rows = (rows - first).min(LANES);
    let blocks = x.chunks(BLOCK * columns).zip(y.chunks_mut(BLOCK * rows));
    for (x, y) in blocks {
        let mut write = |token: usize, products: Lanes<T>| {
            y[token * rows + first..][..n_rows].copy_from_slice(&products[..n_rows]);
        };
        if x.len() == BLOCK * columns {
            let products = multiply_block::<T, BLOCK>(x, columns, panel);
            for (token, products) in products.into_iter().enumerate() {
                write(token, products);
            }
        } else {
            for (token, x) in x.chunks_exact(columns).enumerate() {
                let [products] = multiply_block::<T, 1>(x, columns, panel);
                write(token, products);
            }
        }
    }
}

/// `N` rows of `x` times a panel.
#[inline(always)]
fn multiply_block<T: Real, const N: usize>(
    x: &[T],
    columns: usize,
    panel: &[Lanes<T>],
) -> [Lanes<T>; N] {
    let rows: [_; N] = std::array::from_fn(|t| x[t * columns..][..columns].as_chunks());
    let (panel, rest) = panel.as_chunks();
    let mut sum = [[T::zero(); LANES]; N];
    for (k, weights) in panel.iter().enumerate() {
        sum = plus_products(sum, rows.map(|(x, _)| &x[k]), weights);
    }
    if !rest.is_empty() {
        let x = rows.map(|(_, x)| padded(x));
        let mut weights = [[T::zero(); LANES]; UNROLLED];
        weights[..rest.len()].copy_from_slice(rest);
        sum = plus_products(sum, x.each_ref(), &weights);
    }
    sum
}

/// `sum` plus the products of a few columns, in their order.
#[inline(always)]
fn plus_products<T: Real, const N: usize>(
    mut sum: [Lanes<T>; N],
    x: [&[T; UNROLLED]; N],
    weights: &[Lanes<T>; UNROLLED],
) -> [Lanes<T>; N] {
    for k in 0..UNROLLED {
        for t in 0..N {
            for l in 0..LANES {
                sum[t][l] = weights[k][l].mul_add(x[t][k], sum[t][l]);
            }
        }
    }
    sum
}

/// A packed matrix as the helpers read it.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    layout: Layout,
    words: &'a [u32],
}

impl<'a> Matrix<'a> {
    /// The words of a row's codes.
    #[inline(always)]
    fn codes(self, row: usize) -> &'a [u32] {
        let n = self.layout.words_per_row();
        &self.words[row * n..][..n]
    }

    /// The scale of a group of a row; 1 where there are none.
    #[inline(always)]
    fn scale<T: Real>(self, row: usize, group: usize) -> T {
        let groups = self.layout.groups_per_row();
        if groups == 0 {
            return T::one();
        }
        let index = row * groups + group;
        let pair = self.words[self.layout.code_words() + index / 2];
        T::from_f32(half_to_f32(pair >> (16 * (index % 2))))
    }
}

/// The codes in the words of a chunk.
#[inline(always)]
fn unpack<T: Real, const BITS: usize>(words: &[u32; BITS]) -> [T; CHUNK] {
    let mut codes = [T::zero(); CHUNK];
    match BITS {
        // Through arrays of the codes' own size: LLVM then loads them in one piece.
        16 => {
            let mut halves = [0_u16; CHUNK];
            for i in 0..CHUNK {
                halves[i] = (words[i / 2 % BITS] >> (16 * (i % 2))) as u16;
            }
            for i in 0..CHUNK {
                codes[i] = T::from_f32(half_to_f32(halves[i].into()));
            }
        }
        8 => {
            let mut bytes = [0_u8; CHUNK];
            for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            for i in 0..CHUNK {
                codes[i] = T::from_f32(bytes[i].cast_signed().into());
            }
        }
        _ => {
            let per_word = 32 / BITS;
            for i in 0..CHUNK {
                codes[i] = code::<T, BITS>(words[i / per_word], i % per_word);
            }
        }
    }
    codes
}

/// The code at a place of a word.
#[inline(always)]
fn code<T: Real, const BITS: usize>(word: u32, place: usize) -> T {
    T::from_f32(match BITS {
        32 => f32::from_bits(word),
        16 => half_to_f32(word >> (16 * place)),
        _ => {
            let left = word << (32 - BITS * (place + 1));
            (left.cast_signed() >> (32 - BITS)) as f32
        }
    })
}

/// The number whose f16 bits are the low half of `bits`, in a form that vectorises. Finite: there are no others.
#[inline(always)]
fn half_to_f32(bits: u32) -> f32 {
    const SUBNORMAL: f32 = 1.0 / 16_777_216.0; // 2^-24
    let magnitude = bits & 0x7fff;
    let normal = f32::from_bits((magnitude << 13) + (112 << 23));
    let subnormal = magnitude as f32 * SUBNORMAL;
    let value = if magnitude < 0x400 { subnormal } else { normal };
    f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
}

/// The first `N` of `values`, zeros where there are fewer.
#[inline(always)]
fn padded<V: Copy + num_traits::Zero, const N: usize>(values: &[V]) -> [V; N] {
    let mut all = [V::zero(); N];
    let n = values.len().min(N);
    all[..n].copy_from_slice(&values[..n]);
    all
}

/// `sum` plus the products of codes and `x`, each half of the chunk into the same lanes.
#[inline(always)]
fn plus_product<T: Real>(mut sum: Lanes<T>, codes: [T; CHUNK], x: &[T; CHUNK]) -> Lanes<T> {
    for l in 0..LANES {
        sum[l] = codes[l].mul_add(x[l], sum[l]);
    }
    for l in 0..LANES {
        sum[l] = codes[LANES + l].mul_add(x[LANES + l], sum[l]);
    }
    sum
}

#[inline(always)]
fn plus_scaled<T: Real>(mut total: Lanes<T>, sum: Lanes<T>, scale: T) -> Lanes<T> {
    for l in 0..LANES {
        total[l] = sum[l].mul_add(scale, total[l]);
    }
    total
}

/// The sum of the lanes, pairwise.
#[inline(always)]
fn total_of<T: Real>(mut lanes: Lanes<T>) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = lanes[l] + lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}
