//! `bkbench run`.

mod args;

use std::path::{Path, PathBuf};

use super::audit;
use super::progress::Reporter;
use crate::accounting::Tensors;
use crate::bench::longcontext::{self, Checkpoints};
use crate::bench::{Progress, memory};
use crate::config::{Budget, Config};
use crate::data::{self, Tokenizer};
use crate::hardware::{self, DeviceChoice};
use crate::models::registry::{Architecture, matched_shapes};
use crate::report::plot::stability;
use crate::report::table::table;
use crate::results::{GuideFile, ResultsFile, RunRecord, RunWriter, Warning};
use crate::units::Count;
use crate::{Error, Result};

pub use args::Args;

/// Where runs are kept.
const RESULTS_DIR: &str = "results";

/// Runs a benchmark: checks everything first, then trains, records after every cell, draws, prints.
///
/// # Errors
/// Bad input, or a model that fails its audit, before anything is written; a broken device; a model that learned
/// nothing, after everything is written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let config = args.resolve()?;
    if args.dry_run {
        print!("{}", grid(&config)?);
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
    let mut config = config.clone();
    let segment_len = grid.segment_len(config.train.batch_size, hardware.adapter.as_ref());
    config.train.segment_len.get_or_insert(segment_len);
    let config = &config;
    let audits = audit::before_run(config, &hardware, &dataset, progress)?;
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
        audits: &audits,
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

/// The cells a configuration asks for, and the memory that each model needs for one, in words.
fn grid(config: &Config) -> Result<String> {
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
    let vocab_size = Tokenizer::new(&config.data.tokenizer)?.vocab_size();
    let models: Vec<Architecture> = names
        .iter()
        .map(|name| Architecture::parse(name))
        .collect::<Result<_>>()?;
    let shapes = matched_shapes(&models, &config.model, vocab_size)?;
    // Without opening a device: the CPU's counts, which are the larger ones, unless an adapter is named.
    let tensors = match config.device.name.parse()? {
        DeviceChoice::Auto | DeviceChoice::Cpu => Tensors::OnHeap,
        DeviceChoice::Cuda | DeviceChoice::Wgpu { .. } => Tensors::OnAdapter,
    };
    let mut train = config.train.clone();
    train.segment_len.get_or_insert(longcontext::SEGMENT_LEN);
    let lines = |&seq_len: &usize| {
        let length = seq_len as u64;
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
        let memory = shapes.iter().map(|shape| {
            let needs = memory::needs(shape, seq_len, &train, tensors);
            format!("    {} needs {needs}\n", shape.architecture.name())
        });
        format!(
            "  N = {}: {budget}\n{}",
            Count(length),
            memory.collect::<String>()
        )
    };
    Ok(std::iter::once(head)
        .chain(lengths.iter().map(lines))
        .collect())
}
