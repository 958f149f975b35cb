//! `bkbench eval`: held-out loss of a trained model on a text.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::count;
use crate::bench::run::segment_len;
use crate::config::TrainConfig;
use crate::data::{Tokenizer, Tokens, read_utf8};
use crate::eval::{Evaluator, HeldOut, windows_at_once};
use crate::hardware::{self, DeviceChoice, Hardware};
use crate::models::checkpoint::{self, Loaded, Origin};
use crate::models::registry::Carry;
use crate::models::weights;
use crate::shader::budget::BINDING_BYTES;
use crate::units::{Bytes, Count, Seconds};
use crate::{Error, Result};

/// The window for a model whose files do not tell what it was trained on; published Mamba models saw 2,048 tokens.
const WINDOW: usize = 2048;

/// Which model, on which text.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A cell's folder kept by `bkbench run --save_checkpoints`, or a Mamba model in the official layout
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// UTF-8 text to score, all of it
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// bytes, gpt2 or a tokenizer.json [default: the one that belongs to the checkpoint]
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// Tokens after which the state is reset [default: the length it was trained at, or 2048]
    #[arg(long, value_name = "N", value_parser = count)]
    window: Option<u64>,
    /// auto, cpu, cuda or wgpu[:vulkan|metal|dx12|gl][:index or name]
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Every token is scored once, but the first, which nothing precedes. Within a window a model carries its state; a window as long
as the text carries it to the end.

Examples:
  bkbench eval --checkpoint results/20260101T120000Z-longcontext-1a2b3c4d/checkpoints/<training> --text my.txt
  bkbench eval --checkpoint mamba-130m --text my.txt --window 1024 --device cpu";

/// Scores a text and prints what came out.
///
/// # Errors
/// Bad input, before anything is scored; a device that fails; a loss that is not finite.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let text = read_utf8(&args.text)?;
    let hardware = hardware::open(&args.device, None)?;
    let loaded = checkpoint::load(&args.checkpoint, &hardware.device)?;
    let tokenizer = loaded.tokenizer(args.tokenizer.as_deref())?;
    let window = window(args.window, &loaded)?;
    let tokens = Tokens::from_ids(&tokenizer.encode(&text)?, tokenizer.vocab_size());
    if tokens.len() < 2 {
        let problem = format!(
            "is {} token(s) long, and the first is not scored",
            tokens.len()
        );
        let what = args.text.display().to_string();
        return Err(Error::bad_input(what, problem, "give a longer text").into());
    }
    if !quiet {
        for note in &hardware.notes {
            eprintln!("{note}");
        }
        let n_tokens = Count(tokens.len() as u64);
        eprintln!(
            "scoring {n_tokens} tokens on {}",
            hardware.fingerprint.adapter
        );
    }

    let began = Instant::now();
    let segment = segment(&loaded, window, &hardware);
    let held_out = Evaluator {
        model: &loaded.model,
        segment,
        loss_chunk_tokens: loss_chunk_tokens(loaded.shape.vocab_size),
    }
    .evaluate(&tokens, text.len() as u64, window)?
    .ok_or_else(|| Error::CheckFailed("the loss of this text is not finite".into()))?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let document = json!({
            "checkpoint": {
                "path": loaded.path,
                "origin": loaded.origin,
                "shape": loaded.shape,
                "n_parameters": loaded.shape.parameters().total,
                "weights_sha256": weights::sha256(&loaded.model)?,
            },
            "text": args.text,
            "tokenizer": { "name": tokenizer.name(), "sha256": tokenizer.sha256() },
            "ids_sha256": tokens.sha256(),
            "device": hardware.fingerprint,
            "carry": loaded.shape.architecture.carry() == Carry::Finite,
            "segment": segment,
            "evaluation": held_out.evaluation,
            "forward_flops_per_token": held_out.flops,
            "nll_by_position": held_out.nll_by_position,
            "last_quarter": held_out.last_quarter,
            "seconds": seconds,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print(args, &loaded, &tokenizer, &held_out);
    }
    if !quiet {
        let rate = Count((tokens.len() as f64 / seconds) as u64);
        eprintln!("{} ({rate} tokens/s)", Seconds(seconds));
    }
    Ok(())
}

/// The window asked for, or what suits the model.
fn window(asked: Option<u64>, loaded: &Loaded) -> Result<usize> {
    match asked {
        Some(0) => Err(Error::bad_input(
            "--window 0",
            "leaves nothing to score",
            "give at least 1",
        )),
        Some(window) => usize::try_from(window)
            .map_err(|_| Error::bad_input("--window", "is too large", "give the text's length")),
        None => Ok(loaded.seq_len.unwrap_or(WINDOW)),
    }
}

/// Tokens of each window that go through the model at once, as many as the adapter sees.
fn segment(loaded: &Loaded, window: usize, hardware: &Hardware) -> usize {
    let shapes = std::slice::from_ref(&loaded.shape);
    let fits = segment_len(shapes, windows_at_once(window), hardware.adapter.as_ref());
    let config = TrainConfig {
        segment_len: Some(fits),
        ..TrainConfig::default()
    };
    loaded.shape.architecture.resident_len(&config, window)
}

/// As many rows of logits as in a training, or fewer where a vocabulary is large.
fn loss_chunk_tokens(vocab_size: usize) -> usize {
    let fit = BINDING_BYTES as usize / (4 * vocab_size);
    TrainConfig::default().loss_chunk_tokens.min(fit.max(1))
}

fn print(args: &Args, loaded: &Loaded, tokenizer: &Tokenizer, held_out: &HeldOut) {
    let steps = match loaded.origin {
        Origin::Bkbench { step } => format!(", {} steps", Count(step)),
        Origin::Published => String::new(),
    };
    let evaluation = &held_out.evaluation;
    println!(
        "{}: {}, {} parameters{steps}",
        loaded.path.display(),
        loaded.shape.architecture.name(),
        Count(loaded.shape.parameters().total as u64)
    );
    println!(
        "{}: {}, {} tokens of {} scored, each once",
        args.text.display(),
        Bytes(evaluation.n_bytes),
        Count(evaluation.n_tokens),
        tokenizer.name()
    );
    let carried = match loaded.shape.architecture.carry() {
        Carry::Finite => "the state is carried within a window and reset after it",
        Carry::None => "no state is carried from one segment to the next: windows go whole",
    };
    println!(
        "windows of {} tokens: {carried}\n",
        Count(evaluation.window as u64)
    );
    println!("nats per token    {:.4}", evaluation.nll_nats.get());
    match evaluation.token_perplexity {
        Some(perplexity) => println!("token perplexity  {:.4}", perplexity.get()),
        None => println!("token perplexity  beyond the largest number"),
    }
    println!("bits per byte     {:.4}", evaluation.bits_per_byte.get());
    let flops = held_out.flops;
    println!(
        "FLOPs per token   {}, {} without head",
        Count(flops.with_head.get().round() as u64),
        Count(flops.without_head.get().round() as u64)
    );
    if let Some(useful) = held_out.last_quarter {
        println!(
            "\nlast quarter of the windows: {:.4} nats per token, {:.4} with the state reset 1,024 tokens before it",
            useful.with_state_nats.get(),
            useful.reset_nats.get()
        );
    }
}
