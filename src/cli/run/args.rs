//! The flags of `bkbench run`.

use std::path::PathBuf;

use toml::{Table, Value};

use crate::cli::count;
use crate::config::{Benchmark, Config};
use crate::data;
use crate::models::checkpoint;
use crate::models::registry::Architecture;
use crate::{Error, Result};

/// What to train, on what, where to. Flags override --config, which overrides --preset.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Args {
    /// What to measure: longcontext, quantization, efficiency, multidataset [default: longcontext]
    #[arg(long, value_name = "NAME", overrides_with = "all")]
    benchmark: Option<String>,
    /// Measure all of them; trainings that several need are done once
    #[arg(long, overrides_with = "benchmark")]
    all: bool,
    /// Settings to start from: smoke (minutes on a CPU), laptop, t4, guide [default: guide]
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,
    /// TOML file with settings, see configs/
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// First model [default: resnetbk]
    #[arg(long, value_name = "NAME")]
    model_a: Option<String>,
    /// Second model [default: mamba]
    #[arg(long, value_name = "NAME")]
    model_b: Option<String>,
    /// A third model that both should beat; a claim needs no-mixer, which sees no context [default: no-mixer]
    #[arg(long, value_name = "NAME")]
    control: Option<String>,
    /// How learning rates are set: identical (one for all), `equal_tuning` (the best of the same trials for each); a claim
    /// needs both [default: identical]
    #[arg(long, num_args = 1.., value_name = "WAY")]
    fairness: Vec<String>,
    /// Sequence lengths, in tokens
    #[arg(long, num_args = 1.., value_name = "N", value_parser = count)]
    seq_lengths: Vec<u64>,
    /// Bits of a weight in the quantization benchmark: 32 16 8 4 2
    #[arg(long, num_args = 1.., value_name = "BITS", value_parser = count)]
    bit_widths: Vec<u64>,
    /// Budgets of the efficiency benchmark, in forward FLOPs a token
    #[arg(long, num_args = 1.., value_name = "FLOPS")]
    flops_budgets: Vec<f64>,
    /// Datasets of the multidataset benchmark, which runs on those that are here [default: all five of the guide]
    #[arg(long, num_args = 1.., value_name = "NAME")]
    datasets: Vec<String>,
    /// Repetitions of every cell, with seeds --seed, --seed + 1, ...
    #[arg(long, value_name = "N", value_parser = count)]
    num_seeds: Option<u64>,
    /// First seed [default: 42]
    #[arg(long, value_name = "N", value_parser = count)]
    seed: Option<u64>,
    /// Passes over the training text, as steps at the longest sequence length
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "steps")]
    num_epochs: Option<u64>,
    /// Optimiser steps of every cell
    #[arg(long, value_name = "N", value_parser = count)]
    steps: Option<u64>,
    /// Sequences a step
    #[arg(long, value_name = "N", value_parser = count)]
    batch_size: Option<u64>,
    /// Longer sequences are trained in segments of this length [default: 4096, or what the device can hold]
    #[arg(long, value_name = "N", value_parser = count)]
    segment_len: Option<u64>,
    /// exact: gradients of the whole sequence; truncated: they end at segments [default: exact]
    #[arg(long, value_name = "KIND")]
    bptt: Option<String>,
    /// Matrix products in f16, all else in f32; needs an adapter with f16, see `bkbench devices`
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    mixed_precision: Option<bool>,
    /// Keep the layers' inputs alone and compute each layer again for its backward pass
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    gradient_checkpointing: Option<bool>,
    /// Keep states at segment boundaries and the optimiser's moments in main memory
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    cpu_offloading: Option<bool>,
    /// auto, cpu, cuda, or wgpu[:vulkan|metal|dx12|gl][:index or name]; see `bkbench devices`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Text, json lines, parquet or folder to train and evaluate on, instead of the embedded text
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    /// The folder that holds the datasets' files [default: datasets in the cache folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// bytes, gpt2 or a tokenizer.json
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// Also write the results in the benchmarking guide's JSON to this new file, for several benchmarks to NAME.BENCHMARK.json
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Keep every cell's last checkpoint
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(super) save_checkpoints: bool,
    /// Where to keep them [default: the run's folder]
    #[arg(long, value_name = "DIR", requires = "save_checkpoints")]
    pub(super) checkpoint_dir: Option<PathBuf>,
    /// Measure this trained model in the quantization benchmark instead of training any: the folder of a cell whose
    /// checkpoint was kept, or a Mamba model in the official layout
    #[arg(long, value_name = "PATH", conflicts_with_all = OF_TRAININGS)]
    checkpoint: Option<PathBuf>,
    /// Seconds between checkpoints; a step that takes longer is followed by one [default: 60]
    #[arg(long, value_name = "SECONDS")]
    checkpoint_every: Option<f64>,
    /// End a cell whose training has taken this long, as timed out [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    max_cell_seconds: Option<f64>,
    /// Print the cells and an estimate of their memory and time, and stop
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the dry run as one JSON document, with the resolved configuration
    #[arg(long, requires = "dry_run")]
    pub(super) json: bool,
}

