//! `bkbench plot`.

use std::path::PathBuf;

use crate::Error;
use crate::report::plot::{Format, stability};
use crate::results::ResultsFile;

/// Which graph.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    graph: Graph,
}

#[derive(Debug, clap::Subcommand)]
enum Graph {
    /// Training loss per sequence length, a curve a model
    Stability(Stability),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Debug, clap::Args)]
struct Stability {
    /// Folder of a run, its result.json, or a file that `run --output` wrote (which has no curves)
    #[arg(long, value_name = "PATH")]
    results_file: PathBuf,
    /// Picture to write, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Sequence lengths to show [default: all]
    #[arg(long, num_args = 1.., value_name = "N", value_parser = super::count)]
    seq_lengths: Vec<u64>,
    /// Mark where seeds diverged
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    annotate_divergence: bool,
    /// Show the 95 % t interval over seeds
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_confidence_intervals: bool,
}

/// Draws a graph of recorded results.
///
/// # Errors
/// Results that cannot be read, a graph or format that does not exist, or a place that cannot be written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let args = match &args.graph {
        Graph::Stability(args) => args,
        Graph::Other(words) => return Err(not_a_graph(words).into()),
    };
    Format::of(&args.output)?;
    let options = stability::Options {
        seq_lengths: args.seq_lengths.iter().map(|&n| n as usize).collect(),
        annotate_divergence: args.annotate_divergence,
        show_confidence_intervals: args.show_confidence_intervals,
    };
    let drawing = stability::draw(&ResultsFile::load(&args.results_file)?, &options)?;
    for note in &drawing.notes {
        eprintln!("note: {note}");
    }
    drawing.save(&args.output)?;
    if !quiet {
        println!("drawn: {}", args.output.display());
    }
    Ok(())
}

fn not_a_graph(words: &[String]) -> Error {
    let name = words.first().map_or("", String::as_str);
    if ["quantization", "efficiency", "multidataset"].contains(&name) {
        Error::NotAvailableYet {
            what: format!("bkbench plot {name}"),
        }
    } else {
        Error::UnknownName {
            kind: "graph",
            name: name.into(),
            known: vec!["stability".into()],
        }
    }
}
