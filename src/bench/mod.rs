//! The benchmarks: each returns cells of `results` and prints nothing.

pub mod memory;
mod multidataset;
pub mod pace;
mod quantization;
mod recall;
pub mod run;

/// Where a benchmark reports how far it is.
pub trait Progress {
    /// Something worth a line: the plan, a warning, where files lie.
    fn message(&mut self, text: &str);
    /// A cell of `n_steps` optimiser steps begins.
    fn start_cell(&mut self, name: &str, n_steps: u64);
    /// The cell goes on after the first `step` steps, which were taken before.
    fn continue_cell(&mut self, step: u64);
    /// A step is done: its number counted from 1, its loss in nats per token, and all tokens the cell has trained on so far.
    fn step(&mut self, step: u64, loss: f64, tokens: u64);
    /// The cell ended.
    fn finish_cell(&mut self, outcome: &str);
}
