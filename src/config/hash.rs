//! Hashes of configurations: canonical JSON, then sha256.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// sha256 (lower-case hexadecimal) of `value` as canonical JSON: keys sorted at every depth, no white space,
/// floats in their shortest form that reads back to the same bits. Field order and formatting of the source
/// therefore do not matter.
///
/// # Errors
/// If the value has no JSON form.
pub fn canonical_sha256(value: &impl Serialize) -> Result<String> {
    let mut json = serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("cannot hash a value: {error}")))?;
    json.sort_all_objects();
    Ok(format!("{:x}", Sha256::digest(json.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hash_is_that_of_the_sorted_text() {
        // printf '{"a":{"c":0.001,"d":[2,1]},"b":1}' | sha256sum
        let expected = "0f21d8e7ebe33b79d75a34ac6ce4abc7a0038be8dea4ca367b4cd8a213bb8a63";
        assert_eq!(
            canonical_sha256(&json!({"b": 1, "a": {"d": [2, 1], "c": 1e-3}})).unwrap(),
            expected
        );
        assert_eq!(
            canonical_sha256(&json!({"a": {"c": 0.001, "d": [2, 1]}, "b": 1})).unwrap(),
            expected
        );
    }
}
