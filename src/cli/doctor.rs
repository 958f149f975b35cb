//! `bkbench doctor`: is this machine fit, and what mends it.

use std::path::Path;

use serde_json::json;

use super::run::RESULTS_DIR;
use crate::Error;
use crate::hardware::doctor::{self, Finding, Status, System};
use crate::hardware::{self, DeviceChoice, Fingerprint, adapters};
use crate::verify::self_test;

/// What is to be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Looks at the machine and has the judges of this crate try faults on its device; one line a finding.
///
/// # Errors
/// [`Error::CheckFailed`] when something that the device needs is missing or does not work.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let system = System::new(Path::new("/"), &variable);
    let mut findings = Vec::new();
    if cfg!(target_os = "linux") && args.device != DeviceChoice::Cpu {
        findings.extend(doctor::drivers(&args.device, &system));
    }
    let list = adapters::list();
    findings.extend(doctor::adapters(&args.device, &list, &system.gpus()));
    let results = Path::new(RESULTS_DIR);
    let folder = if results.is_dir() {
        results
    } else {
        Path::new(".")
    };
    findings.extend(doctor::resources(folder));
    if !quiet {
        eprintln!(
            "putting in faults that must be caught; on a software adapter this takes a minute"
        );
    }
    let (device, tried) = self_tests(&args.device);
    findings.extend(tried);

    let missing = findings.iter().filter(|it| it.status == Status::Missing);
    let missing: Vec<&str> = missing.map(|it| it.what.as_str()).collect();
    if args.json {
        let document = json!({"fit": missing.is_empty(), "device": device, "findings": findings});
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        for finding in &findings {
            println!("{finding}");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "not fit for --device {}: {}",
        args.device,
        missing.join(", ")
    );
    Err(Error::CheckFailed(problem).into())
}

/// The device that the choice comes to, and what became of the faults on it.
fn self_tests(choice: &DeviceChoice) -> (Option<Fingerprint>, Vec<Finding>) {
    let hardware = match hardware::open(choice, None) {
        Ok(hardware) => hardware,
        Err(error) => {
            let advice = "see `bkbench devices`";
            let finding = Finding::wanting(true, "self-test", error.to_string(), advice);
            return (None, vec![finding]);
        }
    };
    let on = &hardware.fingerprint.adapter;
    let finding = |trial: self_test::Trial| match trial.problem {
        None => Finding::ok("self-test", format!("caught on {on}: {}", trial.fault)),
        Some(problem) => Finding::wanting(
            true,
            "self-test",
            format!("{}, on {on}: {problem}", trial.fault),
            "do not trust results of this device; look closer with `bkbench verify`",
        ),
    };
    let tried = self_test::run(&hardware.device);
    let findings = tried.into_iter().map(finding).collect();
    (Some(hardware.fingerprint), findings)
}
