//! `bkbench plot`.

use std::path::{Path, PathBuf};

use crate::quant::BitWidth;
use crate::report::document::visible;
use crate::report::plot::{Drawing, Format, efficiency, multidataset, quantization, stability};
use crate::results::{ResultsFile, problems};
use crate::{Error, Result};

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
    /// Held-out perplexity per width of the weights, a curve a model
    Quantization(Quantization),
    /// Held-out perplexity against FLOPs, a curve a model
    Efficiency(Efficiency),
    /// Held-out perplexity on each dataset, a point a model
    Multidataset(Multidataset),
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

#[derive(Debug, clap::Args)]
struct Quantization {
    /// Folder of a run, its result.json, or a file that `run --output` wrote
    #[arg(long, value_name = "PATH")]
    results_file: PathBuf,
    /// Picture to write, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Widths to show: 32 16 8 4 2 [default: all that were measured]
    #[arg(long, num_args = 1.., value_name = "BITS")]
    bit_widths: Vec<u32>,
    /// Draw a line at this perplexity [default without a value: 100]
    #[arg(long, num_args = 0..=1, default_missing_value = "100", value_name = "PPL")]
    annotate_threshold: Option<f64>,
    /// Show the 95 % t interval over seeds
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_confidence_intervals: bool,
}

#[derive(Debug, clap::Args)]
struct Efficiency {
    /// Folder of a run, its result.json, or a file that `run --output` wrote
    #[arg(long, value_name = "PATH")]
    results_file: PathBuf,
    /// Picture to write, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Budgets to show [default: all]
    #[arg(long, num_args = 1.., value_name = "FLOPS")]
    flops_budgets: Vec<f64>,
    /// Set off each model's Pareto front
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    annotate_pareto: bool,
    /// Show the 95 % t interval over seeds
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_confidence_intervals: bool,
}

#[derive(Debug, clap::Args)]
struct Multidataset {
    /// Folder of a run, its result.json, or a file that `run --output` wrote
    #[arg(long, value_name = "PATH")]
    results_file: PathBuf,
    /// Picture to write, .svg, .png or .pdf; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Show the 95 % t interval over seeds
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_confidence_intervals: bool,
}

impl Multidataset {
    fn draw(&self) -> Result<Drawing> {
        let options = multidataset::Options {
            show_confidence_intervals: self.show_confidence_intervals,
        };
        multidataset::draw(&load(&self.results_file)?, options)
    }
}

impl Efficiency {
    fn draw(&self) -> Result<Drawing> {
        let options = efficiency::Options {
            flops_budgets: self.flops_budgets.clone(),
            annotate_pareto: self.annotate_pareto,
            show_confidence_intervals: self.show_confidence_intervals,
        };
        efficiency::draw(&load(&self.results_file)?, &options)
    }
}

impl Quantization {
    fn draw(&self) -> Result<Drawing> {
        if let Some(threshold) = self.annotate_threshold
            && !(threshold.is_finite() && threshold > 0.0)
        {
            return Err(Error::bad_input(
                format!("--annotate_threshold {threshold}"),
                "no perplexity",
                "give a number above 0",
            ));
        }
        let widths = self
            .bit_widths
            .iter()
            .map(|&bits| BitWidth::from_bits(bits));
        let options = quantization::Options {
            bit_widths: widths.collect::<Result<_>>()?,
            annotate_threshold: self.annotate_threshold,
            show_confidence_intervals: self.show_confidence_intervals,
        };
        quantization::draw(&load(&self.results_file)?, &options)
    }
}

impl Stability {
    fn draw(&self) -> Result<Drawing> {
        let options = stability::Options {
            seq_lengths: self.seq_lengths.iter().map(|&n| n as usize).collect(),
            annotate_divergence: self.annotate_divergence,
            show_confidence_intervals: self.show_confidence_intervals,
        };
        stability::draw(&load(&self.results_file)?, &options)
    }
}

/// Draws a graph of recorded results.
///
/// # Errors
/// Results that cannot be read, a graph or format that does not exist, or a place that cannot be written.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let output = match &args.graph {
        Graph::Stability(args) => &args.output,
        Graph::Quantization(args) => &args.output,
        Graph::Efficiency(args) => &args.output,
        Graph::Multidataset(args) => &args.output,
        Graph::Other(words) => return Err(not_a_graph(words).into()),
    };
    Format::of(output)?;
    let drawing = match &args.graph {
        Graph::Stability(args) => args.draw()?,
        Graph::Quantization(args) => args.draw()?,
        Graph::Efficiency(args) => args.draw()?,
        Graph::Multidataset(args) => args.draw()?,
        Graph::Other(words) => return Err(not_a_graph(words).into()),
    };
    for note in &drawing.notes {
        eprintln!("note: {}", visible(note));
    }
    drawing.save(output)?;
    if !quiet {
        println!("drawn: {}", output.display());
    }
    Ok(())
}

/// Reads results, and says what makes a record less than it says.
fn load(path: &Path) -> Result<ResultsFile> {
    let results = ResultsFile::load(path)?;
    if let ResultsFile::Record(record) = &results {
        for problem in problems(record) {
            let line = format!("WARNING: {}: {problem}", path.display());
            eprintln!("{}", visible(&line));
        }
    }
    Ok(results)
}

fn not_a_graph(words: &[String]) -> Error {
    let name = words.first().map_or("", String::as_str);
    Error::UnknownName {
        kind: "graph",
        name: name.into(),
        known: ["stability", "quantization", "efficiency", "multidataset"]
            .map(Into::into)
            .to_vec(),
    }
}
