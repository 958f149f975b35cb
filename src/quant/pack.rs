//! Packing and its reverse.

#![allow(
    clippy::inline_always,
    reason = "helpers must be compiled for the vector level of the function that calls them"
)]

use half::f16;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{BitWidth, Layout};
use crate::{Error, Result};

/// Scales that are tried: this many equal parts of the one at which the largest weight has the largest code.
const FRACTIONS: u32 = 32;
/// Partial sums of squared errors, in a fixed order whatever the vector level.
const LANES: usize = 16;

/// A matrix in words; see [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedMatrix {
    /// Where what is.
    pub layout: Layout,
    /// Codes, then scales.
    pub words: Vec<u32>,
}

impl PackedMatrix {
    /// Packs `values`, `[rows, columns]` row-major. Of 32 fractions of its largest magnitude a group takes the one
    /// with the least squared error; the larger of two equals. Equal on every machine.
    ///
    /// # Errors
    /// [`Error::Shape`] when the matrix is empty or has another number of values; [`Error::Domain`] for the first
    /// value that is not finite.
    pub fn pack(width: BitWidth, [rows, columns]: [usize; 2], values: &[f32]) -> Result<Self> {
        if values.is_empty() || values.len() != rows * columns {
            return Err(Error::Shape {
                op: "quantisation",
                arg: "values",
                expected: format!("[{rows}, {columns}], none of them 0"),
                got: vec![values.len()],
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::Domain {
                op: "quantisation",
                arg: "values",
                requirement: "finite",
                index: vec![at / columns, at % columns],
                value: values[at].into(),
            });
        }
        let layout = Layout {
            width,
            rows,
            columns,
        };
        let mut words = vec![0; layout.n_words()];
        let (codes, scales) = words.split_at_mut(layout.code_words());
        let per_row: Vec<Vec<f16>> = values
            .par_chunks_exact(columns)
            .zip(codes.par_chunks_exact_mut(layout.words_per_row()))
            .map(|(values, words)| pack_row(layout, values, words))
            .collect();
        for (index, scale) in per_row.into_iter().flatten().enumerate() {
            scales[index / 2] |= u32::from(scale.to_bits()) << (16 * (index % 2));
        }
        Ok(Self { layout, words })
    }

    /// The weights that the codes stand for, `[rows, columns]` row-major.
    pub fn dequantise(&self) -> Vec<f32> {
        let Layout { width, columns, .. } = self.layout;
        let bits = width.bits() as usize;
        let (codes, scales) = self.words.split_at(self.layout.code_words());
        let groups = self.layout.groups_per_row();
        let value = |row: usize, words: &[u32], column: usize| {
            let word = words[column * bits / 32];
            let first = column * bits % 32;
            let code = match width {
                BitWidth::Fp32 => return f32::from_bits(word),
                BitWidth::Fp16 => return f16::from_bits((word >> first) as u16).to_f32(),
                // To the top, and back with the sign.
                _ => (word << (32 - bits - first)).cast_signed() >> (32 - bits),
            };
            let index = row * groups + column / self.layout.group_len();
            let scale = f16::from_bits((scales[index / 2] >> (16 * (index % 2))) as u16);
            code as f32 * scale.to_f32()
        };
        let value = &value;
        codes
            .par_chunks_exact(self.layout.words_per_row())
            .enumerate()
            .flat_map_iter(|(row, words)| (0..columns).map(move |c| value(row, words, c)))
            .collect()
    }
}

/// Packs the codes of a row into `words`, which are 0, and returns its scales.
fn pack_row(layout: Layout, values: &[f32], words: &mut [u32]) -> Vec<f16> {
    let bits = layout.width.bits() as usize;
    let mut put = |column: usize, code: u32| {
        words[column * bits / 32] |= code << (column * bits % 32);
    };
    let Some(largest_code) = layout.width.largest_code() else {
        for (column, &value) in values.iter().enumerate() {
            let code = match layout.width {
                BitWidth::Fp32 => value.to_bits(),
                // An infinity would be no weight.
                _ => f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
                    .to_bits()
                    .into(),
            };
            put(column, code);
        }
        return Vec::new();
    };
    let limit = largest_code as f32;
    let mask = 2 * largest_code + 1;
    let group_len = layout.group_len();
    let groups = values.chunks(group_len).enumerate();
    groups
        .map(|(group, values)| {
            let scale = best_scale(values, limit);
            for (i, &value) in values.iter().enumerate() {
                let code = nearest_code(value, inverse(scale.to_f32()), limit) as i32;
                put(group * group_len + i, code.cast_unsigned() & mask);
            }
            scale
        })
        .collect()
}

/// The scale with the least squared error.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn best_scale(values: &[f32], limit: f32) -> f16 {
    let largest = values.iter().fold(0.0_f32, |m, value| m.max(value.abs()));
    let scale_at = |fraction: u32| {
        let scale = largest / limit * (fraction as f32 / FRACTIONS as f32);
        f16::from_f32(scale.min(f16::MAX.to_f32()))
    };
    let mut best = scale_at(FRACTIONS);
    let mut least = squared_error(values, best.to_f32(), limit);
    for scale in (1..FRACTIONS).rev().map(scale_at) {
        let error = squared_error(values, scale.to_f32(), limit);
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best
}

#[inline(always)]
fn squared_error(values: &[f32], scale: f32, limit: f32) -> f32 {
    let inverse = inverse(scale);
    let mut sums = [0.0; LANES];
    for chunk in values.chunks(LANES) {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            let error = value - nearest_code(value, inverse, limit) * scale;
            *sum += error * error;
        }
    }
    sums.iter().sum()
}

/// 1 / `scale`; 0 for a scale that underflowed, whose codes are all 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { scale.recip() } else { 0.0 }
}

#[inline(always)]
fn nearest_code(value: f32, inverse: f32, limit: f32) -> f32 {
    (value * inverse).round_ties_even().clamp(-limit, limit)
}
