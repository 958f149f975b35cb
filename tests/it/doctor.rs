//! `doctor` on machines that are made up of files and variables, and on this one.

use std::path::Path;

use assert_cmd::Command;
use bkbench::hardware::adapters::{Adapter, Api, Class, Features, Kind, Limits};
use bkbench::hardware::doctor::{Finding, Status, System, adapters, drivers, resources};
use bkbench::hardware::{DeviceChoice, doctor::Gpu};
use bkbench::units::Bytes;
use bkbench::verify::self_test;

use crate::support;

/// A system below a temporary root.
struct Machine {
    root: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

impl Machine {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn library(self, name: &str) -> Self {
        self.file(&format!("{LIBRARIES}/{name}"), "")
    }

    fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn gpu(self, vendor: &str, device: &str) -> Self {
        let folder = "sys/bus/pci/devices/0000:00:1e.0";
        self.file(&format!("{folder}/vendor"), &format!("{vendor}\n"))
            .file(&format!("{folder}/device"), &format!("{device}\n"))
            .file(&format!("{folder}/class"), "0x030200\n")
    }

    /// A T4 whose kernel driver is loaded and whose device files are there.
    fn t4() -> Self {
        Self::new()
            .gpu("0x10de", "0x1eb8")
            .file(
                "proc/driver/nvidia/version",
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\nGCC version: 11\n",
            )
            .file("dev/nvidiactl", "")
            .file("dev/nvidia0", "")
    }

    fn icd(self, name: &str, library: &str) -> Self {
        let json = format!(
            r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": "{library}", "api_version": "1.3"}}}}"#
        );
        self.file(&format!("usr/share/vulkan/icd.d/{name}"), &json)
    }

    fn findings(&self, device: &str) -> Vec<Finding> {
        let variable = |name: &str| {
            let mut variables = self.variables.iter();
            variables.find_map(|(known, value)| (*known == name).then(|| value.clone()))
        };
        let system = System::new(self.root.path(), &variable);
        drivers(&device.parse().unwrap(), &system)
    }

    /// What is missing, as it is printed.
    fn missing(&self) -> Vec<String> {
        let findings = self.findings("auto");
        let missing = findings.iter().filter(|it| it.status == Status::Missing);
        missing.map(ToString::to_string).collect()
    }
}

#[test]
fn a_whole_t4_lacks_nothing() {
    let machine = Machine::t4()
        .library("libvulkan.so.1.3.239")
        .library("libGLX_nvidia.so.0")
        .library("libnvidia-glcore.so.535.104.05")
        .library("libX11.so.6")
        .library("libXext.so.6")
        .icd("nvidia_icd.json", "libGLX_nvidia.so.0");
    let findings = machine.findings("auto");
    assert!(
        findings
            .iter()
            .all(|it| it.status == Status::Ok && it.advice.is_none()),
        "{findings:#?}"
    );
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let all = all.join("\n");
    for word in [
        "Tesla T4",
        "535.104.05",
        "/usr/lib/x86_64-linux-gnu/libvulkan.so.1.3.239",
        "/dev/nvidia0",
    ] {
        assert!(all.contains(word), "{word}: {all}");
    }
}

#[test]
fn a_machine_without_a_gpu_is_warned_and_lacks_nothing_unless_an_adapter_is_named() {
    let machine = Machine::new();
    assert_eq!(machine.missing(), Vec::<String>::new());
    let named = machine.findings("wgpu");
    let status: Vec<(&str, Status)> = named
        .iter()
        .map(|it| (it.what.as_str(), it.status))
        .collect();
    assert_eq!(
        status,
        [
            ("Vulkan loader", Status::Missing),
            ("Vulkan driver", Status::Missing)
        ]
    );
    let advice: Vec<&str> = named.iter().filter_map(|it| it.advice.as_deref()).collect();
    assert!(
        advice[0].contains("apt-get install -y libvulkan1"),
        "{advice:?}"
    );
    assert!(
        advice[1].contains("apt-get install -y mesa-vulkan-drivers"),
        "{advice:?}"
    );
}

#[test]
fn a_loader_that_is_missing_is_named_with_its_package() {
    let machine = Machine::t4()
        .library("libGLX_nvidia.so.0")
        .library("libX11.so.6")
        .library("libXext.so.6")
        .icd("nvidia_icd.json", "libGLX_nvidia.so.0");
    assert_eq!(
        machine.missing(),
        ["missing  Vulkan loader: libvulkan.so.1 is not installed; apt-get install -y libvulkan1"]
    );
}

#[test]
fn a_container_without_graphics_is_told_the_variable_and_the_package_of_the_very_driver() {
    let machine = |value: &str| {
        Machine::t4()
            .library("libvulkan.so.1")
            .file(".dockerenv", "")
            .variable("NVIDIA_DRIVER_CAPABILITIES", value)
    };
    let missing = machine("compute,utility").missing();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing[0].contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        "{missing:?}"
    );
    assert!(
        missing[0].contains("-e NVIDIA_DRIVER_CAPABILITIES=all"),
        "{missing:?}"
    );
    assert!(
        missing[1].contains("'libnvidia-gl-535=535.104.05*'"),
        "{missing:?}"
    );
    // With graphics the variable is in order, and what is missing is missing for another reason.
    for value in ["all", "compute, graphics"] {
        let missing = machine(value).missing();
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(
            missing[0].contains("libGLX_nvidia.so.0 is not installed"),
            "{missing:?}"
        );
    }
}

