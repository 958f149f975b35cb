//! Datasets that are made of documents: the registered ones, and files of documents that a user names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::documents::{files_of, is_plain_text};
use super::registry::{Entry, Official, Split};
use super::tokenize::{Pass, Reader, Select};
use super::tokens::hex;
use super::{
    Dataset, EMBEDDED, Form, Manifest, SplitManifest, Tokenizer, Tokens, cut, data_dir,
    long_enough, unigram_ce,
};
use crate::config::DataConfig;
use crate::{Error, Result};

/// What is held out where no split is there for it.
const RULE: &str = "documents whose sha256 mod 20 is 0 are held out";

/// A dataset made of documents, and which of its splits are here.
#[derive(Debug)]
pub struct Corpus {
    name: String,
    /// The data folder, or what the user named.
    dir: PathBuf,
    form: Form,
    entry: Option<&'static Entry>,
    /// The splits that are here, and their files.
    splits: Vec<(Split, Vec<PathBuf>)>,
}

/// The held-out part of a dataset alone, to evaluate a model that was trained on another.
#[derive(Debug, Clone)]
pub struct HeldOut {
    /// The tokens.
    pub tokens: Tokens,
    /// What they are.
    pub manifest: HeldOutManifest,
}

/// What determines a held-out text, for the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutManifest {
    /// Name of the dataset.
    pub name: String,
    /// The data folder, the path of the text, or `embedded`.
    pub source: String,
    /// Name of the tokenizer.
    pub tokenizer: String,
    /// sha256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// How the text was chosen.
    pub held_out_rule: String,
    /// The text.
    pub eval: SplitManifest,
}

impl Corpus {
    /// The registered dataset `name`, with those of its splits that are in the data folder `dir`.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::BadInput`] where none of it is there, with what brings it.
    pub fn named(name: &str, dir: &Path) -> Result<Self> {
        let entry = Entry::find(name)?;
        let mut splits = Vec::new();
        for split in entry.splits {
            let files = entry.files(split.split, dir)?;
            if !files.is_empty() {
                splits.push((split.split, files));
            }
        }
        if splits.is_empty() {
            let problem = format!("is not in {}", dir.display());
            return Err(Error::bad_input(
                format!("dataset {name}"),
                problem,
                entry.advice(dir),
            ));
        }
        Ok(Self {
            name: name.into(),
            dir: dir.to_owned(),
            form: entry.form,
            entry: Some(entry),
            splits,
        })
    }

