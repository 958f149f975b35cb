//! The only float of a record.

use serde::{Deserialize, Serialize};

/// A finite `f64`. `serde_json` writes NaN and infinities as `null` without complaint, so a record cannot hold them.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Finite(f64);

impl Finite {
    /// The value, or `None` if it is NaN or infinite.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }
}
