//! What this machine has: the wgpu adapters of every graphics API, and the CPU.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::OnceLock;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::shader::budget;
use crate::units::Bytes;

/// A graphics API that wgpu reaches an adapter through. The order is the order of preference where
/// several reach the same adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: Apple systems.
    Metal,
    /// Direct3D 12: Windows.
    Dx12,
    /// OpenGL and OpenGL ES, the last resort.
    Gl,
}

impl Api {
    /// Every API, the preferred one first.
    pub const ALL: [Self; 4] = [Self::Vulkan, Self::Metal, Self::Dx12, Self::Gl];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Dx12 => "dx12",
            Self::Gl => "gl",
        }
    }

    fn of(backend: wgpu::Backend) -> Option<Self> {
        match backend {
            wgpu::Backend::Vulkan => Some(Self::Vulkan),
            wgpu::Backend::Metal => Some(Self::Metal),
            wgpu::Backend::Dx12 => Some(Self::Dx12),
            wgpu::Backend::Gl => Some(Self::Gl),
            wgpu::Backend::Noop | wgpu::Backend::BrowserWebGpu => None,
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an adapter is. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A graphics card with memory of its own.
    Discrete,
    /// A graphics unit that shares the CPU's memory.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// A GPU of which the driver says no more (common for OpenGL).
    Other,
    /// A software driver: correct, slow, and taken only when named.
    Software,
}

/// What an adapter runs fast decides which variants of the kernels run there, and how they cut their work: a fixed
/// function of its kind, never measured. Variants may round differently, so that the fingerprint says which ones ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Few threads with wide vectors: as little work as possible; barriers and workgroup memory cost more than they spare.
    Software,
    /// Thousands of invocations at once: enough of them, and neighbours that read neighbouring memory.
    Gpu,
}

impl Class {
    /// The class of an adapter of `kind`.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Software => Self::Software,
            Kind::Discrete | Kind::Integrated | Kind::Virtual | Kind::Other => Self::Gpu,
        }
    }

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Gpu => "gpu",
        }
    }
}

/// A wgpu adapter: one device reached through one graphics API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Name the driver gives.
    pub name: String,
    /// Graphics API.
    pub api: Api,
    /// Kind of device.
    pub kind: Kind,
    /// Which variants of the kernels run.
    pub class: Class,
    /// Vendor number (PCI where there is one; 0x10de is NVIDIA).
    pub vendor_id: u32,
    /// Device number.
    pub device_id: u32,
    /// Driver name. On DX12 the version is here.
    pub driver: String,
    /// Driver version and more. Empty on DX12 and Metal.
    pub driver_info: String,
    /// Smallest and largest subgroup, in invocations.
    pub subgroup_size: [u32; 2],
    /// Limits that decide what runs.
    pub limits: Limits,
    /// Optional abilities that results or timings depend on.
    pub features: Features,
}

/// The limits of an adapter that our kernels depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest buffer.
    pub buffer: Bytes,
    /// Largest part of a buffer that a kernel sees at once.
    pub binding: Bytes,
    /// Storage buffers of a kernel.
    pub storage_buffers: u32,
    /// Memory shared by a workgroup.
    pub workgroup_memory: Bytes,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Workgroups in one dimension of a dispatch.
    pub workgroups: u32,
}

/// The optional features of an adapter that results or timings depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states"
)]
pub struct Features {
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Subgroup operations.
    pub subgroups: bool,
    /// Timestamps written by the device.
    pub timestamps: bool,
    /// Atomic adds on floats, which burn's `scatter` uses: its sums then depend on timing.
    pub float_atomics: bool,
}

impl Adapter {
    /// Whether this is a software driver.
    pub fn is_software(&self) -> bool {
        self.kind == Kind::Software
    }

    /// The first limit that is below what the kernels need, or `None` when they all run.
    pub fn unfit(&self) -> Option<String> {
        let limits = &self.limits;
        let needs = [
            (
                "storage buffers",
                u64::from(limits.storage_buffers),
                u64::from(budget::STORAGE_BUFFERS),
            ),
            (
                "invocations",
                u64::from(limits.invocations),
                u64::from(budget::INVOCATIONS),
            ),
            (
                "workgroups a dimension",
                u64::from(limits.workgroups),
                u64::from(budget::WORKGROUPS),
            ),
            (
                "bytes of workgroup memory",
                limits.workgroup_memory.0,
                budget::WORKGROUP_BYTES,
            ),
            ("bytes a binding", limits.binding.0, budget::BINDING_BYTES),
        ];
        let (what, has, need) = needs.into_iter().find(|(_, has, need)| has < need)?;
        Some(format!("offers {has} {what}, the kernels need {need}"))
    }

    fn describe(adapter: &wgpu::Adapter) -> Option<Self> {
        let info = adapter.get_info();
        let limits = adapter.limits();
        let features = adapter.features();
        let kind = kind(info.device_type, &info.name);
        Some(Self {
            api: Api::of(info.backend)?,
            kind,
            class: Class::of(kind),
            name: info.name,
            vendor_id: info.vendor,
            device_id: info.device,
            driver: info.driver,
            driver_info: info.driver_info,
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            limits: Limits {
                buffer: Bytes(limits.max_buffer_size),
                binding: Bytes(limits.max_storage_buffer_binding_size),
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
                workgroup_memory: Bytes(limits.max_compute_workgroup_storage_size.into()),
                invocations: limits.max_compute_invocations_per_workgroup,
                workgroups: limits.max_compute_workgroups_per_dimension,
            },
            features: Features {
                f16: features.contains(wgpu::Features::SHADER_F16),
                subgroups: features.contains(wgpu::Features::SUBGROUP),
                timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
                float_atomics: features.contains(wgpu::Features::SHADER_FLOAT32_ATOMIC),
            },
        })
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.api)
    }
}

