//! The bit widths by name and by number.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Bits in which a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BitWidth {
    /// Not quantised.
    Fp32,
    /// Half-precision floats without a scale.
    Fp16,
    /// -127 to 127 times a scale.
    Int8,
    /// -7 to 7 times a scale.
    Int4,
    /// -1, 0 and 1 times a scale: ternary.
    Int2,
}

impl BitWidth {
    /// All, the widest first.
    pub const ALL: [Self; 5] = [Self::Fp32, Self::Fp16, Self::Int8, Self::Int4, Self::Int2];

    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int2 => "int2",
        }
    }

    /// Bits of a weight, scales not counted.
    pub fn bits(self) -> u32 {
        match self {
            Self::Fp32 => 32,
            Self::Fp16 => 16,
            Self::Int8 => 8,
            Self::Int4 => 4,
            Self::Int2 => 2,
        }
    }

    /// The width of `bits`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the numbers that exist.
    pub fn from_bits(bits: u32) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|width| width.bits() == bits)
            .ok_or_else(|| Error::UnknownName {
                kind: "bit width",
                name: bits.to_string(),
                known: Self::ALL.map(|width| width.bits().to_string()).to_vec(),
            })
    }

    /// The largest code of an integer width; none of a float width, which has no scales either.
    pub(super) fn largest_code(self) -> Option<u32> {
        match self {
            Self::Fp32 | Self::Fp16 => None,
            Self::Int8 | Self::Int4 | Self::Int2 => Some((1 << (self.bits() - 1)) - 1),
        }
    }
}

impl fmt::Display for BitWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::BitWidth;

    #[test]
    fn a_width_is_found_by_its_bits_and_others_are_refused_with_the_list() {
        for width in BitWidth::ALL {
            assert_eq!(BitWidth::from_bits(width.bits()).unwrap(), width);
            let json = serde_json::to_string(&width).unwrap();
            assert_eq!(json, format!("\"{width}\""));
            assert_eq!(serde_json::from_str::<BitWidth>(&json).unwrap(), width);
        }
        for bits in [0, 1, 3, 7, 64] {
            let refused = BitWidth::from_bits(bits).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            let expected = format!("unknown bit width '{bits}'; known: 32, 16, 8, 4, 2");
            assert_eq!(refused.to_string(), expected);
        }
        let codes = BitWidth::ALL.map(BitWidth::largest_code);
        assert_eq!(codes, [None, None, Some(127), Some(7), Some(1)]);
    }
}
