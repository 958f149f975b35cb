//! The text that learning rates are chosen by, which is never the one that results are reported on.

use std::path::Path;

use super::corpus::Corpus;
use super::registry::{Entry, Split};
use super::{Dataset, Manifest, SplitManifest, Tokens, cut, data_dir, long_enough, unigram_ce};
use crate::Result;
use crate::config::DataConfig;

/// Part of the training text, at its end, that is set aside where there is no other text to choose by.
const SET_ASIDE: usize = 20;

impl Dataset {
    /// The same to choose by: its evaluation text is the official validation split, where that is here and not already
    /// the text of the evaluation; else the last twentieth of the training text, at most `eval_tokens`, which is then
    /// not trained on.
    ///
    /// # Errors
    /// As [`load`](super::load).
    pub fn for_tuning(
        &self,
        config: &DataConfig,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let (name, trained_on) = (&self.manifest.name, &self.manifest.trained_on);
        let name = trained_on.as_ref().unwrap_or(name);
        let corpus = match Entry::find(name) {
            Ok(entry) => Some(Corpus::named(entry.name, &data_dir(config))?),
            Err(_) => None,
        };
        let part = match corpus.filter(Corpus::has_spare_validation) {
            Some(corpus) => {
                let (split, n) = (Split::Validation, config.eval_tokens);
                let (tokens, manifest) =
                    corpus.tokens(split, &self.tokenizer, n, cache, progress)?;
                let eval = cut(tokens, manifest, n, &self.tokenizer)?;
                let train = (self.train.clone(), self.manifest.train.clone());
                ("the official validation split", train, eval)
            }
            None => self.set_aside(config.eval_tokens)?,
        };
        let (rule, (train, train_manifest), (eval, eval_manifest)) = part;
        long_enough(&self.name, &train, "training")?;
        long_enough(&self.name, &eval, "validation")?;
        let manifest = Manifest {
            held_out_rule: rule.into(),
            unigram_ce_nats: unigram_ce(&train, &eval, self.tokenizer.vocab_size()),
            train: train_manifest,
            eval: eval_manifest,
            ..self.manifest.clone()
        };
        Ok(Self {
            train,
            eval,
            manifest,
            ..self.clone()
        })
    }

    /// The training text without its end, and that end, at most `n` tokens of it.
    fn set_aside(&self, n: Option<usize>) -> Result<Parts> {
        let n_aside = self.train.len() / SET_ASIDE;
        let n_aside = n.map_or(n_aside, |n| n_aside.min(n));
        let n_kept = self.train.len() - n_aside;
        let (train, eval) = (self.train.prefix(n_kept), self.train.suffix(n_aside));
        let text = self.tokenizer.decode(&eval.get(0..n_aside))?;
        let eval_manifest = SplitManifest::new(&[text.trim_start_matches('\u{fffd}')], &eval);
        let whole = &self.manifest.train;
        let train_manifest = SplitManifest {
            n_bytes: whole.n_bytes.saturating_sub(eval_manifest.n_bytes),
            n_chars: whole.n_chars.saturating_sub(eval_manifest.n_chars),
            n_tokens: n_kept,
            ids_sha256: train.sha256(),
            provenance: whole.provenance.clone(),
        };
        let rule = "the last twentieth of the training text, which is not trained on";
        Ok((rule, (train, train_manifest), (eval, eval_manifest)))
    }
}

/// How the evaluation text was chosen, the text to train on, and that one.
type Parts = (
    &'static str,
    (Tokens, SplitManifest),
    (Tokens, SplitManifest),
);
