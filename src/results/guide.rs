//! The benchmarking guide's JSON: `seq_len_<N>` -> model -> values.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::writer::write_json;
use super::{
    EfficiencyGuide, MultidatasetGuide, QuantizationGuide, RunRecord, Summary, guide_table,
};
use crate::config::Benchmark;
use crate::stats::Estimate;
use crate::{Error, Result};

const PREFIX: &str = "seq_len_";

/// Values of one model at one length, over seeds: `final_loss`, `token_perplexity` and `gradient_norm_*` are means over
/// completed seeds, `null` where none completed; `nan_count` is a sum and `diverged` an "any".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuideEntry {
    /// Final training loss, nats per token.
    pub final_loss: Option<f64>,
    /// Mean gradient norm of a training.
    pub gradient_norm_mean: Option<f64>,
    /// Standard deviation of the gradient norm within a training.
    pub gradient_norm_std: Option<f64>,
    /// Steps that were not finite.
    pub nan_count: u64,
    /// Whether any seed diverged.
    pub diverged: bool,
    /// Held-out perplexity per token; this and what follows is more than the guide has.
    #[serde(default)]
    pub token_perplexity: Option<f64>,
    /// Spikes of the training loss, a sum over seeds.
    #[serde(default)]
    pub spikes: Option<usize>,
    /// Completed seeds.
    #[serde(default)]
    pub n_seeds: Option<usize>,
    /// Number of cells by outcome.
    #[serde(default)]
    pub outcomes: Map<String, Value>,
    /// Ends of the 95 % t interval of `final_loss`.
    #[serde(default)]
    pub ci95: Option<[f64; 2]>,
}

impl GuideEntry {
    fn new(summary: &Summary) -> Self {
        let mean = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.mean);
        let interval = summary
            .final_loss_nats
            .and_then(|estimate| estimate.interval);
        Self {
            final_loss: mean(summary.final_loss_nats),
            gradient_norm_mean: mean(summary.gradient_norm_mean),
            gradient_norm_std: mean(summary.gradient_norm_std),
            nan_count: summary.nan_count,
            diverged: summary.diverged,
            token_perplexity: mean(summary.token_perplexity),
            spikes: Some(summary.spikes),
            n_seeds: Some(summary.n_seeds),
            outcomes: summary
                .outcomes
                .iter()
                .map(|(name, &n)| (name.clone(), n.into()))
                .collect(),
            ci95: interval.map(|interval| [interval.low, interval.high]),
        }
    }
}

/// The long-context results in the guide's shape, lengths and models in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideResults {
    /// Sequence length and, by model name, its values.
    pub settings: Vec<(usize, Vec<(String, GuideEntry)>)>,
}

impl GuideResults {
    /// The summaries of a record, without those of models that are not causal.
    pub fn new(record: &RunRecord) -> Self {
        let mut settings: Vec<(usize, Vec<_>)> = Vec::new();
        let causal = |summary: &&Summary| record.is_causal(&summary.model);
        for summary in record.summaries.iter().filter(causal) {
            let entry = (summary.model.clone(), GuideEntry::new(summary));
            match settings
                .iter_mut()
                .find(|(seq_len, _)| *seq_len == summary.seq_len)
            {
                Some((_, models)) => models.push(entry),
                None => settings.push((summary.seq_len, vec![entry])),
            }
        }
        Self { settings }
    }

    /// The values of a model at a length.
    pub fn entry(&self, seq_len: usize, model: &str) -> Option<&GuideEntry> {
        let (_, models) = self
            .settings
            .iter()
            .find(|(length, _)| *length == seq_len)?;
        models
            .iter()
            .find(|(name, _)| name == model)
            .map(|(_, entry)| entry)
    }

    /// The guide's JSON: `seq_len_<N>` -> model -> values.
    pub fn to_json(&self) -> Value {
        guide_table::to_json(&self.settings, |seq_len| format!("{PREFIX}{seq_len}"))
    }

