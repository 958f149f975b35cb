//! The speed of the kernels as a plain-text table.

use super::table::aligned;
use crate::results::{KernelSpeed, KernelsReport, Timestamps};

const COLUMNS: [&str; 10] = [
    "operation",
    "pass",
    "sizes",
    "time",
    "GB/s",
    "of copy",
    "GFLOP/s",
    "of matmul",
    "plain loop",
    "speedup",
];

/// One row a kernel and size; below, what the device does at best and how it was timed.
pub fn table(report: &KernelsReport) -> String {
    let mut lines = aligned(COLUMNS, report.kernels.iter().map(row));
    let rates = &report.rates;
    lines.push(String::new());
    lines.push(format!("the device {rates}"));
    lines.push(match rates.timestamps {
        Timestamps::Absent => "it has no timestamps: times are the wall clock's".to_owned(),
        Timestamps::Plausible { ratio } => format!(
            "its timestamps show {:.2} times the wall clock's time and are used",
            ratio.get()
        ),
        Timestamps::Implausible { ratio } => format!(
            "its timestamps show {} times the wall clock's time and are not used: times are the wall clock's, or the \
             slope of repeated launches",
            ratio.map_or("no".to_owned(), |ratio| format!("{:.2}", ratio.get()))
        ),
    });
    if let Some(cpu) = report.cpu["name"].as_str() {
        lines.push(format!("plain loops ran on one thread of {cpu}"));
    }
    lines.join("\n") + "\n"
}

fn row(kernel: &KernelSpeed) -> [String; 10] {
    let per_second = |amount: f64| format!("{:.2}", amount / 1e9);
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let computes = kernel.flops > 0;
    let if_any = |text: String| if computes { text } else { "-".to_owned() };
    [
        kernel.operation.clone(),
        kernel.pass.name().to_owned(),
        kernel.sizes.clone(),
        milliseconds(kernel.timing.seconds.get()),
        per_second(kernel.bytes_per_second()),
        percent(kernel.copy_share.get()),
        if_any(per_second(kernel.flops_per_second())),
        if_any(percent(kernel.matmul_share.get())),
        milliseconds(kernel.plain.seconds.get()),
        format!("{:.1}x", kernel.speedup.get()),
    ]
}

/// A time of three digits or so.
fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    let decimals = if ms < 1.0 { 3 } else { usize::from(ms < 100.0) };
    format!("{ms:.decimals$} ms")
}
