//! `bkbench kernels`: how fast every kernel is, against its device and against plain loops.

use std::path::PathBuf;

use crate::hardware::{self, DeviceChoice};
use crate::report::kernels::table;
use crate::report::plot::{self, Format};
use crate::speed;

/// Where to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Roofline plot to draw, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// [`Error::BadInput`](crate::Error::BadInput) for a device or a picture that cannot be; a device that fails.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    if let Some(output) = &args.output {
        Format::of(output)?;
    }
    let hardware = hardware::open(&args.device, None)?;
    let operations: Vec<&str> = speed::operations().collect();
    let report = speed::kernels(&hardware, &operations, &mut |kernel| {
        if !quiet {
            eprintln!(
                "{} {}, {}: {:.3} ms",
                kernel.operation,
                kernel.pass.name(),
                kernel.sizes,
                1e3 * kernel.timing.seconds.get()
            );
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("on {}", hardware.fingerprint.adapter);
        print!("{}", table(&report));
    }
    if let Some(output) = &args.output {
        let drawing = plot::kernels::draw(&report)?;
        drawing.save(output)?;
        if !quiet {
            for note in &drawing.notes {
                eprintln!("note: {note}");
            }
            eprintln!("drawn: {}", output.display());
        }
    }
    Ok(())
}
