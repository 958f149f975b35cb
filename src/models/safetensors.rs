//! Reads `.safetensors` files: an 8-byte little-endian length, a JSON header of that length that maps names
//! to `{dtype, shape, data_offsets}`, then the bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use half::{bf16, f16};
use serde::Deserialize;

use crate::{Error, Result};

/// Headers beyond this are none, says the format; what claims one is another kind of file.
const MAX_HEADER: u64 = 100_000_000;

/// What the values of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Dtype {
    /// 16-bit float of 11 significant bits.
    F16,
    /// 16-bit float of 8 significant bits and the range of F32.
    #[serde(rename = "BF16")]
    Bf16,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 64-bit integer.
    I64,
}

impl Dtype {
    fn n_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Whether the values are floats.
    pub fn is_float(self) -> bool {
        self != Self::I64
    }
}

/// The tensors of one file, as its bytes.
#[derive(Debug)]
pub struct Safetensors {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its values lie in the file.
    range: Range<usize>,
}

/// An entry as the header states it.
#[derive(Deserialize)]
struct Stated {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// One tensor of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredTensor<'a> {
    /// What its values are.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: &'a [usize],
    bytes: &'a [u8],
}

impl Safetensors {
    /// Takes a file's `bytes` apart; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the file is truncated, its header is no JSON of the format, an offset lies
    /// outside the file or does not fit its shape, or a dtype is none of [`Dtype`].
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let bad = |problem: String| Error::bad_input(name, problem, "write the file again");
        let truncated = || {
            bad(format!(
                "is truncated: {} bytes do not hold its header",
                bytes.len()
            ))
        };
        let (length, rest) = bytes.split_first_chunk().ok_or_else(truncated)?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(bad(format!(
                "is no safetensors file: it claims a header of {length} bytes"
            )));
        }
        let (header, data) = rest
            .split_at_checked(length as usize)
            .ok_or_else(truncated)?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)
            .map_err(|error| bad(format!("has a header that is no JSON object: {error}")))?;

        let first = bytes.len() - data.len();
        let mut entries = BTreeMap::new();
        for (tensor, stated) in header {
            if tensor == "__metadata__" {
                continue;
            }
            let bad = |problem: String| bad(format!("tensor '{tensor}' {problem}"));
            let Stated {
                dtype,
                shape,
                data_offsets: [from, to],
            } = serde_json::from_value(stated)
                .map_err(|error| bad(format!("has a bad header entry: {error}")))?;
            if from > to || to > data.len() {
                return Err(bad(format!(
                    "claims bytes {from}..{to} of {}: the file is truncated or its offsets are wrong",
                    data.len()
                )));
            }
            let n_bytes = shape
                .iter()
                .try_fold(dtype.n_bytes(), |n, &size| n.checked_mul(size));
            if n_bytes != Some(to - from) {
                return Err(bad(format!(
                    "has shape {shape:?} of {dtype:?} but {} bytes",
                    to - from
                )));
            }
            let range = first + from..first + to;
            let entry = Entry {
                dtype,
                shape,
                range,
            };
            entries.insert(tensor, entry);
        }
        Ok(Self { bytes, entries })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.entries.get(name).map(|entry| self.view(entry))
    }

    /// Forgets the tensor called `name`.
    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, StoredTensor<'_>)> {
        let entries = self.entries.iter();
        entries.map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> StoredTensor<'a> {
        StoredTensor {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &self.bytes[entry.range.clone()],
        }
    }
}

