//! What a device makes of numbers: how far its kernels lie from the oracle, and how it rounds.

use serde::{Deserialize, Serialize};

use super::Finite;

/// The numeric side of a fingerprint: measured on fixed small inputs, so that two devices can be held against each
/// other. It decides nothing: which results may be pooled is the fingerprint's matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    /// One entry a tensor of an operation, in the order in which they are checked.
    pub kernels: Vec<KernelAccuracy>,
    /// What becomes of a number below the smallest normal one that a kernel reads.
    pub denormal_inputs: Denormals,
    /// The same of one that a kernel computes.
    pub denormal_results: Denormals,
    /// How a product is added to a sum.
    pub multiply_add: MultiplyAdd,
    /// Errors of the exponential that the kernels use, by range of its argument.
    pub exp: Vec<ExpAccuracy>,
}

/// Largest errors of one tensor over all cases, relative to the largest magnitude and to the RMS of the oracle's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelAccuracy {
    /// The operation, for example `selective_scan`.
    pub operation: String,
    /// An output or a gradient (`d_...`) of it.
    pub tensor: String,
    /// `max|x - oracle| / max|oracle|`; absent where a case could not be compared or was not finite.
    pub max: Option<Finite>,
    /// `||x - oracle|| / ||oracle||`; absent likewise.
    pub rms: Option<Finite>,
}

/// What becomes of numbers below the smallest normal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denormals {
    /// They are computed with.
    Kept,
    /// They become 0.
    Flushed,
    /// Neither.
    Other,
}

/// How `a * b + c` is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultiplyAdd {
    /// Once: the product is not rounded by itself.
    Fused,
    /// Twice: the product, then the sum.
    Separate,
    /// Neither gives this result.
    Other,
}

/// Largest error of the exponential for arguments of a range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpAccuracy {
    /// Smallest argument.
    pub from: Finite,
    /// Largest argument.
    pub to: Finite,
    /// In units in the last place of the exact value; absent where a value was not finite.
    pub ulp: Option<Finite>,
}
