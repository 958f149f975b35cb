//! `bkbench merge`.

use std::path::{Path, PathBuf};

use super::run::RESULTS_DIR;
use super::session::finish;
use crate::Result;
use crate::results::{RunRecord, RunWriter, merge};

/// Which runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folders of runs, or their result.json
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Joins runs of one configuration that differ in their seeds, made on one adapter by one version, into a new run in results/. The
runs stay as they are; their checkpoints and metrics.jsonl stay with them. Runs that are not shards of one are refused
with what differs and exit code 3.

Examples:
  bkbench run --preset t4 --seed 42 --num_seeds 3
  bkbench run --preset t4 --seed 45 --num_seeds 2
  bkbench merge results/20260101T120000Z-longcontext-1a2b3c4d results/20260102T090000Z-longcontext-5e6f7a8b";

/// Joins shards into a new run, prints and draws it.
///
/// # Errors
/// Records that cannot be read or are not sound, runs that are no shards, or a folder that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let load = |path: &PathBuf| {
        let record = RunRecord::load(path)?;
        record.require_seal(path)?;
        Ok((path.display().to_string(), record))
    };
    let shards: Vec<(String, RunRecord)> = args.runs.iter().map(load).collect::<Result<_>>()?;
    let merged = merge(&shards)?;
    for (path, (_, record)) in args.runs.iter().zip(&shards) {
        record.require_protocol(path)?;
    }
    let writer = RunWriter::create(Path::new(RESULTS_DIR), &merged.config)?;
    writer.save(&merged)?;
    finish(&merged, writer.dir(), None)?;
    Ok(())
}
