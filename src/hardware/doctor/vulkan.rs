//! What a Linux system needs before wgpu finds a GPU, in the order in which it fails: the loader, the drivers' files,
//! the devices, and for NVIDIA what its container toolkit and its packages leave out on machines without a screen.

use super::system::{Access, Driver, System};
use super::{Finding, NVIDIA};

/// NVIDIA's Vulkan driver.
const NVIDIA_LIBRARY: &str = "libGLX_nvidia.so.0";
/// A part of it whose name ends in its version.
const NVIDIA_VERSIONED: &str = "libnvidia-glcore.so.";
/// Libraries that it wants even where there is no screen.
const OF_X: [(&str, &str); 2] = [("libX11.so.6", "libx11-6"), ("libXext.so.6", "libxext6")];

pub(super) fn examine(system: &System<'_>, is_needed: bool) -> Vec<Finding> {
    let (by, drivers) = system.drivers();
    let mut findings = vec![loader(system, is_needed)];
    let gpus = system.gpus();
    for gpu in &gpus {
        findings.push(Finding::ok("GPU", format!("{gpu} on the PCI bus")));
    }
    let has_nvidia =
        gpus.iter().any(|gpu| gpu.vendor == NVIDIA) || system.nvidia_version().is_some();
    if has_nvidia {
        findings.extend(nvidia(system, &drivers, is_needed));
    }
    if gpus.iter().any(|gpu| gpu.vendor != NVIDIA) {
        findings.push(render_nodes(system, is_needed));
    }
    findings.extend(
        drivers
            .iter()
            .map(|driver| library(system, driver, by, is_needed)),
    );
    if drivers.is_empty() && !has_nvidia {
        let place = match by {
            Some(name) => format!("{name} names no driver"),
            None => "no driver's file in /etc/vulkan/icd.d or /usr/share/vulkan/icd.d".to_owned(),
        };
        findings.push(Finding::wanting(
            is_needed,
            "Vulkan driver",
            place,
            match by {
                Some(name) => format!("unset {name}"),
                None => {
                    "apt-get install -y mesa-vulkan-drivers (AMD, Intel, and a software adapter)"
                        .into()
                }
            },
        ));
    }
    findings
}

fn loader(system: &System<'_>, is_needed: bool) -> Finding {
    const NAME: &str = "libvulkan.so.1";
    match system.library(NAME) {
        Some(path) => Finding::ok("Vulkan loader", system.shown(&path)),
        None => Finding::wanting(
            is_needed,
            "Vulkan loader",
            format!("{NAME} is not installed"),
            "apt-get install -y libvulkan1",
        ),
    }
}

/// One driver that the loader is told of.
fn library(system: &System<'_>, driver: &Driver, by: Option<&str>, is_needed: bool) -> Finding {
    let what = "Vulkan driver";
    let file = system.shown(&driver.file);
    let file = match by {
        Some(name) => format!("{file} (named by {name})"),
        None => file,
    };
    let library = match &driver.library {
        Ok(library) => library,
        Err(problem) => {
            let advice = match by {
                Some(name) => format!("unset {name}"),
                None => "install its package again".to_owned(),
            };
            return Finding::wanting(is_needed, what, format!("{file} {problem}"), advice);
        }
    };
    // A path with folders is relative to the file.
    let is_relative = library.contains('/') && !library.starts_with('/');
    if is_relative || system.library(library).is_some() {
        return Finding::ok(what, format!("{file} names {library}"));
    }
    let advice = if library.contains("nvidia") {
        install_nvidia(system)
    } else {
        "install the package of that library again, or remove the file".to_owned()
    };
    let found = format!("{file} names {library}, which is not installed");
    // Others may do: whether an adapter is found is judged by itself.
    Finding::wanting(is_needed && library.contains("nvidia"), what, found, advice)
}

/// What the kernel offers to the drivers of GPUs that are not NVIDIA's.
fn render_nodes(system: &System<'_>, is_needed: bool) -> Finding {
    let what = "GPU device";
    let nodes = system.render_nodes();
    let Some(node) = nodes.first() else {
        let advice = if system.is_container() {
            "start the container with --device /dev/dri"
        } else {
            "load the kernel's driver of the GPU (amdgpu, i915 or xe)"
        };
        return Finding::wanting(is_needed, what, "no /dev/dri/renderD*", advice);
    };
    if system.access(node) == Access::Denied {
        let advice = "usermod -aG render,video \"$USER\", then log in again";
        return Finding::wanting(is_needed, what, format!("{node} may not be opened"), advice);
    }
    Finding::ok(what, node)
}

