//! One typed configuration: presets, TOML and flags are overrides of it.

mod data;
mod efficiency;
mod fairness;
mod hash;
mod layers;
mod model;
mod multidataset;
mod train;
mod validate;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use data::DataConfig;
pub use efficiency::{BudgetUnit, EfficiencyConfig};
pub use fairness::Fairness;
pub use hash::canonical_sha256;
pub use layers::{PRESETS, from_toml};
pub use model::{MatchBasis, ModelConfig};
pub use multidataset::MultidatasetConfig;
pub use train::{Backpropagation, Budget, Precision, TrainConfig};

use crate::quant::BitWidth;
use crate::units::Bytes;
use crate::{Error, Result};

/// What determines the results of a run. Where they are written is not part of it.
///
/// The defaults are the benchmarking guide's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is measured, each once, in the order of [`Benchmark::ALL`].
    pub benchmarks: Vec<Benchmark>,
    /// In which ways learning rates are set, each once, in the order of [`Fairness::ALL`].
    pub fairness: Vec<Fairness>,
    /// Who is compared.
    pub models: ComparedModels,
    /// Their common shape.
    pub model: ModelConfig,
    /// The text.
    pub data: DataConfig,
    /// How they are trained.
    pub train: TrainConfig,
    /// Settings of the long-context benchmark.
    pub longcontext: LongContextConfig,
    /// Settings of the quantization benchmark.
    pub quantization: QuantizationConfig,
    /// Settings of the efficiency benchmark.
    pub efficiency: EfficiencyConfig,
    /// Settings of the multidataset benchmark.
    pub multidataset: MultidatasetConfig,
    /// Repetitions.
    pub seeds: SeedConfig,
    /// Where it runs.
    pub device: DeviceConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            benchmarks: vec![Benchmark::Longcontext],
            fairness: vec![Fairness::Identical],
            models: ComparedModels::default(),
            model: ModelConfig::default(),
            data: DataConfig::default(),
            train: TrainConfig::default(),
            longcontext: LongContextConfig::default(),
            quantization: QuantizationConfig::default(),
            efficiency: EfficiencyConfig::default(),
            multidataset: MultidatasetConfig::default(),
            seeds: SeedConfig::default(),
            device: DeviceConfig::default(),
        }
    }
}

/// A benchmark of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Benchmark {
    /// Training stability and loss at growing sequence lengths.
    Longcontext,
    /// Loss, size and speed of a trained model in fewer bits.
    Quantization,
    /// Loss of models of growing size under budgets of FLOPs.
    Efficiency,
    /// Loss of models trained and evaluated on each of several datasets.
    Multidataset,
}

impl Benchmark {
    /// All benchmarks, in the order in which they run.
    pub const ALL: [Self; 4] = [
        Self::Longcontext,
        Self::Quantization,
        Self::Efficiency,
        Self::Multidataset,
    ];

    /// Its name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Longcontext => "longcontext",
            Self::Quantization => "quantization",
            Self::Efficiency => "efficiency",
            Self::Multidataset => "multidataset",
        }
    }
}

/// Registered names of the models of a comparison. Both may be the same: such a run (A/A) shows what chance alone does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComparedModels {
    /// First model.
    pub a: String,
    /// Second model; absent where one model stands alone.
    pub b: Option<String>,
    /// A third one that both should beat.
    pub control: Option<String>,
}

impl Default for ComparedModels {
    fn default() -> Self {
        Self {
            a: "resnetbk".into(),
            b: Some("mamba".into()),
            control: None,
        }
    }
}

/// Stands behind the name of the second of two equal models wherever results name it. No registered name has it.
const TWIN: &str = " (b)";

