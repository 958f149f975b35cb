//! What `run`, `resume` and `replay` share: the device, the data and the grid of a configuration.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;

use crate::bench::Progress;
use crate::bench::run::{Checkpoints, Grid, Part, Run};
use crate::config::{Benchmark, ComparedModels, Config, Fairness, ModelConfig};
use crate::data::{self, Collection, Dataset};
use crate::eval::three_gram_ce;
use crate::hardware::adapters::Cpu;
use crate::hardware::{self, DeviceChoice, Hardware, Stopwatch, rates};
use crate::models::checkpoint::{self, Loaded};
use crate::report::document::visible;
use crate::report::plot::{self, Drawing, stability};
use crate::report::table::table;
use crate::report::{efficiency, multidataset, quantization, recall, tuning};
use crate::results::{AbsentDataset, Finite, GuideFile, Machine, ResultsFile, RunRecord, problems};
use crate::train::Interrupt;
use crate::verify::numerics;
use crate::{Error, Result};

/// Everything a configuration stands for on this machine.
#[derive(Debug)]
pub(super) struct Session {
    /// With the length of segments that suits the device, where none was named.
    pub(super) config: Config,
    pub(super) hardware: Hardware,
    pub(super) parts: Vec<Part>,
    /// Datasets that were asked for and are not here.
    pub(super) absent: Vec<AbsentDataset>,
}

impl Session {
    /// Whatever can be wrong with the input is found here.
    pub(super) fn open(mut config: Config, progress: &mut dyn Progress) -> Result<Self> {
        let choice: DeviceChoice = config.device.name.parse()?;
        let hardware = hardware::open(&choice, config.device.require_adapter.as_deref())?;
        hardware.require(config.train.precision)?;
        let path = config.quantization.checkpoint.clone();
        let given = path.map(|path| given(&path, &mut config, &hardware));
        let given = given.transpose()?;
        let mut parts = Vec::new();
        let mut absent = Vec::new();
        let mut note = |line: &str| progress.message(line);
        let mut own: Option<Dataset> = None;
        for &benchmark in &config.benchmarks {
            let datasets = if benchmark == Benchmark::Multidataset {
                let n_tokens = config.tokens_of_steps(benchmark);
                let names = &config.multidataset.datasets;
                let cache = data::cache_dir();
                let found = Collection::load(names, &config.data, n_tokens, &cache, &mut note)?;
                absent = found.absent;
                found.present
            } else {
                let dataset = match own {
                    Some(dataset) => dataset,
                    None => data::load(&config.data, &mut note)?,
                };
                own = Some(dataset.clone());
                vec![(config.data.clone(), dataset)]
            };
            for (data, dataset) in datasets {
                let config = Config {
                    data,
                    ..config.only(benchmark)
                };
                let grid = match &given {
                    Some(given) => Grid::of_given(&given.shape, &config, &dataset)?,
                    None => Grid::new(&config, &dataset)?,
                };
                let tunes = config.fairness.contains(&Fairness::EqualTuning);
                let to_tune_on =
                    tunes.then(|| to_tune_on(&dataset, &config, grid.longest(), &mut note));
                parts.push(Part {
                    benchmark,
                    three_gram_ce_nats: Finite::new(three_gram_ce(&dataset)?),
                    to_tune_on: to_tune_on.transpose()?,
                    grid,
                    config,
                    dataset,
                    given: given.clone(),
                });
            }
        }
        let adapter = hardware.adapter.as_ref();
        let segment_len =
            |part: &Part| part.grid.segment_len(part.config.train.batch_size, adapter);
        let shortest = parts.iter().map(segment_len).min();
        config.train.segment_len = config.train.segment_len.or(shortest);
        for part in &mut parts {
            part.config.train.segment_len = config.train.segment_len;
        }
        Ok(Self {
            config,
            hardware,
            parts,
            absent,
        })
    }