/// Software drivers by what they call themselves: not all admit to be one (Windows' WARP reports an
/// integrated GPU).
fn kind(reported: wgpu::DeviceType, name: &str) -> Kind {
    const SOFTWARE: [&str; 4] = ["llvmpipe", "softpipe", "swiftshader", "basic render driver"];
    let name = name.to_lowercase();
    match reported {
        _ if SOFTWARE.iter().any(|known| name.contains(known)) => Kind::Software,
        wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
        wgpu::DeviceType::VirtualGpu => Kind::Virtual,
        wgpu::DeviceType::Cpu => Kind::Software,
        wgpu::DeviceType::Other => Kind::Other,
    }
}

/// An adapter with the handle that opens it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) about: Adapter,
    pub(super) handle: wgpu::Adapter,
}

/// The one wgpu instance: Vulkan loaders do not survive instances that come and go on several threads.
pub(super) fn instance() -> &'static wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE
        .get_or_init(|| wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle()))
}

/// Everything wgpu finds, asked once.
pub(super) fn found() -> &'static [Found] {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    FOUND.get_or_init(|| {
        pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()))
            .into_iter()
            .filter_map(|handle| {
                Some(Found {
                    about: Adapter::describe(&handle)?,
                    handle,
                })
            })
            .collect()
    })
}

/// The adapters of this machine, in the order in which indices count them.
pub fn list() -> Vec<Adapter> {
    found().iter().map(|found| found.about.clone()).collect()
}

/// wgpu's handle of the adapter at `index` of [`list`], for those who make a device of their own.
pub fn handle(index: usize) -> Option<wgpu::Adapter> {
    Some(found().get(index)?.handle.clone())
}

/// The CPU that the CPU backend runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Name the processor gives.
    pub name: String,
    /// Threads that the kernels use (`RAYON_NUM_THREADS` sets them).
    pub threads: usize,
    /// Instruction set level found at run time: it decides which kernels run.
    pub simd: String,
    /// Operating system and its version.
    pub os: String,
    /// Build of the operating system's kernel.
    pub os_build: String,
    /// Main memory.
    pub memory: Bytes,
}

/// Main memory that is free for use now.
pub(super) fn main_memory_available() -> Bytes {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    Bytes(system.available_memory())
}

impl Cpu {
    /// Describes this machine.
    pub fn detect() -> Self {
        let system = System::new_with_specifics(
            RefreshKind::nothing()
                .with_cpu(CpuRefreshKind::nothing())
                .with_memory(MemoryRefreshKind::nothing().with_ram()),
        );
        let name = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
        Self {
            name: if name.is_empty() {
                std::env::consts::ARCH
            } else {
                name
            }
            .to_owned(),
            threads: rayon::current_num_threads(),
            simd: simd().to_owned(),
            os: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned()),
            os_build: System::kernel_long_version(),
            memory: Bytes(system.total_memory()),
        }
    }
}

/// The levels are those the kernels are compiled for.
#[cfg(target_arch = "x86_64")]
fn simd() -> &'static str {
    let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if v3 && v4 {
        "x86-64-v4"
    } else if v3 {
        "x86-64-v3"
    } else {
        "x86-64"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "neon"
    } else {
        std::env::consts::ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_drivers_are_known_by_name_too() {
        assert_eq!(
            kind(
                wgpu::DeviceType::IntegratedGpu,
                "Microsoft Basic Render Driver"
            ),
            Kind::Software
        );
        assert_eq!(
            kind(wgpu::DeviceType::Other, "llvmpipe (LLVM 15.0.6, 256 bits)"),
            Kind::Software
        );
        assert_eq!(kind(wgpu::DeviceType::Cpu, "anything"), Kind::Software);
        assert_eq!(
            kind(wgpu::DeviceType::DiscreteGpu, "Tesla T4"),
            Kind::Discrete
        );
    }

    #[test]
    fn only_software_drivers_run_the_kernels_for_software() {
        assert_eq!(Class::of(Kind::Software), Class::Software);
        for kind in [Kind::Discrete, Kind::Integrated, Kind::Virtual, Kind::Other] {
            assert_eq!(Class::of(kind), Class::Gpu, "{kind:?}");
        }
        // Records hold the names that are printed.
        for class in [Class::Software, Class::Gpu] {
            assert_eq!(serde_json::json!(class), class.name());
        }
    }

    #[test]
    fn the_cpu_describes_itself() {
        let cpu = Cpu::detect();
        assert!(!cpu.name.is_empty() && !cpu.os.is_empty() && !cpu.simd.is_empty());
        assert!(cpu.threads >= 1);
        assert!(cpu.memory.0 > 1 << 20, "memory is in bytes: {}", cpu.memory);
    }
}
