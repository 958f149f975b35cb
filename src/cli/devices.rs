//! `bkbench devices`: what this machine has, and what `auto` takes of it.

use serde_json::json;

use crate::hardware::DeviceChoice;
use crate::hardware::adapters::{self, Adapter, Cpu};
use crate::hardware::choice::{Pick, selector};

/// Adapters, their limits, and what `--device auto` takes and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the adapters and the CPU.
///
/// # Errors
/// None of its own: a machine without adapters is a valid answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let cpu = Cpu::detect();
    let list = adapters::list();
    let (pick, notes) = DeviceChoice::Auto.choose(&list)?;
    let takes = match pick {
        Pick::Cpu => "cpu".to_owned(),
        Pick::Adapter(index) => selector(&list, index),
    };
    if args.json {
        let entry = |(index, adapter): (usize, &Adapter)| json!({ "device": selector(&list, index), "adapter": adapter, "unfit": adapter.unfit() });
        let document = json!({
            "cpu": cpu,
            "adapters": list.iter().enumerate().map(entry).collect::<Vec<_>>(),
            "auto": { "device": takes, "notes": notes },
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    println!("--device cpu");
    println!("  {}, {} threads, {}", cpu.name, cpu.threads, cpu.simd);
    println!("  {}, {} of memory", cpu.os, cpu.memory);
    for (index, adapter) in list.iter().enumerate() {
        println!("\n--device {}", selector(&list, index));
        print_adapter(adapter);
    }
    if list.is_empty() {
        println!(
            "\nno wgpu adapter: on Linux, scripts/setup.sh installs a Vulkan loader and a software driver"
        );
    }
    println!("\n--device auto takes {takes}");
    for note in notes {
        println!("  {note}");
    }
    Ok(())
}

fn print_adapter(adapter: &Adapter) {
    let Adapter {
        kind,
        class,
        vendor_id,
        device_id,
        driver,
        driver_info,
        limits,
        features,
        ..
    } = adapter;
    let kind = format!("{kind:?}").to_lowercase();
    println!("  {adapter}, {kind}, vendor {vendor_id:#06x}, device {device_id:#06x}");
    println!("  kernels for adapters of class {}", class.name());
    println!("  driver {}", format!("{driver} {driver_info}").trim());
    println!(
        "  {} a buffer, {} a binding, {} storage buffers, {} of workgroup memory, {} invocations",
        limits.buffer,
        limits.binding,
        limits.storage_buffers,
        limits.workgroup_memory,
        limits.invocations
    );
    let [low, high] = adapter.subgroup_size;
    let yes = |has: bool| if has { "yes" } else { "no" };
    println!(
        "  subgroups of {low} to {high}: {}, f16: {}, timestamps: {}, float atomics: {}",
        yes(features.subgroups),
        yes(features.f16),
        yes(features.timestamps),
        yes(features.float_atomics)
    );
    if let Some(reason) = adapter.unfit() {
        println!("  not usable: it {reason}");
    }
}