    /// Says of every text that it lies where `record` says so. What a cell is called depends on it, and what the text is
    /// does not: the folder may have been moved.
    pub(super) fn name_folders_as(&mut self, record: &RunRecord) {
        for part in &mut self.parts {
            let dataset = (part.benchmark == Benchmark::Multidataset).then_some(&part.dataset.name);
            let manifest = record.manifest(dataset.map(String::as_str));
            let Some(source) = manifest["source"].as_str() else {
                continue;
            };
            for dataset in std::iter::once(&mut part.dataset).chain(&mut part.to_tune_on) {
                source.clone_into(&mut dataset.manifest.source);
            }
        }
    }

    pub(super) fn run<'a>(
        &'a self,
        checkpoints: &'a Checkpoints,
        interrupt: &'a Interrupt,
    ) -> Run<'a> {
        Run {
            config: &self.config,
            parts: &self.parts,
            absent: &self.absent,
            hardware: &self.hardware,
            checkpoints,
            interrupt,
        }
    }
}

/// What the record says of the machine beyond its fingerprint. Rates that cannot be measured end no run.
pub(super) fn machine(hardware: &Hardware, progress: &mut dyn Progress) -> Result<Machine> {
    let described = |what: serde_json::Result<Value>| {
        what.map_err(|error| Error::CheckFailed(format!("the machine has no JSON: {error}")))
    };
    let rates =
        Stopwatch::new(&hardware.device).and_then(|stopwatch| rates::measure(hardware, &stopwatch));
    let rates = match rates {
        Ok(rates) => {
            progress.message(&format!("the device {rates}"));
            Some(rates)
        }
        Err(error) => {
            progress.message(&format!(
                "warning: the device's rates are not known: {error}"
            ));
            None
        }
    };
    let adapter = hardware.adapter.as_ref().map(serde_json::to_value);
    Ok(Machine {
        cpu: described(serde_json::to_value(Cpu::detect()))?,
        adapter: adapter.map(described).transpose()?,
        rates,
        numerics: numerics::measure(&hardware.device)?,
    })
}

