//! How a packed matrix lies in 32-bit words.

use serde::{Deserialize, Serialize};

use super::BitWidth;

/// Columns that share a scale at four and two bits.
const GROUP: usize = 64;

/// Where the codes and the scales of a matrix are in its words.
///
/// A row is an output channel (of an embedding, a token), a column an input. First come the codes, row by row: the
/// code of column c is in word `c / n` of its row, n = 32 / bits, from bit `bits * (c % n)` on; what is left of a row's
/// last word is 0. Then come the scales, row by row and group by group, two to a word, the first in the low half. A
/// group is a whole row at eight bits, 64 columns (the last one fewer) at four and two.
///
/// A code is a two's complement integer and its weight `code * scale`, with the scale an f16; at sixteen and
/// thirty-two bits the code is the weight itself, an f16 or f32, and there are no scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Bits of a code.
    pub width: BitWidth,
    /// Outputs, at least 1.
    pub rows: usize,
    /// Inputs, at least 1.
    pub columns: usize,
}

impl Layout {
    /// Words of a row's codes.
    pub fn words_per_row(self) -> usize {
        self.columns.div_ceil(32 / self.width.bits() as usize)
    }

    /// Columns that share a scale.
    pub fn group_len(self) -> usize {
        match self.width {
            BitWidth::Int4 | BitWidth::Int2 => self.columns.min(GROUP),
            BitWidth::Fp32 | BitWidth::Fp16 | BitWidth::Int8 => self.columns,
        }
    }

    /// Scales of a row.
    pub fn groups_per_row(self) -> usize {
        match self.width {
            BitWidth::Fp32 | BitWidth::Fp16 => 0,
            BitWidth::Int8 | BitWidth::Int4 | BitWidth::Int2 => {
                self.columns.div_ceil(self.group_len())
            }
        }
    }

    /// Words of all codes; the scales begin there.
    pub fn code_words(self) -> usize {
        self.rows * self.words_per_row()
    }

    /// Words of all scales.
    pub fn scale_words(self) -> usize {
        (self.rows * self.groups_per_row()).div_ceil(2)
    }

    /// Words in all.
    pub fn n_words(self) -> usize {
        self.code_words() + self.scale_words()
    }
}
