//! `bkbench run`.

mod args;

use std::path::{Path, PathBuf};

use super::audit;
use super::progress::Reporter;
use super::session::{Session, finish, machine, on_signals};
use crate::accounting::Tensors;
use crate::bench::run::{self, Checkpoints, Planned, Setting};
use crate::bench::{Progress, memory};
use crate::config::{Benchmark, Budget, Config, Fairness};
use crate::data::{self, Tokenizer};
use crate::hardware::DeviceChoice;
use crate::results::{AbsentDataset, Files, GRID, GuideFile, Outcome, RunWriter, Warning};
use crate::units::Count;
use crate::{Error, Result};

pub use args::Args;

/// Where runs are kept.
pub(super) const RESULTS_DIR: &str = "results";

/// Runs one benchmark or several: checks everything first, then trains, records after every cell, draws, prints.
///
/// # Errors
/// Bad input, or a model that fails its audit, before anything is written; a broken device; an interruption; a
/// model that learned nothing, after everything is written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let config = args.resolve()?;
    if args.dry_run {
        for &benchmark in &config.benchmarks {
            print!("{}", grid(benchmark, &config.only(benchmark))?);
        }
        return Ok(());
    }
    let output = args.output.as_deref();
    let guide_file = output.map(|path| GuideFile::reserve(path, &config.benchmarks));
    let guide_file = guide_file.transpose()?;
    let mut progress = Reporter::new(quiet);
    let session = Session::open(config, &mut progress)?;
    let audits = audit::before_run(&session, &mut progress)?;
    let machine = machine(&session.hardware, &mut progress)?;
    let config = &session.config;
    let mut writer = RunWriter::create(Path::new(RESULTS_DIR), config)?;
    let dir = writer.dir().to_owned();
    let files = args.files()?;
    let (checkpoints, interrupt) = (Checkpoints::of(&files, &dir), on_signals()?);
    let run = session.run(&checkpoints, &interrupt);
    let mut record = run.record(files, audits)?;
    record.machine = Some(machine);
    progress.message(&format!(
        "{}: {} cells, {} training tokens in all, on {}",
        dir.display(),
        Count(record.n_cells()),
        Count(run.n_train_tokens()?),
        session.hardware.fingerprint.adapter
    ));
    if let Some(datasets) = &record.datasets {
        progress.message(&datasets.in_words(&config.multidataset.datasets));
        for absent in &datasets.absent {
            progress.message(&format!("{} is not here: {}", absent.name, absent.advice));
        }
    }
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

/// The cells that the configuration of one benchmark asks for, and the memory that each model needs for one, in words.
fn grid(benchmark: Benchmark, config: &Config) -> Result<String> {
    let names = config.models.labels();
    let vocab_size = Tokenizer::new(&config.data.tokenizer)?.vocab_size();
    // How many steps an epoch takes is not known without the text.
    let n_steps = match config.train.budget {
        Budget::Steps(steps) => steps,
        Budget::NumEpochs(_) => 0,
    };
    let settings = run::settings(config, vocab_size, n_steps)?;
    let wanted = &config.multidataset.datasets;
    let absent = match benchmark {
        Benchmark::Multidataset => data::absent(wanted, &config.data)?,
        _ => Vec::new(),
    };
    let n_present = wanted.len() - absent.len();
    let (n_settings, kind) = match benchmark {
        Benchmark::Longcontext | Benchmark::Quantization => (settings.len(), "lengths".into()),
        Benchmark::Efficiency => (settings.len(), "budgets".into()),
        Benchmark::Multidataset => (
            n_present.max(1),
            format!("datasets ({n_present} of {} are present)", wanted.len()),
        ),
    };
    let n_cells = (names.len() * n_settings) as u64;
    let head = format!(
        "{}: {} cells = {} models ({}) x {n_settings} {kind} x {} seeds from {}\n",
        benchmark.name(),
        Count(n_cells.saturating_mul(config.seeds.count)),
        names.len(),
        names.join(", "),
        config.seeds.count,
        config.seeds.first
    );
    // Without opening a device: the CPU's counts, which are the larger ones, unless an adapter is named.
    let tensors = match config.device.name.parse()? {
        DeviceChoice::Auto | DeviceChoice::Cpu => Tensors::OnHeap,
        DeviceChoice::Cuda | DeviceChoice::Wgpu { .. } => Tensors::OnAdapter,
    };
    let mut train = config.train.clone();
    train.segment_len.get_or_insert(run::SEGMENT_LEN);
    let lines = |setting: &Setting| {
        let length = setting.seq_len as u64;
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
        let models = setting.models.iter().map(|planned| {
            let needs = memory::needs(&planned.shape, setting.seq_len, &train, tensors);
            let name = &planned.label;
            format!("{}    {name} needs {needs}\n", under_budget(planned))
        });
        format!(
            "  N = {}: {budget}\n{}",
            Count(length),
            models.collect::<String>()
        )
    };
    let missing =
        |it: &AbsentDataset| format!("  warning: {} is not here: {}\n", it.name, it.advice);
    let ways = ways(config, settings.len() * names.len());
    Ok(std::iter::once(head)
        .chain(absent.iter().map(missing))
        .chain(settings.iter().map(lines))
        .chain(ways)
        .collect())
}

/// What tuning adds to the cells of `n_models` models at their settings, where there is any.
fn ways(config: &Config, n_models: usize) -> Option<String> {
    let trials = GRID.len() * n_models;
    let ways = match config.fairness[..] {
        [Fairness::Identical] => return None,
        [Fairness::EqualTuning] => "these cells at the learning rates chosen",
        _ => "as many cells again at the learning rates chosen, but for those trained already",
    };
    Some(format!(
        "  equal tuning: {trials} trials of a quarter of the steps, more where the best learning rate lies at the edge; then {ways}\n"
    ))
}

/// The shape that a budget gives a model, where there is a budget.
fn under_budget(planned: &Planned) -> String {
    let Some(at) = planned.at_budget else {
        return String::new();
    };
    let misfit = match &planned.misfit {
        Some(Outcome::Skipped { reason, .. }) => format!("; to be skipped: {reason}"),
        _ => String::new(),
    };
    format!(
        "    {} under {:e} FLOPs: {} layers of {}, {:.4e} forward FLOPs a token, {:.4e} without head{misfit}\n",
        planned.label,
        at.budget.get(),
        at.n_layers,
        at.d_model,
        at.forward_flops_per_token.get(),
        at.forward_flops_per_token_without_head.get()
    )
}
