//! How fast the kernels are, against the device and against plain loops.

use serde::{Deserialize, Serialize};

use super::{Finite, FlopsPass, Rates, Timing};
use crate::units::Bytes;

/// The kernels of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelsReport {
    /// Fingerprint of the device.
    pub device: serde_json::Value,
    /// The processor that ran the plain loops.
    pub cpu: serde_json::Value,
    /// What the device can do at best.
    pub rates: Rates,
    /// One entry an operation, pass and size.
    pub kernels: Vec<KernelSpeed>,
}

/// One operation at one size, called as a model calls it: making its outputs is included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSpeed {
    /// The operation.
    pub operation: String,
    /// Forward, or the gradients.
    pub pass: FlopsPass,
    /// Its sizes, in words.
    pub sizes: String,
    /// Inputs read once and outputs written once.
    pub bytes: Bytes,
    /// Of the sequential algorithm.
    pub flops: u64,
    /// How long it takes.
    pub timing: Timing,
    /// How long a plain loop on one thread of the CPU takes, without vector instructions of its own.
    pub plain: Timing,
    /// `bytes` by second over the rate at which the device copies.
    pub copy_share: Finite,
    /// `flops` by second over the rate at which the device multiplies matrices.
    pub matmul_share: Finite,
    /// Time of the plain loop over that of the kernel.
    pub speedup: Finite,
}

impl KernelSpeed {
    /// Bytes by second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes.0 as f64 / self.timing.seconds.get()
    }

    /// Operations by second.
    pub fn flops_per_second(&self) -> f64 {
        self.flops as f64 / self.timing.seconds.get()
    }
}