impl ComparedModels {
    /// Registered names, each once: a control that is one of the compared models is not trained again.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (a, b) = (self.a.as_str(), self.b.as_deref());
        let control = self.control.as_deref().filter(|&it| Some(it) != b);
        let others = [b, control].into_iter().flatten();
        std::iter::once(a).chain(others.filter(move |&name| name != a))
    }

    /// What results call the models, in the order in which they run and are drawn: their names, and for the second
    /// of two equal ones its name with ` (b)` behind.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.names().map(str::to_owned).collect();
        let twin = self.label_b().filter(|label| is_twin(label));
        if let Some(twin) = twin {
            labels.insert(1, twin);
        }
        labels
    }

    /// What results call the second model.
    pub fn label_b(&self) -> Option<String> {
        let b = self.b.as_ref()?;
        Some(if self.is_twin_run() {
            format!("{b}{TWIN}")
        } else {
            b.clone()
        })
    }

    /// Whether a model is compared with itself.
    pub fn is_twin_run(&self) -> bool {
        self.b.as_ref() == Some(&self.a)
    }
}

/// Whether what results call a model names the second of two equal ones.
pub fn is_twin(label: &str) -> bool {
    label.ends_with(TWIN)
}

/// The registered name of the model that results call `label`.
pub fn registered_name(label: &str) -> &str {
    label.strip_suffix(TWIN).unwrap_or(label)
}

/// Settings of the long-context benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LongContextConfig {
    /// Sequence lengths, in tokens.
    pub seq_lengths: Vec<usize>,
    /// Whether every model is also trained on the recall probe's own task, and asked over distances up to the
    /// longest of these lengths.
    pub recall_probe: bool,
}

impl Default for LongContextConfig {
    fn default() -> Self {
        Self {
            seq_lengths: vec![8192, 32_768, 131_072, 524_288, 1_048_576],
            recall_probe: false,
        }
    }
}

/// Settings of the quantization benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizationConfig {
    /// Bits of a weight; 32 is always measured, for all others are compared with it.
    pub bit_widths: Vec<u32>,
    /// Sequence length of the training and of the evaluation's windows, in tokens.
    pub seq_len: usize,
    /// Sequences a step: this benchmark's value of `train.batch_size`.
    pub batch_size: usize,
    /// A trained model that is measured instead of training any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
}

impl Default for QuantizationConfig {
    fn default() -> Self {
        Self {
            bit_widths: BitWidth::ALL.map(BitWidth::bits).to_vec(),
            seq_len: 512,
            batch_size: 8,
            checkpoint: None,
        }
    }
}

impl QuantizationConfig {
    /// The widths to measure, the widest first, each once.
    ///
    /// # Errors
    /// A number of bits that there is not.
    pub fn widths(&self) -> Result<Vec<BitWidth>> {
        let named = self
            .bit_widths
            .iter()
            .map(|&bits| BitWidth::from_bits(bits));
        let mut widths: Vec<BitWidth> = named.collect::<Result<_>>()?;
        widths.push(BitWidth::Fp32);
        widths.sort_unstable();
        widths.dedup();
        Ok(widths)
    }
}

/// The seeds `first, first + 1, ...`: one seed drives weights, data order and masks of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeedConfig {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Default for SeedConfig {
    fn default() -> Self {
        Self {
            first: 42,
            count: 5,
        }
    }
}

impl SeedConfig {
    /// The seeds in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// Where a run happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// `auto`, `cpu`, `cuda` or `wgpu[:api][:index or name]`.
    pub name: String,
    /// The run stops before training unless this adapter was chosen.
    pub require_adapter: Option<String>,
    /// The most memory a cell may take, in MiB; absent for what the machine has.
    pub memory_limit_mib: Option<u64>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            name: "auto".into(),
            require_adapter: None,
            memory_limit_mib: None,
        }
    }
}

impl DeviceConfig {
    /// The configured limit in bytes.
    pub fn memory_limit(&self) -> Option<Bytes> {
        self.memory_limit_mib
            .map(|mib| Bytes(mib.saturating_mul(1 << 20)))
    }
}

impl Config {
    /// Lays overrides upon the defaults: the preset, then the file, then the flags; then validates.
    ///
    /// `flags` holds keys as they stand in a file, for example `train.batch_size`.
    ///
    /// # Errors
    /// An unknown preset; a file that cannot be read, is not TOML or has an unknown key; or values that
    /// [`Config::validate`] rejects.
    pub fn resolve(preset: Option<&str>, file: Option<&Path>, flags: toml::Table) -> Result<Self> {
        let mut table = match preset {
            Some(name) => layers::preset(name)?,
            None => toml::Table::new(),
        };
        if let Some(path) = file {
            layers::merge(&mut table, layers::read(path)?);
        }
        layers::merge(&mut table, flags);
        let mut config: Self = table.try_into().map_err(|error: toml::de::Error| {
            Error::bad_input(
                "the configuration",
                error.message(),
                "correct the file or the flags",
            )
        })?;
        config.benchmarks.sort_unstable();
        config.benchmarks.dedup();
        config.fairness.sort_unstable();
        config.fairness.dedup();
        config.validate()?;
        Ok(config)
    }

