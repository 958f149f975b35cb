//! What a run would do: its cells, and what each of them takes in memory and time.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::accounting::Tensors;
use crate::bench::pace::Pace;
use crate::bench::run::{self, Planned, Setting};
use crate::bench::{Progress, memory};
use crate::config::{Benchmark, Budget, Config, Fairness};
use crate::data::{self, Tokenizer};
use crate::hardware::{self, DeviceChoice, Hardware};
use crate::models::registry::{Architecture, ModelShape};
use crate::results::{AbsentDataset, AtBudget, Files, GRID, MemoryLedger, Outcome};
use crate::units::{Count, Seconds};
use crate::{Error, Result};

/// Time to measure in, all models together.
const MEASURED_SECONDS: f64 = 10.0;

/// The cells of a run and what they take, for a reader or as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    config: Config,
    files: Files,
    benchmarks: Vec<PlannedBenchmark>,
    /// The device that was measured; absent where none could be opened.
    device: Option<String>,
    /// Seconds of all trainings; absent where they could not be estimated.
    seconds: Option<f64>,
    /// How the seconds were estimated.
    estimated_from: Vec<String>,
    /// What the run would miss.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PlannedBenchmark {
    benchmark: Benchmark,
    n_cells: u64,
    n_seeds: u64,
    first_seed: u64,
    /// The model that is measured and not trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<PathBuf>,
    /// Of a benchmark of several datasets, how many of them are here, and how many were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    datasets: Option<[usize; 2]>,
    /// How learning rates are set.
    fairness: Vec<Fairness>,
    settings: Vec<PlannedSetting>,
}

#[derive(Debug, Serialize)]
struct PlannedSetting {
    seq_len: usize,
    /// Absent where an epoch's length is not known.
    n_steps: Option<u64>,
    training_tokens_a_cell: Option<u64>,
    models: Vec<PlannedModel>,
}

#[derive(Debug, Serialize)]
struct PlannedModel {
    /// What results call it.
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_budget: Option<AtBudget>,
    memory: MemoryLedger,
    /// Of the training of one cell.
    seconds: Option<f64>,
    /// Why nothing will be trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Outcome>,
}

impl Plan {
    /// Opens the device, reads the data where the number of steps depends on them, and times a few steps of every model. A
    /// device or a text that is not here is a warning of the plan.
    ///
    /// # Errors
    /// Bad input of any other kind; a device that fails.
    pub(super) fn new(config: Config, files: Files, progress: &mut dyn Progress) -> Result<Self> {
        let mut warnings = Vec::new();
        let hardware = warned(open(&config), "no time is estimated", &mut warnings)?;
        let data = warned(
            data::find(&config.data),
            "the run would end here",
            &mut warnings,
        )?;
        let several = config.benchmarks.contains(&Benchmark::Multidataset);
        let absent = if several {
            data::absent(&config.multidataset.datasets, &config.data)?
        } else {
            Vec::new()
        };
        let missing = |it: &AbsentDataset| format!("{} is not here: {}", it.name, it.advice);
        warnings.extend(absent.iter().map(missing));
        let n_present = config.multidataset.datasets.len() - absent.len();
        let n_train_tokens = match (&hardware, data) {
            (Some(_), Some(())) => n_train_tokens(&config, progress)?,
            _ => None,
        };
        let vocab_size = Tokenizer::new(&config.data.tokenizer)?.vocab_size();
        let parts: Vec<Part> = config
            .benchmarks
            .iter()
            .map(|&benchmark| {
                Part::new(
                    config.only(benchmark),
                    benchmark,
                    vocab_size,
                    n_train_tokens,
                )
            })
            .collect::<Result<_>>()?;
        let paces = match &hardware {
            Some(hardware) => paces(&parts, hardware, progress)?,
            None => Vec::new(),
        };
        let tensors = tensors(&config, hardware.as_ref())?;
        let benchmarks: Vec<PlannedBenchmark> = parts
            .iter()
            .map(|part| part.planned(&paces, tensors, hardware.as_ref(), n_present))
            .collect();
        Ok(Self {
            device: hardware.map(|hardware| hardware.fingerprint.adapter),
            seconds: benchmarks.iter().map(PlannedBenchmark::seconds).sum(),
            estimated_from: paces.iter().map(described).collect(),
            config,
            files,
            benchmarks,
            warnings,
        })
    }
}

