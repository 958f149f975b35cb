//! Products with a packed matrix, from the definition of its format.

use super::Number;

/// The weights in `words`, `[rows, columns]`: codes of `bits` row by row, every row from a word of its own, the
/// first in the lowest bits; then, below 16 bits, one f16 scale a row at eight and one for every 64 columns at less.
pub fn unpack(bits: usize, rows: usize, columns: usize, words: &[u32]) -> Vec<f64> {
    let words_per_row = (columns * bits).div_ceil(32);
    let group = if bits == 8 { columns } else { 64 };
    let groups = columns.div_ceil(group);
    let field = |first_word: usize, bit: usize, len: usize| {
        let word = u64::from(words[first_word + bit / 32]);
        word >> (bit % 32) & ((1 << len) - 1)
    };
    let mut weights = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let code = field(row * words_per_row, column * bits, bits);
            weights.push(match bits {
                32 => f64::from(f32::from_bits(code as u32)),
                16 => half(code),
                _ => {
                    let negative = code >> (bits - 1) == 1;
                    let code = code as f64
                        - if negative {
                            (1_u64 << bits) as f64
                        } else {
                            0.0
                        };
                    let index = row * groups + column / group;
                    code * half(field(rows * words_per_row, index * 16, 16))
                }
            });
        }
    }
    weights
}

/// The finite number with these f16 bits (IEEE 754-2008, binary16).
fn half(bits: u64) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 31, (bits & 1023) as f64);
    let magnitude = match exponent {
        0 => fraction / 1024.0 * 2_f64.powi(-14),
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent as i32 - 15),
    };
    if bits >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// `x` `[tokens, columns]` times the transpose of `weight` `[rows, columns]`; `[tokens, rows]`.
pub fn multiply<T: Number>(x: &[T], weight: &[T], columns: usize) -> Vec<T> {
    let zero = T::from_f64(0.0);
    let dot = |x: &[T], w: &[T]| x.iter().zip(w).fold(zero, |sum, (&x, &w)| sum + x * w);
    x.chunks(columns)
        .flat_map(|x| weight.chunks(columns).map(move |w| dot(x, w)))
        .collect()
}
