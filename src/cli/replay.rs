//! `bkbench replay`.

use std::path::PathBuf;

use super::progress::Reporter;
use super::session::Session;
use crate::Error;
use crate::bench::run::{Checkpoints, Verdict};
use crate::results::RunRecord;
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
--save_checkpoints kept them. Everything must agree to the bit. Writes nothing; exit code 1 where something differs.

Examples:
  bkbench replay results/20260101T120000Z-longcontext-1a2b3c4d";

/// Compares a record with what it follows from and prints a line a comparison.
///
/// # Errors
/// Bad input, a device that fails, or a difference.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let record = RunRecord::load(&args.run)?;
    let session = Session::open(record.config.clone(), &mut Reporter::new(quiet))?;
    let (checkpoints, interrupt) = (
        Checkpoints::of(&record.files, &args.run),
        Interrupt::default(),
    );
    let run = session.run(&checkpoints, &interrupt);
    let (mut n_same, mut n_not_compared, mut n_differ) = (0, 0, 0);
    run.replay(&record, args.cell.as_deref(), &mut |check| {
        let (word, why) = match &check.verdict {
            Verdict::Same => {
                n_same += 1;
                ("same", "")
            }
            Verdict::NotCompared(why) => {
                n_not_compared += 1;
                ("not compared", why.as_str())
            }
            Verdict::Differs(how) => {
                n_differ += 1;
                ("DIFFERS", how.as_str())
            }
        };
        let line = format!("{word:<12}  {:<15} {:<50}  {why}", check.what, check.of);
        println!("{}", line.trim_end());
    })?;
    println!("{n_same} same, {n_differ} differ, {n_not_compared} not compared");
    if n_differ > 0 {
        let text = format!("{n_differ} comparison(s) of {} differ", args.run.display());
        return Err(Error::CheckFailed(text).into());
    }
    Ok(())
}
