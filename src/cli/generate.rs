//! `bkbench generate`: text from a trained model, by its recurrent state.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::count;
use crate::data::TextStream;
use crate::hardware::{self, DeviceChoice};
use crate::models::checkpoint;
use crate::models::generation::{Decoder, Sampling};
use crate::units::Count;
use crate::{Error, Result};

/// Which model, from which beginning, drawn how.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A cell's folder kept by `bkbench run --save_checkpoints`, or a Mamba model in the official layout
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// The beginning of the text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Tokens to write, at most
    #[arg(long, value_name = "N", value_parser = count, default_value_t = 256)]
    n_tokens: u64,
    /// Above 1 more varied, below 1 less; 0 always takes the likeliest token
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        default_value_t = 1.0
    )]
    temperature: f64,
    /// Draw among so many of the likeliest tokens only [default: among all]
    #[arg(long, value_name = "K", value_parser = count)]
    top_k: Option<u64>,
    /// Of the draws: equal seeds write equal texts on one device
    #[arg(long, value_name = "N", value_parser = count, default_value_t = 42)]
    seed: u64,
    /// bytes, gpt2 or a tokenizer.json [default: the one that belongs to the checkpoint]
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document at the end instead of the text as it comes
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
The prompt is repeated on stdout and the text follows it as it is written; it ends early where the model ends its document.

Examples:
  bkbench generate --checkpoint results/20260101T120000Z-longcontext-1a2b3c4d/checkpoints/<training> --prompt 'In the beginning'
  bkbench generate --checkpoint mamba-130m --prompt 'My name is' --temperature 0.8 --top_k 40 --seed 1";

/// Writes text to stdout and its speed to stderr.
///
/// # Errors
/// Bad input, before anything is written; a device that fails; scores that are not finite.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let sampling = args.sampling()?;
    let hardware = hardware::open(&args.device, None)?;
    let loaded = checkpoint::load(&args.checkpoint, &hardware.device)?;
    let tokenizer = loaded.tokenizer(args.tokenizer.as_deref())?;
    let prompt = tokenizer.encode(&args.prompt)?;
    if !quiet {
        for note in &hardware.notes {
            eprintln!("{note}");
        }
    }

    let began = Instant::now();
    let mut decoder = Decoder::new(&loaded.model, &prompt)?;
    let prompt_rate = rate(prompt.len() as u64, began);
    // Rows that pad the vocabulary are no tokens.
    let n_ids = tokenizer.vocab_size();
    let mut stream = TextStream::after(&tokenizer, &prompt);
    let mut text = String::new();
    let mut tell = |piece: String| {
        text.push_str(&piece);
        if args.json { Ok(()) } else { write(&piece) }
    };
    if !args.json {
        write(&args.prompt)?;
    }
    let began = Instant::now();
    let (mut n_written, mut n_passes) = (0, 0);
    let end = loop {
        let id = sampling.choose(&decoder.logits()[..n_ids], n_written)?;
        if tokenizer.separator() == Some(id) {
            break "end_of_text";
        }
        tell(stream.push(id)?)?;
        n_written += 1;
        if n_written == args.n_tokens {
            break "n_tokens";
        }
        decoder.push(id)?;
        n_passes += 1;
    };
    tell(stream.finish()?)?;
    let rate = rate(n_passes, began);
    if args.json {
        let document = json!({
            "checkpoint": { "path": loaded.path, "origin": loaded.origin, "shape": loaded.shape },
            "tokenizer": { "name": tokenizer.name(), "sha256": tokenizer.sha256() },
            "device": hardware.fingerprint,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "prompt": args.prompt,
            "n_prompt_tokens": prompt.len(),
            "text": text,
            "n_tokens": n_written,
            "end": end,
            "prompt_tokens_per_second": prompt_rate,
            "tokens_per_second": rate,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        write("\n")?;
    }
    if !quiet {
        eprintln!(
            "{}: {} tokens after a prompt of {} on {}, {rate:.1} tokens/s (prompt {prompt_rate:.1})",
            loaded.shape.architecture.name(),
            Count(n_written),
            Count(prompt.len() as u64),
            hardware.fingerprint.adapter
        );
    }
    Ok(())
}

/// Tokens a second since `began`.
fn rate(n_tokens: u64, began: Instant) -> f64 {
    n_tokens as f64 / began.elapsed().as_secs_f64()
}

/// Shows a piece of text at once, and not when its line is full.
fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::io("write to", "stdout"))
}

impl Args {
    fn sampling(&self) -> Result<Sampling> {
        if self.n_tokens == 0 {
            let advice = "give at least 1";
            return Err(Error::bad_input("--n_tokens 0", "writes nothing", advice));
        }
        let sampling = Sampling {
            temperature: self.temperature,
            // More than there are tokens means all of them.
            top_k: self
                .top_k
                .map(|top_k| usize::try_from(top_k).unwrap_or(usize::MAX)),
            seed: self.seed,
        };
        sampling.validate()?;
        Ok(sampling)
    }
}
