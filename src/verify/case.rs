//! One case while it runs: its inputs, its comparisons, and the account of its tensors.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{CaseReport, Check, Precision, Tolerance};
use crate::hardware::read;
use crate::{Error, Result};

/// The tensors of a file, on the host.
pub(super) type HostTensors = BTreeMap<String, HostTensor>;

/// A tensor on the host, row-major.
pub(super) struct HostTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// A manifest's entry.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) op: String,
    tensors: BTreeMap<String, Listed>,
    #[serde(default)]
    tol_f32: BTreeMap<String, f64>,
    tol_f64: Option<f64>,
    #[serde(flatten)]
    parameters: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Listed {
    shape: Vec<usize>,
}

/// A running case. Every tensor that the manifest lists must be read, compared or set aside.
pub(super) struct Case<'a> {
    header: &'a Header,
    tensors: &'a HostTensors,
    device: Device,
    precision: Precision,
    accounted: BTreeSet<String>,
    report: CaseReport,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        file: &str,
        header: &'a Header,
        tensors: &'a HostTensors,
        device: &Device,
        precision: Precision,
    ) -> Self {
        Self {
            header,
            tensors,
            device: device.clone().autodiff(),
            precision,
            accounted: BTreeSet::new(),
            report: CaseReport::new(file, &header.name, precision),
        }
    }

    /// The device, with autodiff.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// What the case's floats are.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// The manifest's other fields.
    pub(super) fn parameters<T: DeserializeOwned>(&self) -> Result<T> {
        let parameters = self.header.parameters.clone();
        serde_json::from_value(parameters.into())
            .map_err(|error| self.bad(format!("has bad parameters: {error}")))
    }

    /// An input.
    pub(super) fn host(&mut self, name: &str) -> Result<&'a HostTensor> {
        self.accounted.insert(name.to_owned());
        self.listed(name)
            .map_err(|why| self.bad(format!("{name} {why}")))
    }

    /// An input on the device, with a gradient.
    pub(super) fn leaf<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>> {
        let host = self.host(name)?;
        let shape = host.shape.as_slice().try_into().map_err(|_| {
            self.bad(format!(
                "{name} has shape {:?} instead of {D} axes",
                host.shape
            ))
        })?;
        Ok(self.tensor(&host.values, shape).require_grad())
    }

    /// Values on the device, without a gradient.
    pub(super) fn tensor<const D: usize>(&self, values: &[f64], shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values.to_vec(), shape);
        Tensor::from_data(data, (&self.device, self.precision.dtype()))
    }

    /// Zeros on the device.
    pub(super) fn zeros<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        self.tensor(&vec![0.0; shape.iter().product()], shape)
    }

    /// Compares an output with the tensor called `name`; `bound` is the field of the manifest's tolerances.
    /// What follows a blank in `name` is a remark.
    pub(super) fn check<const D: usize>(
        &mut self,
        name: &str,
        output: Tensor<D>,
        bound: &str,
    ) -> Result<()> {
        let shape = output.dims();
        let values = read::doubles(output, &format!("reading {name}"))?;
        self.check_host(name, &shape, &values, bound)
    }

    /// As [`Case::check`], for the gradient that reached `leaf`.
    pub(super) fn check_gradient<const D: usize>(
        &mut self,
        name: &str,
        leaf: &Tensor<D>,
        gradients: &Gradients,
        bound: &str,
    ) -> Result<()> {
        let gradient = leaf
            .grad(gradients)
            .ok_or_else(|| Error::CheckFailed(format!("no gradient reached {name}")))?;
        self.check(name, gradient, bound)
    }

    /// As [`Case::check`], for values on the host.
    pub(super) fn check_host(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f64],
        bound: &str,
    ) -> Result<()> {
        let tolerance = self.tolerance(bound)?;
        self.compare(name, (shape, values), tolerance);
        Ok(())
    }

    /// As [`Case::check`], with a bound that is not the manifest's.
    pub(super) fn check_within<const D: usize>(
        &mut self,
        name: &str,
        output: Tensor<D>,
        tolerance: Tolerance,
    ) -> Result<()> {
        let shape = output.dims();
        let values = read::doubles(output, &format!("reading {name}"))?;
        self.compare(name, (&shape, &values), tolerance);
        Ok(())
    }

    fn compare(&mut self, name: &str, (shape, values): (&[usize], &[f64]), tolerance: Tolerance) {
        let tensor = name.split(' ').next().unwrap_or(name);
        self.accounted.insert(tensor.to_owned());
        let check = match self.listed(tensor) {
            Ok(reference) => Check::new(
                name,
                (shape, values),
                (&reference.shape, &reference.values),
                tolerance,
            ),
            Err(why) => Check::missed(name, why),
        };
        self.report.checks.push(check);
    }

    /// The input is invalid, and the operation answered with `error`.
    pub(super) fn refused(&mut self, error: &Error) {
        self.report.refused = Some(error.to_string());
    }

    /// Names of all the tensors of the manifest's entry.
    fn names(&self) -> Vec<&'a str> {
        self.header.tensors.keys().map(String::as_str).collect()
    }

    /// Tensors that are no outputs of the operation.
    pub(super) fn set_aside(&mut self, names: &[&str]) {
        self.accounted
            .extend(names.iter().map(|&name| name.to_owned()));
    }

    /// The report of the case, which ended with `failure`.
    pub(super) fn into_report(mut self, failure: Option<String>) -> CaseReport {
        self.report.failure = failure.or_else(|| {
            let unknown: Vec<&str> = self
                .names()
                .into_iter()
                .filter(|&name| !self.accounted.contains(name))
                .collect();
            let unreadable = self.names().into_iter().find_map(|name| {
                let why = self.listed(name).err()?;
                Some(format!("{name} {why}"))
            });
            if unknown.is_empty() {
                unreadable
            } else {
                Some(format!(
                    "lists tensors that are not known: {}",
                    unknown.join(", ")
                ))
            }
        });
        self.report
    }

    /// The error of a case that cannot be run.
    pub(super) fn bad(&self, problem: impl Into<String>) -> Error {
        let what = format!("case {}", self.header.name);
        Error::bad_input(what, problem, "write its files again")
    }

    /// A tensor as the manifest lists it, or why there is none.
    fn listed(&self, name: &str) -> Result<&'a HostTensor, String> {
        let listed = self
            .header
            .tensors
            .get(name)
            .ok_or("is not in the manifest")?;
        let full_name = format!("{}/{name}", self.header.name);
        let tensor = self.tensors.get(&full_name).ok_or("is not in the file")?;
        if tensor.shape == listed.shape {
            Ok(tensor)
        } else {
            Err(format!(
                "has shape {:?} in the file and {:?} in the manifest",
                tensor.shape, listed.shape
            ))
        }
    }

    fn tolerance(&self, bound: &str) -> Result<Tolerance> {
        let missing = |field: &str| self.bad(format!("has no {field}"));
        let (tol, atol) = match self.precision {
            Precision::F32 => {
                let tol = self.header.tol_f32.get(bound).copied();
                (
                    tol.ok_or_else(|| missing(&format!("tol_f32.{bound}")))?,
                    1e-6,
                )
            }
            Precision::F64 => (
                self.header.tol_f64.ok_or_else(|| missing("tol_f64"))?,
                1e-12,
            ),
        };
        Ok(if bound.ends_with("_abs") {
            Tolerance::Absolute(tol)
        } else {
            Tolerance::Relative { tol, atol }
        })
    }
}

impl Precision {
    /// The precisions in which an operation is checked.
    pub(super) fn on(has_f64: bool) -> &'static [Self] {
        if has_f64 {
            &[Self::F32, Self::F64]
        } else {
            &[Self::F32]
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }
}