/// Flags that mean nothing to a model that is not trained here.
const OF_TRAININGS: [&str; 16] = [
    "fairness",
    "model_a",
    "model_b",
    "control",
    "num_seeds",
    "num_epochs",
    "steps",
    "batch_size",
    "segment_len",
    "bptt",
    "mixed_precision",
    "gradient_checkpointing",
    "cpu_offloading",
    "save_checkpoints",
    "checkpoint_every",
    "max_cell_seconds",
];

const EXAMPLES: &str = "\
Examples:
  bkbench run --all --preset smoke
  bkbench run --preset smoke --text my.txt --steps 300 --num_seeds 5
  bkbench run --benchmark longcontext --seq_lengths 8192 32768 131072 --num_seeds 5 --output results/longcontext_results.json";

impl Args {
    /// The flags as keys of a configuration.
    fn overrides(&self) -> Result<Table> {
        let mut table = Table::new();
        let mut set = |section: &str, key: &str, value: Value| {
            let section = table.entry(section).or_insert_with(|| Table::new().into());
            if let Value::Table(section) = section {
                section.insert(key.into(), value);
            }
        };
        for (section, key, text) in [
            ("models", "a", &self.model_a),
            ("models", "b", &self.model_b),
            ("models", "control", &self.control),
            ("device", "name", &self.device),
            ("data", "text", &self.text),
            ("data", "dir", &self.data_dir),
            ("data", "tokenizer", &self.tokenizer),
            ("train", "bptt", &self.bptt),
        ] {
            if let Some(text) = text {
                set(section, key, text.as_str().into());
            }
        }
        for (section, key, flag, number) in [
            ("seeds", "count", "--num_seeds", self.num_seeds),
            ("seeds", "first", "--seed", self.seed),
            ("train", "batch_size", "--batch_size", self.batch_size),
            (
                "quantization",
                "batch_size",
                "--batch_size",
                self.batch_size,
            ),
            ("efficiency", "batch_size", "--batch_size", self.batch_size),
            (
                "multidataset",
                "batch_size",
                "--batch_size",
                self.batch_size,
            ),
            ("train", "segment_len", "--segment_len", self.segment_len),
        ] {
            if let Some(number) = number {
                set(section, key, integer(flag, number)?);
            }
        }
        for (key, switch) in [
            ("gradient_checkpointing", self.gradient_checkpointing),
            ("cpu_offloading", self.cpu_offloading),
        ] {
            if let Some(on) = switch {
                set("train", key, on.into());
            }
        }
        if let Some(mixed) = self.mixed_precision {
            let precision = if mixed { "mixed" } else { "f32" };
            set("train", "precision", precision.into());
        }
        for (key, flag, number) in [
            ("steps", "--steps", self.steps),
            ("num_epochs", "--num_epochs", self.num_epochs),
        ] {
            if let Some(number) = number {
                set(
                    "train",
                    "budget",
                    Table::from_iter([(key.into(), integer(flag, number)?)]).into(),
                );
            }
        }
        for (key, seconds) in [
            ("checkpoint_every_seconds", self.checkpoint_every),
            ("max_cell_seconds", self.max_cell_seconds),
        ] {
            if let Some(seconds) = seconds {
                set("train", key, seconds.into());
            }
        }
        for (section, key, flag, list) in [
            (
                "longcontext",
                "seq_lengths",
                "--seq_lengths",
                &self.seq_lengths,
            ),
            (
                "quantization",
                "bit_widths",
                "--bit_widths",
                &self.bit_widths,
            ),
        ] {
            if !list.is_empty() {
                let list = list.iter().map(|&number| integer(flag, number));
                set(section, key, Value::Array(list.collect::<Result<_>>()?));
            }
        }
        if !self.flops_budgets.is_empty() {
            let budgets = self.flops_budgets.iter().map(|&budget| budget.into());
            set(
                "efficiency",
                "flops_budgets",
                Value::Array(budgets.collect()),
            );
        }
        if let Some(path) = &self.checkpoint {
            let path = std::path::absolute(path).map_err(Error::io("find", path))?;
            set(
                "quantization",
                "checkpoint",
                path.display().to_string().into(),
            );
            if self.tokenizer.is_none() {
                let tokenizer = checkpoint::tokenizer_of(&path)?;
                set("data", "tokenizer", tokenizer.name.into());
            }
        }
        if !self.datasets.is_empty() {
            let names = self.datasets.clone();
            set("multidataset", "datasets", names.into());
        }
        if !self.fairness.is_empty() {
            table.insert("fairness".into(), self.fairness.clone().into());
        }
        let benchmarks = self.benchmarks()?;
        if !benchmarks.is_empty() {
            let names: Vec<&str> = benchmarks.iter().map(|it| it.name()).collect();
            table.insert("benchmarks".into(), names.into());
        }
        Ok(table)
    }

