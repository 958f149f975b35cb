//! What `run`, `resume` and `replay` share: the device, the data and the grid of a configuration.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;

use crate::bench::Progress;
use crate::bench::longcontext::{Checkpoints, Grid, Run};
use crate::config::Config;
use crate::data::{self, Dataset};
use crate::hardware::{self, DeviceChoice, Hardware};
use crate::report::plot::{self, Drawing, stability};
use crate::report::table::table;
use crate::report::{efficiency, quantization, recall};
use crate::results::{GuideFile, ResultsFile, RunRecord};
use crate::train::Interrupt;
use crate::{Error, Result};

/// Everything a configuration stands for on this machine.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) hardware: Hardware,
    pub(super) dataset: Dataset,
    pub(super) grid: Grid,
}

impl Session {
    /// Whatever can be wrong with the input is found here.
    pub(super) fn open(config: &Config, progress: &mut dyn Progress) -> Result<Self> {
        let choice: DeviceChoice = config.device.name.parse()?;
        let hardware = hardware::open(&choice, config.device.require_adapter.as_deref())?;
        hardware.require(config.train.precision)?;
        let dataset = data::load(&config.data, &mut |line| progress.message(line))?;
        let vocab_size = dataset.tokenizer.vocab_size();
        let grid = Grid::new(config, vocab_size, dataset.train.len())?;
        Ok(Self {
            hardware,
            dataset,
            grid,
        })
    }

    pub(super) fn run<'a>(
        &'a self,
        config: &'a Config,
        checkpoints: &'a Checkpoints,
        interrupt: &'a Interrupt,
    ) -> Run<'a> {
        Run {
            config,
            grid: &self.grid,
            hardware: &self.hardware,
            dataset: &self.dataset,
            checkpoints,
            interrupt,
        }
    }
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

/// Prints the table of a complete run, draws its graph, and writes the guide's JSON where asked.
pub(super) fn finish(record: &RunRecord, dir: &Path, guide_file: Option<GuideFile>) -> Result<()> {
    println!("{}", table(record));
    if let Some(recall) = recall::table(record) {
        println!("{recall}");
    }
    if let Some(quantization) = quantization::table(record) {
        println!("{quantization}");
    }
    if let Some(efficiency) = efficiency::table(record) {
        println!("{efficiency}");
    }
    for warning in &record.warnings {
        println!("warning: {warning}");
    }
    println!("results: {}", dir.display());
    if let Some(file) = guide_file {
        file.write(record).map_err(|error| error.stopped(dir))?;
    }
    let results = ResultsFile::Record(Box::new(record.clone()));
    if !record.efficiency.is_empty() {
        let options = plot::efficiency::Options {
            flops_budgets: Vec::new(),
            annotate_pareto: true,
            show_confidence_intervals: true,
        };
        let drawing = plot::efficiency::draw(&results, &options)?;
        return save(&drawing, dir, "efficiency");
    }
    let options = stability::Options {
        seq_lengths: Vec::new(),
        annotate_divergence: true,
        show_confidence_intervals: true,
    };
    save(&stability::draw(&results, &options)?, dir, "stability")?;
    if !record.quantization.is_empty() {
        let options = plot::quantization::Options {
            bit_widths: Vec::new(),
            annotate_threshold: None,
            show_confidence_intervals: true,
        };
        let drawing = plot::quantization::draw(&results, &options)?;
        save(&drawing, dir, "quantization")?;
    }
    Ok(())
}

fn save(drawing: &Drawing, dir: &Path, name: &str) -> Result<()> {
    for format in ["svg", "png"] {
        let path = dir.join(format!("{name}.{format}"));
        drawing.save(&path).map_err(|error| error.stopped(dir))?;
        println!("picture: {}", path.display());
    }
    Ok(())
}
