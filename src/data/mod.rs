//! Datasets, tokenizers, token cache, windows and seeded batches.

mod batches;
mod cache;
mod collection;
mod corpus;
mod documents;
pub mod fetch;
pub mod registry;
mod stream;
mod text;
mod tokenize;
mod tokenizer;
mod tokens;
mod tuning;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use batches::{Batch, Batches, EvalWindow, eval_windows};
pub use cache::cache_dir;
pub use collection::{Collection, absent, reads_own_text};
pub use corpus::{Corpus, HeldOut, HeldOutManifest};
pub use documents::{Documents, Form};
pub use stream::TextStream;
pub use text::{EMBEDDED, read_utf8};
pub use tokenizer::Tokenizer;
pub use tokens::Tokens;

use crate::config::DataConfig;
use crate::{Error, Result};
use cache::{CacheFile, Split};
use text::Text;
use tokens::Width;

/// A text as tokens, split into a part to train on and a part to evaluate on.
///
/// Passages that do not follow each other in the text are separated by [`Tokenizer::separator`], where the
/// tokenizer has one. Nothing stands before the first.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// A registered name, `embedded:<name>`, or `text:<file name>`.
    pub name: String,
    /// What made the ids.
    pub tokenizer: Tokenizer,
    /// Training tokens.
    pub train: Tokens,
    /// Held-out tokens.
    pub eval: Tokens,
    /// What the data is, with hashes.
    pub manifest: Manifest,
}

impl Dataset {
    /// The training part of this dataset with the held-out part of another.
    #[must_use]
    pub fn evaluated_on(&self, other: HeldOut) -> Self {
        let HeldOut {
            tokens: eval,
            manifest: held_out,
        } = other;
        let text = held_out.eval.provenance.as_ref();
        let text = text.map_or("", |read| read.text_sha256.as_str());
        let joint = [self.manifest.text_sha256.as_str(), text].concat();
        let manifest = Manifest {
            name: held_out.name,
            trained_on: Some(self.name.clone()),
            source: held_out.source,
            text_sha256: tokens::hex(&Sha256::digest(joint)),
            held_out_rule: held_out.held_out_rule,
            unigram_ce_nats: unigram_ce(&self.train, &eval, self.tokenizer.vocab_size()),
            eval: held_out.eval,
            ..self.manifest.clone()
        };
        Self {
            name: manifest.name.clone(),
            tokenizer: self.tokenizer.clone(),
            train: self.train.clone(),
            eval,
            manifest,
        }
    }
}

/// What determines a dataset, for the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the dataset.
    pub name: String,
    /// Name of the dataset that the training split is of, where it has none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<String>,
    /// Path of the text, the data folder, or `embedded`.
    pub source: String,
    /// sha256 of the text; of a dataset made of documents, of its two parts' sha256s, training first.
    pub text_sha256: String,
    /// Name of the tokenizer.
    pub tokenizer: String,
    /// sha256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// Ids the tokenizer has.
    pub vocab_size: usize,
    /// Id between passages.
    pub separator: Option<u32>,
    /// How the evaluation text was chosen.
    pub held_out_rule: String,
    /// The training split.
    pub train: SplitManifest,
    /// The evaluation split.
    pub eval: SplitManifest,
    /// Cross-entropy, in nats a token, of the evaluation tokens under their frequencies in the training
    /// tokens with one added to every count: what a model without context reaches.
    pub unigram_ce_nats: f64,
}

/// Size and hash of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitManifest {
    /// Bytes of text. Where `eval_tokens` cut a split inside a character, without its first bytes.
    pub n_bytes: usize,
    /// Characters of text.
    pub n_chars: usize,
    /// Tokens, separators included.
    pub n_tokens: usize,
    /// sha256 of the ids as little-endian `u16`, or `u32` for vocabularies above 65,536.
    pub ids_sha256: String,
    /// The files it was read from, where it is made of documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// What was read for a split of a dataset made of documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The files, as far as they were read.
    pub files: Vec<SourceFile>,
    /// Whether they were read to their end, rather than to the tokens asked for.
    pub complete: bool,
    /// Documents, the last one whole; of `WikiText`, articles.
    pub n_documents: u64,
    /// Records that had no text.
    pub n_skipped: u64,
    /// Words between white space, and an end of sentence for each line end, where a running text has
    /// words; where `eval_tokens` cut it, of what is left.
    pub n_words: Option<u64>,
    /// sha256 of the documents' texts, one after the other.
    pub text_sha256: String,
}

/// A file, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its path in the data folder, with `/` between folders.
    pub file: String,
    /// Bytes that were read of it, from its start, as it lies on the disk.
    pub n_bytes: u64,
    /// Their sha256.
    pub sha256: String,
}

