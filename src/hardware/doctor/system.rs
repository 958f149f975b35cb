//! What the files and variables of a Linux system say of its graphics drivers.

use serde::Deserialize;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::NVIDIA;

/// Folders in which a loader looks for libraries, from the root.
const LIBRARY_FOLDERS: [&str; 9] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "lib",
    "usr/local/lib",
    "usr/lib64-nvidia",
];

/// Folders in which the Vulkan loader looks for drivers, from the root.
const DRIVER_FOLDERS: [&str; 3] = [
    "etc/vulkan/icd.d",
    "usr/share/vulkan/icd.d",
    "usr/local/share/vulkan/icd.d",
];

/// A system below some root, and its variables. Tests make both up.
pub struct System<'a> {
    root: &'a Path,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for System<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// A graphics processor on the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    /// PCI vendor.
    pub vendor: u32,
    /// PCI device.
    pub device: u32,
}

/// A driver that the Vulkan loader is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Driver {
    /// The JSON file.
    pub(super) file: PathBuf,
    /// The library that it names, or why it names none.
    pub(super) library: Result<String, String>,
}

/// Whether a file may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Granted,
    Denied,
    Absent,
}

impl<'a> System<'a> {
    /// The system whose files lie below `root`.
    pub fn new(root: &'a Path, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { root, variable }
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// `path` as the system itself would name it.
    pub(super) fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(self.root) {
            Ok(inside) => format!("/{}", inside.display()),
            Err(_) => path.display().to_string(),
        }
    }

    /// Display and compute controllers on the PCI bus; a container sees those of its host.
    pub fn gpus(&self) -> Vec<Gpu> {
        /// Display controllers, and processing accelerators.
        const CLASSES: [u32; 2] = [0x03, 0x12];
        let number = |folder: &Path, file: &str| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        let gpu = |folder: &PathBuf| {
            let gpu = Gpu {
                vendor: number(folder, "vendor")?,
                device: number(folder, "device")?,
            };
            let is_one = CLASSES.contains(&(number(folder, "class")? >> 16));
            // Virtual machines have a display adapter that only shows a picture.
            (is_one && gpu.maker().is_some()).then_some(gpu)
        };
        let mut folders = entries(&self.at("sys/bus/pci/devices"));
        folders.sort();
        folders.iter().filter_map(gpu).collect()
    }

    /// Whether this is a container.
    pub(super) fn is_container(&self) -> bool {
        let marked = ["/.dockerenv", "/run/.containerenv"];
        marked.iter().any(|file| self.at(file).exists())
            || ["container", "NVIDIA_VISIBLE_DEVICES"]
                .iter()
                .any(|name| self.variable(name).is_some())
    }

    /// Version of NVIDIA's kernel driver, where one is loaded; a container sees that of its host.
    pub(super) fn nvidia_version(&self) -> Option<String> {
        let text = fs::read_to_string(self.at("proc/driver/nvidia/version")).ok()?;
        let is_version = |word: &&str| {
            word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        text.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// Whether the device file may be opened for reading and writing.
    pub(super) fn access(&self, device: &str) -> Access {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(self.at(device));
        match file.map_err(|error| error.kind()) {
            Err(ErrorKind::NotFound) => Access::Absent,
            Err(ErrorKind::PermissionDenied) => Access::Denied,
            // A device may have its own reasons, which are none of ours.
            Ok(_) | Err(_) => Access::Granted,
        }
    }

    /// Render nodes of the kernel's graphics drivers.
    pub(super) fn render_nodes(&self) -> Vec<String> {
        let nodes = entries(&self.at("dev/dri"));
        let mut nodes: Vec<String> = nodes.iter().map(|node| self.shown(node)).collect();
        nodes.retain(|node| node.starts_with("/dev/dri/renderD"));
        nodes.sort();
        nodes
    }

    /// Where the library `name`, or one of that name with an ending, lies.
    pub(super) fn library(&self, name: &str) -> Option<PathBuf> {
        self.libraries(name).into_iter().next()
    }

    /// All libraries whose names begin so.
    pub(super) fn libraries(&self, name: &str) -> Vec<PathBuf> {
        if name.starts_with('/') {
            let path = self.at(name);
            return if path.exists() {
                vec![path]
            } else {
                Vec::new()
            };
        }
        let search = self.variable("LD_LIBRARY_PATH").unwrap_or_default();
        let named = search.split(':').filter(|folder| !folder.is_empty());
        let folders = named.chain(LIBRARY_FOLDERS);
        let mut found = Vec::new();
        for folder in folders {
            let mut files = entries(&self.at(folder));
            files.retain(|file| {
                file.file_name()
                    .is_some_and(|it| it.to_string_lossy().starts_with(name))
            });
            files.sort();
            found.append(&mut files);
        }
        found
    }

    /// The variable that names the drivers, where one does, and the drivers that the loader would find.
    pub(super) fn drivers(&self) -> (Option<&'static str>, Vec<Driver>) {
        let variables = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
        let named = variables
            .into_iter()
            .find_map(|name| Some((name, self.variable(name)?)));
        let (by, mut files) = if let Some((name, list)) = named {
            let files = list.split(':').filter(|file| !file.is_empty());
            (Some(name), files.map(|file| self.at(file)).collect())
        } else {
            let home = self
                .variable("HOME")
                .map(|home| format!("{home}/.local/share/vulkan/icd.d"));
            let folders = DRIVER_FOLDERS.map(str::to_owned).into_iter().chain(home);
            let files = folders.flat_map(|folder| entries(&self.at(&folder)));
            (None, files.collect::<Vec<_>>())
        };
        files.retain(|file| by.is_some() || file.extension().is_some_and(|it| it == "json"));
        files.sort();
        let driver = |file: PathBuf| Driver {
            library: named_library(&file),
            file,
        };
        (by, files.into_iter().map(driver).collect())
    }
}

impl Gpu {
    fn maker(self) -> Option<&'static str> {
        match self.vendor {
            NVIDIA => Some("NVIDIA"),
            0x1002 => Some("AMD"),
            0x8086 => Some("Intel"),
            0x106b => Some("Apple"),
            0x5143 => Some("Qualcomm"),
            _ => None,
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let maker = self.maker().unwrap_or("an unknown maker's");
        let model = match (self.vendor, self.device) {
            (NVIDIA, 0x1eb8) => " (Tesla T4)",
            _ => "",
        };
        write!(f, "{maker} {:#06x}{model}", self.device)
    }
}

/// What lies in a folder; nothing where there is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn named_library(file: &Path) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(rename = "ICD")]
        icd: Icd,
    }
    #[derive(Deserialize)]
    struct Icd {
        library_path: String,
    }
    let text = fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("is no driver's file: {error}"))?;
    Ok(manifest.icd.library_path)
}
