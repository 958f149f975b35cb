//! Every kernel against published vectors and against the sequential oracle, on one device; [`audit`], a whole
//! model before it is trained; [`flops`], what its operations are registered to cost; [`numerics`], how a device
//! rounds; [`self_test`], whether all of this catches what it is for.
//!
//! A folder of vectors holds pairs of files: `<x>.json`, the manifest with its cases, their parameters and
//! tolerances, and the `.safetensors` it names, with tensors called `<case>/<tensor>`. What a case's
//! tensors must satisfy is in [`Tolerance`]. `atol` is 1e-6 in `f32` and 1e-12 in `f64`.

pub mod audit;
mod case;
mod compare;
pub mod flops;
mod golden;
mod language_model;
mod mamba;
pub mod numerics;
mod oracle;
mod resolvent;
pub mod self_test;
mod weights;

use std::path::Path;

use serde::Serialize;

pub use compare::{Check, Errors, Tolerance};

use crate::Result;
use crate::hardware::{Fingerprint, Hardware};
use crate::ops;

/// What was checked on a device and how it went.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The device.
    pub device: Fingerprint,
    /// Case by case, in the order of the files.
    pub cases: Vec<CaseReport>,
    /// WGSL kernels of ours dispatched meanwhile.
    pub dispatches: u64,
}

/// One case in one precision.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// The manifest, or "oracle".
    pub file: String,
    /// Name of the case.
    pub case: String,
    /// What its floats were.
    pub precision: Precision,
    /// The tensors that were compared.
    pub checks: Vec<Check>,
    /// The error with which the operation rightly refused the input.
    pub refused: Option<String>,
    /// Why the case could not be checked, or not to its end.
    pub failure: Option<String>,
}

/// Width of the floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 64 bits, on the CPU only.
    F64,
}

/// The sums of a [`Report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Cases of which something was checked.
    pub cases: usize,
    /// Tensors compared.
    pub tensors: usize,
    /// Cases that failed.
    pub failed: usize,
}

/// Checks the vectors in `folder`, or the embedded ones, and every operation against the oracle.
///
/// # Errors
/// [`Error::BadInput`](crate::Error::BadInput) when `folder` cannot be read or holds no manifest. What goes
/// wrong within a case is in the report.
pub fn verify(folder: Option<&Path>, hardware: &Hardware) -> Result<Report> {
    let files = match folder {
        Some(folder) => golden::in_folder(folder)?,
        None => golden::embedded(),
    };
    let on_cpu = hardware.fingerprint.api.is_none();
    let dispatched_before = ops::dispatches();
    let mut cases = Vec::new();
    for file in &files {
        cases.extend(file.check(&hardware.device, on_cpu));
    }
    cases.extend(oracle::check(&hardware.device, on_cpu));
    Ok(Report {
        device: hardware.fingerprint.clone(),
        cases,
        dispatches: ops::dispatches() - dispatched_before,
    })
}

impl Report {
    /// The sums.
    pub fn totals(&self) -> Totals {
        let sum = |count: fn(&CaseReport) -> usize| self.cases.iter().map(count).sum();
        Totals {
            cases: sum(|c| usize::from(c.was_checked())),
            tensors: sum(|c| c.checks.iter().filter(|k| k.errors.is_some()).count()),
            failed: sum(|c| usize::from(!c.passed())),
        }
    }

    /// One line for everything that is wrong; empty when all is well.
    pub fn failures(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.cases.iter().flat_map(CaseReport::failures).collect();
        if self.device.api.is_some() && self.dispatches == 0 {
            lines.push("no WGSL kernel was dispatched on this wgpu device".to_owned());
        }
        lines
    }
}

impl CaseReport {
    fn new(file: &str, case: &str, precision: Precision) -> Self {
        Self {
            file: file.to_owned(),
            case: case.to_owned(),
            precision,
            checks: Vec::new(),
            refused: None,
            failure: None,
        }
    }

    fn was_checked(&self) -> bool {
        !self.checks.is_empty() || self.refused.is_some() || self.failure.is_some()
    }

    fn passed(&self) -> bool {
        self.failure.is_none() && self.checks.iter().all(|check| check.miss.is_none())
    }

    fn failures(&self) -> Vec<String> {
        let misses = self.checks.iter().filter_map(|check| {
            let miss = check.miss.as_ref()?;
            Some(format!("{} {miss}", check.tensor))
        });
        let Self {
            file,
            case,
            precision,
            ..
        } = self;
        misses
            .chain(self.failure.clone())
            .map(|what| format!("{file}: {case} ({precision}): {what}"))
            .collect()
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}
