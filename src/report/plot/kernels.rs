//! The kernels under their device's roofs (Williams, Waterman and Patterson 2009): operations a second against
//! operations for every byte that must move.

use plotters::style::RGBColor;

use super::Drawing;
use super::figure::{Figure, Key, Line, Mark, NEUTRAL, Panel, Sample, colour};
use crate::Result;
use crate::results::{FlopsPass, KernelSpeed, KernelsReport};

/// Draws a panel an operation; operations that only move memory are left out and named.
///
/// # Errors
/// If it cannot be drawn.
pub fn draw(report: &KernelsReport) -> Result<Drawing> {
    let (computing, moving): (Vec<_>, Vec<_>) =
        report.kernels.iter().partition(|kernel| kernel.flops > 0);
    let copy = report.rates.copy.bytes_per_second.get().log10() - 9.0;
    let matmul = report.rates.matmul.flops_per_second.get().log10() - 9.0;
    let ridge = matmul - copy;
    let all = || computing.iter().map(|kernel| intensity(kernel));
    let low = all().fold(ridge, f64::min) - 0.3;
    let high = all().fold(ridge, f64::max) + 0.3;

    let mut operations: Vec<&str> = Vec::new();
    for kernel in &computing {
        if !operations.contains(&kernel.operation.as_str()) {
            operations.push(&kernel.operation);
        }
    }
    let roof = |from: (f64, f64), to: (f64, f64)| Line {
        colour: NEUTRAL,
        width: 2,
        dashed: true,
        points: vec![from, to],
    };
    let panel = |operation: &&str| {
        let of_it = computing.iter().filter(|it| it.operation == *operation);
        Panel {
            caption: (*operation).to_owned(),
            x: low..high,
            lines: vec![
                roof((low, copy + low), (ridge, matmul)),
                roof((ridge, matmul), (high, matmul)),
            ],
            marks: of_it.flat_map(|kernel| marks(kernel)).collect(),
            ..Panel::default()
        }
    };
    let key = |label: &str, colour, sample| Key {
        label: label.to_owned(),
        colour,
        sample,
    };
    let device = report.device["adapter"].as_str().unwrap_or("a device");
    let figure = Figure {
        title: format!("Kernels under the roofs of {device}"),
        subtitle: "Operations of the sequential algorithm by second, against those for every byte that must move; \
                   logarithmic axes. Higher is better."
            .into(),
        footer: format!("The device {}.", report.rates),
        x_label: "FLOPs per byte".into(),
        y_label: "GFLOP/s".into(),
        log_x: true,
        log_y: true,
        legend: vec![
            key("forward", colour(0), Sample::Dot),
            key("gradients", colour(1), Sample::Dot),
            key("plain loop, one CPU thread", NEUTRAL, Sample::Cross),
            key("roofs: copying, then multiplying matrices", NEUTRAL, Sample::Dashed),
        ],
        panels: operations.iter().map(panel).collect(),
    };
    let mut notes: Vec<String> = moving
        .iter()
        .map(|kernel| {
            format!(
                "{} {} computes nothing and is not shown",
                kernel.operation,
                kernel.pass.name()
            )
        })
        .collect();
    notes.dedup();
    Ok(Drawing {
        svg: figure.svg()?,
        notes,
    })
}

fn intensity(kernel: &KernelSpeed) -> f64 {
    (kernel.flops as f64 / kernel.bytes.0 as f64).log10()
}

/// The kernel, and the plain loop below it.
fn marks(kernel: &KernelSpeed) -> [Mark; 2] {
    let mark = |colour: RGBColor, cross, seconds: f64| Mark {
        colour,
        cross,
        at: (
            intensity(kernel),
            (kernel.flops as f64 / seconds).log10() - 9.0,
        ),
    };
    let colour = colour(usize::from(kernel.pass == FlopsPass::Backward));
    [
        mark(NEUTRAL, true, kernel.plain.seconds.get()),
        mark(colour, false, kernel.timing.seconds.get()),
    ]
}