/// What `found` is, or, where the input is bad, nothing and a warning with the consequence.
fn warned<T>(found: Result<T>, consequence: &str, warnings: &mut Vec<String>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ (Error::BadInput { .. } | Error::UnknownName { .. })) => {
            warnings.push(format!("{error}; {consequence}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn open(config: &Config) -> Result<Hardware> {
    let choice: DeviceChoice = config.device.name.parse()?;
    let hardware = hardware::open(&choice, config.device.require_adapter.as_deref())?;
    hardware.require(config.train.precision)?;
    Ok(hardware)
}

/// Tokens of the training text, which only epochs ask for.
fn n_train_tokens(config: &Config, progress: &mut dyn Progress) -> Result<Option<usize>> {
    if matches!(config.train.budget, Budget::Steps(_)) || config.quantization.checkpoint.is_some() {
        return Ok(None);
    }
    let dataset = data::load(&config.data, &mut |line| progress.message(line))?;
    Ok(Some(dataset.train.len()))
}

/// Where the tensors would be: without a device, the CPU's counts, which are the larger ones, unless an adapter is named.
fn tensors(config: &Config, hardware: Option<&Hardware>) -> Result<Tensors> {
    if let Some(hardware) = hardware {
        return Ok(memory::tensors(hardware));
    }
    Ok(match config.device.name.parse()? {
        DeviceChoice::Auto | DeviceChoice::Cpu => Tensors::OnHeap,
        DeviceChoice::Cuda | DeviceChoice::Wgpu { .. } => Tensors::OnAdapter,
    })
}

/// A benchmark and its settings.
struct Part {
    benchmark: Benchmark,
    config: Config,
    n_steps: Option<u64>,
    settings: Vec<Setting>,
}

impl Part {
    fn new(
        mut config: Config,
        benchmark: Benchmark,
        vocab_size: usize,
        n_train_tokens: Option<usize>,
    ) -> Result<Self> {
        config.train.segment_len.get_or_insert(run::SEGMENT_LEN);
        let n_steps = match config.train.budget {
            Budget::Steps(steps) => Some(steps),
            Budget::NumEpochs(_) => n_train_tokens.map(|n| run::n_steps(&config, n)),
        };
        let settings = match config.quantization.checkpoint {
            Some(_) => Vec::new(),
            None => run::settings(&config, vocab_size, n_steps.unwrap_or(0))?,
        };
        Ok(Self {
            benchmark,
            config,
            n_steps,
            settings,
        })
    }

    fn planned(
        &self,
        paces: &[(Architecture, Pace)],
        tensors: Tensors,
        hardware: Option<&Hardware>,
        n_present: usize,
    ) -> PlannedBenchmark {
        let config = &self.config;
        let given = config.quantization.checkpoint.clone();
        let datasets = (self.benchmark == Benchmark::Multidataset)
            .then_some([n_present, config.multidataset.datasets.len()]);
        let n_settings = datasets.map_or(self.settings.len(), |[present, _]| present.max(1));
        let n_cells = (config.models.labels().len() * n_settings) as u64;
        let settings = self.settings.iter().map(|setting| {
            let sequences = (config.train.batch_size * setting.seq_len) as u64;
            let model = |planned: &Planned| self.model(planned, setting, paces, tensors, hardware);
            PlannedSetting {
                seq_len: setting.seq_len,
                n_steps: self.n_steps,
                training_tokens_a_cell: self.n_steps.map(|n| n.saturating_mul(sequences)),
                models: setting.models.iter().map(model).collect(),
            }
        });
        PlannedBenchmark {
            benchmark: self.benchmark,
            n_cells: match given {
                Some(_) => 1,
                None => n_cells.saturating_mul(config.seeds.count),
            },
            datasets,
            fairness: config.fairness.clone(),
            n_seeds: config.seeds.count,
            first_seed: config.seeds.first,
            settings: settings.collect(),
            given,
        }
    }

    fn model(
        &self,
        planned: &Planned,
        setting: &Setting,
        paces: &[(Architecture, Pace)],
        tensors: Tensors,
        hardware: Option<&Hardware>,
    ) -> PlannedModel {
        let (shape, train) = (&planned.shape, &self.config.train);
        let architecture = shape.architecture;
        let misfit = |hardware| memory::misfit(shape, setting.seq_len, &self.config, hardware);
        let skipped = planned.misfit.clone().or_else(|| hardware.and_then(misfit));
        let resident = architecture.resident_len(train, setting.seq_len);
        let sizes = [train.batch_size, setting.seq_len, resident];
        let pace = paces.iter().find(|(known, _)| *known == architecture);
        let seconds = pace
            .zip(self.n_steps)
            .map(|((_, pace), n_steps)| pace.seconds(shape, sizes, n_steps));
        PlannedModel {
            model: planned.label.clone(),
            at_budget: planned.at_budget,
            memory: memory::needs(shape, setting.seq_len, train, tensors),
            seconds: seconds.map(|seconds| if skipped.is_some() { 0.0 } else { seconds }),
            skipped,
        }
    }
}

/// The pace of every model, timed on its smallest shape.
fn paces(
    parts: &[Part],
    hardware: &Hardware,
    progress: &mut dyn Progress,
) -> Result<Vec<(Architecture, Pace)>> {
    let mut smallest: Vec<(&ModelShape, &Part)> = Vec::new();
    for part in parts {
        for planned in part.settings.iter().flat_map(|setting| &setting.models) {
            let (shape, size) = (&planned.shape, planned.shape.parameters().total);
            match smallest
                .iter_mut()
                .find(|(known, _)| known.architecture == shape.architecture)
            {
                Some(known) if known.0.parameters().total > size => *known = (shape, part),
                Some(_) => {}
                None => smallest.push((shape, part)),
            }
        }
    }
    if !smallest.is_empty() {
        progress.message(&format!(
            "timing a few steps of {} model(s) on {}",
            smallest.len(),
            hardware.fingerprint.adapter
        ));
    }
    let began = Instant::now();
    let mut paces = Vec::new();
    for (i, (shape, part)) in smallest.iter().enumerate() {
        let longest = part.config.seq_lengths().into_iter().max().unwrap_or(1);
        let resident = shape
            .architecture
            .resident_len(&part.config.train, longest)
            .min(run::SEGMENT_LEN);
        let left = (MEASURED_SECONDS - began.elapsed().as_secs_f64()).max(0.0);
        let limit = Duration::from_secs_f64(left / (smallest.len() - i) as f64);
        let pace = Pace::measure(shape, resident, &part.config, hardware, limit)?;
        paces.push((shape.architecture, pace));
    }
    Ok(paces)
}

fn described((architecture, pace): &(Architecture, Pace)) -> String {
    format!(
        "{}: steps of up to {} tokens, {} parameters",
        architecture.name(),
        Count(pace.longest as u64),
        Count(pace.n_parameters as u64)
    )
}

impl PlannedBenchmark {
    /// Of all its trainings.
    fn seconds(&self) -> Option<f64> {
        let models = self.settings.iter().flat_map(|setting| &setting.models);
        let a_seed: Option<f64> = models.map(|model| model.seconds).sum();
        let n_cells = self.n_seeds as f64 * self.fairness.len() as f64;
        // A trial takes a quarter of the steps.
        let trials = if self.fairness.contains(&Fairness::EqualTuning) {
            GRID.len() as f64 / 4.0
        } else {
            0.0
        };
        Some(a_seed? * (n_cells + trials) * self.n_texts() as f64)
    }

    /// Datasets, or the run's own text where none is here.
    fn n_texts(&self) -> usize {
        self.datasets.map_or(1, |[present, _]| present.max(1))
    }

    /// What tuning adds to the cells, where there is any.
    fn write_tuning(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways = match self.fairness[..] {
            [Fairness::EqualTuning] => "these cells at the learning rates chosen",
            [_, _] => {
                "as many cells again at the learning rates chosen, but for those trained already"
            }
            _ => return Ok(()),
        };
        let trials = GRID.len() * self.settings.len() * self.n_texts() * self.names().len();
        writeln!(
            f,
            "  equal tuning: {trials} trials of a quarter of the steps, more where the best learning rate lies at the edge; then {ways}"
        )
    }

    fn names(&self) -> Vec<&str> {
        let first = self.settings.first();
        first.map_or_else(Vec::new, |first| {
            first.models.iter().map(|it| it.model.as_str()).collect()
        })
    }
}

impl fmt::Display for PlannedBenchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.benchmark.name();
        if let Some(given) = &self.given {
            return writeln!(f, "{name}: 1 cell = the model in {}", given.display());
        }
        let names = self.names();
        let settings = match (self.benchmark, self.datasets) {
            (_, Some([present, wanted])) => format!(
                "{} datasets ({present} of {wanted} are present)",
                present.max(1)
            ),
            (Benchmark::Efficiency, _) => format!("{} budgets", self.settings.len()),
            _ => format!("{} lengths", self.settings.len()),
        };
        writeln!(
            f,
            "{name}: {} cells = {} models ({}) x {settings} x {} seeds from {}",
            Count(self.n_cells),
            names.len(),
            names.join(", "),
            self.n_seeds,
            self.first_seed
        )?;
        self.settings
            .iter()
            .try_for_each(|setting| setting.fmt(f))?;
        self.write_tuning(f)
    }
}

