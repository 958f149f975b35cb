//! The hash of a record's content, written with it.

use serde::Serialize;
use serde_json::Value;

use crate::Result;
use crate::config::canonical_sha256;

const KEY: &str = "content_sha256";

/// Whether a record's file is as bkbench wrote it. The hash finds mistakes and careless edits; it is no signature, for
/// who edits a file can hash it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// Content and hash agree.
    #[default]
    Intact,
    /// There is no hash.
    Missing,
    /// The content has another hash.
    Broken,
}

impl Seal {
    /// What is wrong, if anything is.
    pub fn problem(self) -> Option<&'static str> {
        match self {
            Self::Intact => None,
            Self::Missing => Some(
                "the record has no content_sha256: it was edited, or written by another version of bkbench",
            ),
            Self::Broken => Some(
                "the record does not have the content_sha256 that it names: it was edited after it was written",
            ),
        }
    }

    /// Takes the hash out of a document and holds it against the rest.
    pub(super) fn take_from(document: &mut Value) -> Result<Self> {
        let named = document
            .as_object_mut()
            .and_then(|fields| fields.remove(KEY));
        Ok(match named {
            None => Self::Missing,
            Some(named) if named == canonical_sha256(document)? => Self::Intact,
            Some(_) => Self::Broken,
        })
    }
}

/// A document and behind it its hash, as they are written.
#[derive(Debug, Serialize)]
pub(super) struct Sealed<'a, T: Serialize> {
    #[serde(flatten)]
    content: &'a T,
    content_sha256: String,
}

impl<'a, T: Serialize> Sealed<'a, T> {
    /// # Errors
    /// As [`canonical_sha256`].
    pub(super) fn new(content: &'a T) -> Result<Self> {
        Ok(Self {
            content,
            content_sha256: canonical_sha256(content)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_seal_holds_for_any_spelling_and_breaks_with_any_value() {
        let content = json!({"b": [1.5, null], "a": {"x": "y"}});
        let sealed = serde_json::to_string_pretty(&Sealed::new(&content).unwrap()).unwrap();
        let seal = |text: &str| Seal::take_from(&mut serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(seal(&sealed), Seal::Intact);
        let spelt: Value = serde_json::from_str(&sealed).unwrap();
        assert_eq!(seal(&spelt.to_string()), Seal::Intact);
        assert_eq!(seal(&sealed.replace("1.5", "1.25")), Seal::Broken);
        assert_eq!(seal(&sealed.replace("\"x\"", "\"z\"")), Seal::Broken);
        assert_eq!(seal(&content.to_string()), Seal::Missing);
        assert_eq!(seal("[]"), Seal::Missing);
    }
}