    /// Whether a document has keys of this shape.
    pub(super) fn looks_like(json: &Value) -> bool {
        guide_table::has_key(json, |key| key.starts_with(PREFIX))
    }

    /// Reads the guide's shape.
    pub(super) fn from_json(json: Value, path: &Path) -> Result<Self> {
        let settings = guide_table::from_json(json, path, "seq_len_<N>", |key| {
            key.strip_prefix(PREFIX)?.parse().ok()
        })?;
        Ok(Self { settings })
    }
}

/// Files that do not exist yet and can be written: checked before a run, written after it. A run of several benchmarks
/// has one for each of them, `NAME.<benchmark>.json` for `NAME.json`, so that every file has the guide's shape.
#[derive(Debug)]
pub struct GuideFile {
    paths: Vec<(Benchmark, PathBuf)>,
}

impl GuideFile {
    /// Checks that `path`, or the names made of it for several `benchmarks`, are free and can come into being; leaves
    /// nothing behind.
    ///
    /// # Errors
    /// [`Error::BadInput`] if a file exists or its folder cannot be written.
    pub fn reserve(path: &Path, benchmarks: &[Benchmark]) -> Result<Self> {
        let paths = named(path, benchmarks);
        if let Some((_, path)) = paths.iter().find(|(_, path)| path.exists()) {
            return Err(exists(path));
        }
        let existing = folder(path)
            .ancestors()
            .find(|dir| dir.exists())
            .unwrap_or(Path::new("."));
        match tempfile::NamedTempFile::new_in(existing) {
            Ok(_) => Ok(Self { paths }),
            Err(error) => Err(Error::bad_input(
                format!("--output {}", path.display()),
                format!("its folder cannot be written: {error}"),
                "name a file in a folder in which you may write",
            )),
        }
    }

    /// Those of [`GuideFile::reserve`] that are not there yet.
    pub fn missing(path: &Path, benchmarks: &[Benchmark]) -> Self {
        let mut paths = named(path, benchmarks);
        paths.retain(|(_, path)| !path.exists());
        Self { paths }
    }

    /// Writes each benchmark of the record in its guide's shape.
    ///
    /// # Errors
    /// If a file has come into being since, or cannot be written.
    pub fn write(self, record: &RunRecord) -> Result<()> {
        for (benchmark, path) in self.paths {
            let part = of_the_compared(record.only(benchmark));
            let json = match benchmark {
                Benchmark::Longcontext => GuideResults::new(&part).to_json(),
                Benchmark::Quantization => QuantizationGuide::new(&part).to_json(),
                Benchmark::Efficiency => EfficiencyGuide::new(&part).to_json(),
                Benchmark::Multidataset => MultidatasetGuide::new(&part).to_json(),
            };
            write_json(&path, false, &json).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => exists(&path),
                _ => Error::io("write", &path)(error),
            })?;
        }
        Ok(())
    }
}

/// What follows from the cells of the compared models: the guide's files have no control.
fn of_the_compared(mut part: RunRecord) -> RunRecord {
    let models = &part.config.models;
    let compared = [Some(models.a.clone()), models.label_b()];
    let is_compared = |model: &String| compared.iter().flatten().any(|name| name == model);
    part.summaries.retain(|it| is_compared(&it.model));
    part.quantization.retain(|it| is_compared(&it.model));
    part.efficiency.retain(|it| is_compared(&it.model));
    part.multidataset.retain(|it| is_compared(&it.model));
    part
}

/// The file of each benchmark.
fn named(path: &Path, benchmarks: &[Benchmark]) -> Vec<(Benchmark, PathBuf)> {
    let of = |&benchmark: &Benchmark| {
        let path = match benchmarks {
            [_] => path.to_owned(),
            _ => path.with_extension(format!("{}.json", benchmark.name())),
        };
        (benchmark, path)
    };
    benchmarks.iter().map(of).collect()
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn exists(path: &Path) -> Error {
    Error::bad_input(
        format!("--output {}", path.display()),
        "the file exists, and results are never overwritten",
        "name another file",
    )
}
