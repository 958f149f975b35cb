//! The memory of a cell: what it was estimated to need, by category, and what it was seen to hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// What a training holds at the moment at which it holds most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLedger {
    /// Weights.
    pub parameters: Bytes,
    /// Gradients that exist at that moment.
    pub gradients: Bytes,
    /// Two moments a parameter.
    pub optimizer_states: Bytes,
    /// What the forward pass keeps for the backward pass.
    pub activations_saved: Bytes,
    /// States of the blocks between two segments.
    pub activations_boundary: Bytes,
    /// Everything that lives shortly: logits, copies, token ids.
    pub buffers: Bytes,
}

impl MemoryLedger {
    /// The categories and their names in files.
    pub fn categories(&self) -> [(&'static str, Bytes); 6] {
        [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer_states", self.optimizer_states),
            ("activations_saved", self.activations_saved),
            ("activations_boundary", self.activations_boundary),
            ("buffers", self.buffers),
        ]
    }

    /// All categories together.
    pub fn total(&self) -> Bytes {
        let bytes = self.categories().map(|(_, bytes)| bytes.0);
        Bytes(bytes.into_iter().fold(0, u64::saturating_add))
    }
}

/// "9.10 MiB: parameters 1.20 MiB, ..."; categories without a byte are left out.
impl fmt::Display for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .categories()
            .iter()
            .filter(|(_, bytes)| bytes.0 > 0)
            .map(|(name, bytes)| format!("{} {bytes}", name.replace('_', " ")))
            .collect();
        write!(f, "{}: {}", self.total(), parts.join(", "))
    }
}

/// Memory of one training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What it was estimated to need before it started.
    pub estimated: MemoryLedger,
    /// The most bytes it held, above what was in use at its start: on the CPU the high-water mark of the
    /// process's heap, on wgpu the highest bytes in use at the sync points after forward, backward and
    /// optimiser.
    pub peak_memory_bytes: Bytes,
    /// What was in use at its start: the data set, and what earlier cells left behind.
    pub at_start_bytes: Bytes,
}

impl Memory {
    /// Estimate over measured peak; `None` where nothing was measured.
    pub fn estimated_over_measured(&self) -> Option<f64> {
        let measured = self.peak_memory_bytes.0;
        (measured > 0).then(|| self.estimated.total().0 as f64 / measured as f64)
    }
}
