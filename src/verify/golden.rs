//! The files: manifests with their tensors, from a folder or embedded.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::Device;
use serde::Deserialize;

use super::case::{Case, Header, HostTensor, HostTensors};
use super::{CaseReport, Precision, language_model, mamba, resolvent};
use crate::models::safetensors::Safetensors;
use crate::{Error, Result};

/// A manifest and its tensors.
pub(super) struct VectorFile {
    name: String,
    content: Result<Content>,
}

struct Content {
    cases: Vec<serde_json::Value>,
    tensors: HostTensors,
}

#[derive(Deserialize)]
struct Manifest {
    file: String,
    cases: Vec<serde_json::Value>,
}

/// Small vectors for every operation, so that a bare binary can check itself.
pub(super) fn embedded() -> Vec<VectorFile> {
    macro_rules! pair {
        ($name:literal) => {
            VectorFile::new(
                concat!($name, ".json"),
                include_bytes!(concat!("../../tests/golden/", $name, ".json")),
                |_| {
                    let tensors: &[u8] =
                        include_bytes!(concat!("../../tests/golden/", $name, ".safetensors"));
                    Ok(tensors.to_vec())
                },
            )
        };
    }
    vec![
        pair!("bk_small"),
        pair!("bk_upstream"),
        pair!("mamba_scan_small"),
        pair!("mamba_conv"),
        pair!("mamba_block_small"),
        pair!("mamba_lm_small"),
    ]
}

/// Every manifest in `folder`, by name. Tensors that no manifest names are an unreadable file of their own.
///
/// # Errors
/// [`Error::BadInput`] when the folder cannot be read or holds no manifest.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<VectorFile>> {
    let bad = |problem: String| {
        let what = format!("--golden {}", folder.display());
        Error::bad_input(
            what,
            problem,
            "name a folder of .json manifests and their .safetensors",
        )
    };
    let listing = fs::read_dir(folder).map_err(|error| bad(error.to_string()))?;
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.map_err(|error| bad(error.to_string()))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    let read =
        |name: &str| fs::read(folder.join(name)).map_err(Error::io("read", folder.join(name)));

    let mut files = Vec::new();
    let mut claimed = Vec::new();
    for name in names.iter().filter(|name| has_extension(name, "json")) {
        files.push(match read(name) {
            Ok(manifest) => VectorFile::new(name, &manifest, |tensors| {
                claimed.push(tensors.to_owned());
                read(tensors)
            }),
            Err(error) => VectorFile {
                name: name.clone(),
                content: Err(error),
            },
        });
    }
    if files.is_empty() {
        return Err(bad("holds no manifest".to_owned()));
    }
    for name in names {
        if has_extension(&name, "safetensors") && !claimed.contains(&name) {
            let content = Err(bad(format!("no manifest names {name}")));
            files.push(VectorFile { name, content });
        }
    }
    Ok(files)
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|it| it == extension)
}

impl VectorFile {
    fn new(name: &str, manifest: &[u8], tensors: impl FnOnce(&str) -> Result<Vec<u8>>) -> Self {
        let content = || {
            let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| {
                Error::bad_input(name, format!("is no manifest: {error}"), "write it again")
            })?;
            if manifest.cases.is_empty() {
                return Err(Error::bad_input(name, "lists no case", "write it again"));
            }
            let file = Safetensors::parse(&manifest.file, tensors(&manifest.file)?)?;
            let tensors = file.iter().map(|(name, tensor)| {
                let host = HostTensor {
                    shape: tensor.shape.to_vec(),
                    values: tensor.doubles(),
                };
                (name.to_owned(), host)
            });
            Ok(Content {
                tensors: tensors.collect(),
                cases: manifest.cases,
            })
        };
        Self {
            name: name.to_owned(),
            content: content(),
        }
    }

    /// Runs every case on `device`; operations that have an `f64` path there also in `f64`.
    pub(super) fn check(&self, device: &Device, on_cpu: bool) -> Vec<CaseReport> {
        let failed = |case: &str, error: String| {
            let mut report = CaseReport::new(&self.name, case, Precision::F32);
            report.failure = Some(error);
            report
        };
        let content = match &self.content {
            Ok(content) => content,
            Err(error) => return vec![failed("-", error.to_string())],
        };
        let mut reports = Vec::new();
        for (index, case) in content.cases.iter().enumerate() {
            let header = match Header::deserialize(case) {
                Ok(header) => header,
                Err(error) => {
                    let name = case["name"]
                        .as_str()
                        .map_or(format!("case {index}"), str::to_owned);
                    reports.push(failed(&name, format!("has a bad manifest entry: {error}")));
                    continue;
                }
            };
            let Some(operation) = Operation::called(&header.op) else {
                reports.push(failed(
                    &header.name,
                    format!("has the unknown op '{}'", header.op),
                ));
                continue;
            };
            for &precision in Precision::on(on_cpu && operation.has_f64) {
                let mut case = Case::new(&self.name, &header, &content.tensors, device, precision);
                // A tensor that does not fit makes burn panic.
                let outcome = catch_unwind(AssertUnwindSafe(|| (operation.run)(&mut case)));
                reports.push(case.into_report(match outcome {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("its tensors made an operation panic".to_owned()),
                }));
            }
        }
        reports
    }
}

/// How the cases of an `op` are run.
struct Operation {
    run: fn(&mut Case<'_>) -> Result<()>,
    has_f64: bool,
}

impl Operation {
    fn called(op: &str) -> Option<Self> {
        let (run, has_f64): (fn(&mut Case<'_>) -> Result<()>, bool) = match op {
            "bk_resolvent_diag" => (resolvent::diagonal, true),
            "upstream BKCoreFunction (b=c=1, z=1j)" => (resolvent::upstream, true),
            "selective_scan" => (mamba::selective_scan, true),
            "causal_depthwise_conv1d_silu" | "causal_depthwise_conv1d" => {
                (mamba::causal_conv, true)
            }
            "mamba_block" => (mamba::block, false),
            "mamba_lm" => (language_model::mamba, false),
            _ => return None,
        };
        Some(Self { run, has_f64 })
    }
}
