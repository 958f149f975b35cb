//! Whether a machine is fit to train on, and the command that mends what is not.

mod system;
mod vulkan;

use serde::Serialize;
use std::path::Path;
use std::process::Command;

use super::adapters::{Adapter, Cpu, main_memory_available};
use super::choice::{Pick, selector};
use super::{DeviceChoice, NVIDIA};
use crate::units::Bytes;

pub use system::{Gpu, System};

/// Free main memory with which the presets train without trouble.
const MEMORY: Bytes = Bytes(2 << 30);
/// Free room that a run's records and checkpoints may need.
const DISK: Bytes = Bytes(1 << 30);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing.
    pub what: String,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What mends it; none where nothing needs mending.
    pub advice: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing that was asked for depends on it.
    Warning,
    /// Needed and not there, or not working.
    Missing,
}

impl Finding {
    /// A thing as it should be.
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            status: Status::Ok,
            found: found.into(),
            advice: None,
        }
    }

    /// A thing that is wanting: needed or not.
    pub fn wanting(
        is_needed: bool,
        what: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            status: if is_needed {
                Status::Missing
            } else {
                Status::Warning
            },
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Missing => "missing",
        };
        write!(f, "{status:7}  {}: {}", self.what, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Whether `choice` cannot do without a graphics driver on this system: an adapter is named, or `auto` would take a GPU
/// that is there.
pub fn needs_adapter(choice: &DeviceChoice, system: &System<'_>) -> bool {
    match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Auto => !system.gpus().is_empty(),
        DeviceChoice::Cuda | DeviceChoice::Wgpu { .. } => true,
    }
}

/// Loader, drivers and devices of a Linux system.
pub fn drivers(choice: &DeviceChoice, system: &System<'_>) -> Vec<Finding> {
    vulkan::examine(system, needs_adapter(choice, system))
}

/// The adapters that wgpu found, and what `choice` takes of them; `gpus` is what the machine has.
pub fn adapters(choice: &DeviceChoice, list: &[Adapter], gpus: &[Gpu]) -> Vec<Finding> {
    const WHAT: &str = "adapter";
    let mut findings = Vec::new();
    for (index, adapter) in list.iter().enumerate() {
        let device = selector(list, index);
        let found = if adapter.is_software() {
            format!(
                "{adapter} is a software adapter (--device {device}): right results, and no speed to quote"
            )
        } else {
            format!("{adapter} (--device {device})")
        };
        findings.push(match adapter.unfit() {
            None => Finding::ok(WHAT, found),
            Some(reason) => Finding::wanting(
                false,
                WHAT,
                format!("{found}: it {reason}"),
                "another graphics API may offer more: see `bkbench devices`",
            ),
        });
    }
    let on_cpu = *choice == DeviceChoice::Cpu;
    let no_gpu_works = list.iter().all(Adapter::is_software);
    if let (Some(gpu), true) = (gpus.first(), no_gpu_works) {
        findings.push(Finding::wanting(
            !on_cpu,
            WHAT,
            format!("none is a real GPU, and the machine has {gpu}"),
            "mend the drivers as said above, or take --device cpu",
        ));
    } else if list.is_empty() {
        let is_named = !matches!(choice, DeviceChoice::Auto | DeviceChoice::Cpu);
        let advice = if is_named {
            "take --device cpu, or a software driver: apt-get install -y mesa-vulkan-drivers libvulkan1"
        } else {
            "training runs on the CPU"
        };
        findings.push(Finding::wanting(is_named, WHAT, "wgpu found none", advice));
    }
    findings.push(match choice.choose(list) {
        Ok((pick, notes)) => {
            let takes = match pick {
                Pick::Cpu => "the CPU backend".to_owned(),
                Pick::Adapter(index) => list[index].to_string(),
            };
            let notes: Vec<String> = [format!("takes {takes}")]
                .into_iter()
                .chain(notes)
                .collect();
            Finding::ok(format!("--device {choice}"), notes.join("; "))
        }
        Err(error) => Finding::wanting(
            true,
            format!("--device {choice}"),
            error.to_string(),
            "see `bkbench devices`",
        ),
    });
    findings
}

/// Processor, free memory, and room for results in `folder`.
pub fn resources(folder: &Path) -> Vec<Finding> {
    let cpu = Cpu::detect();
    let mut findings = vec![Finding::ok(
        "processor",
        format!(
            "{}, {} threads, {}; {}",
            cpu.name, cpu.threads, cpu.simd, cpu.os
        ),
    )];
    let free = main_memory_available();
    findings.push(at_least(
        "free memory",
        Some(free),
        MEMORY,
        "close other programs, or take shorter sequences (--seq_lengths) and smaller models",
    ));
    let place = folder.display();
    findings.push(match tempfile::tempfile_in(folder) {
        Err(error) => Finding::wanting(
            true,
            "place for results",
            format!("{place} cannot be written: {error}"),
            "change to a folder in which you may write",
        ),
        Ok(_) => at_least(
            "place for results",
            free_space(folder),
            DISK,
            "free some space, or change to a folder on another disk",
        ),
    });
    findings
}

fn at_least(what: &str, free: Option<Bytes>, wanted: Bytes, advice: &str) -> Finding {
    match free {
        Some(free) if free >= wanted => Finding::ok(what, format!("{free} free")),
        Some(free) => {
            let found = format!("{free} free, and a run may want {wanted}");
            Finding::wanting(false, what, found, advice)
        }
        None => Finding::ok(what, "how much is free is not known here"),
    }
}

/// Room on the disk of `folder`, as `df` tells it; none where there is no such program.
fn free_space(folder: &Path) -> Option<Bytes> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kibibytes: u64 = text
        .lines()
        .nth(1)?
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()?;
    Some(Bytes(kibibytes << 10))
}
