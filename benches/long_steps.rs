//! Optimiser steps at growing sequence lengths on the CPU backend, in segments, with exact gradients: time per token and
//! the most memory that a step adds, at `d_model` 128, 4 layers, byte vocabulary. The lengths take turns, so that
//! whatever else the machine does meets all of them.
//!
//! `cargo bench --profile dev --bench long_steps -- [models] [lengths] [rounds]`, for example `resnetbk,mamba 16384,131072 5`

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::Instant;

use bkbench::accounting::memory::{self, Meter};
use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, Carry, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel};
use bkbench::stats;
use bkbench::train::{Objective, Sequences, optimiser, segments};
use burn::tensor::Device;

const VOCAB_SIZE: usize = 256;
const SEGMENT_LEN: usize = 4096;

fn main() {
    memory::keep_freed();
    // `cargo bench` adds a flag of its own.
    let given: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let all: Vec<Architecture> = Architecture::ALL
        .into_iter()
        .filter(|model| model.carry() == Carry::Finite)
        .collect();
    let models = given.first().map_or(all, |names| {
        let parse = |name| Architecture::parse(name).expect("a registered model");
        names.split(',').map(parse).collect()
    });
    let lengths = given.get(1).map_or("16384,131072", String::as_str);
    let lengths: Vec<usize> = lengths
        .split(',')
        .map(|length| length.parse().expect("a length"))
        .collect();
    let rounds = given.get(2).map_or(5, |n| n.parse().expect("a number"));
    println!(
        "model           N        s/step   us/token  peak MiB   (medians of {rounds}, highest peak)"
    );
    for model in models {
        for (length, seconds, peak) in measure(model, &lengths, rounds) {
            println!(
                "{:<14} {length:>8} {seconds:>9.2} {:>10.2} {peak:>9.1}",
                model.name(),
                seconds * 1e6 / length as f64
            );
        }
    }
}

/// Length, seconds of a step and peak in MiB of each length.
fn measure(model: Architecture, lengths: &[usize], rounds: usize) -> Vec<(usize, f64, f64)> {
    let device = Device::flex().autodiff();
    let config = TrainConfig::default();
    let sizes = ModelConfig {
        d_model: 128,
        n_layers: 4,
        ..ModelConfig::default()
    };
    let shape = matched_shapes(&[Architecture::Mamba, model], &sizes, VOCAB_SIZE)
        .expect("the models match")
        .remove(1);
    let longest = lengths.iter().max().copied().unwrap_or(0) as u64;
    let random = |position| words(1, Coordinate::new(Purpose::Test).at(position))[0] % 256;
    let tokens: Vec<u32> = (0..=longest).map(random).collect();
    let objective = Objective::new(&sizes, &config, 42, 0);
    let mut trained = LanguageModel::new(&shape, 42, &device);
    let mut adamw = optimiser::adamw(&trained, &config, optimiser::Decay::Standard);
    let mut seconds = vec![Vec::new(); lengths.len()];
    let mut peaks = vec![0.0_f64; lengths.len()];
    // The first round warms up and is not counted.
    for round in 0..=rounds {
        for (i, &seq_len) in lengths.iter().enumerate() {
            let sequences = Sequences {
                inputs: &tokens[..seq_len],
                targets: &tokens[1..=seq_len],
                shape: BatchShape { batch: 1, seq_len },
            };
            let meter = Meter::start(&Device::flex(), None);
            let start = Instant::now();
            let gradient = objective
                .gradient(
                    &trained,
                    &sequences,
                    &segments(seq_len, SEGMENT_LEN),
                    Some(&meter),
                )
                .expect("a finite step");
            let gradients = gradient.clipped(&trained, config.gradient_clip_norm);
            trained = adamw.step(1e-3, trained.clone(), gradients);
            if round > 0 || rounds == 0 {
                seconds[i].push(start.elapsed().as_secs_f64());
            }
            peaks[i] = peaks[i].max(meter.peak().0 as f64 / f64::from(1 << 20));
        }
    }
    let median = |times: &Vec<f64>| stats::median(times).unwrap_or(f64::NAN);
    lengths
        .iter()
        .zip(&seconds)
        .zip(peaks)
        .map(|((&length, times), peak)| (length, median(times), peak))
        .collect()
}