    /// Whether nothing says what to take instead of the guide's settings.
    pub(super) fn takes_the_guides_settings(&self) -> bool {
        self.preset.is_none() && self.config.is_none() && self.checkpoint.is_none()
    }

    /// The benchmarks asked for; none where that is left to preset and file.
    fn benchmarks(&self) -> Result<Vec<Benchmark>> {
        let Some(name) = self.benchmark.as_deref() else {
            let all = self.all.then_some(Benchmark::ALL);
            return Ok(all.into_iter().flatten().collect());
        };
        let known = Benchmark::ALL.into_iter().find(|it| it.name() == name);
        let benchmark = known.ok_or_else(|| Error::UnknownName {
            kind: "benchmark",
            name: name.into(),
            known: Benchmark::ALL.map(|known| known.name().into()).to_vec(),
        })?;
        Ok(vec![benchmark])
    }

    /// Refuses flags of benchmarks that are not part of the run: none is passed over in silence.
    fn refuse_unused(&self, config: &Config) -> Result<()> {
        let given = [
            (
                "--seq_lengths",
                !self.seq_lengths.is_empty(),
                Benchmark::Longcontext,
            ),
            (
                "--bit_widths",
                !self.bit_widths.is_empty(),
                Benchmark::Quantization,
            ),
            (
                "--flops_budgets",
                !self.flops_budgets.is_empty(),
                Benchmark::Efficiency,
            ),
            (
                "--datasets",
                !self.datasets.is_empty(),
                Benchmark::Multidataset,
            ),
        ];
        for (flag, given, benchmark) in given {
            if given && !config.benchmarks.contains(&benchmark) {
                return Err(Error::bad_input(
                    flag,
                    format!(
                        "is for the {} benchmark, and this run is of {}",
                        benchmark.name(),
                        config.title()
                    ),
                    format!(
                        "leave it out, or give --benchmark {} or --all; sequence lengths of other benchmarks are seq_len \
                         in their sections of a --config",
                        benchmark.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a text that the datasets of the run leave unread.
    fn refuse_unread(config: &Config) -> Result<()> {
        let names = &config.multidataset.datasets;
        if config.benchmarks != [Benchmark::Multidataset]
            || config.data.text.is_none()
            || data::reads_own_text(names, &config.data)?
        {
            return Ok(());
        }
        Err(Error::bad_input(
            "--text",
            "would not be read: the multidataset benchmark runs on the datasets that are here, and one of them is trained on",
            "leave it out, name a --data_dir without them, or give another --benchmark",
        ))
    }

    /// The resolved configuration.
    pub(super) fn resolve(&self) -> Result<Config> {
        let config = Config::resolve(
            Some(self.preset.as_deref().unwrap_or("guide")),
            self.config.as_deref(),
            self.overrides()?,
        )?;
        self.refuse_unused(&config)?;
        for name in config.models.names() {
            Architecture::parse(name)?;
        }
        for name in &config.multidataset.datasets {
            data::check_name(name)?;
        }
        Self::refuse_unread(&config)?;
        Ok(config)
    }
}

/// TOML's integers end at 2^63.
fn integer(flag: &str, number: u64) -> Result<Value> {
    i64::try_from(number)
        .map(Value::Integer)
        .map_err(|_| Error::bad_input(format!("{flag} {number}"), "too large", "stay below 2^63"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;

    #[test]
    fn the_help_names_every_preset() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("run"));
        let help = command
            .get_arguments()
            .find(|arg| arg.get_id() == "preset")
            .unwrap()
            .get_help()
            .unwrap();
        for (name, _) in PRESETS {
            assert!(help.to_string().contains(name), "{name}");
        }
    }
}
