//! The only maker of a burn device, from the very adapter that is reported.

use burn::tensor::Device;
use std::sync::{Mutex, PoisonError};

use super::adapters::{self, Adapter, Class, Cpu, Found, found, instance, list};
use super::choice::{DeviceChoice, Pick};
use super::fingerprint::Fingerprint;
use crate::config::Precision;
use crate::units::Bytes;
use crate::{Error, Result};

/// An open device.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// The burn device, without autodiff.
    pub device: Device,
    /// The adapter; `None` on the CPU backend.
    pub adapter: Option<Adapter>,
    /// What must agree before results may be pooled.
    pub fingerprint: Fingerprint,
    /// What the choice rests on, to print and to record: fallbacks, namesakes.
    pub notes: Vec<String>,
}

/// Opens the device that `choice` names. Opening it twice gives the same device.
///
/// `require_adapter` is a name or a part of it (capitals do not matter) that the device must have.
///
/// # Errors
/// [`Error::BadInput`] when there is no such device or it is not the required one;
/// [`Error::Device`] when the driver refuses to open it.
pub fn open(choice: &DeviceChoice, require_adapter: Option<&str>) -> Result<Hardware> {
    open_as(choice, require_adapter, None)
}

/// As [`open`], where `class` is not `None` with the kernels of that class: every variant can be checked on any
/// adapter.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    choice: &DeviceChoice,
    require_adapter: Option<&str>,
    class: Option<Class>,
) -> Result<Hardware> {
    // `--device cpu` must work where asking the graphics drivers does not.
    let mut adapters = if *choice == DeviceChoice::Cpu {
        Vec::new()
    } else {
        list()
    };
    for adapter in &mut adapters {
        adapter.class = class.unwrap_or(adapter.class);
    }
    let (pick, notes) = choice.choose(&adapters)?;
    let fingerprint = match pick {
        Pick::Cpu => Fingerprint::of_cpu(&Cpu::detect()),
        Pick::Adapter(index) => Fingerprint::of_adapter(&adapters[index]),
    };
    if let Some(required) = require_adapter {
        let name = &fingerprint.adapter;
        if !name.to_lowercase().contains(&required.to_lowercase()) {
            return Err(Error::bad_input(
                format!("require_adapter '{required}'"),
                format!("device '{choice}' is {name}"),
                "name that adapter with --device, or take the requirement out",
            ));
        }
    }
    let (device, adapter) = match pick {
        Pick::Cpu => (Device::flex(), None),
        Pick::Adapter(index) => {
            let adapter = adapters.swap_remove(index);
            (registered(index, &adapter)?, Some(adapter))
        }
    };
    Ok(Hardware {
        device,
        adapter,
        fingerprint,
        notes,
    })
}

impl Hardware {
    /// Whether trainings in `precision` run here.
    ///
    /// # Errors
    /// [`Error::BadInput`], naming the device, where f16 is asked for and is not there.
    pub fn require(&self, precision: Precision) -> Result<()> {
        let offers = match &self.adapter {
            _ if precision == Precision::F32 => return Ok(()),
            Some(adapter) if adapter.features.f16 => return Ok(()),
            Some(_) => "has no 16-bit floats in shaders (shader-f16)",
            None => "is the CPU backend, which computes in f32",
        };
        Err(Error::bad_input(
            "train.precision = \"mixed\" (--mixed_precision true)",
            format!("{} {offers}", self.fingerprint.adapter),
            "leave it out, or name an adapter of which `bkbench devices` says f16: yes",
        ))
    }

    /// Main memory that is free, where that is what tensors live in (CPU backend, software adapter);
    /// WebGPU does not tell how much memory a GPU has.
    pub fn memory_available(&self) -> Option<Bytes> {
        let in_main_memory = self.adapter.as_ref().is_none_or(Adapter::is_software);
        in_main_memory.then(adapters::main_memory_available)
    }

    /// Bytes that tensors hold on the device now; `None` on the CPU backend, which does not count them.
    pub fn memory_in_use(&self) -> Option<u64> {
        self.device
            .memory_pool_usage()
            .map(|usage| usage.bytes_in_use)
    }
}

/// A device that burn knows.
#[derive(Debug)]
struct Registered {
    device: Device,
    /// Its adapter, of the class whose kernels run.
    adapter: Adapter,
    index: usize,
}

/// burn registers a device for good, so each is made once and stays: one for an adapter and class.
static DEVICES: Mutex<Vec<&'static Registered>> = Mutex::new(Vec::new());

fn registered(index: usize, adapter: &Adapter) -> Result<Device> {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |known: &&&Registered| known.index == index && known.adapter.class == adapter.class;
    if let Some(known) = devices.iter().find(same) {
        return Ok(known.device.clone());
    }
    let device = register(&found()[index])?;
    devices.push(Box::leak(Box::new(Registered {
        device: device.clone(),
        adapter: adapter.clone(),
        index,
    })));
    Ok(device)
}

/// The adapter behind a device that [`open`] made; `None` on the CPU backend.
pub fn adapter_of(device: &Device) -> Option<&'static Adapter> {
    Some(&registration_of(device)?.adapter)
}

/// wgpu's handle of that adapter.
pub(super) fn handle_of(device: &Device) -> Option<&'static wgpu::Adapter> {
    Some(&found().get(registration_of(device)?.index)?.handle)
}

fn registration_of(device: &Device) -> Option<&'static Registered> {
    let devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    devices
        .iter()
        .find(|known| known.device == *device)
        .copied()
}

fn register(Found { about, handle }: &Found) -> Result<Device> {
    let failed = |reason: String| Error::Device {
        doing: format!("opening {about}"),
        reason,
    };
    let (device, queue) = pollster::block_on(
        handle.request_device(&wgpu::DeviceDescriptor {
            label: None,
            // burn takes every feature the adapter has for granted. The experimental ones need an
            // unsafe token, and burn's WGSL uses none.
            required_features: handle
                .features()
                .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
                .difference(wgpu::Features::all_experimental_mask()),
            required_limits: handle.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
        }),
    )
    .map_err(|error| failed(error.to_string()))?;
    let setup = burn::tensor::wgpu::WgpuSetup {
        instance: instance().clone(),
        adapter: handle.clone(),
        device,
        queue,
        backend: handle.get_info().backend,
    };
    Device::wgpu_options()
        .setup(setup)
        .init()
        .map_err(|error| failed(error.to_string()))
}
