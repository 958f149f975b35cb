//! `bkbench resume`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::progress::Reporter;
use super::session::{Session, finish, on_signals};
use crate::bench::Progress;
use crate::bench::run::{Checkpoints, Run};
use crate::results::{Difference, GuideFile, PROTOCOL_VERSION, RunRecord, RunWriter, texts};
use crate::units::Count;
use crate::{Error, Result};

/// Which run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of a run that `bkbench run` began
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Also write the results in the benchmarking guide's JSON to this new file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Settings are those the run began with, and so must device, data and version of bkbench be. Finished cells are kept, the
one that was cut off goes on from its last checkpoint, and the numbers are those of a run that never stopped.

Examples:
  bkbench resume results/20260101T120000Z-longcontext-1a2b3c4d";

/// Trains what a run lacks, then prints and draws it; a complete one is printed and drawn only.
///
/// # Errors
/// Bad input, a run that began elsewhere, or what stops `bkbench run`.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    // Read once before anything is opened for writing, so that nothing is made in a folder that holds no run.
    RunRecord::load(&args.run)?.require_seal(&args.run)?;
    let mut writer = RunWriter::open(&args.run)?;
    let mut record = RunRecord::load(&args.run)?;
    let guide_file = guide_file(args, &mut record)?;

    let mut progress = Reporter::new(quiet);
    let (finished, n_missing) = (record.cells.len() as u64, record.n_missing());
    let checkpoints = Checkpoints::of(&record.files, writer.dir());
    let found = format!(
        "{}: {} of {} cells are finished",
        args.run.display(),
        Count(finished),
        Count(finished + n_missing)
    );
    let probed = record.recall.len() as u64 == record.config.n_probes();
    if n_missing == 0 && probed {
        for cell in &record.cells {
            checkpoints.tidy(&cell.training)?;
        }
        progress.message(&format!("{found}; the run is complete"));
    } else {
        progress.message(&format!("{found}; going on"));
        go_on(
            &args.run,
            &checkpoints,
            &mut record,
            &mut writer,
            &mut progress,
        )?;
    }
    finish(&record, writer.dir(), guide_file)?;
    Ok(())
}

fn go_on(
    run: &Path,
    checkpoints: &Checkpoints,
    record: &mut RunRecord,
    writer: &mut RunWriter,
    progress: &mut dyn Progress,
) -> Result<()> {
    // Before the data are read: a newer version may read another text, or none.
    agree(run, &of_program(record))?;
    let mut session = Session::open(record.config.clone(), progress)?;
    session.name_folders_as(record);
    let interrupt = on_signals()?;
    let going_on = session.run(checkpoints, &interrupt);
    agree(run, &of_machine(record, &going_on)?)?;
    record.provenance.resume();
    writer.save(record).map_err(|error| error.stopped(run))?;
    going_on
        .train_all(record, writer, progress)
        .map_err(|error| error.stopped(run))
}

/// The file of this command, or else the one the run was told to write and has not written.
fn guide_file(args: &Args, record: &mut RunRecord) -> Result<Option<GuideFile>> {
    let benchmarks = &record.config.benchmarks;
    if let Some(path) = &args.output {
        let file = GuideFile::reserve(path, benchmarks)?;
        let absolute = std::path::absolute(path).map_err(Error::io("find", path))?;
        record.files.output = Some(absolute);
        return Ok(Some(file));
    }
    let output = record.files.output.as_deref();
    Ok(output.map(|path| GuideFile::missing(path, benchmarks)))
}

fn agree(run: &Path, differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::bad_input(
        run.display().to_string(),
        format!(
            "cannot be resumed here, the numbers would not be those of one run: {}",
            differences.join("; ")
        ),
        "resume it with the version, on the device and with the data it began with, or begin a new run",
    ))
}

/// What of the program differs from what the record says.
fn of_program(record: &RunRecord) -> Vec<String> {
    let recorded = json!({
        "protocol_version": record.protocol_version,
        "bkbench_version": record.provenance.bkbench_version,
        "config_sha256": record.config_sha256,
    });
    let now = json!({
        "protocol_version": PROTOCOL_VERSION,
        "bkbench_version": env!("CARGO_PKG_VERSION"),
        "config_sha256": record.config.sha256().ok(),
    });
    differences("", &recorded, &now)
}

/// What of the device and the data differs from what the record says.
fn of_machine(record: &RunRecord, run: &Run<'_>) -> Result<Vec<String>> {
    let hardware = json!(run.hardware.fingerprint);
    let mut found = differences("hardware", &record.hardware, &hardware);
    let recorded = texts(&record.data, record.datasets.as_ref());
    let now = texts(&run.data()?, run.datasets()?.as_ref());
    found.extend(differences("", &recorded, &now));
    Ok(found)
}

/// Every value at which two documents differ, in words.
fn differences(name: &str, recorded: &Value, now: &Value) -> Vec<String> {
    let words = |Difference {
                     key,
                     values: [recorded, now],
                 }: &Difference| { format!("{key} was {recorded} and is {now}") };
    let found = Difference::between(name, recorded, now);
    found.iter().map(words).collect()
}
