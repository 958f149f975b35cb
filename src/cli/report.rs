//! `bkbench report`.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::report::csv;
use crate::report::document::Document;
use crate::results::{Claim, Replay, RunRecord, folder, write_whole};
use crate::{Error, Result};

/// Which runs, and what is written of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folders of runs, or their result.json
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// File to write [default: report.html, .md, .csv or .tex in the folder of the run; needed for several runs]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write [default: by the ending of --output, else html]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Claims to judge [default: those of the benchmarking guide]
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Replace files of these names
    #[arg(long)]
    overwrite: bool,
}

const EXAMPLES: &str = "\
html is one page with verdicts, plots, tables and provenance that needs no network; markdown is the same without plots; latex
holds the tables alone. csv holds means over seeds, and writes every cell's raw values into a second file, FILE.cells.csv.

Examples:
  bkbench report results/20260101T120000Z-longcontext-1a2b3c4d
  bkbench report results/*-longcontext-* results/*-quantization-* --output both.html
  bkbench report results/20260101T120000Z-longcontext-1a2b3c4d --format csv";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Html,
    Markdown,
    Csv,
    Latex,
}

impl Format {
    const ALL: [Self; 4] = [Self::Html, Self::Markdown, Self::Csv, Self::Latex];

    fn ending(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Markdown => "md",
            Self::Csv => "csv",
            Self::Latex => "tex",
        }
    }

    /// The format that a file's name asks for.
    fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_it = |format: &Self| ending == Some(format.ending());
        Self::ALL.into_iter().find(is_it).ok_or_else(|| {
            Error::bad_input(
                format!("--output {}", path.display()),
                "no known format",
                "let the name end in .html, .md, .csv or .tex, or name the format by --format",
            )
        })
    }
}

/// Writes a report of recorded runs and prints where it is.
///
/// # Errors
/// Records or claims that cannot be read, a file that is there already, or a place that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let format = match (args.format, &args.output) {
        (Some(format), _) => format,
        (None, Some(path)) => Format::of(path)?,
        (None, None) => Format::Html,
    };
    let output = match (&args.output, args.runs.as_slice()) {
        (Some(path), _) => path.clone(),
        (None, [run]) => {
            let file = format!("report.{}", format.ending());
            folder(run).join(file)
        }
        (None, _) => {
            return Err(Error::bad_input(
                "several runs",
                "they have no common folder",
                "name a file by --output",
            )
            .into());
        }
    };
    let claims = match &args.claims {
        Some(path) => Claim::load(path)?,
        None => Claim::of_the_guide()?,
    };
    let load = |path: &PathBuf| Ok((path.display().to_string(), RunRecord::load(path)?));
    let runs: Vec<(String, RunRecord)> = args.runs.iter().map(load).collect::<Result<_>>()?;
    let replays = args.runs.iter().map(|run| Replay::beside(run));
    let replays: Vec<Option<Replay>> = replays.collect::<Result<_>>()?;
    let document = || Document::of(&runs, &replays, &claims);
    let files = match format {
        Format::Html => vec![(output, document().html())],
        Format::Markdown => vec![(output, document().markdown())],
        Format::Latex => vec![(output, document().latex())],
        Format::Csv => vec![
            (output.with_extension("cells.csv"), csv::cells(&runs)),
            (output, csv::summaries(&runs)),
        ],
    };
    // What would be lost is found before anything is written.
    if !args.overwrite
        && let Some((path, _)) = files.iter().find(|(path, _)| path.exists())
    {
        return Err(is_there(path).into());
    }
    for (path, text) in &files {
        write(path, text, args.overwrite)?;
        println!("report: {}", path.display());
    }
    Ok(())
}

fn is_there(path: &Path) -> Error {
    Error::bad_input(
        path.display().to_string(),
        "is there already",
        "give --overwrite to replace it, or another --output",
    )
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, overwrite: bool) -> Result<()> {
    let written = write_whole(path, overwrite, |file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        _ => Error::bad_input(
            format!("--output {}", path.display()),
            format!("cannot be written: {error}"),
            "name a file in a folder in which you may write",
        ),
    })
}
