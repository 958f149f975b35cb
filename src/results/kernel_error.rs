//! How far the kernels lie from the oracle on the tensors that a trained model feeds them.

use serde::{Deserialize, Serialize};

use super::Finite;

/// Error of one operation in one layer, at one end of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelError {
    /// The operation, for example `selective_scan`.
    pub operation: String,
    /// The layer, counted from 1.
    pub layer: usize,
    /// First position that was compared; the oracle ran from position 0.
    pub first: usize,
    /// Last position that was compared.
    pub last: usize,
    /// `max|x - oracle| / max|oracle|`; absent where it is not finite.
    pub max: Option<Finite>,
    /// `||x - oracle|| / ||oracle||`; absent where it is not finite.
    pub rms: Option<Finite>,
}

impl KernelError {
    /// `max`, infinite where it is not finite.
    pub fn largest(&self) -> f64 {
        self.max.map_or(f64::INFINITY, Finite::get)
    }
}