#[test]
fn a_container_without_its_devices_is_told_the_flag() {
    let machine = Machine::new()
        .gpu("0x10de", "0x1eb8")
        .library("libvulkan.so.1")
        .variable("container", "podman");
    let missing = machine.missing().join("\n");
    for words in [
        "it is not loaded",
        "no /dev/nvidiactl",
        "--gpus all",
        "NVIDIA_DRIVER_CAPABILITIES is not set",
    ] {
        assert!(missing.contains(words), "{words}: {missing}");
    }
    let amd = Machine::new()
        .gpu("0x1002", "0x73bf")
        .library("libvulkan.so.1")
        .file(".dockerenv", "");
    let missing = amd.missing().join("\n");
    assert!(
        missing.contains("no /dev/dri/renderD*; start the container with --device /dev/dri"),
        "{missing}"
    );
    assert!(missing.contains("mesa-vulkan-drivers"), "{missing}");
}

#[test]
fn libraries_of_another_version_than_the_kernels_driver_are_named() {
    let machine = Machine::t4()
        .library("libvulkan.so.1")
        .library("libGLX_nvidia.so.0")
        .library("libnvidia-glcore.so.550.54.15")
        .library("libX11.so.6")
        .icd("nvidia_icd.json", "libGLX_nvidia.so.0");
    let missing = machine.missing();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing[0].contains("version 550.54.15, the kernel's driver is 535.104.05"),
        "{missing:?}"
    );
    assert!(
        missing[1].contains("libXext.so.6") && missing[1].contains("libxext6"),
        "{missing:?}"
    );
}

#[test]
fn a_driver_that_no_file_names_gets_the_command_that_writes_the_file() {
    let machine = Machine::t4()
        .library("libvulkan.so.1")
        .library("libGLX_nvidia.so.0")
        .library("libX11.so.6")
        .library("libXext.so.6");
    let missing = machine.missing();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(
        missing[0].contains("> /etc/vulkan/icd.d/nvidia_icd.json"),
        "{missing:?}"
    );
    // The command writes what this program reads.
    let (_, command) = missing[0].split_once("echo '").unwrap();
    let (json, _) = command.split_once('\'').unwrap();
    let mended = machine.file("etc/vulkan/icd.d/nvidia_icd.json", json);
    assert_eq!(mended.missing(), Vec::<String>::new());
}

#[test]
fn drivers_files_that_name_nothing_are_told_and_the_variables_that_name_them() {
    let machine = Machine::new()
        .library("libvulkan.so.1")
        .icd("lvp_icd.x86_64.json", "libvulkan_lvp.so")
        .file("usr/share/vulkan/icd.d/broken.json", "{");
    let findings = machine.findings("wgpu");
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(text.contains("broken.json is no driver's file"), "{text}");
    assert!(
        text.contains("names libvulkan_lvp.so, which is not installed"),
        "{text}"
    );

    let hidden = Machine::t4()
        .library("libvulkan.so.1")
        .variable("VK_ICD_FILENAMES", "/nonexistent.json");
    let text: Vec<String> = hidden
        .findings("auto")
        .iter()
        .map(ToString::to_string)
        .collect();
    let text = text.join("\n");
    assert!(
        text.contains("/nonexistent.json (named by VK_ICD_FILENAMES) cannot be read"),
        "{text}"
    );
    assert!(text.contains("unset VK_ICD_FILENAMES"), "{text}");
}

