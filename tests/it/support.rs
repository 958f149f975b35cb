//! Devices and data for the tests.

use burn::tensor::Device;
use std::sync::OnceLock;

/// The CPU backend.
pub fn cpu() -> Device {
    Device::flex()
}

/// The wgpu device of this machine: a real GPU or the software adapter that scripts/setup.sh installs.
/// A machine without any adapter fails the test: nothing is skipped silently.
pub fn wgpu() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            Device::wgpu_options()
                .graphics_api(burn::tensor::wgpu::WgpuBackend::Vulkan)
                .init()
                .expect("a Vulkan adapter; scripts/setup.sh installs a software one")
        })
        .clone()
}
