//! `bkbench data`: what there is to train on, and how it becomes tokens.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::config::DataConfig;
use crate::data::fetch::{self, Event};
use crate::data::registry::{ENTRIES, Entry, Split};
use crate::data::{self, Corpus, SplitManifest, Tokenizer, Tokens};
use crate::units::{Bytes, Count};

/// Time between two lines about a download where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Look at datasets and tokenizers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the datasets that can be named, and which of them are here.
    List {
        /// The folder that holds the datasets' files [default: datasets in the cache folder].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Download a dataset from the Hugging Face hub, or from the address in `HF_ENDPOINT`.
    Fetch {
        /// Its name.
        name: String,
        /// The folder to put it into [default: datasets in the cache folder].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// How many files of the training split, where it comes in many [default: the first].
        #[arg(long, value_name = "N")]
        shards: Option<usize>,
    },
    /// Split and tokenize a text as a run would, and describe it.
    Inspect {
        /// A dataset; or a text, a file of json lines or parquet, or a folder.
        name_or_file: String,
        /// The folder that holds the datasets' files [default: datasets in the cache folder].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Tokens of training text to read [default: all].
        #[arg(long, value_name = "N")]
        train_tokens: Option<usize>,
        /// Tokens of held-out text to read [default: all].
        #[arg(long, value_name = "N")]
        eval_tokens: Option<usize>,
        /// bytes, gpt2 or a tokenizer.json file.
        #[arg(long, default_value = "gpt2")]
        tokenizer: String,
        /// Print one JSON document: the manifest of a run's record.
        #[arg(long)]
        json: bool,
    },
    /// Count the tokens of a whole file, encoded as one string.
    Tokenize {
        /// A UTF-8 text file.
        file: PathBuf,
        /// bytes, gpt2 or a tokenizer.json file.
        #[arg(long, default_value = "gpt2")]
        tokenizer: String,
        /// Print one JSON document, with the sha256 of the ids as little-endian u16 (u32 for
        /// vocabularies above 65,536).
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// As [`data::load`] and [`fetch::fetch`].
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let with_dir = |dir: &Option<PathBuf>| DataConfig {
        dir: dir.clone(),
        ..DataConfig::default()
    };
    match &args.command {
        Command::List { data_dir } => list(&data::data_dir(&with_dir(data_dir)))?,
        Command::Fetch {
            name,
            data_dir,
            shards,
        } => {
            let dir = data::data_dir(&with_dir(data_dir));
            let entry = Entry::find(name)?;
            let mut download = Download::new(quiet);
            fetch::fetch(entry, &dir, *shards, &mut |event| download.hear(event))?;
            println!("{name}, {}, is in {}", entry.licence, dir.display());
        }
        Command::Inspect {
            name_or_file,
            data_dir,
            train_tokens,
            eval_tokens,
            tokenizer,
            json,
        } => {
            let mut config = DataConfig {
                tokenizer: tokenizer.clone(),
                train_tokens: *train_tokens,
                eval_tokens: *eval_tokens,
                ..with_dir(data_dir)
            };
            if data::is_name(name_or_file) {
                config.dataset.clone_from(name_or_file);
            } else {
                config.text = Some(name_or_file.into());
            }
            inspect(&config, *json)?;
        }
        Command::Tokenize {
            file,
            tokenizer,
            json,
        } => tokenize(file, tokenizer, *json)?,
    }
    Ok(())
}

fn list(dir: &Path) -> crate::Result<()> {
    println!(
        "{:<20}King James Version and Jane Austen's novels, part of this program",
        data::EMBEDDED
    );
    for entry in ENTRIES {
        let mut here = Vec::new();
        for split in entry.splits {
            if !entry.files(split.split, dir)?.is_empty() {
                here.push(split.split.to_string());
            }
        }
        let here = if here.is_empty() {
            "not here".into()
        } else {
            format!("here: {}", here.join(", "))
        };
        println!(
            "{:<20}{} ({}); {here}",
            entry.name, entry.title, entry.licence
        );
    }
    println!(
        "{:<20}any UTF-8 text, json lines, parquet, or a folder of texts",
        "--text PATH"
    );
    println!("datasets are looked for in {}", dir.display());
    println!("tokens are kept in {}", data::cache_dir().display());
    Ok(())
}

fn inspect(config: &DataConfig, json: bool) -> anyhow::Result<()> {
    let mut note = |note: &str| eprintln!("{note}");
    // What has no training split is described all the same.
    if config.text.is_none() && config.dataset != data::EMBEDDED {
        let corpus = Corpus::named(&config.dataset, &data::data_dir(config))?;
        if corpus.splits().all(|split| split != Split::Train) {
            let manifest = data::load_held_out(config, &data::cache_dir(), &mut note)?.manifest;
            if json {
                println!("{}", serde_json::to_string_pretty(&manifest)?);
            } else {
                println!("{} ({}), no training split", manifest.name, manifest.source);
                describe("evaluation", &manifest.eval);
                println!("  held out        {}", manifest.held_out_rule);
            }
            return Ok(());
        }
    }
    let dataset = data::load(config, &mut note)?;
    let manifest = &dataset.manifest;
    if json {
        println!("{}", serde_json::to_string_pretty(manifest)?);
        return Ok(());
    }
    println!("{} ({})", manifest.name, manifest.source);
    println!("  text sha256     {}", manifest.text_sha256);
    println!(
        "  tokenizer       {}, {} ids",
        manifest.tokenizer, manifest.vocab_size
    );
    describe("training", &manifest.train);
    describe("evaluation", &manifest.eval);
    println!(
        "  unigram         {:.4} nats a token",
        manifest.unigram_ce_nats
    );
    println!("  held out        {}", manifest.held_out_rule);
    let start = dataset
        .tokenizer
        .decode(&dataset.eval.prefix(64).iter().collect::<Vec<_>>())?;
    println!("  evaluation text starts with\n{start}");
    Ok(())
}

fn describe(name: &str, split: &SplitManifest) {
    println!(
        "  {name:<15} {} tokens, {}, {:.2} bytes a token",
        split.n_tokens,
        Bytes(split.n_bytes as u64),
        split.n_bytes as f64 / split.n_tokens as f64
    );
    for source in split.provenance.iter().flat_map(|read| &read.files) {
        println!(
            "    {}, {} read, sha256 {}",
            source.file,
            Bytes(source.n_bytes),
            source.sha256
        );
    }
    if let Some(read) = &split.provenance {
        let words = read
            .n_words
            .map(|n| format!(", {} words and ends of sentences", Count(n)));
        println!(
            "    {} documents{}{}",
            Count(read.n_documents),
            words.unwrap_or_default(),
            if read.complete {
                ", read to the end"
            } else {
                ""
            }
        );
    }
}

/// Shows a download: a bar on a terminal, lines elsewhere.
struct Download {
    quiet: bool,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Download {
    fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant; a mistake in it leaves the default style.
            match ProgressStyle::with_template(
                "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
            ) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            quiet,
            bar,
            last_line: Instant::now(),
        }
    }

    fn hear(&mut self, event: &Event<'_>) {
        match (event, &self.bar) {
            (
                Event::Transfer {
                    file,
                    n_done,
                    n_bytes,
                },
                Some(bar),
            ) => {
                bar.set_message((*file).to_owned());
                bar.set_length(*n_bytes);
                bar.set_position(*n_done);
            }
            (
                Event::Transfer {
                    file,
                    n_done,
                    n_bytes,
                },
                None,
            ) => {
                if !self.quiet && self.last_line.elapsed() >= BETWEEN_LINES {
                    self.last_line = Instant::now();
                    eprintln!("  {file}: {} of {}", Bytes(*n_done), Bytes(*n_bytes));
                }
            }
            (
                Event::Done {
                    file,
                    n_bytes,
                    sha256,
                },
                bar,
            ) => {
                let checked = match sha256 {
                    Some(sha256) => format!("sha256 {sha256}"),
                    None => "its length is right; the hub names no sha256".into(),
                };
                let line = format!("{file}: {n_bytes}, {checked}");
                match bar {
                    Some(bar) => bar.suspend(|| println!("{line}")),
                    None => println!("{line}"),
                }
            }
        }
    }
}

fn tokenize(file: &Path, tokenizer: &str, json: bool) -> anyhow::Result<()> {
    let tokenizer = Tokenizer::new(tokenizer)?;
    let text = data::read_utf8(file)?;
    let tokens = Tokens::from_ids(&tokenizer.encode(&text)?, tokenizer.vocab_size());
    if json {
        let document = json!({
            "file": file,
            "tokenizer": tokenizer.name(),
            "tokenizer_sha256": tokenizer.sha256(),
            "n_bytes": text.len(),
            "n_tokens": tokens.len(),
            "ids_sha256": tokens.sha256(),
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        println!(
            "{}: {} tokens of {}, {:.2} bytes a token",
            file.display(),
            tokens.len(),
            tokenizer.name(),
            text.len() as f64 / tokens.len() as f64
        );
    }
    Ok(())
}