/// What learning rates are chosen on, where one window of the longest length fits in the text that trials are trained on.
fn to_tune_on(
    dataset: &Dataset,
    config: &Config,
    longest: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Dataset> {
    let text = dataset.for_tuning(&config.data, &data::cache_dir(), note)?;
    if text.train.len() > longest {
        return Ok(text);
    }
    Err(Error::bad_input(
        "--fairness equal_tuning",
        format!(
            "one window needs {} tokens, and the training text without what learning rates are chosen by has {}",
            longest + 1,
            text.train.len()
        ),
        "give shorter lengths, or a longer text with --text",
    ))
}

/// The model at `path`, which takes the place of those that `config` would train.
fn given(path: &Path, config: &mut Config, hardware: &Hardware) -> Result<Loaded> {
    let given = checkpoint::load(path, &hardware.device)?;
    given.tokenizer(Some(&config.data.tokenizer))?;
    let shape = &given.shape;
    config.models = ComparedModels {
        a: shape.architecture.name().to_owned(),
        b: None,
        control: None,
    };
    config.seeds.count = 1;
    config.fairness = vec![Fairness::Identical];
    config.model = ModelConfig {
        d_model: shape.d_model,
        n_layers: shape.n_layers,
        d_state: shape.d_state,
        d_conv: shape.d_conv,
        expand: shape.expand,
        // A model without experts has none; the configuration knows no such number.
        n_experts: shape.n_experts.max(1),
        top_k: shape.top_k.max(1),
        ..config.model.clone()
    };
    Ok(given)
}

/// A request to end that Ctrl-C or the system's wish to end the process makes. The second time, the process ends at
/// once: checkpoints and records are whole at any time.
pub(super) fn on_signals() -> Result<Interrupt> {
    let asked = Arc::new(AtomicBool::new(false));
    for &signal in TERM_SIGNALS {
        // In this order: the first signal finds the flag down and only raises it.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
            .and_then(|_| flag::register(signal, Arc::clone(&asked)))
            .map_err(|error| Error::CheckFailed(format!("cannot listen to Ctrl-C: {error}")))?;
    }
    Ok(Interrupt::new(asked))
}

/// Prints the tables of a complete run, draws a graph for each benchmark, and writes the guide's JSON where asked.
pub(super) fn finish(record: &RunRecord, dir: &Path, guide_file: Option<GuideFile>) -> Result<()> {
    for problem in problems(record) {
        println!("WARNING: {}", visible(&problem));
    }
    let ways = record.ways();
    let parts: Vec<RunRecord> = ways.iter().flat_map(RunRecord::parts).collect();
    for part in &parts {
        if parts.len() > 1 {
            println!("{}\n", title(part, ways.len()));
        }
        if !part.summaries.is_empty() {
            println!("{}", table(part));
        }
        let others = [
            recall::table(part),
            quantization::table(part),
            efficiency::table(part),
            multidataset::table(part),
        ];
        for table in others.into_iter().flatten() {
            println!("{}", visible(&table));
        }
    }
    if let Some(tuning) = tuning::table(record) {
        println!("{}", visible(&tuning));
    }
    for warning in &record.warnings {
        println!("warning: {}", visible(&warning.to_string()));
    }
    println!("results: {}", dir.display());
    if let Some(file) = guide_file {
        file.write(record).map_err(|error| error.stopped(dir))?;
    }
    for part in parts {
        for &benchmark in &part.config.benchmarks {
            // The record is whole and the tables are printed: a picture that cannot be drawn ends nothing.
            match draw(benchmark, part.clone()) {
                Ok((name, drawing)) => {
                    let name = match part.config.fairness[..] {
                        [Fairness::EqualTuning] => format!("{name}-tuned"),
                        _ => name.to_owned(),
                    };
                    save(&drawing, dir, &name)?;
                }
                Err(error) => println!("{}", visible(&format!("no plot: {error}"))),
            }
        }
    }
    Ok(())
}

/// Benchmark, and how learning rates were set where that was done in several ways.
fn title(part: &RunRecord, n_ways: usize) -> String {
    match part.config.fairness[..] {
        [fairness] if n_ways > 1 => format!("{}, {}", part.config.title(), fairness.title()),
        _ => part.config.title(),
    }
}

/// The graph of a benchmark, and its name.
fn draw(benchmark: Benchmark, part: RunRecord) -> Result<(&'static str, Drawing)> {
    let results = ResultsFile::Record(Box::new(part));
    let show_confidence_intervals = true;
    match benchmark {
        Benchmark::Longcontext => {
            let options = stability::Options {
                seq_lengths: Vec::new(),
                annotate_divergence: true,
                show_confidence_intervals,
            };
            Ok(("stability", stability::draw(&results, &options)?))
        }
        Benchmark::Quantization => {
            let options = plot::quantization::Options {
                bit_widths: Vec::new(),
                annotate_threshold: None,
                show_confidence_intervals,
            };
            Ok((
                "quantization",
                plot::quantization::draw(&results, &options)?,
            ))
        }
        Benchmark::Efficiency => {
            let options = plot::efficiency::Options {
                flops_budgets: Vec::new(),
                annotate_pareto: true,
                show_confidence_intervals,
            };
            Ok(("efficiency", plot::efficiency::draw(&results, &options)?))
        }
        Benchmark::Multidataset => {
            let options = plot::multidataset::Options {
                show_confidence_intervals,
            };
            let drawing = plot::multidataset::draw(&results, options)?;
            Ok(("multidataset", drawing))
        }
    }
}

fn save(drawing: &Drawing, dir: &Path, name: &str) -> Result<()> {
    for format in ["svg", "png"] {
        let path = dir.join(format!("{name}.{format}"));
        drawing.save(&path).map_err(|error| error.stopped(dir))?;
        println!("picture: {}", path.display());
    }
    Ok(())
}
