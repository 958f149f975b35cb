//! A bar on a terminal, plain lines elsewhere, nothing under --quiet. On stderr: stdout is for results.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::Progress;
use crate::units::{Count, Seconds};

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Where this process reports to.
#[derive(Debug)]
pub(super) struct Reporter {
    quiet: bool,
    on_terminal: bool,
    cell: Option<RunningCell>,
}

#[derive(Debug)]
struct RunningCell {
    name: String,
    n_steps: u64,
    /// Steps that were taken before it was continued.
    steps_before: u64,
    began: Instant,
    last_line: Instant,
    /// What the last step showed, as the continuation of a line.
    latest: String,
    bar: Option<ProgressBar>,
}

impl Reporter {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            on_terminal: std::io::stderr().is_terminal(),
            cell: None,
        }
    }
}

impl Progress for Reporter {
    fn message(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        match self.cell.as_ref().and_then(|cell| cell.bar.as_ref()) {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn start_cell(&mut self, name: &str, n_steps: u64) {
        if self.quiet {
            return;
        }
        let bar = self.on_terminal.then(|| {
            let bar = ProgressBar::new(n_steps).with_prefix(name.to_owned());
            // The template is a constant; a mistake in it leaves the default style.
            match ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        if bar.is_none() {
            eprintln!("{name}: {} steps", Count(n_steps));
        }
        let now = Instant::now();
        let name = name.to_owned();
        self.cell = Some(RunningCell {
            name,
            n_steps,
            steps_before: 0,
            began: now,
            last_line: now,
            latest: String::new(),
            bar,
        });
    }

    fn continue_cell(&mut self, step: u64) {
        self.message(&format!("going on after step {}", Count(step)));
        if let Some(cell) = &mut self.cell {
            cell.steps_before = step;
            cell.began = Instant::now();
        }
    }

    fn step(&mut self, step: u64, loss: f64, tokens: u64) {
        let Some(cell) = &mut self.cell else { return };
        let elapsed = cell.began.elapsed().as_secs_f64();
        let taken = step.saturating_sub(cell.steps_before).max(1) as f64;
        let a_step = tokens as f64 / step.max(1) as f64;
        let rate = Count((a_step * taken / elapsed).round() as u64);
        let left = Seconds(elapsed / taken * cell.n_steps.saturating_sub(step) as f64);
        cell.latest = format!(", loss {loss:.3}, {rate} tokens/s");
        if let Some(bar) = &cell.bar {
            bar.set_position(step);
            bar.set_message(format!("{left} left{}", cell.latest));
        } else if cell.last_line.elapsed() >= BETWEEN_LINES {
            cell.last_line = Instant::now();
            eprintln!(
                "  step {} of {}, {left} left{}",
                Count(step),
                Count(cell.n_steps),
                cell.latest
            );
        }
    }

    fn finish_cell(&mut self, outcome: &str) {
        let Some(cell) = self.cell.take() else { return };
        if let Some(bar) = cell.bar {
            bar.finish_and_clear();
        }
        let spent = Seconds(cell.began.elapsed().as_secs_f64());
        eprintln!("{}: {outcome} after {spent}{}", cell.name, cell.latest);
    }
}
