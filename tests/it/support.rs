//! Devices and data for the tests.

use bkbench::hardware::{DeviceChoice, open};
use burn::tensor::Device;

/// The CPU backend.
pub fn cpu() -> Device {
    Device::flex()
}

/// The wgpu device of this machine: a real GPU or the software adapter that scripts/setup.sh installs.
/// A machine without any adapter fails the test: nothing is skipped silently.
pub fn wgpu() -> Device {
    let choice = DeviceChoice::Wgpu {
        api: None,
        which: None,
    };
    open(&choice, None)
        .expect("a wgpu adapter; scripts/setup.sh installs a software one")
        .device
}
