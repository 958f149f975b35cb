//! Several datasets by name, as far as they are here.

use std::path::Path;

use super::registry::{Entry, Split};
use super::{Corpus, Dataset, EMBEDDED, data_dir, load_held_out, load_with_cache};
use crate::Result;
use crate::config::DataConfig;
use crate::results::AbsentDataset;

/// What is here of several datasets, and what is not.
#[derive(Debug)]
pub struct Collection {
    /// In the order of their names, each with the settings that load its training text. One without a training split
    /// has that of another: the first one in this order that has one, or else the configured text.
    pub present: Vec<(DataConfig, Dataset)>,
    /// The others.
    pub absent: Vec<AbsentDataset>,
}

/// Those of the datasets `names` that are not in the data folder of `config`.
///
/// # Errors
/// [`Error::UnknownName`](crate::Error::UnknownName), or a folder that cannot be read.
pub fn absent(names: &[String], config: &DataConfig) -> Result<Vec<AbsentDataset>> {
    let dir = data_dir(config);
    let mut absent = Vec::new();
    for name in names.iter().filter(|name| *name != EMBEDDED) {
        let entry = Entry::find(name)?;
        if !entry.is_in(&dir)? {
            absent.push(AbsentDataset {
                name: name.clone(),
                advice: entry.advice(&dir),
            });
        }
    }
    Ok(absent)
}

/// Whether [`Collection::load`] would read the text that `config` itself names: none of the datasets `names` that are here
/// has a training split.
///
/// # Errors
/// As [`absent`].
pub fn reads_own_text(names: &[String], config: &DataConfig) -> Result<bool> {
    let absent = absent(names, config)?;
    for name in names {
        let is_here = absent.iter().all(|absent| absent.name != *name);
        let of = DataConfig {
            dataset: name.clone(),
            text: None,
            ..config.clone()
        };
        if is_here && has_training_split(&of)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Collection {
    /// Loads the datasets `names` with the settings of `config`; where none of them is here, the text that `config`
    /// itself names. Of a dataset that `config` does not name, `train_tokens` tokens are read where `config` sets no
    /// number. `cache` and `progress` are as in [`load_with_cache`].
    ///
    /// # Errors
    /// As [`load_with_cache`]; a dataset that is not here is no error.
    pub fn load(
        names: &[String],
        config: &DataConfig,
        train_tokens: Option<usize>,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let absent = absent(names, config)?;
        let is_here = |name: &&String| absent.iter().all(|absent| absent.name != **name);
        let of_name = |name: &String| {
            let is_own = *name == config.dataset && config.text.is_none();
            DataConfig {
                dataset: name.clone(),
                text: None,
                train_tokens: config.train_tokens.or(train_tokens.filter(|_| !is_own)),
                ..config.clone()
            }
        };
        let configs: Vec<DataConfig> = names.iter().filter(is_here).map(of_name).collect();
        // Those without a training split wait for one.
        let mut found = Vec::new();
        for config in &configs {
            found.push(if has_training_split(config)? {
                Some(load_with_cache(config, cache, progress)?)
            } else {
                None
            });
        }
        let mut whole = configs.iter().zip(&found);
        let whole = whole.find_map(|(of, dataset)| Some((of.clone(), dataset.clone()?)));
        let to_train_on = match whole {
            Some(whole) => whole,
            None => (config.clone(), load_with_cache(config, cache, progress)?),
        };
        let mut present = Vec::new();
        for (of, dataset) in configs.into_iter().zip(found) {
            present.push(if let Some(dataset) = dataset {
                (of, dataset)
            } else {
                let (own, dataset) = &to_train_on;
                let held_out = load_held_out(&of, cache, progress)?;
                (own.clone(), dataset.evaluated_on(held_out))
            });
        }
        if present.is_empty() {
            present.push(to_train_on);
        }
        Ok(Self { present, absent })
    }
}

fn has_training_split(config: &DataConfig) -> Result<bool> {
    if config.dataset == EMBEDDED {
        return Ok(true);
    }
    let corpus = Corpus::named(&config.dataset, &data_dir(config))?;
    Ok(corpus.splits().any(|split| split == Split::Train))
}
