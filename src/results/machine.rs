//! The machine of a run beyond its fingerprint.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Numerics, Rates};

/// What is worth knowing of a machine and need not agree: neither resuming nor pooling asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processor, threads, memory, operating system and its build.
    pub cpu: Value,
    /// The adapter with its limits, features and subgroup sizes; absent on the CPU backend.
    pub adapter: Option<Value>,
    /// How fast it copies and multiplies, measured at the start of the run; absent where that failed.
    pub rates: Option<Rates>,
    /// How it rounds, and how far its kernels lie from the oracle.
    pub numerics: Numerics,
}
