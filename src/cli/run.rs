//! `bkbench run`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::count;
use super::progress::Reporter;
use crate::bench::Progress;
use crate::bench::longcontext::{self, Checkpoints};
use crate::config::{Budget, Config};
use crate::data;
use crate::hardware::{self, DeviceChoice};
use crate::models::registry::Architecture;
use crate::report::plot::stability;
use crate::report::table::table;
use crate::results::{GuideFile, ResultsFile, RunRecord, RunWriter, Warning};
use crate::units::Count;
use crate::{Error, Result};

/// Where runs are kept.
const RESULTS_DIR: &str = "results";

/// What to train, on what, where to. Flags override --config, which overrides --preset.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to measure: longcontext
    #[arg(long, value_name = "NAME")]
    benchmark: Option<String>,
    /// Settings to start from: smoke (minutes on a CPU), laptop, t4, guide [default: guide]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// TOML file with settings, see configs/
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// First model [default: resnetbk]
    #[arg(long, value_name = "NAME")]
    model_a: Option<String>,
    /// Second model [default: mamba]
    #[arg(long, value_name = "NAME")]
    model_b: Option<String>,
    /// Sequence lengths, in tokens
    #[arg(long, num_args = 1.., value_name = "N", value_parser = count)]
    seq_lengths: Vec<u64>,
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
    /// auto, cpu, cuda, or wgpu[:vulkan|metal|dx12|gl][:index or name]; see `bkbench devices`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// UTF-8 text to train and evaluate on, instead of the embedded one
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    /// bytes, gpt2 or a tokenizer.json
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// Also write the results in the benchmarking guide's JSON to this new file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep every cell's last checkpoint
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    save_checkpoints: bool,
    /// Where to keep them [default: the run's folder]
    #[arg(long, value_name = "DIR", requires = "save_checkpoints")]
    checkpoint_dir: Option<PathBuf>,
    /// Print the grid of cells and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    later: Later,
}

const EXAMPLES: &str = "\
Examples:
  bkbench run --preset smoke
  bkbench run --preset smoke --text my.txt --steps 300 --num_seeds 5
  bkbench run --benchmark longcontext --seq_lengths 8192 32768 131072 --num_seeds 5 --output results/longcontext_results.json";

/// Flags of the benchmarking guide whose feature is not there yet: named so that none is a silent no-op.
#[derive(Debug, clap::Args)]
struct Later {
    #[arg(long, hide = true)]
    all: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    mixed_precision: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    gradient_checkpointing: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    cpu_offloading: Option<bool>,
    #[arg(long, hide = true, num_args = 1..)]
    bit_widths: Vec<String>,
    #[arg(long, hide = true, num_args = 1..)]
    flops_budgets: Vec<String>,
    #[arg(long, hide = true)]
    checkpoint: Option<String>,
}

impl Later {
    fn refuse(&self) -> Result<()> {
        let given = [
            ("--all", self.all),
            ("--mixed_precision true", self.mixed_precision == Some(true)),
            (
                "--gradient_checkpointing true",
                self.gradient_checkpointing == Some(true),
            ),
            ("--cpu_offloading true", self.cpu_offloading == Some(true)),
            ("--bit_widths", !self.bit_widths.is_empty()),
            ("--flops_budgets", !self.flops_budgets.is_empty()),
            ("--checkpoint", self.checkpoint.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::NotAvailableYet { what: flag.into() }),
            None => Ok(()),
        }
    }
}

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
            ("device", "name", &self.device),
            ("data", "text", &self.text),
            ("data", "tokenizer", &self.tokenizer),
        ] {
            if let Some(text) = text {
                set(section, key, text.as_str().into());
            }
        }
        for (section, key, flag, number) in [
            ("seeds", "count", "--num_seeds", self.num_seeds),
            ("seeds", "first", "--seed", self.seed),
            ("train", "batch_size", "--batch_size", self.batch_size),
        ] {
            if let Some(number) = number {
                set(section, key, integer(flag, number)?);
            }
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
        if !self.seq_lengths.is_empty() {
            let lengths = self
                .seq_lengths
                .iter()
                .map(|&length| integer("--seq_lengths", length));
            set(
                "longcontext",
                "seq_lengths",
                Value::Array(lengths.collect::<Result<_>>()?),
            );
        }
        Ok(table)
    }

    /// The resolved configuration.
    fn resolve(&self) -> Result<Config> {
        self.later.refuse()?;
        match self.benchmark.as_deref() {
            None | Some("longcontext") => {}
            Some(name @ ("quantization" | "efficiency" | "multidataset")) => {
                return Err(Error::NotAvailableYet {
                    what: format!("--benchmark {name}"),
                });
            }
            Some(name) => {
                let known = vec!["longcontext".into()];
                return Err(Error::UnknownName {
                    kind: "benchmark",
                    name: name.into(),
                    known,
                });
            }
        }
        let config = Config::resolve(
            Some(self.preset.as_deref().unwrap_or("guide")),
            self.config.as_deref(),
            self.overrides()?,
        )?;
        for name in config.models.names() {
            Architecture::parse(name)?;
        }
        Ok(config)
    }
}