/// Reads, splits and tokenizes the text of `config`, or takes the tokens from [`cache_dir`]. `progress`
/// hears one line about whatever takes long or went wrong without harm.
///
/// # Errors
/// [`Error::BadInput`] for a text or tokenizer that cannot be used, or a dataset that is not here;
/// [`Error::UnknownName`] for the dataset.
pub fn load(config: &DataConfig, progress: &mut dyn FnMut(&str)) -> Result<Dataset> {
    load_with_cache(config, &cache_dir(), progress)
}

/// [`load`] with the token files in `cache`.
///
/// # Errors
/// As [`load`].
pub fn load_with_cache(
    config: &DataConfig,
    cache: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Dataset> {
    enough_to_evaluate(config)?;
    if let Some(corpus) = Corpus::of(config)? {
        return corpus.load(config, cache, progress);
    }
    let text = match &config.text {
        Some(path) => Text::read(path)?,
        None => Text::embedded()?,
    };
    let tokenizer = Tokenizer::new(&config.tokenizer)?;
    let passages = text.split();
    let tokens = cached_tokens(&text, &passages, &tokenizer, cache, progress)?;
    for (part, tokens) in [("training", &tokens.train), ("evaluation", &tokens.eval)] {
        long_enough(&text.source, tokens, part)?;
    }
    let manifest = SplitManifest::new(&passages.train, &tokens.train);
    let (train, train_manifest) = cut(tokens.train, manifest, config.train_tokens, &tokenizer)?;
    let manifest = SplitManifest::new(&passages.eval, &tokens.eval);
    let (eval, eval_manifest) = cut(tokens.eval, manifest, config.eval_tokens, &tokenizer)?;
    let manifest = Manifest {
        name: text.name.clone(),
        trained_on: None,
        source: text.source.clone(),
        text_sha256: text.sha256.clone(),
        tokenizer: tokenizer.name().into(),
        tokenizer_sha256: tokenizer.sha256().into(),
        vocab_size: tokenizer.vocab_size(),
        separator: tokenizer.separator(),
        held_out_rule: text::HELD_OUT_RULE.into(),
        unigram_ce_nats: unigram_ce(&train, &eval, tokenizer.vocab_size()),
        train: train_manifest,
        eval: eval_manifest,
    };
    Ok(Dataset {
        name: manifest.name.clone(),
        tokenizer,
        train,
        eval,
        manifest,
    })
}

/// Looks for what `config` names without reading it.
///
/// # Errors
/// [`Error::BadInput`] where it is not here, with what brings it; [`Error::UnknownName`].
pub fn find(config: &DataConfig) -> Result<()> {
    if let Some(path) = config.text.as_deref().filter(|path| !path.exists()) {
        let advice = "name a file or a folder with --text";
        return Err(Error::bad_input(
            path.display().to_string(),
            "is not here",
            advice,
        ));
    }
    Corpus::of(config).map(drop)
}

/// The held-out part of what `config` names, which needs no training split.
///
/// # Errors
/// As [`load`].
pub fn load_held_out(
    config: &DataConfig,
    cache: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<HeldOut> {
    enough_to_evaluate(config)?;
    if let Some(corpus) = Corpus::of(config)? {
        return corpus.held_out(config, cache, progress);
    }
    let Dataset { eval, manifest, .. } = load_with_cache(config, cache, progress)?;
    let manifest = HeldOutManifest {
        name: manifest.name,
        source: manifest.source,
        tokenizer: manifest.tokenizer,
        tokenizer_sha256: manifest.tokenizer_sha256,
        held_out_rule: manifest.held_out_rule,
        eval: manifest.eval,
    };
    Ok(HeldOut {
        tokens: eval,
        manifest,
    })
}

/// Whether `name` is the name of a dataset, rather than of a file.
pub fn is_name(name: &str) -> bool {
    name.starts_with("embedded:") || registry::Entry::find(name).is_ok()
}

/// Whether there is a dataset of that name, be it here or not.
///
/// # Errors
/// [`Error::UnknownName`].
pub fn check_name(name: &str) -> Result<()> {
    match name {
        EMBEDDED => Ok(()),
        _ => registry::Entry::find(name).map(drop),
    }
}

/// The folder that holds the datasets' files.
pub fn data_dir(config: &DataConfig) -> PathBuf {
    let chosen = config.dir.clone();
    chosen.unwrap_or_else(|| cache_dir().join("datasets"))
}

fn enough_to_evaluate(config: &DataConfig) -> Result<()> {
    match config.eval_tokens {
        Some(n) if n < 2 => Err(Error::bad_input(
            "eval_tokens",
            format!("is {n}"),
            "give at least 2",
        )),
        _ => Ok(()),
    }
}

fn long_enough(source: &str, tokens: &Tokens, part: &str) -> Result<()> {
    if tokens.len() < 2 {
        return Err(Error::bad_input(
            source,
            format!("leaves {} tokens of {part} text", tokens.len()),
            "give a longer text",
        ));
    }
    Ok(())
}

/// The first `n` tokens and what is true of them.
fn cut(
    tokens: Tokens,
    manifest: SplitManifest,
    n: Option<usize>,
    tokenizer: &Tokenizer,
) -> Result<(Tokens, SplitManifest)> {
    let Some(n) = n.filter(|&n| n < tokens.len()) else {
        return Ok((tokens, manifest));
    };
    let tokens = tokens.prefix(n);
    let text = tokenizer.decode(&tokens.get(0..n))?;
    let text = text.trim_end_matches('\u{fffd}');
    let provenance = manifest.provenance.map(|read| Provenance {
        n_words: read.n_words.map(|_| tokenize::n_words(text)),
        ..read
    });
    let manifest = SplitManifest {
        provenance,
        ..SplitManifest::new(&[text], &tokens)
    };
    Ok((tokens, manifest))
}

/// The tokens of `passages`, from `cache` where it has them.
fn cached_tokens(
    text: &Text,
    passages: &Split<Vec<&str>>,
    tokenizer: &Tokenizer,
    cache: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Split<Tokens>> {
    let file = CacheFile::new(cache, text, tokenizer.sha256());
    match file.load() {
        Ok(Some(tokens)) => return Ok(tokens),
        Ok(None) => {}
        Err(error) => progress(&format!("{error}; tokenizing again")),
    }
    let n_bytes: usize = passages
        .train
        .iter()
        .chain(&passages.eval)
        .map(|passage| passage.len())
        .sum();
    progress(&format!(
        "tokenizing {:.1} MB of {} with {}",
        n_bytes as f64 / 1e6,
        text.name,
        tokenizer.name()
    ));
    let tokens = Split {
        train: encode(&passages.train, tokenizer)?,
        eval: encode(&passages.eval, tokenizer)?,
    };
    let stored = file
        .store(&tokens, Width::for_vocabulary(tokenizer.vocab_size()))
        .and_then(|()| file.load());
    match stored {
        Ok(Some(mapped)) => return Ok(mapped),
        Ok(None) => {}
        Err(error) => progress(&format!(
            "{error}; set BKBENCH_CACHE to a writable folder to keep tokens"
        )),
    }
    Ok(tokens)
}

fn encode(passages: &[&str], tokenizer: &Tokenizer) -> Result<Tokens> {
    let parts: Result<Vec<_>> = passages
        .par_iter()
        .map(|passage| tokenizer.encode(passage))
        .collect();
    Ok(Tokens::from_documents(
        &parts?,
        tokenizer.separator(),
        tokenizer.vocab_size(),
    ))
}

impl SplitManifest {
    fn new(passages: &[&str], tokens: &Tokens) -> Self {
        Self {
            n_bytes: passages.iter().map(|passage| passage.len()).sum(),
            n_chars: passages.iter().map(|passage| passage.chars().count()).sum(),
            n_tokens: tokens.len(),
            ids_sha256: tokens.sha256(),
            provenance: None,
        }
    }
}

/// See [`Manifest::unigram_ce_nats`].
fn unigram_ce(train: &Tokens, eval: &Tokens, vocab_size: usize) -> f64 {
    let count = |tokens: &Tokens| {
        let mut counts = vec![0_u64; vocab_size];
        tokens.iter().for_each(|id| counts[id as usize] += 1);
        counts
    };
    let total = (train.len() + vocab_size) as f64;
    let nats = |(seen, scored): (u64, u64)| scored as f64 * (total / (seen + 1) as f64).ln();
    count(train)
        .into_iter()
        .zip(count(eval))
        .map(nats)
        .sum::<f64>()
        / eval.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unigram_cross_entropy_by_hand() {
        // counts 3, 1, 0, 0 plus one each, of 8: probabilities 1/2, 1/4, 1/8, 1/8
        let train = Tokens::from_ids(&[0, 0, 1, 0], 4);
        let eval = Tokens::from_ids(&[0, 1, 2, 3], 4);
        let expected = (2_f64.ln() + 4_f64.ln() + 2.0 * 8_f64.ln()) / 4.0;
        assert!((unigram_ce(&train, &eval, 4) - expected).abs() < 1e-15);
    }
}