fn adapter(kind: Kind, binding: u64) -> Adapter {
    Adapter {
        name: "some adapter".into(),
        api: Api::Vulkan,
        kind,
        class: Class::of(kind),
        vendor_id: 0,
        device_id: 0,
        driver: String::new(),
        driver_info: String::new(),
        subgroup_size: [8, 8],
        limits: Limits {
            buffer: Bytes(1 << 30),
            binding: Bytes(binding),
            storage_buffers: 8,
            workgroup_memory: Bytes(16 << 10),
            invocations: 256,
            workgroups: 65_535,
        },
        features: Features {
            f16: false,
            subgroups: false,
            timestamps: false,
            float_atomics: false,
        },
    }
}

#[test]
fn adapters_are_named_for_what_they_are_and_a_gpu_without_one_is_missed() {
    let of = |device: &str, list: &[Adapter], gpus: &[Gpu]| {
        let choice: DeviceChoice = device.parse().unwrap();
        adapters(&choice, list, gpus)
    };
    let missing = |findings: &[Finding]| findings.iter().any(|it| it.status == Status::Missing);
    let t4 = Gpu {
        vendor: 0x10de,
        device: 0x1eb8,
    };
    let (software, real) = (
        adapter(Kind::Software, 128 << 20),
        adapter(Kind::Discrete, 1 << 30),
    );

    let findings = of("auto", std::slice::from_ref(&software), &[]);
    assert!(
        findings[0].found.contains("a software adapter") && !missing(&findings),
        "{findings:?}"
    );
    assert!(
        findings[1].found.contains("takes the CPU backend"),
        "{findings:?}"
    );
    let findings = of("auto", &[software], &[t4]);
    assert!(missing(&findings), "{findings:?}");
    assert!(findings[1].found.contains("Tesla T4"), "{findings:?}");
    assert!(!missing(&of("auto", &[real], &[t4])));
    assert!(!missing(&of("cpu", &[], &[t4])));
    assert!(!missing(&of("auto", &[], &[])));
    assert!(missing(&of("wgpu", &[], &[])));
    let findings = of("auto", &[adapter(Kind::Discrete, 1 << 20)], &[]);
    let limit = findings
        .iter()
        .find(|it| it.found.contains("bytes a binding"));
    assert_eq!(limit.unwrap().status, Status::Warning, "{findings:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_missing_and_a_good_one_tells_its_room() {
    let folder = tempfile::tempdir().unwrap();
    let place = |folder: &Path| {
        let findings = resources(folder);
        let place = findings
            .into_iter()
            .find(|it| it.what == "place for results");
        place.unwrap()
    };
    assert_ne!(place(folder.path()).status, Status::Missing);
    assert!(place(folder.path()).found.contains("free"));
    let nowhere = place(&folder.path().join("nowhere"));
    assert_eq!(nowhere.status, Status::Missing);
    assert!(nowhere.advice.is_some());
}

#[test]
fn every_fault_is_caught_on_the_cpu() {
    for trial in self_test::run(&support::cpu()) {
        assert_eq!(trial.problem, None, "{}", trial.fault);
    }
}

#[test]
fn the_command_prints_one_document_and_its_exit_code_is_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::cargo_bin("bkbench").unwrap();
        command.current_dir(folder.path()).arg("doctor").args(words);
        command.output().unwrap()
    };
    let output = run(&["--device", "cpu", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &document["fit"]),
        (Some(0), &true.into())
    );
    let findings = document["findings"].as_array().unwrap();
    let of = |what: &str| findings.iter().filter(|it| it["what"] == what).count();
    assert_eq!((of("self-test"), of("processor")), (5, 1), "{document:#}");
    assert!(document["device"]["adapter"].is_string());

    let output = run(&["--device", "wgpu:no such adapter", "--quiet"]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.lines().any(|line| line.starts_with("missing  ")),
        "{stdout}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is written"
    );
}
