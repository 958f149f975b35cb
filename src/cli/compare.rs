//! `bkbench compare`.

use std::path::PathBuf;

use serde_json::json;

use crate::report::compare;
use crate::report::document::visible;
use crate::report::plot::{Format, across};
use crate::results::{Difference, RunRecord, across_adapters, incomparable, problems};
use crate::{Error, Result};

/// Which runs, and what is asked of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folders of runs, or their result.json; the first one is what the others are held against
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Also take the seeds of all adapters together, in rows that say so
    #[arg(long)]
    pool: bool,
    /// Picture to write, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Runs may be compared where protocol, configuration, text, tokenizer and precision agree; device, seeds and what changes no
result may differ. Where they may not, every difference is named and the exit code is 3. Seeds are taken together where
the fingerprint agrees too: adapter, driver, versions; on the CPU threads and instruction set.

Examples:
  bkbench compare results/20260101T120000Z-longcontext-1a2b3c4d results/20260102T090000Z-longcontext-5e6f7a8b
  bkbench compare results/*-longcontext-* --pool --output adapters.png";

/// Prints whether runs may be compared, and compares them.
///
/// # Errors
/// Records that cannot be read, runs that may not be compared, or a picture that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(output) = &args.output {
        Format::of(output)?;
    }
    let load = |path: &PathBuf| Ok((path.display().to_string(), RunRecord::load(path)?));
    let runs: Vec<(String, RunRecord)> = args.runs.iter().map(load).collect::<Result<_>>()?;
    let problems: Vec<(&String, Vec<String>)> = runs
        .iter()
        .map(|(name, record)| (name, problems(record)))
        .collect();
    let apart = apart(&runs)?;
    if !apart.is_empty() {
        if args.json {
            let differences = apart.iter().map(|(name, differences)| {
                json!({"run": name, "against": runs[0].0, "differences": differences})
            });
            let differences: Vec<_> = differences.collect();
            let document = json!({"comparable": false, "differences": differences});
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
        return Err(refusal(&runs[0].0, &apart).into());
    }
    let across = across_adapters(&runs, args.pool)?;
    if args.json {
        let problems = problems
            .iter()
            .map(|(name, found)| json!({"run": name, "problems": found}));
        let document = json!({
            "comparable": true,
            "problems": problems.collect::<Vec<_>>(),
            "across": across,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        for (name, problem) in problems
            .iter()
            .flat_map(|(name, found)| found.iter().map(move |problem| (name, problem)))
        {
            println!("{}", visible(&format!("WARNING: {name}: {problem}")));
        }
        println!("Comparable: protocol, configuration, text, tokenizer and precision agree.");
        print!("{}", compare::text(&across));
    }
    if let Some(output) = &args.output {
        across::draw(&across)?.save(output)?;
        if !args.json {
            println!("drawn: {}", output.display());
        }
    }
    Ok(())
}

/// The runs that may not be compared with the first one, and what differs.
fn apart(runs: &[(String, RunRecord)]) -> Result<Vec<(&str, Vec<Difference>)>> {
    let Some(((_, first), others)) = runs.split_first() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (name, record) in others {
        let differences = incomparable(first, record)?;
        if !differences.is_empty() {
            found.push((name.as_str(), differences));
        }
    }
    Ok(found)
}

fn refusal(first: &str, apart: &[(&str, Vec<Difference>)]) -> Error {
    let line = |(name, differences): &(&str, Vec<Difference>)| {
        let lines = differences.iter().map(move |it| format!("{name}: {it}"));
        lines.collect::<Vec<_>>()
    };
    let differences = match apart {
        [(_, differences)] => differences.iter().map(ToString::to_string).collect(),
        _ => apart.iter().flat_map(line).collect(),
    };
    let names: Vec<&str> = apart.iter().map(|(name, _)| *name).collect();
    Error::NotComparable {
        what: format!("{} may not be compared with {first}", names.join(", ")),
        differences,
        advice: "run them again with the same settings, text and version".into(),
    }
}