    /// The same for one benchmark alone, with its own value of `train.batch_size`.
    #[must_use]
    pub fn only(&self, benchmark: Benchmark) -> Self {
        let mut config = self.clone();
        config.benchmarks = vec![benchmark];
        match benchmark {
            Benchmark::Longcontext => {}
            Benchmark::Quantization => config.train.batch_size = config.quantization.batch_size,
            Benchmark::Efficiency => config.train.batch_size = config.efficiency.batch_size,
            Benchmark::Multidataset => config.train.batch_size = config.multidataset.batch_size,
        }
        config
    }

    /// The benchmarks in one word: `all`, or their names with a `+` between them.
    pub fn title(&self) -> String {
        if self.benchmarks == Benchmark::ALL {
            return "all".into();
        }
        let names: Vec<&str> = self.benchmarks.iter().map(|it| it.name()).collect();
        names.join("+")
    }

    /// Sequence lengths that the benchmarks train at.
    pub fn seq_lengths(&self) -> Vec<usize> {
        let of = |benchmark: &Benchmark| match benchmark {
            Benchmark::Longcontext => self.longcontext.seq_lengths.as_slice(),
            Benchmark::Quantization => std::slice::from_ref(&self.quantization.seq_len),
            Benchmark::Efficiency => std::slice::from_ref(&self.efficiency.seq_len),
            Benchmark::Multidataset => std::slice::from_ref(&self.multidataset.seq_len),
        };
        self.benchmarks.iter().flat_map(of).copied().collect()
    }

    /// Cells of a run that finds `n_datasets` datasets to evaluate on, in one way of setting learning rates: models, lengths
    /// or budgets or datasets, and seeds multiplied, of all benchmarks.
    pub fn n_cells(&self, n_datasets: usize) -> u64 {
        let n_settings = |benchmark: &Benchmark| match benchmark {
            Benchmark::Longcontext => self.longcontext.seq_lengths.len(),
            Benchmark::Quantization => 1,
            Benchmark::Efficiency => self.efficiency.flops_budgets.len(),
            Benchmark::Multidataset => n_datasets,
        };
        let n_settings: usize = self.benchmarks.iter().map(n_settings).sum();
        let settings = self.models.labels().len() * n_settings;
        (settings as u64).saturating_mul(self.seeds.count)
    }

    /// Tokens that a training of `train.budget.steps` reads; `None` for epochs.
    pub fn tokens_of_steps(&self, benchmark: Benchmark) -> Option<usize> {
        let config = self.only(benchmark);
        let Budget::Steps(steps) = config.train.budget else {
            return None;
        };
        let longest = config.seq_lengths().into_iter().max()?;
        let a_step = config.train.batch_size.saturating_mul(longest);
        // And the successor of the last one.
        Some((steps as usize).saturating_mul(a_step).saturating_add(1))
    }

    /// Whether the recall probe is part of the run.
    pub fn probes_recall(&self) -> bool {
        self.benchmarks.contains(&Benchmark::Longcontext) && self.longcontext.recall_probe
    }

    /// Entries of the recall probe: models and seeds multiplied, none where it is off.
    pub fn n_probes(&self) -> u64 {
        if !self.probes_recall() {
            return 0;
        }
        (self.models.names().count() as u64).saturating_mul(self.seeds.count)
    }

    /// sha256 of the canonical JSON of this configuration.
    ///
    /// # Errors
    /// As [`canonical_sha256`].
    pub fn sha256(&self) -> Result<String> {
        canonical_sha256(self)
    }

    /// Checks every value that can be checked without a device or data, and reports all problems at once.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem.
    pub fn validate(&self) -> Result<()> {
        let problems = validate::problems(self);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Config { problems })
        }
    }
}
