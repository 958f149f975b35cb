//! `bkbench run`.

mod args;
mod plan;

use std::path::{Path, PathBuf};

use super::audit;
use super::progress::Reporter;
use super::session::{Session, finish, machine, on_signals};
use crate::bench::Progress;
use crate::bench::run::Checkpoints;
use crate::config::Fairness;
use crate::results::{Files, GuideFile, RunWriter, Warning};
use crate::units::Count;
use crate::{Error, Result};

pub use args::Args;
use plan::Plan;

/// Where runs are kept.
pub(super) const RESULTS_DIR: &str = "results";

/// Runs one benchmark or several: checks everything first, then trains, records after every cell, draws, prints.
///
/// # Errors
/// Bad input, or a model that fails its audit, before anything is written; a broken device; an interruption; a
/// model that learned nothing, after everything is written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let config = args.resolve()?;
    let mut progress = Reporter::new(quiet);
    if args.dry_run {
        let plan = Plan::new(config, args.files()?, &mut progress)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&plan)?);
        } else {
            print!("{plan}");
        }
        return Ok(());
    }
    let output = args.output.as_deref();
    let guide_file = output.map(|path| GuideFile::reserve(path, &config.benchmarks));
    let guide_file = guide_file.transpose()?;
    let session = Session::open(config, &mut progress)?;
    if args.takes_the_guides_settings() {
        // They take long: what they come to is told before.
        let plan = Plan::new(session.config.clone(), args.files()?, &mut progress)?;
        progress.message(plan.to_string().trim_end());
    }
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
    let (ways, trials) = match config.fairness[..] {
        [Fairness::Identical] => ("", ""),
        [_] => ("", " with the trials of learning rates"),
        _ => (" in each of two ways", " with the trials of learning rates"),
    };
    progress.message(&format!(
        "{}: {} cells{ways}, about {} training tokens in all{trials}, on {}",
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
