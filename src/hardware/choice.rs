//! Which device a run takes: the `--device` value, and the pure choice among the adapters there are.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use super::NVIDIA;
use super::adapters::{Adapter, Api};
use crate::{Error, Result};

const GRAMMAR: &str = "write auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]";

/// The value of `--device`: `auto | cpu | cuda | wgpu[:vulkan|metal|dx12|gl][:index or name]`.
///
/// # Examples
/// ```
/// use bkbench::hardware::DeviceChoice;
/// let choice: DeviceChoice = "wgpu:vulkan:llvmpipe".parse()?;
/// assert_eq!(choice.to_string(), "wgpu:vulkan:llvmpipe");
/// # Ok::<(), bkbench::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// A real GPU, or else the CPU backend.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// The NVIDIA adapter, reached through wgpu.
    Cuda,
    /// A wgpu adapter, software drivers included.
    Wgpu {
        /// Only adapters reached through this API.
        api: Option<Api>,
        /// Only this one of them.
        which: Option<Which>,
    },
}

/// One adapter among those of a [`DeviceChoice::Wgpu`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Which {
    /// Its position, from 0, among the adapters of the API named (of all, where none is).
    Index(usize),
    /// Its name, or a part of it; capitals do not matter.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |problem: &str| Error::bad_input(format!("device '{text}'"), problem, GRAMMAR);
        let (head, tail) = match text.split_once(':') {
            Some((head, tail)) => (head, Some(tail)),
            None => (text, None),
        };
        match (head.to_lowercase().as_str(), tail) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", None) => Ok(Self::Cuda),
            ("wgpu", None) => Ok(Self::Wgpu {
                api: None,
                which: None,
            }),
            ("wgpu", Some(tail)) => {
                let (first, rest) = match tail.split_once(':') {
                    Some((first, rest)) => (first, Some(rest)),
                    None => (tail, None),
                };
                let api = Api::ALL
                    .into_iter()
                    .find(|api| api.name() == first.to_lowercase());
                let which = if api.is_some() { rest } else { Some(tail) };
                let which = match which {
                    Some("") => return Err(bad("ends in a colon")),
                    Some(which) => Some(match which.parse() {
                        Ok(index) => Which::Index(index),
                        Err(_) => Which::Name(which.to_owned()),
                    }),
                    None => None,
                };
                Ok(Self::Wgpu { api, which })
            }
            ("auto" | "cpu" | "cuda", Some(_)) => Err(bad("takes nothing after the colon")),
            _ => Err(bad("is no device")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda => f.write_str("cuda"),
            Self::Wgpu { api, which } => {
                f.write_str("wgpu")?;
                if let Some(api) = api {
                    write!(f, ":{api}")?;
                }
                match which {
                    Some(Which::Index(index)) => write!(f, ":{index}"),
                    Some(Which::Name(name)) => write!(f, ":{name}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// What a [`DeviceChoice`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The CPU backend.
    Cpu,
    /// The adapter at this index of the list.
    Adapter(usize),
}

impl DeviceChoice {
    /// Chooses among `adapters`. The strings say what the choice rests on where it is not plain
    /// from the value itself: a fallback, a second adapter of that name, CUDA reached through wgpu.
    ///
    /// # Errors
    /// [`Error::BadInput`], listing what there is, when no adapter answers to the value.
    pub fn choose(&self, adapters: &[Adapter]) -> Result<(Pick, Vec<String>)> {
        match self {
            Self::Cpu => Ok((Pick::Cpu, Vec::new())),
            Self::Auto => Ok(auto(adapters)),
            Self::Cuda => {
                let nvidia = |a: &Adapter| a.vendor_id == NVIDIA && !a.is_software();
                let (index, mut notes) =
                    self.best_fit(adapters, nvidia, "there is no NVIDIA adapter")?;
                let a = &adapters[index];
                notes.push(format!(
                    "cuda: {} through wgpu ({}), not CUDA",
                    a.name, a.api
                ));
                Ok((Pick::Adapter(index), notes))
            }
            Self::Wgpu { api, which } => self.wgpu(*api, which.as_ref(), adapters),
        }
    }

    fn wgpu(
        &self,
        api: Option<Api>,
        which: Option<&Which>,
        adapters: &[Adapter],
    ) -> Result<(Pick, Vec<String>)> {
        let of_api = |a: &Adapter| api.is_none_or(|api| a.api == api);
        let (index, notes) = match which {
            None => {
                let (index, mut notes) =
                    self.best_fit(adapters, of_api, "there is no such adapter")?;
                if adapters[index].is_software() {
                    notes.push(format!(
                        "{self}: no GPU there, took the software adapter {}",
                        adapters[index]
                    ));
                }
                (index, notes)
            }
            Some(Which::Index(nth)) => {
                let index = (0..adapters.len())
                    .filter(|&i| of_api(&adapters[i]))
                    .nth(*nth)
                    .ok_or_else(|| self.absent("there is no adapter of that index", adapters))?;
                if let Some(reason) = adapters[index].unfit() {
                    return Err(self.absent(&format!("{} {reason}", adapters[index]), adapters));
                }
                (index, Vec::new())
            }
            Some(Which::Name(name)) => {
                let name = name.to_lowercase();
                let exact = |a: &Adapter| of_api(a) && a.name.to_lowercase() == name;
                let part = |a: &Adapter| of_api(a) && a.name.to_lowercase().contains(&name);
                let none = "there is no adapter of that name";
                let (index, mut notes) = self
                    .best_fit(adapters, exact, none)
                    .or_else(|_| self.best_fit(adapters, part, none))?;
                let others: Vec<String> = (0..adapters.len())
                    .filter(|&i| i != index && part(&adapters[i]) && adapters[i].unfit().is_none())
                    .map(|i| adapters[i].to_string())
                    .collect();
                if !others.is_empty() {
                    notes.push(format!(
                        "{self}: took {}, not {}",
                        adapters[index],
                        others.join(", ")
                    ));
                }
                (index, notes)
            }
        };
        Ok((Pick::Adapter(index), notes))
    }

    /// The best of the adapters that are `wanted` and fit, and those passed over for it; `none` says that there is no
    /// wanted one.
    fn best_fit(
        &self,
        adapters: &[Adapter],
        wanted: impl Fn(&Adapter) -> bool,
        none: &str,
    ) -> Result<(usize, Vec<String>)> {
        let unfit: Vec<String> = adapters
            .iter()
            .filter(|&a| wanted(a))
            .filter_map(|a| Some(format!("{a} {}", a.unfit()?)))
            .collect();
        if let Some(index) = best(adapters, |a| wanted(a) && a.unfit().is_none()) {
            let notes = unfit
                .iter()
                .map(|unfit| format!("{self}: passed over {unfit}"));
            return Ok((index, notes.collect()));
        }
        let problem = if unfit.is_empty() {
            none.to_owned()
        } else {
            unfit.join("; ")
        };
        Err(self.absent(&problem, adapters))
    }

    fn absent(&self, problem: &str, adapters: &[Adapter]) -> Error {
        let known: Vec<String> = (0..adapters.len())
            .map(|i| format!("{} = {}", selector(adapters, i), adapters[i].name))
            .collect();
        let known = if known.is_empty() {
            "no adapter".to_owned()
        } else {
            known.join(", ")
        };
        Error::bad_input(
            format!("device '{self}'"),
            problem,
            format!("this machine has cpu, {known}"),
        )
    }
}

/// The `--device` value that takes exactly the adapter at `index` of the list.
pub fn selector(adapters: &[Adapter], index: usize) -> String {
    let api = adapters[index].api;
    let nth = adapters[..index].iter().filter(|a| a.api == api).count();
    format!("wgpu:{api}:{nth}")
}

fn auto(adapters: &[Adapter]) -> (Pick, Vec<String>) {
    if let Some(index) = best(adapters, |a| !a.is_software() && a.unfit().is_none()) {
        return (
            Pick::Adapter(index),
            vec![format!("auto: took {}", adapters[index])],
        );
    }
    let mut notes = vec!["auto: no GPU found, took the CPU backend".to_owned()];
    for adapter in adapters {
        notes.push(match adapter.unfit() {
            Some(reason) => format!("auto: passed over {adapter}: it {reason}"),
            None => {
                format!("auto: passed over {adapter}: a software driver is taken only when named")
            }
        });
    }
    (Pick::Cpu, notes)
}

/// The best of the adapters that `fits` admits: discrete before integrated before software, then
/// the preferred API, then the first listed.
fn best(adapters: &[Adapter], fits: impl Fn(&Adapter) -> bool) -> Option<usize> {
    (0..adapters.len())
        .filter(|&i| fits(&adapters[i]))
        .min_by_key(|&i| (adapters[i].kind, adapters[i].api, i))
}

#[cfg(test)]
mod tests {
    use super::super::adapters::{Class, Features, Kind, Limits};
    use super::*;
    use crate::units::Bytes;

    fn adapter(name: &str, api: Api, kind: Kind, vendor_id: u32) -> Adapter {
        Adapter {
            name: name.into(),
            api,
            kind,
            class: Class::of(kind),
            vendor_id,
            device_id: 7,
            driver: String::new(),
            driver_info: String::new(),
            subgroup_size: [32, 32],
            limits: Limits {
                buffer: Bytes(1 << 31),
                binding: Bytes(1 << 30),
                storage_buffers: 16,
                workgroup_memory: Bytes(32 << 10),
                invocations: 1024,
                workgroups: 65_535,
            },
            features: Features {
                f16: true,
                subgroups: true,
                timestamps: true,
                float_atomics: false,
            },
        }
    }

    fn laptop() -> Vec<Adapter> {
        vec![
            adapter("Intel UHD", Api::Vulkan, Kind::Integrated, 0x8086),
            adapter("NVIDIA RTX", Api::Dx12, Kind::Discrete, NVIDIA),
            adapter("NVIDIA RTX", Api::Vulkan, Kind::Discrete, NVIDIA),
            adapter(
                "llvmpipe (LLVM 15.0.6)",
                Api::Vulkan,
                Kind::Software,
                0x10005,
            ),
            adapter("llvmpipe (LLVM 15.0.6)", Api::Gl, Kind::Software, 0),
        ]
    }

    fn choose(text: &str, adapters: &[Adapter]) -> (Pick, Vec<String>) {
        text.parse::<DeviceChoice>()
            .unwrap()
            .choose(adapters)
            .unwrap()
    }

    fn refused(text: &str, adapters: &[Adapter]) -> String {
        match text
            .parse::<DeviceChoice>()
            .and_then(|choice| choice.choose(adapters))
        {
            Err(error @ Error::BadInput { .. }) => error.to_string(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn values_print_as_they_are_read() {
        let values = [
            "auto",
            "cpu",
            "cuda",
            "wgpu",
            "wgpu:gl",
            "wgpu:2",
            "wgpu:vulkan:1",
            "wgpu:llvmpipe",
            "wgpu:dx12:A: B",
        ];
        for text in values {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        for text in ["", "gpu", "cpu:0", "cuda:1", "wgpu:", "wgpu:vulkan:"] {
            assert!(
                refused(text, &laptop()).contains("write auto, cpu, cuda or wgpu"),
                "{text}"
            );
        }
    }

    #[test]
    fn auto_prefers_the_discrete_gpu_and_vulkan() {
        let (pick, notes) = choose("auto", &laptop());
        assert_eq!(pick, Pick::Adapter(2));
        assert_eq!(notes, ["auto: took NVIDIA RTX (vulkan)"]);
    }

    #[test]
    fn auto_never_takes_a_software_driver_and_says_why() {
        let (pick, notes) = choose("auto", &laptop()[3..]);
        assert_eq!(pick, Pick::Cpu);
        assert_eq!(notes.len(), 3);
        assert!(notes[0].contains("CPU backend") && notes[1].contains("only when named"));
        assert_eq!(choose("auto", &[]).0, Pick::Cpu);
    }

    #[test]
    fn an_adapter_below_the_budget_is_passed_over_and_refused_when_named() {
        let mut small = adapter("Old GPU", Api::Gl, Kind::Other, 1);
        small.limits.storage_buffers = 4;
        let (pick, notes) = choose("auto", std::slice::from_ref(&small));
        assert_eq!(pick, Pick::Cpu);
        assert!(notes[1].contains("4 storage buffers"), "{notes:?}");
        assert!(refused("wgpu:old", std::slice::from_ref(&small)).contains("the kernels need 8"));
        small.vendor_id = NVIDIA;
        small.kind = Kind::Discrete;
        let adapters = [small, laptop().remove(0)];
        assert!(refused("cuda", &adapters).contains("the kernels need 8"));
        assert!(refused("wgpu:0", &adapters).contains("the kernels need 8"));
        let (pick, notes) = choose("wgpu", &adapters);
        assert_eq!(
            pick,
            Pick::Adapter(1),
            "the fit one, though the other is discrete"
        );
        assert!(notes[0].contains("passed over Old GPU"), "{notes:?}");
    }

    #[test]
    fn wgpu_takes_the_best_adapter_and_announces_a_software_one() {
        assert_eq!(choose("wgpu", &laptop()), (Pick::Adapter(2), vec![]));
        let (pick, notes) = choose("wgpu", &laptop()[3..]);
        assert_eq!(pick, Pick::Adapter(0));
        assert!(notes[0].contains("software adapter"), "{notes:?}");
        assert_eq!(choose("wgpu:gl", &laptop()).0, Pick::Adapter(4));
        assert!(refused("wgpu:metal", &laptop()).contains("wgpu:vulkan:1 = NVIDIA RTX"));
        assert!(refused("wgpu", &[]).contains("no adapter"));
    }

    #[test]
    fn a_name_met_twice_takes_the_preferred_api_and_says_so() {
        let (pick, notes) = choose("wgpu:LLVMpipe", &laptop());
        assert_eq!(pick, Pick::Adapter(3));
        assert_eq!(
            notes,
            [
                "wgpu:LLVMpipe: took llvmpipe (LLVM 15.0.6) (vulkan), not llvmpipe (LLVM 15.0.6) (gl)"
            ]
        );
        assert_eq!(
            choose("wgpu:dx12:nvidia", &laptop()),
            (Pick::Adapter(1), vec![])
        );
        assert!(refused("wgpu:radeon", &laptop()).contains("no adapter of that name"));
    }

    #[test]
    fn an_exact_name_beats_a_part_of_a_longer_one() {
        let adapters = [
            adapter("RTX 4090", Api::Vulkan, Kind::Discrete, NVIDIA),
            adapter("RTX 40", Api::Vulkan, Kind::Integrated, NVIDIA),
        ];
        let (pick, notes) = choose("wgpu:rtx 40", &adapters);
        assert_eq!(pick, Pick::Adapter(1));
        assert_eq!(
            notes,
            ["wgpu:rtx 40: took RTX 40 (vulkan), not RTX 4090 (vulkan)"]
        );
    }

    #[test]
    fn an_index_counts_within_its_api_and_selectors_name_every_adapter() {
        let adapters = laptop();
        assert_eq!(choose("wgpu:1", &adapters).0, Pick::Adapter(1));
        assert_eq!(choose("wgpu:vulkan:1", &adapters).0, Pick::Adapter(2));
        for index in 0..adapters.len() {
            let text = selector(&adapters, index);
            assert_eq!(
                choose(&text, &adapters),
                (Pick::Adapter(index), vec![]),
                "{text}"
            );
        }
        assert!(refused("wgpu:5", &adapters).contains("of that index"));
    }

    #[test]
    fn cuda_is_the_nvidia_adapter_through_wgpu() {
        let (pick, notes) = choose("cuda", &laptop());
        assert_eq!(pick, Pick::Adapter(2));
        assert_eq!(notes, ["cuda: NVIDIA RTX through wgpu (vulkan), not CUDA"]);
        assert!(refused("cuda", &laptop()[3..]).contains("no NVIDIA adapter"));
    }
}