impl fmt::Display for PlannedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  N = {}: ", Count(self.seq_len as u64))?;
        match (self.n_steps, self.training_tokens_a_cell) {
            (Some(steps), Some(tokens)) => writeln!(
                f,
                "{} steps, {} training tokens a cell",
                Count(steps),
                Count(tokens)
            )?,
            _ => writeln!(f, "as many steps as the epochs take at the longest length")?,
        }
        self.models.iter().try_for_each(|model| model.fmt(f))
    }
}

impl fmt::Display for PlannedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = &self.model;
        if let Some(at) = self.at_budget {
            writeln!(
                f,
                "    {model} under {:e} FLOPs: {} layers of {}, {:.4e} forward FLOPs a token, {:.4e} without head",
                at.budget.get(),
                at.n_layers,
                at.d_model,
                at.forward_flops_per_token.get(),
                at.forward_flops_per_token_without_head.get()
            )?;
        }
        write!(f, "    {model} needs {}", self.memory)?;
        match (&self.skipped, self.seconds) {
            (Some(Outcome::Skipped { reason, .. }), _) => write!(f, "; to be skipped: {reason}")?,
            (_, Some(seconds)) => write!(f, "; {}", Seconds(seconds))?,
            _ => {}
        }
        writeln!(f)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for benchmark in &self.benchmarks {
            benchmark.fmt(f)?;
        }
        if let (Some(device), Some(seconds)) = (&self.device, self.seconds)
            && !self.estimated_from.is_empty()
        {
            writeln!(
                f,
                "About {} of training in all on {device}, one cell after the other. Timed just now and scaled by FLOPs, steps \
                 and parameters: {}. Audits, evaluation and what a benchmark measures besides come on top.",
                Seconds(seconds),
                self.estimated_from.join("; ")
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
