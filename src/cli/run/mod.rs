//! `bkbench run`.

mod args;

use std::path::{Path, PathBuf};

use super::audit;
use super::progress::Reporter;
use super::session::{Session, finish, on_signals};
use crate::accounting::Tensors;
use crate::bench::longcontext::{self, Checkpoints};
use crate::bench::{Progress, memory};
use crate::config::{Budget, Config};
use crate::data::Tokenizer;
use crate::hardware::DeviceChoice;
use crate::models::registry::{Architecture, matched_shapes};
use crate::results::{Files, GuideFile, RunWriter, Warning};
use crate::units::Count;
use crate::{Error, Result};

pub use args::Args;

/// Where runs are kept.
const RESULTS_DIR: &str = "results";

/// Runs a benchmark: checks everything first, then trains, records after every cell, draws, prints.
///
/// # Errors
/// Bad input, or a model that fails its audit, before anything is written; a broken device; an interruption; a
/// model that learned nothing, after everything is written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let mut config = args.resolve()?;
    if args.dry_run {
        print!("{}", grid(&config)?);
        return Ok(());
    }
    let guide_file = args.output.as_deref().map(GuideFile::reserve).transpose()?;
    let mut progress = Reporter::new(quiet);
    let session = Session::open(&config, &mut progress)?;
    let batch_size = config.train.batch_size;
    let adapter = session.hardware.adapter.as_ref();
    let segment_len = session.grid.segment_len(batch_size, adapter);
    config.train.segment_len.get_or_insert(segment_len);
    let audits = audit::before_run(&config, &session.hardware, &session.dataset, &mut progress)?;
    let mut writer = RunWriter::create(Path::new(RESULTS_DIR), &config)?;
    let dir = writer.dir().to_owned();
    progress.message(&format!(
        "{}: {} cells, {} training tokens in all, on {}",
        dir.display(),
        Count(config.n_cells()),
        Count(session.grid.n_train_tokens(batch_size)),
        session.hardware.fingerprint.adapter
    ));
    let files = args.files()?;
    let (checkpoints, interrupt) = (Checkpoints::of(&files, &dir), on_signals()?);
    let run = session.run(&config, &checkpoints, &interrupt);
    let mut record = run.record(files, audits)?;
    for warning in &record.warnings {
        progress.message(&format!("warning: {warning}"));
    }
    // From here on it can be resumed.
    writer.save(&record)?;
    run.train_all(&mut record, &mut writer, &mut progress)
        .map_err(|error| error.stopped(&dir))?;
    finish(&record, &dir, guide_file)?;
    // The smoke preset is a check that training works; elsewhere this is a warning like any other.
    let nothing_learned = record
        .warnings
        .iter()
        .find(|warning| matches!(warning, Warning::NothingLearned { .. }))
        .filter(|_| args.preset.as_deref() == Some("smoke"));
    match nothing_learned {
        Some(warning) => Err(Error::CheckFailed(warning.to_string()).into()),
        None => Ok(()),
    }
}

impl Args {
    fn files(&self) -> Result<Files> {
        let absolute = |path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| std::path::absolute(path).map_err(Error::io("find", path)))
                .transpose()
        };
        Ok(Files {
            checkpoint_dir: absolute(&self.checkpoint_dir)?,
            keep_checkpoints: self.save_checkpoints,
            output: absolute(&self.output)?,
        })
    }
}

/// The cells a configuration asks for, and the memory that each model needs for one, in words.
fn grid(config: &Config) -> Result<String> {
    let names: Vec<&str> = config.models.names().collect();
    let lengths = config.seq_lengths();
    let head = format!(
        "{}: {} cells = {} models ({}) x {} lengths x {} seeds from {}\n",
        config.benchmark.name(),
        Count(config.n_cells()),
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
