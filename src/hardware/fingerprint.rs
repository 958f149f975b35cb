//! What must agree before two results may be pooled.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

use super::adapters::{Adapter, Api, Class, Cpu};

/// Version of burn this build uses.
const BURN_VERSION: &str = "0.22.1";
/// Version of wgpu this build uses.
const WGPU_VERSION: &str = "30.0.1";

/// The device and the software that produced a result. Seeds are pooled only where it is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Name of the adapter, or of the processor on the CPU backend.
    pub adapter: String,
    /// Vendor number; 0 on the CPU backend.
    pub vendor_id: u32,
    /// Device number; 0 on the CPU backend.
    pub device_id: u32,
    /// Graphics API; none on the CPU backend.
    pub api: Option<Api>,
    /// Driver name; on DX12 its version.
    pub driver: String,
    /// Driver version.
    pub driver_info: String,
    /// Build of the operating system, where it stands for the driver's version (Metal).
    pub os_build: Option<String>,
    /// Operating system and architecture of this build.
    pub platform: String,
    /// Threads of the CPU backend.
    pub threads: Option<usize>,
    /// Instruction set level of the CPU backend.
    pub simd: Option<String>,
    /// Class of the adapter, by which variants of kernels are chosen; none on the CPU backend.
    pub kernels: Option<Class>,
    /// Version of bkbench.
    pub bkbench: String,
    /// Version of burn.
    pub burn: String,
    /// Version of wgpu.
    pub wgpu: String,
}

impl Fingerprint {
    /// Of a wgpu adapter.
    pub fn of_adapter(adapter: &Adapter) -> Self {
        let metal = adapter.api == Api::Metal;
        Self {
            adapter: adapter.name.clone(),
            vendor_id: adapter.vendor_id,
            device_id: adapter.device_id,
            api: Some(adapter.api),
            driver: adapter.driver.clone(),
            driver_info: adapter.driver_info.clone(),
            os_build: metal.then(sysinfo::System::kernel_long_version),
            kernels: Some(adapter.class),
            ..Self::software()
        }
    }

    /// Of the CPU backend.
    pub fn of_cpu(cpu: &Cpu) -> Self {
        Self {
            adapter: cpu.name.clone(),
            threads: Some(cpu.threads),
            simd: Some(cpu.simd.clone()),
            ..Self::software()
        }
    }

    fn software() -> Self {
        Self {
            adapter: String::new(),
            vendor_id: 0,
            device_id: 0,
            api: None,
            driver: String::new(),
            driver_info: String::new(),
            os_build: None,
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            threads: None,
            simd: None,
            kernels: None,
            bkbench: env!("CARGO_PKG_VERSION").to_owned(),
            burn: BURN_VERSION.to_owned(),
            wgpu: WGPU_VERSION.to_owned(),
        }
    }

    /// SHA-256 of the fields as JSON, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        let fields = serde_json::json!(self).to_string();
        let mut text = String::with_capacity(64);
        for byte in Sha256::digest(fields.as_bytes()) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn cpu() -> Cpu {
        Cpu {
            name: "Some CPU".into(),
            threads: 2,
            simd: "x86-64-v3".into(),
            os: "Linux".into(),
            os_build: "Linux 6.1".into(),
            memory: Bytes(1 << 30),
        }
    }

    #[test]
    fn the_versions_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        for (name, version) in [("burn", BURN_VERSION), ("wgpu", WGPU_VERSION)] {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(
                lock.contains(&entry),
                "Cargo.lock holds another {name} than {version}"
            );
        }
    }

    #[test]
    fn a_thread_more_is_another_fingerprint_and_memory_is_not() {
        let base = Fingerprint::of_cpu(&cpu());
        let more_memory = Fingerprint::of_cpu(&Cpu {
            memory: Bytes(2 << 30),
            ..cpu()
        });
        assert_eq!((&base, base.sha256()), (&more_memory, more_memory.sha256()));
        let more_threads = Fingerprint::of_cpu(&Cpu {
            threads: 3,
            ..cpu()
        });
        assert_ne!(base, more_threads);
        assert_ne!(base.sha256(), more_threads.sha256());
        assert_eq!(base.sha256().len(), 64);
    }

    #[test]
    fn it_survives_a_round_trip_through_json() {
        let fingerprint = Fingerprint::of_cpu(&cpu());
        let json = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&json).unwrap(),
            fingerprint
        );
    }
}
