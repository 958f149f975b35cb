//! `bkbench stats`.

use std::path::PathBuf;

use serde_json::json;

use crate::Error;
use crate::report::document::visible;
use crate::report::statistics;
use crate::results::{
    ChecklistItem, ChecklistStatus, Claim, Comparison, RunRecord, checklist, comparisons, judge,
    lacking, problems,
};

/// Which runs, and what is asked of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folders of runs, or their result.json
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Claims to judge [default: those of the benchmarking guide]
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// End with exit code 1 where an item of the checklist is not met
    #[arg(long)]
    require_checklist: bool,
}

const EXAMPLES: &str = "\
Compares models a and b of every run, setting by setting, judges the claims, and answers the benchmarking guide's checklist. Each
run is tested by itself: seeds of several runs are not pooled. Writes nothing.

Examples:
  bkbench stats results/20260101T120000Z-longcontext-1a2b3c4d
  bkbench stats results/*-longcontext-* results/*-quantization-* --claims my_claims.toml --json";

/// One run with what follows from it.
struct Analysed {
    comparisons: Vec<Comparison>,
    checklist: Vec<ChecklistItem>,
}

/// Prints the statistics of recorded runs.
///
/// # Errors
/// Records or claims that cannot be read, or a checklist that was required and is not met.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let claims = match &args.claims {
        Some(path) => Claim::load(path)?,
        None => Claim::of_the_guide()?,
    };
    let load = |path: &PathBuf| Ok((path.display().to_string(), RunRecord::load(path)?));
    let runs: Vec<(String, RunRecord)> =
        args.runs.iter().map(load).collect::<Result<_, Error>>()?;
    let analyse = |(_, record): &(String, RunRecord)| {
        let comparisons = comparisons(record);
        Analysed {
            checklist: checklist(record, &comparisons),
            comparisons,
        }
    };
    let analysed: Vec<Analysed> = runs.iter().map(analyse).collect();
    let judgements = judge(&claims, &runs);
    if args.json {
        let run = |((name, record), analysed): (&(String, RunRecord), &Analysed)| {
            json!({
                "run": name,
                "benchmarks": record.config.benchmarks,
                "config_sha256": record.config_sha256,
                "problems": problems(record),
                "lacking_for_claims": lacking(record),
                "comparisons": analysed.comparisons,
                "checklist": analysed.checklist,
            })
        };
        let runs: Vec<_> = runs.iter().zip(&analysed).map(run).collect();
        let document = json!({"claims": judgements, "runs": runs});
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        for (name, record) in &runs {
            for problem in problems(record) {
                println!("{}", visible(&format!("WARNING: {name}: {problem}")));
            }
        }
        println!("{}", visible(&statistics::claims(&judgements)));
        for lacking in runs.iter().filter_map(statistics::lacking) {
            println!("{}\n", visible(&lacking));
        }
        for ((name, record), analysed) in runs.iter().zip(&analysed) {
            println!("{name} ({})", record.config.title());
            println!(
                "{}",
                visible(&statistics::comparisons(record, &analysed.comparisons))
            );
            println!("{}", visible(&statistics::checklist(&analysed.checklist)));
        }
    }
    let items = analysed.iter().flat_map(|analysed| &analysed.checklist);
    let n_not_met = items
        .filter(|item| item.status == ChecklistStatus::NotMet)
        .count();
    if args.require_checklist && n_not_met > 0 {
        let text = format!("{n_not_met} item(s) of the checklist are not met");
        return Err(Error::CheckFailed(text).into());
    }
    Ok(())
}
