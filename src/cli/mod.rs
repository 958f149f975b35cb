//! Command line: clap types, progress, exit codes.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line is what prints"
)]

pub mod audit;
pub mod compare;
pub mod data;
pub mod devices;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod kernels;
pub mod merge;
pub mod plot;
mod progress;
pub mod replay;
pub mod report;
pub mod resume;
pub mod run;
mod session;
pub mod stats;
pub mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::Error;
use crate::report::document::visible;

/// Trains and compares O(N) language models, ResNet-BK against Mamba first, on any GPU that wgpu reaches and on a plain CPU.
#[derive(Debug, Parser)]
#[command(name = "bkbench", version, args_override_self = true, after_help = EXAMPLES)]
struct Cli {
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bkbench run --preset smoke
  bkbench run --benchmark longcontext --seq_lengths 8192 32768 --num_seeds 5 --output results/longcontext.json
  bkbench stats results/20260101T120000Z-longcontext-1a2b3c4d
  bkbench report results/20260101T120000Z-longcontext-1a2b3c4d
  bkbench compare results/20260101T120000Z-longcontext-1a2b3c4d results/20260102T090000Z-longcontext-5e6f7a8b
  bkbench plot stability --results_file results/longcontext.json --output results/stability.pdf
  bkbench resume results/20260101T120000Z-longcontext-1a2b3c4d
  bkbench devices

Flags may be written with underscores or hyphens. Exit codes: 0 done, 1 a check failed or the run broke, 2 bad input,
3 results that do not belong together, 130 interrupted.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train the models and record what happens
    Run(Box<run::Args>),
    /// Go on with a run where it stopped
    Resume(resume::Args),
    /// Derive and train again what a record says, and compare
    Replay(replay::Args),
    /// Compare the models of recorded runs, judge claims, answer the checklist
    Stats(stats::Args),
    /// Write a report of recorded runs: HTML, Markdown, CSV, LaTeX
    Report(report::Args),
    /// Hold runs on several adapters against each other
    Compare(compare::Args),
    /// Join runs that differ in their seeds
    Merge(merge::Args),
    /// Draw results
    Plot(plot::Args),
    /// Look at datasets and tokenizers
    Data(data::Args),
    /// List the adapters of this machine and what `--device auto` takes
    Devices(devices::Args),
    /// Say whether this machine is fit, and what mends it
    Doctor(doctor::Args),
    /// Time every kernel against the device and plain loops
    Kernels(kernels::Args),
    /// Check a model: causality, initial loss, gradients, determinism, data, size, kernels
    Audit(audit::Args),
    /// Check every kernel against published vectors and the sequential oracle
    Verify(verify::Args),
    /// Perplexity and bits per byte of a trained model on a text
    Eval(eval::Args),
    /// Write text with a trained model
    Generate(generate::Args),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Parses the command line, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    // As in `bkbench stats RUN | head`: where nobody reads on, the process ends as others do, with the status of the signal.
    #[cfg(unix)]
    {
        use signal_hook::{consts::SIGPIPE, flag};
        let always = std::sync::Arc::new(true.into());
        if let Err(error) = flag::register_conditional_shutdown(SIGPIPE, 128 + SIGPIPE, always) {
            eprintln!("warning: a closed pipe will be an error: {error}");
        }
    }
    let cli = Cli::parse_from(std::env::args_os().map(with_hyphens));
    let done = match &cli.command {
        Command::Run(args) => run::run(args, cli.quiet),
        Command::Resume(args) => resume::run(args, cli.quiet),
        Command::Replay(args) => replay::run(args, cli.quiet),
        Command::Stats(args) => stats::run(args),
        Command::Report(args) => report::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Plot(args) => plot::run(args, cli.quiet),
        Command::Data(args) => data::run(args, cli.quiet),
        Command::Devices(args) => devices::run(args),
        Command::Doctor(args) => doctor::run(args, cli.quiet),
        Command::Kernels(args) => kernels::run(args, cli.quiet),
        Command::Audit(args) => audit::run(args, cli.quiet),
        Command::Verify(args) => verify::run(args),
        Command::Eval(args) => eval::run(args, cli.quiet),
        Command::Generate(args) => generate::run(args, cli.quiet),
        Command::Other(words) => Err(not_a_command(words).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", visible(&format!("{error:#}")));
            error
                .downcast_ref::<Error>()
                .map_or(1, Error::exit_code)
                .into()
        }
    }
}

/// A long flag with every underscore of its name turned into a hyphen; anything else as it is.
fn with_hyphens(arg: OsString) -> OsString {
    match arg.to_str().and_then(|text| text.strip_prefix("--")) {
        Some(flag) => {
            let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
            format!("--{}{value}", name.replace('_', "-")).into()
        }
        None => arg,
    }
}

fn not_a_command(words: &[String]) -> Error {
    let name = words.first().map_or("", String::as_str);
    let known = <Cli as clap::CommandFactory>::command();
    let known = known
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    Error::UnknownName {
        kind: "command",
        name: name.into(),
        known,
    }
}

/// A count of something, also as `1e9`.
fn count(text: &str) -> Result<u64, String> {
    let whole = || {
        let value: f64 = text.parse().ok()?;
        // Every integer up to 2^53 is a float; beyond it `1e18` would not mean one number.
        (value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value))
            .then_some(value as u64)
    };
    text.parse()
        .ok()
        .or_else(whole)
        .ok_or_else(|| "not a whole number that is at least 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn only_names_of_flags_are_respelt() {
        for (given, expected) in [
            ("--seq_lengths", "--seq-lengths"),
            ("--text=my_file.txt", "--text=my_file.txt"),
            ("--results_file=my_run", "--results-file=my_run"),
            ("my_file.txt", "my_file.txt"),
            ("--", "--"),
            ("-q_x", "-q_x"),
        ] {
            assert_eq!(with_hyphens(given.into()), expected);
        }
    }

    #[test]
    fn counts_may_be_written_as_powers_of_ten() {
        assert_eq!(count("1e9"), Ok(1_000_000_000));
        assert_eq!(count("8192"), Ok(8192));
        assert_eq!(count("18446744073709551615"), Ok(u64::MAX));
        for bad in ["-1", "1.5", "1e300", "nan", "", "many", "1_000"] {
            assert!(count(bad).is_err(), "{bad}");
        }
    }
}
