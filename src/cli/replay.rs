//! `bkbench replay`.

use std::path::PathBuf;

use serde_json::json;

use super::progress::Reporter;
use super::session::Session;
use crate::Error;
use crate::bench::run::Checkpoints;
use crate::results::{Replay, ReplayVerdict, RunRecord, folder};
use crate::train::Interrupt;

/// Which run, or which of its cells.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// One cell only, by its id in result.json
    #[arg(long, value_name = "ID")]
    cell: Option<String>,
}

const EXAMPLES: &str = "\
Derives means and hashes again, takes the first 5 steps of every training again, and evaluates the last weights again where
--save_checkpoints kept them. Everything must agree to the bit. The outcome is kept in replay.json beside the record, where
`bkbench report` finds it; the record stays as it is. Exit code 1 where something differs.

Examples:
  bkbench replay results/20260101T120000Z-longcontext-1a2b3c4d";

/// Compares a record with what it follows from, prints a line a comparison, and keeps the outcome beside the record.
///
/// # Errors
/// Bad input, a device that fails, or a difference.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let record = RunRecord::load(&args.run)?;
    // A broken seal is what a replay is to find; another protocol gives other numbers in any case.
    record.require_protocol(&args.run)?;
    let mut session = Session::open(record.config.clone(), &mut Reporter::new(quiet))?;
    session.name_folders_as(&record);
    let (checkpoints, interrupt) = (
        Checkpoints::of(&record.files, folder(&args.run)),
        Interrupt::default(),
    );
    let run = session.run(&checkpoints, &interrupt);
    let mut checks = Vec::new();
    run.replay(&record, args.cell.as_deref(), &mut |check| {
        let (word, why) = match &check.verdict {
            ReplayVerdict::Same => ("same", ""),
            ReplayVerdict::NotCompared(why) => ("not compared", why.as_str()),
            ReplayVerdict::Differs(how) => ("DIFFERS", how.as_str()),
        };
        let line = format!("{word:<12}  {:<15} {:<50}  {why}", check.what, check.of);
        println!("{}", line.trim_end());
        checks.push(check);
    })?;
    let replay = Replay::new(
        json!(session.hardware.fingerprint),
        record.content_sha256()?,
        args.cell.clone(),
        checks,
    );
    let [n_same, n_differ, n_not_compared] = replay.counts();
    println!("{n_same} same, {n_differ} differ, {n_not_compared} not compared");
    // An archive may be read-only.
    if let Err(error) = replay.save(&args.run) {
        eprintln!("warning: the outcome is not kept: {error}");
    }
    if n_differ > 0 {
        let text = format!("{n_differ} comparison(s) of {} differ", args.run.display());
        return Err(Error::CheckFailed(text).into());
    }
    Ok(())
}
