//! Devices and data for the tests.

use std::path::Path;

use assert_cmd::Command;
use bkbench::hardware::adapters::Class;
use bkbench::hardware::{DeviceChoice, open_as};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Runs a command line of `bkbench` in a folder; its exit code and what it printed.
pub(crate) fn bkbench(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command.current_dir(dir).args(line.split_whitespace());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The CPU backend.
pub(crate) fn cpu() -> Device {
    Device::flex()
}

/// The wgpu device of this machine: a real GPU or the software adapter that scripts/setup.sh installs.
/// A machine without any adapter fails the test: nothing is skipped silently.
pub(crate) fn wgpu() -> Device {
    wgpu_as(None)
}

/// The same, once with the kernels of each class of adapter.
pub(crate) fn wgpu_of_each_class() -> [Device; 2] {
    [Class::Software, Class::Gpu].map(|class| wgpu_as(Some(class)))
}

fn wgpu_as(class: Option<Class>) -> Device {
    let choice = DeviceChoice::Wgpu {
        api: None,
        which: None,
    };
    open_as(&choice, None, class)
        .expect("a wgpu adapter; scripts/setup.sh installs a software one")
        .device
}

/// A float tensor of `dtype` from values.
pub(crate) fn tensor<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

/// The values of a float tensor.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    bkbench::hardware::read::doubles(tensor, "reading a test's tensor").expect("a working device")
}

/// The text of a record's file, with the hash of whatever is in it.
pub(crate) fn sealed(mut record: serde_json::Value) -> String {
    record.as_object_mut().unwrap().remove("content_sha256");
    let hash = bkbench::config::canonical_sha256(&record).unwrap();
    record["content_sha256"] = hash.into();
    record.to_string()
}

/// A folder of golden vectors committed with the tests: the manifest and the tensors of one operation.
pub(crate) struct Golden {
    /// The manifest's cases.
    pub(crate) cases: Vec<serde_json::Value>,
    bytes: Vec<u8>,
    header: serde_json::Value,
}

impl Golden {
    /// `tests/golden/<name>.{json,safetensors}`.
    pub(crate) fn read(name: &str) -> Self {
        Self::open(&format!(
            "{}/tests/golden/{name}",
            env!("CARGO_MANIFEST_DIR")
        ))
    }

    /// `golden/<name>.{json,safetensors}` of the folder that `BKBENCH_DATA` names.
    pub(crate) fn read_large(name: &str) -> Self {
        let data = std::env::var("BKBENCH_DATA").expect("BKBENCH_DATA names the data folder");
        Self::open(&format!("{data}/golden/{name}"))
    }

    fn open(path: &str) -> Self {
        let text = std::fs::read_to_string(format!("{path}.json")).expect("the manifest");
        let manifest: serde_json::Value = serde_json::from_str(&text).expect("a JSON manifest");
        let file = std::fs::read(format!("{path}.safetensors")).expect("the tensors");
        let (len, rest) = file.split_first_chunk().expect("a header length");
        let (header, bytes) = rest.split_at(u64::from_le_bytes(*len) as usize);
        Self {
            cases: manifest["cases"].as_array().expect("cases").clone(),
            header: serde_json::from_slice(header).expect("a JSON header"),
            bytes: bytes.to_vec(),
        }
    }

    /// The values of `tensor` in a case, if the case has it.
    pub(crate) fn tensor(&self, case: &serde_json::Value, tensor: &str) -> Option<Vec<f64>> {
        let entry = self
            .header
            .get(format!("{}/{tensor}", case["name"].as_str()?))?;
        let offset = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
        let bytes = &self.bytes[offset(0)..offset(1)];
        Some(match entry["dtype"].as_str() {
            Some("F32") => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from(f32::from_le_bytes(b)))
                .collect(),
            Some("F64") => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b))
                .collect(),
            other => panic!("{tensor}: dtype {other:?}"),
        })
    }
}
