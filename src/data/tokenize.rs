//! Documents to tokens: read only as far as asked, encoded on all cores, and on the disk as they come, so that
//! memory does not grow with the text. What was made once is mapped the next time.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::cache::map;
use super::documents::{Documents, prefix_sha256};
use super::registry::Official;
use super::text::is_held_out;
use super::tokens::{Width, hex};
use super::{Form, Provenance, SourceFile, SplitManifest, Tokenizer, Tokens};
use crate::results::write_whole;
use crate::units::Count;
use crate::{Error, Result};

/// Goes up whenever the ids of a text, or the form of these files, change.
const VERSION: u32 = 2;
/// Text that is encoded at a time, in bytes.
const BATCH: usize = 4 << 20;
/// Text that is encoded at a time for each token that is still wanted, in bytes.
const BYTES_A_TOKEN: usize = 8;
/// Time between two lines about the progress.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Which documents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    All,
    /// Those that the held-out rule leaves to train on.
    Kept,
    /// Those that it holds out.
    HeldOut,
}

/// The documents of several files.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    files: &'a [PathBuf],
    form: Form,
    select: Select,
    /// Those opened so far.
    read: Vec<Documents>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(files: &'a [PathBuf], form: Form, select: Select) -> Self {
        Self {
            files,
            form,
            select,
            read: Vec::new(),
        }
    }

    fn n_skipped(&self) -> u64 {
        self.read.iter().map(Documents::n_skipped).sum()
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read.last_mut().and_then(Iterator::next) {
                Some(Ok(text)) => {
                    let wanted = match self.select {
                        Select::All => true,
                        Select::Kept => !is_held_out(&text),
                        Select::HeldOut => is_held_out(&text),
                    };
                    if wanted {
                        return Some(Ok(text));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => match Documents::open(self.files.get(self.read.len())?, self.form) {
                    Ok(documents) => self.read.push(documents),
                    Err(error) => {
                        self.files = &[];
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

/// One reading of a split.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    /// What is read, in words.
    pub(super) title: String,
    /// Files are named relative to it.
    pub(super) dir: &'a Path,
    pub(super) files: &'a [PathBuf],
    pub(super) form: Form,
    pub(super) select: Select,
    /// No document is read after this many tokens.
    pub(super) n_tokens: Option<usize>,
    pub(super) tokenizer: &'a Tokenizer,
    /// What must be true of the whole.
    pub(super) official: Official,
}

/// The file beside the ids, written after them: without it they count for nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    version: u32,
    split: SplitManifest,
    /// [`Tokens::starts`].
    starts: Vec<usize>,
}

impl Pass<'_> {
    /// The tokens, from `cache` where it has them, and what they were made from.
    ///
    /// # Errors
    /// [`Error::BadInput`] for files that cannot be used, and [`Error::Io`] where no file can be written.
    pub(super) fn run(
        &self,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Tokens, SplitManifest)> {
        let stem = cache.join(self.key()?);
        match self.load(&stem) {
            Ok(Some(cached)) => {
                self.check(&cached.1)?;
                return Ok(cached);
            }
            Ok(None) => {}
            Err(error) => progress(&format!("{error}; tokenizing again")),
        }
        let temporary = fs::create_dir_all(cache).and_then(|()| NamedTempFile::new_in(cache));
        let (file, kept) = match temporary {
            Ok(file) => (file, true),
            Err(error) => {
                let error = Error::io("write into", cache)(error);
                progress(&format!(
                    "{error}; set BKBENCH_CACHE to a writable folder to keep tokens"
                ));
                let folder = std::env::temp_dir();
                (
                    NamedTempFile::new().map_err(Error::io("write into", folder))?,
                    false,
                )
            }
        };
        let (split, starts) = self.write(file.as_file(), file.path(), progress)?;
        self.check(&split)?;
        let mapped = map(file.as_file(), file.path())?;
        if kept {
            let ids = stem.with_extension("ids");
            file.as_file()
                .sync_all()
                .map_err(Error::io("write", &ids))?;
            file.persist(&ids)
                .map_err(|error| Error::io("write", &ids)(error.error))?;
            Sidecar {
                version: VERSION,
                split: split.clone(),
                starts: starts.clone(),
            }
            .store(&stem.with_extension("json"))?;
        }
        Ok((self.tokens(mapped, &split, starts), split))
    }

    fn tokens(&self, mapped: Mmap, split: &SplitManifest, starts: Vec<usize>) -> Tokens {
        let tokens = Tokens::from_storage(Arc::new(mapped), 0, split.n_tokens, self.width());
        tokens.with_starts(starts)
    }

    fn width(&self) -> Width {
        Width::for_vocabulary(self.tokenizer.vocab_size())
    }

    /// What stands between documents.
    fn separator(&self) -> Option<u32> {
        match self.form {
            Form::Documents => self.tokenizer.separator(),
            Form::Running | Form::WikiText => None,
        }
    }

    /// Everything that determines the ids but the bytes of the files, which [`Pass::load`] looks at.
    fn key(&self) -> Result<String> {
        let mut key = vec![format!(
            "{VERSION} {} {:?} {:?} {:?}",
            self.tokenizer.sha256(),
            self.form,
            self.select,
            self.n_tokens
        )];
        for path in self.files {
            let n_bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
            key.push(format!("{} {n_bytes}", self.name(path)));
        }
        Ok(hex(&Sha256::digest(key.join("\n"))))
    }

    fn name(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.dir).unwrap_or(path);
        path.to_string_lossy().replace('\\', "/")
    }

    /// The kept tokens, if they were made from the same bytes.
    fn load(&self, stem: &Path) -> Result<Option<(Tokens, SplitManifest)>> {
        let sidecar = stem.with_extension("json");
        let json = match fs::read(&sidecar) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            json => json.map_err(Error::io("read", &sidecar))?,
        };
        let damaged = |path: &Path| {
            Error::CheckFailed(format!("the token file {} is damaged", path.display()))
        };
        let Sidecar {
            version,
            split,
            starts,
        } = serde_json::from_slice(&json).map_err(|_| damaged(&sidecar))?;
        let sources = split.provenance.as_ref().ok_or_else(|| damaged(&sidecar))?;
        if version != VERSION {
            return Ok(None);
        }
        if starts.first() != Some(&0) || !starts.is_sorted() {
            return Err(damaged(&sidecar));
        }
        for source in &sources.files {
            let path = self.dir.join(&source.file);
            if prefix_sha256(&path, source.n_bytes)? != source.sha256 {
                return Ok(None);
            }
        }
        let path = stem.with_extension("ids");
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mapped = map(&file, &path)?;
        if mapped.len() != split.n_tokens * self.width().bytes() {
            return Err(damaged(&path));
        }
        let tokens = self.tokens(mapped, &split, starts);
        if tokens.sha256() != split.ids_sha256 {
            return Err(damaged(&path));
        }
        Ok(Some((tokens, split)))
    }

    /// Reads, encodes and writes the ids to `file`; says where documents begin.
    fn write(
        &self,
        file: &File,
        path: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(SplitManifest, Vec<usize>)> {
        progress(&format!(
            "tokenizing {} with {}",
            self.title,
            self.tokenizer.name()
        ));
        let began = Instant::now();
        let mut last_line = began;
        let mut out = BufWriter::new(file);
        let mut reader = Reader::new(self.files, self.form, self.select);
        let mut tally = Tally::default();
        let mut starts = Vec::new();
        let separator: Vec<u32> = self.separator().into_iter().collect();
        let complete = loop {
            let wanted = self
                .n_tokens
                .map_or(usize::MAX, |n| n.saturating_sub(tally.n_tokens));
            if wanted == 0 {
                break false;
            }
            let batch = batch(&mut reader, wanted.saturating_mul(BYTES_A_TOKEN).min(BATCH))?;
            if batch.is_empty() {
                break true;
            }
            let encoded: Result<Vec<_>> = batch
                .par_iter()
                .map(|text| self.tokenizer.encode(text))
                .collect();
            for (text, ids) in batch.iter().zip(encoded?) {
                if self.n_tokens.is_some_and(|n| tally.n_tokens >= n) {
                    break;
                }
                let before = if tally.n_documents > 0 {
                    &separator[..]
                } else {
                    &[]
                };
                if starts.is_empty() || self.form == Form::Documents {
                    starts.push(tally.n_tokens);
                }
                let bytes = self.width().encode(&[before, &ids].concat());
                out.write_all(&bytes).map_err(Error::io("write", path))?;
                tally.add(text, &bytes, before.len() + ids.len());
            }
            if last_line.elapsed() >= BETWEEN_LINES {
                last_line = Instant::now();
                let megabytes = tally.n_bytes as f64 / 1e6;
                progress(&format!(
                    "  {megabytes:.0} MB of text, {} tokens, {:.1} MB/s",
                    Count(tally.n_tokens as u64),
                    megabytes / began.elapsed().as_secs_f64()
                ));
            }
        };
        out.flush().map_err(Error::io("write", path))?;
        let n_skipped = reader.n_skipped();
        if n_skipped > 0 {
            progress(&format!("{n_skipped} records without text were left out"));
        }
        if tally.n_documents == 0 {
            let problem = match self.select {
                Select::All => "holds no document with text",
                Select::Kept | Select::HeldOut => {
                    "has too few documents to hold out those whose sha256 mod 20 is 0"
                }
            };
            return Err(Error::bad_input(&self.title, problem, "give more text"));
        }
        let sources = reader.files.iter().zip(&reader.read).map(|(path, read)| {
            Ok(SourceFile {
                file: self.name(path),
                n_bytes: read.n_read(),
                sha256: prefix_sha256(path, read.n_read())?,
            })
        });
        let split = SplitManifest {
            n_bytes: tally.n_bytes,
            n_chars: tally.n_chars,
            n_tokens: tally.n_tokens,
            ids_sha256: hex(&tally.ids.finalize()),
            provenance: Some(Provenance {
                files: sources.collect::<Result<_>>()?,
                complete,
                n_documents: tally.n_documents,
                n_skipped,
                n_words: (self.form != Form::Documents).then_some(tally.n_words),
                text_sha256: hex(&tally.text.finalize()),
            }),
        };
        Ok((split, starts))
    }

    /// Holds a split that was read whole against what its publishers say.
    fn check(&self, split: &SplitManifest) -> Result<()> {
        let Some(read) = split.provenance.as_ref().filter(|read| read.complete) else {
            return Ok(());
        };
        let advice = "get its files again, or give them as a text of their own (data.text)";
        let wrong = |problem: String| Error::bad_input(&self.title, problem, advice);
        if let Some(sha256) = self.official.text_sha256
            && sha256 != read.text_sha256
        {
            let problem = format!(
                "is not the official text: its sha256 is {}, not {sha256}",
                read.text_sha256
            );
            return Err(wrong(problem));
        }
        if let (Some(official), Some(n_words)) = (self.official.n_words, read.n_words)
            && official != n_words
        {
            return Err(wrong(format!(
                "is not the official text: it has {} words and ends of sentences, not {}",
                Count(n_words),
                Count(official)
            )));
        }
        Ok(())
    }
}

/// Documents of at least `n_bytes` in all; none at the end.
fn batch(reader: &mut Reader<'_>, n_bytes: usize) -> Result<Vec<String>> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < n_bytes {
        let Some(text) = reader.next().transpose()? else {
            break;
        };
        size += text.len();
        batch.push(text);
    }
    Ok(batch)
}

/// What was written.
#[derive(Default)]
struct Tally {
    n_documents: u64,
    n_bytes: usize,
    n_chars: usize,
    n_words: u64,
    n_tokens: usize,
    text: Sha256,
    ids: Sha256,
}

impl Tally {
    fn add(&mut self, text: &str, ids: &[u8], n_ids: usize) {
        self.n_documents += 1;
        self.n_bytes += text.len();
        self.n_chars += text.chars().count();
        self.n_words += n_words(text);
        self.n_tokens += n_ids;
        self.text.update(text);
        self.ids.update(ids);
    }
}

/// Words between white space, and an end of sentence for each line end.
pub(super) fn n_words(text: &str) -> u64 {
    let ends = text.bytes().filter(|&byte| byte == b'\n').count();
    (text.split_ascii_whitespace().count() + ends) as u64
}

impl Sidecar {
    /// Writes it; a reader sees none or the whole.
    fn store(&self, path: &Path) -> Result<()> {
        let write = |file: &mut File| {
            let json = serde_json::to_vec(self)?;
            file.write_all(&json)
        };
        write_whole(path, true, write).map_err(Error::io("write", path))
    }
}