fn nvidia(system: &System<'_>, drivers: &[Driver], is_needed: bool) -> Vec<Finding> {
    let mut findings = vec![
        kernel_driver(system, is_needed),
        device_files(system, is_needed),
    ];
    let names_it = |driver: &Driver| {
        let library = driver.library.as_ref();
        library.is_ok_and(|library| library.contains("nvidia"))
    };
    let has_file = drivers.iter().any(names_it);
    if system.library(NVIDIA_LIBRARY).is_none() {
        findings.push(capabilities(system, is_needed));
        if !has_file {
            findings.push(Finding::wanting(
                is_needed,
                "NVIDIA's Vulkan driver",
                format!("{NVIDIA_LIBRARY} is not installed"),
                install_nvidia(system),
            ));
        }
        return findings;
    }
    findings.push(fitting(system, is_needed));
    for (library, package) in OF_X {
        if system.library(library).is_none() {
            findings.push(Finding::wanting(
                is_needed,
                "NVIDIA's Vulkan driver",
                format!("it wants {library}, also without a screen, and that is not installed"),
                format!("apt-get install -y {package}"),
            ));
        }
    }
    if !has_file {
        let json = format!(
            r#"{{"file_format_version":"1.0.0","ICD":{{"library_path":"{NVIDIA_LIBRARY}","api_version":"1.3.0"}}}}"#
        );
        findings.push(Finding::wanting(
            is_needed,
            "NVIDIA's Vulkan driver",
            format!("{NVIDIA_LIBRARY} is there, and no file tells the loader of it"),
            format!(
                "mkdir -p /etc/vulkan/icd.d && echo '{json}' > /etc/vulkan/icd.d/nvidia_icd.json"
            ),
        ));
    }
    findings
}

fn kernel_driver(system: &System<'_>, is_needed: bool) -> Finding {
    let what = "NVIDIA's kernel driver";
    let advice = if system.is_container() {
        "install NVIDIA's driver on the host of this container"
    } else {
        "install NVIDIA's driver (on Ubuntu: ubuntu-drivers install) and restart"
    };
    match system.nvidia_version() {
        Some(version) => Finding::ok(what, version),
        None => Finding::wanting(is_needed, what, "it is not loaded", advice),
    }
}

fn device_files(system: &System<'_>, is_needed: bool) -> Finding {
    let what = "GPU device";
    let files = ["/dev/nvidiactl", "/dev/nvidia0"];
    let first = |access| files.into_iter().find(|file| system.access(file) == access);
    if let Some(file) = first(Access::Absent) {
        let advice = if system.is_container() {
            "start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all"
        } else {
            "modprobe nvidia && nvidia-modprobe -u -c 0"
        };
        return Finding::wanting(is_needed, what, format!("no {file}"), advice);
    }
    if let Some(file) = first(Access::Denied) {
        let advice = "usermod -aG video \"$USER\", then log in again";
        return Finding::wanting(is_needed, what, format!("{file} may not be opened"), advice);
    }
    Finding::ok(what, files.join(", "))
}

/// Which of its libraries the container toolkit brought in.
fn capabilities(system: &System<'_>, is_needed: bool) -> Finding {
    const NAME: &str = "NVIDIA_DRIVER_CAPABILITIES";
    let what = "container's capabilities";
    if !system.is_container() {
        return Finding::ok(what, "no container");
    }
    let value = system.variable(NAME);
    let words = value.iter().flat_map(|value| value.split(','));
    if words
        .map(str::trim)
        .any(|word| word == "all" || word == "graphics")
    {
        return Finding::ok(what, format!("{NAME}={}", value.unwrap_or_default()));
    }
    let found = match &value {
        Some(value) => {
            format!("{NAME}={value}: without graphics, NVIDIA's Vulkan driver stays outside")
        }
        None => format!("{NAME} is not set, which leaves NVIDIA's Vulkan driver outside"),
    };
    let advice = "start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all; where you cannot (Colab), \
                  install the driver's libraries inside, see below";
    Finding::wanting(is_needed, what, found, advice)
}

/// The command that installs the libraries that fit the kernel's driver, which must be of the very same version.
fn install_nvidia(system: &System<'_>) -> String {
    match system.nvidia_version() {
        Some(version) => {
            let major = version.split('.').next().unwrap_or_default();
            format!("apt-get install -y libvulkan1 'libnvidia-gl-{major}={version}*'")
        }
        None => "install NVIDIA's driver first".to_owned(),
    }
}

/// Whether the libraries are of the kernel driver's version: otherwise the driver finds no device.
fn fitting(system: &System<'_>, is_needed: bool) -> Finding {
    let what = "NVIDIA's Vulkan driver";
    let files = system.libraries(NVIDIA_VERSIONED);
    let versions: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let name = file.file_name()?.to_string_lossy().into_owned();
            Some(name.strip_prefix(NVIDIA_VERSIONED)?.to_owned())
        })
        .collect();
    match (system.nvidia_version(), versions.first()) {
        (Some(kernel), Some(library)) if !versions.contains(&kernel) => Finding::wanting(
            is_needed,
            what,
            format!("its libraries are of version {library}, the kernel's driver is {kernel}"),
            install_nvidia(system),
        ),
        (_, Some(library)) => Finding::ok(what, format!("{NVIDIA_LIBRARY}, {library}")),
        (_, None) => Finding::ok(what, NVIDIA_LIBRARY),
    }
}
