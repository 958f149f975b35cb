//! Reads `.safetensors` files: an 8-byte little-endian length, a JSON header of that length that maps names
//! to `{dtype, shape, data_offsets}`, then the bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Error, Result};

/// A tensor on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values. `f64` holds every `f32`, and every integer up to 2^53, exactly.
    pub values: Vec<f64>,
}

/// The tensors of one file.
#[derive(Debug)]
pub struct Safetensors {
    tensors: BTreeMap<String, HostTensor>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Safetensors {
    /// Reads the file's `bytes`; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the file is truncated, its header is no JSON of the format, an offset lies
    /// outside the file or does not fit its shape, or a dtype is not F32, F64 or I64.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |problem: String| Error::bad_input(name, problem, "write the file again");
        let truncated = || {
            bad(format!(
                "is truncated: {} bytes do not hold its header",
                bytes.len()
            ))
        };
        let (length, rest) = bytes.split_first_chunk().ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| truncated())?;
        let (header, data) = rest.split_at_checked(length).ok_or_else(truncated)?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)
            .map_err(|error| bad(format!("has a header that is no JSON object: {error}")))?;

        let mut tensors = BTreeMap::new();
        for (tensor, entry) in header {
            if tensor == "__metadata__" {
                continue;
            }
            let bad = |problem: String| bad(format!("tensor '{tensor}' {problem}"));
            let entry: Entry = serde_json::from_value(entry)
                .map_err(|error| bad(format!("has a bad header entry: {error}")))?;
            let [from, to] = entry.data_offsets;
            let bytes = data.get(from..to).ok_or_else(|| {
                bad(format!(
                    "claims bytes {from}..{to} of {}: the file is truncated or its offsets are wrong",
                    data.len()
                ))
            })?;
            let values = decode(&entry.dtype, bytes).map_err(bad)?;
            let n: Option<usize> = entry
                .shape
                .iter()
                .try_fold(1_usize, |n, &size| n.checked_mul(size));
            if n != Some(values.len()) {
                return Err(bad(format!(
                    "has shape {:?} but {} values",
                    entry.shape,
                    values.len()
                )));
            }
            let shape = entry.shape;
            tensors.insert(tensor, HostTensor { shape, values });
        }
        Ok(Self { tensors })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }
}

fn decode(dtype: &str, bytes: &[u8]) -> Result<Vec<f64>, String> {
    fn numbers<const N: usize>(
        bytes: &[u8],
        number: impl Fn([u8; N]) -> f64,
    ) -> Result<Vec<f64>, String> {
        let (chunks, rest) = bytes.as_chunks::<N>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|&chunk| number(chunk)).collect())
        } else {
            Err(format!("has {} bytes, no multiple of {N}", bytes.len()))
        }
    }
    match dtype {
        "F32" => numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
        "F64" => numbers(bytes, f64::from_le_bytes),
        "I64" => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
        _ => Err(format!("has dtype {dtype}; F32, F64 and I64 are read")),
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
        let header = r#"{"__metadata__": {"made": "here"},
            "a/x": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
            "a/y": {"dtype": "F64", "shape": [], "data_offsets": [4, 12]},
            "a/z": {"dtype": "I64", "shape": [1], "data_offsets": [12, 20]},
            "a/none": {"dtype": "F32", "shape": [1, 0], "data_offsets": [20, 20]}}"#;
        let read = Safetensors::parse("test", &file(header, &data)).unwrap();
        let values = |name: &str| read.tensor(name).unwrap().values.clone();
        assert_eq!(values("a/x"), [1.5]);
        assert_eq!(values("a/y"), [-2.25]);
        assert_eq!(values("a/z"), [7.0]);
        assert_eq!(read.tensor("a/none").unwrap().shape, [1, 0]);
        assert_eq!(read.tensor("__metadata__"), None);
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
            (u64::MAX.to_le_bytes().to_vec(), "truncated"),
            (file("[1", &[]), "no JSON"),
            (file(r#"{"t": {"dtype": "F32"}}"#, &[]), "header entry"),
            (file(&entry("F32", "[1]", "[0, 4]"), &[0; 3]), "truncated"),
            (file(&entry("F32", "[1]", "[4, 0]"), &[0; 4]), "offsets"),
            (file(&entry("F32", "[2]", "[0, 4]"), &[0; 4]), "shape [2]"),
            (file(&entry("F64", "[1]", "[0, 7]"), &[0; 8]), "multiple"),
            (file(&entry("BF16", "[2]", "[0, 4]"), &[0; 4]), "BF16"),
        ];
        for (bytes, reason) in cases {
            let error = Safetensors::parse("broken", &bytes)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(reason) && error.starts_with("broken"),
                "{error}"
            );
        }
    }
}