    /// The documents of a file, or of a folder that holds one a file.
    ///
    /// # Errors
    /// [`Error::BadInput`] where there is no file.
    pub fn at(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: format!("text:{name}"),
            dir: path.to_owned(),
            form: Form::Documents,
            entry: None,
            splits: vec![(Split::Train, files_of(path)?)],
        })
    }

    /// What `config` names, where that is made of documents.
    pub(super) fn of(config: &DataConfig) -> Result<Option<Self>> {
        match &config.text {
            Some(path) if is_plain_text(path) => Ok(None),
            Some(path) => Self::at(path).map(Some),
            None if config.dataset == EMBEDDED => Ok(None),
            None => Self::named(&config.dataset, &data_dir(config)).map(Some),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The splits that are here, the training split first.
    pub fn splits(&self) -> impl Iterator<Item = Split> {
        self.splits.iter().map(|(split, _)| *split)
    }

    /// The documents of a split in the order of its files; none where it is not here.
    pub fn documents(&self, split: Split) -> impl Iterator<Item = Result<String>> {
        Reader::new(self.files(split), self.form, Select::All)
    }

    /// The tokens of a split, from `cache` where it has them; no document is read after `n_tokens`.
    ///
    /// Documents are separated by [`Tokenizer::separator`]; running texts are not interrupted.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the split is not here, its files cannot be used, or it is not the official
    /// text.
    pub fn tokens(
        &self,
        split: Split,
        tokenizer: &Tokenizer,
        n_tokens: Option<usize>,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Tokens, SplitManifest)> {
        self.pass((split, Select::All), tokenizer, n_tokens, cache, progress)
    }

    fn files(&self, split: Split) -> &[PathBuf] {
        let found = self.splits.iter().find(|(present, _)| *present == split);
        found.map_or(&[], |(_, files)| files)
    }

    fn has(&self, split: Split) -> bool {
        !self.files(split).is_empty()
    }

    /// Whether there is a validation split that is not the held-out text.
    pub(super) fn has_spare_validation(&self) -> bool {
        self.has(Split::Validation) && self.has(Split::Test)
    }

    /// Where the held-out text comes from, and that in words.
    fn held_out_part(&self) -> ((Split, Select), String) {
        for split in [Split::Test, Split::Validation] {
            if self.has(split) {
                return ((split, Select::All), format!("the official {split} split"));
            }
        }
        ((Split::Train, Select::HeldOut), RULE.into())
    }

    fn pass(
        &self,
        (split, select): (Split, Select),
        tokenizer: &Tokenizer,
        n_tokens: Option<usize>,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Tokens, SplitManifest)> {
        if !self.has(split) {
            return Err(self.absent(split));
        }
        let entries = self.entry.map_or(&[][..], |entry| entry.splits);
        let official = entries
            .iter()
            .find(|entry| entry.split == split && select == Select::All)
            .map_or(Official::default(), |entry| entry.official);
        let held_out = if select == Select::HeldOut {
            ", held out"
        } else {
            ""
        };
        Pass {
            title: format!("{}, {split} split{held_out}", self.name),
            dir: &self.dir,
            files: self.files(split),
            form: self.form,
            select,
            n_tokens,
            tokenizer,
            official,
        }
        .run(cache, progress)
    }

    fn absent(&self, split: Split) -> Error {
        let advice = match self.entry {
            Some(entry) => format!(
                "evaluate a model that was trained on another dataset, or {}",
                entry.advice(&self.dir)
            ),
            None => "name a dataset that has one".into(),
        };
        Error::bad_input(
            format!("dataset {}", self.name),
            format!("has no {split} split in {}", self.dir.display()),
            advice,
        )
    }

    /// Both parts, for training and evaluation.
    pub(super) fn load(
        &self,
        config: &DataConfig,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Dataset> {
        if !self.has(Split::Train) {
            return Err(self.absent(Split::Train));
        }
        let tokenizer = Tokenizer::new(&config.tokenizer)?;
        let (part, held_out_rule) = self.held_out_part();
        let select = match part.1 {
            Select::HeldOut => Select::Kept,
            _ => Select::All,
        };
        let (train, train_manifest) = self.pass(
            (Split::Train, select),
            &tokenizer,
            config.train_tokens,
            cache,
            progress,
        )?;
        let (eval, eval_manifest) =
            self.evaluation(part, &tokenizer, config.eval_tokens, cache, progress)?;
        long_enough(&self.name, &train, "training")?;
        let manifest = Manifest {
            name: self.name.clone(),
            trained_on: None,
            source: self.dir.display().to_string(),
            text_sha256: joint_sha256(&[&train_manifest, &eval_manifest]),
            tokenizer: tokenizer.name().into(),
            tokenizer_sha256: tokenizer.sha256().into(),
            vocab_size: tokenizer.vocab_size(),
            separator: match self.form {
                Form::Documents => tokenizer.separator(),
                Form::Running | Form::WikiText => None,
            },
            held_out_rule,
            unigram_ce_nats: unigram_ce(&train, &eval, tokenizer.vocab_size()),
            train: train_manifest,
            eval: eval_manifest,
        };
        Ok(Dataset {
            name: self.name.clone(),
            tokenizer,
            train,
            eval,
            manifest,
        })
    }

    /// The held-out part alone.
    pub(super) fn held_out(
        &self,
        config: &DataConfig,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<HeldOut> {
        let tokenizer = Tokenizer::new(&config.tokenizer)?;
        let (part, held_out_rule) = self.held_out_part();
        let (tokens, eval) =
            self.evaluation(part, &tokenizer, config.eval_tokens, cache, progress)?;
        let manifest = HeldOutManifest {
            name: self.name.clone(),
            source: self.dir.display().to_string(),
            tokenizer: tokenizer.name().into(),
            tokenizer_sha256: tokenizer.sha256().into(),
            held_out_rule,
            eval,
        };
        Ok(HeldOut { tokens, manifest })
    }

    fn evaluation(
        &self,
        part: (Split, Select),
        tokenizer: &Tokenizer,
        n_tokens: Option<usize>,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Tokens, SplitManifest)> {
        let (tokens, manifest) = self.pass(part, tokenizer, n_tokens, cache, progress)?;
        long_enough(&self.name, &tokens, "evaluation")?;
        cut(tokens, manifest, n_tokens, tokenizer)
    }
}

/// sha256 of the splits' own.
fn joint_sha256(splits: &[&SplitManifest]) -> String {
    let texts = splits.iter().filter_map(|split| split.provenance.as_ref());
    let joint: String = texts.map(|read| read.text_sha256.as_str()).collect();
    hex(&Sha256::digest(joint))
}