impl StoredTensor<'_> {
    /// How many values there are.
    pub fn n_values(self) -> usize {
        self.bytes.len() / self.dtype.n_bytes()
    }

    /// The values, row-major. `f64` holds every float, and every integer up to 2^53, exactly.
    pub fn doubles(self) -> Vec<f64> {
        match self.dtype {
            Dtype::F16 => self.numbers(|b| f16::from_le_bytes(b).to_f64()),
            Dtype::Bf16 => self.numbers(|b| bf16::from_le_bytes(b).to_f64()),
            Dtype::F32 => self.numbers(|b| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => self.numbers(f64::from_le_bytes),
            Dtype::I64 => self.numbers(|b| i64::from_le_bytes(b) as f64),
        }
    }

    /// The values, row-major, rounded to `f32`, which holds every 16-bit float exactly.
    pub fn floats(self) -> Vec<f32> {
        match self.dtype {
            Dtype::F16 => self.numbers(|b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => self.numbers(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F32 => self.numbers(f32::from_le_bytes),
            Dtype::F64 => self.numbers(|b| f64::from_le_bytes(b) as f32),
            Dtype::I64 => self.numbers(|b| i64::from_le_bytes(b) as f32),
        }
    }

    fn numbers<const N: usize, T>(self, number: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (chunks, _) = self.bytes.as_chunks::<N>();
        chunks.iter().map(|&chunk| number(chunk)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn tensors_of_every_dtype_are_read() {
        let mut data = 1.5_f32.to_le_bytes().to_vec();
        data.extend((-2.25_f64).to_le_bytes());
        data.extend(7_i64.to_le_bytes());
        // By hand: sign, exponent 15 + 1, fraction .1 (F16); the upper half of the F32 3.0 (BF16).
        data.extend(0xc200_u16.to_le_bytes());
        data.extend(0x4040_u16.to_le_bytes());
        let header = r#"{"__metadata__": {"made": "here"},
            "a/x": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
            "a/y": {"dtype": "F64", "shape": [], "data_offsets": [4, 12]},
            "a/z": {"dtype": "I64", "shape": [1], "data_offsets": [12, 20]},
            "a/h": {"dtype": "F16", "shape": [1], "data_offsets": [20, 22]},
            "a/b": {"dtype": "BF16", "shape": [1], "data_offsets": [22, 24]},
            "a/none": {"dtype": "F32", "shape": [1, 0], "data_offsets": [24, 24]}}"#;
        let read = Safetensors::parse("test", file(header, &data)).unwrap();
        for (name, expected) in [
            ("a/x", 1.5),
            ("a/y", -2.25),
            ("a/z", 7.0),
            ("a/h", -3.0),
            ("a/b", 3.0),
        ] {
            let tensor = read.get(name).unwrap();
            assert_eq!(tensor.doubles(), [expected], "{name}");
            assert_eq!(tensor.floats(), [expected as f32], "{name}");
        }
        assert_eq!(read.get("a/none").unwrap().shape, [1, 0]);
        assert!(read.get("__metadata__").is_none());
        assert_eq!(read.iter().count(), 6);
    }

    #[test]
    fn broken_files_are_refused_with_the_reason() {
        let entry = |dtype: &str, shape: &str, offsets: &str| {
            format!(
                r#"{{"t": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#
            )
        };
        let cases = [
            (vec![1, 2, 3], "truncated"),
            (file("{}", &[])[..9].to_vec(), "truncated"),
            (u64::MAX.to_le_bytes().to_vec(), "no safetensors file"),
            (b"It is a truth".to_vec(), "no safetensors file"),
            (file("[1", &[]), "no JSON"),
            (file(r#"{"t": {"dtype": "F32"}}"#, &[]), "header entry"),
            (file(&entry("F32", "[1]", "[0, 4]"), &[0; 3]), "truncated"),
            (file(&entry("F32", "[1]", "[4, 0]"), &[0; 4]), "offsets"),
            (file(&entry("F32", "[2]", "[0, 4]"), &[0; 4]), "shape [2]"),
            (file(&entry("F64", "[1]", "[0, 7]"), &[0; 8]), "7 bytes"),
            (file(&entry("I8", "[4]", "[0, 4]"), &[0; 4]), "I8"),
        ];
        for (bytes, reason) in cases {
            let error = Safetensors::parse("broken", bytes).unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.starts_with("broken"),
                "{error}"
            );
        }
    }
}
