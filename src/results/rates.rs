//! How fast a device copies and multiplies: the roofs that kernels are held against.

use serde::{Deserialize, Serialize};

use super::Finite;
use crate::units::Bytes;

/// Measured rates of a device. They change no result, and two devices of one fingerprint may differ in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Of memory.
    pub copy: CopyRate,
    /// Of burn's matrix product in `f32`.
    pub matmul: MatmulRate,
    /// Whether the device's own clock was believed.
    pub timestamps: Timestamps,
}

/// How fast memory is copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRate {
    /// Bytes read plus bytes written, by second.
    pub bytes_per_second: Finite,
    /// What was copied: each copy reads and writes so much.
    pub buffer: Bytes,
    /// The faster of the ways that were tried.
    pub by: CopyMethod,
    /// One copy.
    pub timing: Timing,
}

/// A way to copy memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMethod {
    /// The driver's copy of a buffer.
    BufferCopy,
    /// A kernel that moves four floats at a time (`shaders/copy.wgsl`).
    Kernel,
    /// The CPU's threads, a part for each.
    Threads,
}

/// How fast matrices are multiplied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatmulRate {
    /// Two operations for every product added to a sum.
    pub flops_per_second: Finite,
    /// Rows, inner size, columns.
    pub shape: [usize; 3],
    /// One product.
    pub timing: Timing,
}

/// How long something took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Median of the samples.
    pub seconds: Finite,
    /// How many.
    pub n_samples: usize,
    /// What a sample is.
    pub method: TimingMethod,
}

/// How a time was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimingMethod {
    /// From the launch until the device has finished, by the wall clock: on the CPU, and where that takes so long that
    /// the launch itself does not count.
    WallClock,
    /// The device's own timestamps, which the wall clock confirmed.
    DeviceTimestamps,
    /// What each of many launches in a row adds to the wall-clock time of a few.
    Slope,
}

/// Whether a device's timestamps agree with the wall clock, on work that takes long enough to tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "verdict", rename_all = "snake_case")]
pub enum Timestamps {
    /// It has none.
    Absent,
    /// They agree within the allowed factor, and are used.
    Plausible {
        /// Time by the device over time by the wall clock.
        ratio: Finite,
    },
    /// They do not, and are not used.
    Implausible {
        /// Time by the device over time by the wall clock; absent where the device told none.
        ratio: Option<Finite>,
    },
}

impl CopyMethod {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::BufferCopy => "buffer copy",
            Self::Kernel => "copy kernel",
            Self::Threads => "threads",
        }
    }
}

impl TimingMethod {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::WallClock => "wall clock",
            Self::DeviceTimestamps => "device timestamps",
            Self::Slope => "slope of repeated launches",
        }
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { copy, matmul, .. } = self;
        let [rows, inner, columns] = matmul.shape;
        write!(
            f,
            "copies {:.1} GB/s ({} of {}, {}), multiplies {:.1} GFLOP/s ({rows} x {inner} x {columns}, {})",
            copy.bytes_per_second.get() / 1e9,
            copy.by.name(),
            copy.buffer,
            copy.timing.method.name(),
            matmul.flops_per_second.get() / 1e9,
            matmul.timing.method.name()
        )
    }
}
