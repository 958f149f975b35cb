//! `bkbench data`: what there is to train on, and how it becomes tokens.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::Error;
use crate::config::DataConfig;
use crate::data::{self, Tokenizer, Tokens};
use crate::units::Bytes;

/// Look at datasets and tokenizers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the datasets that can be named.
    List,
    /// Download a dataset.
    Fetch {
        /// Its name.
        name: String,
    },
    /// Split and tokenize a text as a run would, and describe it.
    Inspect {
        /// A dataset, or a UTF-8 text file.
        name_or_file: String,
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
/// As [`data::load`]; [`Error::NotAvailableYet`] for `fetch`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::List => list(),
        Command::Fetch { .. } => Err(Error::NotAvailableYet {
            what: "data fetch".into(),
        })?,
        Command::Inspect {
            name_or_file,
            tokenizer,
            json,
        } => inspect(name_or_file, tokenizer, *json)?,
        Command::Tokenize {
            file,
            tokenizer,
            json,
        } => tokenize(file, tokenizer, *json)?,
    }
    Ok(())
}

fn list() {
    println!(
        "{}    King James Version and Jane Austen's novels, part of this program",
        data::EMBEDDED
    );
    println!("--text FILE            any UTF-8 text");
    println!("tokens are kept in {}", data::cache_dir().display());
}

fn inspect(name_or_file: &str, tokenizer: &str, json: bool) -> anyhow::Result<()> {
    let mut config = DataConfig {
        tokenizer: tokenizer.into(),
        ..DataConfig::default()
    };
    if data::is_name(name_or_file) {
        config.dataset = name_or_file.into();
    } else {
        config.text = Some(name_or_file.into());
    }
    let dataset = data::load(&config, &mut |note| eprintln!("{note}"))?;
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
    for (name, split) in [
        ("training", &manifest.train),
        ("evaluation", &manifest.eval),
    ] {
        println!(
            "  {name:<15} {} tokens, {}, {:.2} bytes a token",
            split.n_tokens,
            Bytes(split.n_bytes as u64),
            split.n_bytes as f64 / split.n_tokens as f64
        );
    }
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

fn tokenize(file: &std::path::Path, tokenizer: &str, json: bool) -> anyhow::Result<()> {
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
