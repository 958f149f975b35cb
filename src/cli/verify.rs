//! `bkbench verify`: every kernel against published vectors and the oracle, on the chosen device.

use std::path::PathBuf;

use crate::Error;
use crate::hardware::{self, DeviceChoice};
use crate::verify::{CaseReport, Check, Report, verify};

/// What to check, and on which device.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of vectors (manifests and their .safetensors) instead of the small embedded ones
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Checks and prints.
///
/// # Errors
/// [`Error::BadInput`] for a device or a folder that is not there, [`Error::CheckFailed`] when anything
/// misses.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let hardware = hardware::open(&args.device, None)?;
    let report = verify(args.golden.as_deref(), &hardware)?;
    let failures = report.failures();
    if args.json {
        let document = serde_json::json!({
            "passed": failures.is_empty(),
            "totals": report.totals(),
            "failures": failures,
            "report": report,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        for note in &hardware.notes {
            println!("{note}");
        }
        print_table(&report, &failures);
    }
    match failures.len() {
        0 => Ok(()),
        n => Err(
            Error::CheckFailed(format!("{n} check(s) failed on {}", report.device.adapter)).into(),
        ),
    }
}

fn print_table(report: &Report, failures: &[String]) {
    println!("on {}", report.device.adapter);
    println!("errors are relative to the largest magnitude and to the RMS of the reference\n");
    let rows: Vec<[String; 6]> = report.cases.iter().flat_map(rows).collect();
    let header = [
        "case",
        "tensor",
        "",
        "max error / allowed",
        "rms error / allowed",
        "",
    ];
    let header = header.map(str::to_owned);
    let width = |column: usize| {
        let cells = rows
            .iter()
            .chain([&header])
            .map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in [&header].into_iter().chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
    if !failures.is_empty() {
        println!("\nfailed:");
        for failure in failures {
            println!("  {failure}");
        }
    }
    let totals = report.totals();
    println!(
        "\n{} cases checked, {} tensors compared, {} failed, {} WGSL dispatches",
        totals.cases, totals.tensors, totals.failed, report.dispatches
    );
}

fn rows(case: &CaseReport) -> Vec<[String; 6]> {
    let row = |tensor: &str, max: String, rms: String, verdict: &str| {
        let file = case.file.trim_end_matches(".json");
        let name = format!("{file}: {}", case.case);
        [
            name,
            tensor.to_owned(),
            case.precision.to_string(),
            max,
            rms,
            verdict.to_owned(),
        ]
    };
    let plain = |tensor: &str, verdict: &str| row(tensor, String::new(), String::new(), verdict);
    let compared = |check: &Check| {
        let verdict = check.miss.as_deref().unwrap_or("ok");
        match check.errors {
            Some(e) => {
                let of = |error: f64, allowed: f64| format!("{error:.1e} / {allowed:.1e}");
                let (max, rms) = (of(e.max, e.max_allowed), of(e.rms, e.rms_allowed));
                row(&check.tensor, max, rms, verdict)
            }
            None => plain(&check.tensor, verdict),
        }
    };
    let mut rows: Vec<_> = case.checks.iter().map(compared).collect();
    rows.extend(
        case.refused
            .iter()
            .map(|error| plain("-", &format!("ok, refused: {error}"))),
    );
    rows.extend(case.failure.iter().map(|failure| plain("-", failure)));
    rows
}