/// TOML's integers end at 2^63.
fn integer(flag: &str, number: u64) -> Result<Value> {
    i64::try_from(number)
        .map(Value::Integer)
        .map_err(|_| Error::bad_input(format!("{flag} {number}"), "too large", "stay below 2^63"))
}

/// Runs a benchmark: checks everything first, then trains, records after every cell, draws, prints.
///
/// # Errors
/// Bad input, before anything is written; a broken device; a model that learned nothing, after everything is written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let config = args.resolve()?;
    if args.dry_run {
        print!("{}", grid(&config));
        return Ok(());
    }
    let guide_file = args.output.as_deref().map(GuideFile::reserve).transpose()?;
    let mut progress = Reporter::new(quiet);
    let (dir, record) = train(&config, args, &mut progress)?;

    println!("{}", table(&record));
    for warning in &record.warnings {
        println!("warning: {warning}");
    }
    println!("results: {}", dir.display());
    if let Some(file) = guide_file {
        file.write(&record)?;
    }
    // The smoke preset is a check that training works; elsewhere this is a warning like any other.
    let nothing_learned = record
        .warnings
        .iter()
        .find(|warning| matches!(warning, Warning::NothingLearned { .. }))
        .filter(|_| args.preset.as_deref() == Some("smoke"))
        .map(ToString::to_string);
    draw(record, &dir)?;
    match nothing_learned {
        Some(text) => Err(Error::CheckFailed(text).into()),
        None => Ok(()),
    }
}

/// Trains every cell of the grid; returns the run's folder and its record.
///
/// Everything that can be wrong with the input is found before the run's folder is made.
fn train(
    config: &Config,
    args: &Args,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, RunRecord)> {
    let choice: DeviceChoice = config.device.name.parse()?;
    let hardware = hardware::open(&choice, config.device.require_adapter.as_deref())?;
    let dataset = data::load(&config.data, &mut |line| progress.message(line))?;
    let vocab_size = dataset.tokenizer.vocab_size();
    let grid = longcontext::Grid::new(config, vocab_size, dataset.train.len())?;
    let mut writer = RunWriter::create(Path::new(RESULTS_DIR), config)?;
    let dir = writer.dir().to_owned();
    let checkpoints = Checkpoints {
        dir: match &args.checkpoint_dir {
            Some(dir) => dir.clone(),
            None => dir.join("checkpoints"),
        },
        keep: args.save_checkpoints,
    };
    progress.message(&format!(
        "{}: {} cells, {} training tokens in all, on {}",
        dir.display(),
        grid.n_cells(),
        Count(grid.n_train_tokens(config.train.batch_size)),
        hardware.fingerprint.adapter
    ));
    let run = longcontext::Run {
        config,
        grid: &grid,
        hardware: &hardware,
        dataset: &dataset,
        checkpoints: &checkpoints,
    };
    let record = run.train_all(&mut writer, progress)?;
    Ok((dir, record))
}

/// Draws the graph of the benchmark into the run's folder.
fn draw(record: RunRecord, dir: &Path) -> Result<()> {
    let options = stability::Options {
        seq_lengths: Vec::new(),
        annotate_divergence: true,
        show_confidence_intervals: true,
    };
    let drawing = stability::draw(&ResultsFile::Record(Box::new(record)), &options)?;
    for name in ["stability.svg", "stability.png"] {
        drawing.save(&dir.join(name))?;
        println!("picture: {}", dir.join(name).display());
    }
    Ok(())
}

/// The cells a configuration asks for, in words.
fn grid(config: &Config) -> String {
    let names: Vec<&str> = config.models.names().collect();
    let lengths = &config.longcontext.seq_lengths;
    let n_cells = ((names.len() * lengths.len()) as u64).saturating_mul(config.seeds.count);
    let head = format!(
        "{}: {} cells = {} models ({}) x {} lengths x {} seeds from {}\n",
        config.benchmark.name(),
        Count(n_cells),
        names.len(),
        names.join(", "),
        lengths.len(),
        config.seeds.count,
        config.seeds.first
    );
    let line = |&length: &usize| {
        let length = length as u64;
        let budget = match config.train.budget {
            Budget::Steps(steps) => {
                let sequences = steps.saturating_mul(config.train.batch_size as u64);
                let tokens = Count(sequences.saturating_mul(length));
                format!("{} steps, {tokens} training tokens a cell", Count(steps))
            }
            Budget::NumEpochs(epochs) => {
                format!("as many steps as {epochs} epoch(s) take at the longest length")
            }
        };
        format!("  N = {}: {budget}\n", Count(length))
    };
    std::iter::once(head)
        .chain(lengths.iter().map(line))
        .collect()
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
