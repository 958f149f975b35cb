//! Memory: what a training is estimated to need, what it is seen to hold, and what happens beyond the limit.
//!
//! The heap is one for the process and the tests run side by side, so that trainings are measured in processes
//! of their own: the binary's.

use std::path::Path;

use assert_cmd::Command;
use bkbench::accounting::memory::{self, Meter};
use bkbench::accounting::{Tensors, estimate_inference};
use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::data::{Batches, Tokens};
use bkbench::hardware::read;
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, Forward, LanguageModel, Observer};
use bkbench::ops::selective_scan;
use bkbench::results::{Cell, Outcome, RunRecord, Warning};
use bkbench::train::{CheckpointFolder, Interrupt, Step, Training, train};
use bkbench::units::Bytes;

use burn::tensor::{Device, Tensor};

use crate::support;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

/// The cells of a run of ResNet-BK, Mamba and the control at `lengths`, and its warnings.
fn measured(config: &str, lengths: &str, device: &str) -> RunRecord {
    let config = format!("[models]\ncontrol = \"no-mixer\"\n{config}");
    measured_models(&config, lengths, device)
}

/// The cells of a run of the models that `config` names.
fn measured_models(config: &str, lengths: &str, device: &str) -> RunRecord {
    let dir = tempfile::tempdir().unwrap();
    let common = "[data]\ntokenizer = \"bytes\"\neval_tokens = 512\n";
    std::fs::write(dir.path().join("c.toml"), format!("{common}{config}")).unwrap();
    let line = format!(
        "run --config c.toml --text {TEXT} --steps 2 --num_seeds 1 --batch_size 1 --seq_lengths {lengths} \
         --device {device} --quiet"
    );
    let output = Command::cargo_bin("bkbench")
        .unwrap()
        .current_dir(dir.path())
        .env("BKBENCH_CACHE", dir.path().join("cache"))
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "));
    RunRecord::load(&dir.path().join(Path::new(folder.unwrap()))).unwrap()
}

/// Estimates lie within 15 % of what the cells held; the first `n_warming` cells are let off, in which
/// libraries allocate once what they keep.
fn agree(record: &RunRecord, n_warming: usize) {
    for cell in &record.cells[n_warming..] {
        let memory = cell.metrics.as_ref().unwrap().memory;
        let ratio = memory.estimated_over_measured().unwrap();
        assert!(
            (ratio - 1.0).abs() < 0.15,
            "{} at {}: held {}, estimated {}",
            cell.model,
            cell.seq_len,
            memory.peak_memory_bytes,
            memory.estimated
        );
    }
}

#[test]
fn the_estimate_is_what_trainings_hold_on_the_heap() {
    let small = measured("[model]\nd_model = 64\nn_layers = 2\n", "512 2048", "cpu");
    agree(&small, 2);
    // Peaks are those of each cell: the small cells of the first length are no shadow of the larger ones.
    let peak = |cell: &Cell| cell.metrics.as_ref().unwrap().memory.peak_memory_bytes;
    let mamba: Vec<&Cell> = small.cells.iter().filter(|c| c.model == "mamba").collect();
    assert!(peak(mamba[1]).0 > 2 * peak(mamba[0]).0);
    let control = small.cells.last().unwrap();
    assert!(
        peak(control).0 < peak(mamba[1]).0,
        "the mark is reset before each cell"
    );
    let deep = measured("[model]\nd_model = 64\nn_layers = 5\n", "1024", "cpu");
    agree(&deep, 1);
}

#[test]
fn the_estimate_is_what_a_transformer_holds_on_both_devices() {
    let config =
        "[models]\na = \"transformer\"\nb = \"mamba\"\n[model]\nd_model = 64\nn_layers = 2\n";
    agree(&measured_models(config, "512 2048", "cpu"), 1);
    agree(&measured_models(config, "512", "wgpu"), 0);
}

#[test]
fn the_estimate_is_what_trainings_in_segments_hold() {
    let config = "[model]\nd_model = 64\nn_layers = 2\n[train]\nsegment_len = 1024\n";
    let record = measured(config, "1024 8192", "cpu");
    agree(&record, 1);
    for model in ["resnetbk", "mamba", "no-mixer"] {
        let mut cells = record.cells.iter().filter(|cell| cell.model == model);
        let mut peak = || {
            let metrics = cells.next().unwrap().metrics.as_ref().unwrap();
            metrics.memory.peak_memory_bytes.0 as f64
        };
        let (one, eight) = (peak(), peak());
        assert!(eight < 1.3 * one, "{model}: {one} and {eight} bytes");
    }
}

#[test]
fn the_estimate_is_what_trainings_hold_on_an_adapter() {
    let config = "[model]\nd_model = 64\nn_layers = 2\n";
    agree(&measured(config, "512", "wgpu"), 0);
}

/// Looks at the memory wherever a model shows what it computes.
#[derive(Debug)]
struct Watch<'a>(&'a Meter);

impl Observer for Watch<'_> {
    fn see(&self, _: usize, what: &'static str, _: Tensor<1>) {
        self.0.sync_point(what).unwrap();
    }
}

/// What a forward pass with its loss is estimated to need over what it is seen to hold.
fn inference(device: &Device, tensors: Tensors, shape: &ModelShape, tokens: BatchShape) -> f64 {
    const LOSS_CHUNK_TOKENS: usize = 256;
    let ids: Vec<u32> = (0..tokens.n_tokens() as u32).map(|i| i * i % 251).collect();
    let meter = Meter::start(device, None);
    let model = LanguageModel::new(shape, 42, device);
    let watch = Watch(&meter);
    let how = Forward {
        // On an adapter memory is seen at sync points alone.
        observer: (tensors == Tensors::OnAdapter).then_some(&watch),
        ..Forward::infer(tokens)
    };
    let states = model.initial_states(tokens.batch);
    let hidden = model.forward(&ids, states, &how).unwrap();
    let nll = model.nll(hidden.x, &ids, LOSS_CHUNK_TOKENS).unwrap();
    read::doubles(nll, "the loss").unwrap();
    meter.sync_point("the loss").unwrap();
    let estimate = estimate_inference(shape, tokens, LOSS_CHUNK_TOKENS, tensors);
    estimate.total().0 as f64 / meter.peak().0 as f64
}

/// Every model and several shapes, after a pass in which libraries allocate once what they keep.
fn inferences(test: &str, device: fn() -> Device, tensors: Tensors) {
    alone(test, || {
        let device = device();
        let shape = |architecture, top_k| {
            let config = ModelConfig {
                d_model: 64,
                n_layers: 3,
                top_k,
                ..ModelConfig::default()
            };
            matched_shapes(&[architecture], &config, 256)
                .unwrap()
                .remove(0)
        };
        let tokens = |batch, seq_len| BatchShape { batch, seq_len };
        let warming = shape(Architecture::Mamba, 1);
        inference(&device, tensors, &warming, tokens(1, 2048));
        memory::take_what_stays(&device);
        for architecture in Architecture::ALL {
            for (top_k, tokens) in [
                (1, tokens(1, 2048)),
                (2, tokens(4, 513)),
                (1, tokens(1, 4096)),
            ] {
                let shape = shape(architecture, top_k);
                let ratio = inference(&device, tensors, &shape, tokens);
                // Where tokens differ in cost, the estimate is the most there can be.
                let most = if architecture.has_variable_cost() {
                    1.6
                } else {
                    1.15
                };
                assert!(
                    (0.85..most).contains(&ratio),
                    "{architecture:?} {tokens:?}: {ratio}"
                );
            }
        }
    });
}

#[test]
fn the_estimate_is_what_inference_holds_on_the_heap() {
    let test = "memory::the_estimate_is_what_inference_holds_on_the_heap";
    inferences(test, support::cpu, Tensors::OnHeap);
}

#[test]
fn the_estimate_is_what_inference_holds_on_an_adapter() {
    let test = "memory::the_estimate_is_what_inference_holds_on_an_adapter";
    inferences(test, support::wgpu, Tensors::OnAdapter);
}

#[test]
fn a_last_state_on_an_adapter_keeps_nothing_of_its_segment() {
    let test = "memory::a_last_state_on_an_adapter_keeps_nothing_of_its_segment";
    alone(test, || {
        const SEQ_LEN: usize = 4096;
        let device = support::wgpu();
        let before = Meter::start(&device, None).at_start().0;
        let ones = |shape: [usize; 3]| Tensor::<3>::ones(shape, &device);
        let per_token = |width| ones([1, SEQ_LEN, width]);
        let inputs = selective_scan::Inputs {
            u: per_token(32),
            delta_raw: per_token(32),
            a: Tensor::<2>::ones([32, 16], &device).neg(),
            b: per_token(16),
            c: per_token(16),
            softplus: true,
        };
        let (y, last) = selective_scan::infer(inputs, ones([1, 32, 16])).unwrap();
        drop(y);
        read::doubles(last.clone(), "the last state").unwrap();
        let kept = Meter::start(&device, None).at_start().0 - before;
        assert!(kept < 2 * (32 * 16 * 4), "{kept} bytes kept");
        drop(last);
    });
}

#[test]
fn the_estimate_is_what_trainings_in_mixed_precision_hold() {
    let config = "[model]\nd_model = 64\nn_layers = 2\n[train]\nprecision = \"mixed\"\n";
    let record = measured(config, "512", "wgpu");
    agree(&record, 0);
}

#[test]
fn a_cell_that_cannot_fit_is_skipped_and_the_others_run() {
    let config = "[model]\nd_model = 64\nn_layers = 2\n[device]\nmemory_limit_mib = 20\n";
    let record = measured(config, "2048", "cpu");
    for cell in &record.cells {
        match &cell.outcome {
            Outcome::Skipped { reason, have, .. } if cell.model == "mamba" => {
                assert!(reason.contains("memory_limit_mib"), "{reason}");
                assert_eq!(have, "20.00 MiB");
            }
            Outcome::Completed if cell.model != "mamba" => {}
            other => panic!("{}: {other:?}", cell.model),
        }
    }
    let off = |warning: &Warning| matches!(warning, Warning::MemoryEstimateOff { .. });
    assert!(!record.warnings.iter().any(off), "{:?}", record.warnings);
}

/// Runs the body of `test` in a process whose heap nobody else uses.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "BKBENCH_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("1 passed"), "{test} is no test: {stdout}");
}

#[test]
fn large_and_small_allocations_count_alike_and_a_new_meter_forgets_the_old_peak() {
    alone(
        "memory::large_and_small_allocations_count_alike_and_a_new_meter_forgets_the_old_peak",
        || {
            const SIZE: u64 = 64 << 20; // in one piece, the system maps it
            let about = |peak: Bytes| (SIZE..SIZE + SIZE / 64).contains(&peak.0);
            let device = support::cpu();

            let meter = Meter::start(&device, None);
            drop(std::hint::black_box(vec![0_u8; SIZE as usize]));
            meter.sync_point("one large allocation").unwrap();
            assert!(about(meter.peak()), "{}", meter.peak());

            let meter = Meter::start(&device, None);
            assert!(meter.peak() < Bytes(SIZE / 64), "{}", meter.peak());
            let pieces: Vec<Box<[u8; 4096]>> =
                (0..SIZE / 4096).map(|_| Box::new([1; 4096])).collect();
            drop(std::hint::black_box(pieces));
            assert!(about(meter.peak()), "{}", meter.peak());

            let meter = Meter::start(&device, None);
            let threads: Vec<_> = (0..4)
                .map(|_| std::thread::spawn(|| vec![1_u8; SIZE as usize / 4]))
                .collect();
            let held: Vec<Vec<u8>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            assert!(about(meter.peak()), "{}", meter.peak());
            drop(held);

            let mut growing = vec![0_u8; 1 << 20];
            let meter = Meter::start(&device, None);
            growing.reserve_exact(SIZE as usize);
            // Grown in place, or moved: then the old block lay beside the new one.
            let grown = SIZE..=SIZE + (1 << 20);
            assert!(grown.contains(&meter.peak().0), "{}", meter.peak());
            assert_eq!(
                meter.at_start().0 >> 20,
                1,
                "what was there before is told apart"
            );
        },
    );
}

#[test]
fn a_training_beyond_its_limit_ends_out_of_memory_with_what_it_asked_for() {
    alone(
        "memory::a_training_beyond_its_limit_ends_out_of_memory_with_what_it_asked_for",
        || {
            const SEQ_LEN: usize = 1024;
            let model = ModelConfig {
                d_model: 64,
                n_layers: 2,
                ..ModelConfig::default()
            };
            let ids: Vec<u32> = (0..8000).map(|i| i * i % 251).collect();
            let outcome = |limit| {
                let training = Training {
                    shape: &matched_shapes(&[Architecture::Mamba], &model, 256).unwrap()[0],
                    model: &model,
                    config: &TrainConfig::default(),
                    batches: &Batches::new(Tokens::from_ids(&ids, 256), SEQ_LEN, 1, 42).unwrap(),
                    batch_shape: BatchShape {
                        batch: 1,
                        seq_len: SEQ_LEN,
                    },
                    n_steps: 2,
                    seed: 42,
                    stream: 0,
                    device: &support::cpu(),
                    memory_limit: limit,
                    checkpoints: None,
                    interrupt: &Interrupt::default(),
                };
                train(&training, &mut ()).unwrap()
            };
            // It holds some 15 MiB: more is enough, less is not.
            let trained = outcome(Some(Bytes(24 << 20)));
            assert_eq!(trained.outcome, Outcome::Completed);
            let limit = Bytes(8 << 20);
            let trained = outcome(Some(limit));
            match trained.outcome {
                Outcome::OutOfMemory {
                    requested_bytes: Some(requested),
                } => assert!(requested > limit, "{requested}"),
                other => panic!("{other:?}"),
            }
            assert!(trained.curves.loss_nats.is_empty(), "in the first step");
        },
    );
}

/// Asks for an end after the first step.
struct Stop<'a>(&'a Interrupt);

impl bkbench::train::Observer for Stop<'_> {
    fn message(&mut self, _text: &str) {}
    fn start(&mut self, _first: u64) -> bkbench::Result<()> {
        Ok(())
    }
    fn step(&mut self, _step: Step) -> bkbench::Result<()> {
        self.0.request();
        Ok(())
    }
    fn before_checkpoint(&mut self) -> bkbench::Result<()> {
        Ok(())
    }
}

#[test]
fn a_training_that_goes_on_holds_what_one_that_never_stopped_holds() {
    alone(
        "memory::a_training_that_goes_on_holds_what_one_that_never_stopped_holds",
        || {
            // Many parameters and few tokens, so that what a checkpoint holds would show.
            const VOCAB: usize = 16_384;
            let dir = tempfile::tempdir().unwrap();
            let model = ModelConfig {
                d_model: 64,
                n_layers: 2,
                ..ModelConfig::default()
            };
            let ids: Vec<u32> = (0..2000).map(|i| i * i % 16_381).collect();
            let train_in = |folder: &str, stops: bool| {
                let interrupt = Interrupt::default();
                let checkpoints = CheckpointFolder::new(dir.path().join(folder));
                let training = Training {
                    shape: &matched_shapes(&[Architecture::Mamba], &model, VOCAB).unwrap()[0],
                    model: &model,
                    config: &TrainConfig::default(),
                    batches: &Batches::new(Tokens::from_ids(&ids, VOCAB), 16, 1, 42).unwrap(),
                    batch_shape: BatchShape {
                        batch: 1,
                        seq_len: 16,
                    },
                    n_steps: 3,
                    seed: 42,
                    stream: 0,
                    device: &support::cpu(),
                    memory_limit: None,
                    checkpoints: Some(&checkpoints),
                    interrupt: &interrupt,
                };
                if stops {
                    train(&training, &mut Stop(&interrupt))
                } else {
                    train(&training, &mut ())
                }
            };
            // In the first training libraries allocate what they keep.
            train_in("first", false).unwrap();
            let whole = train_in("whole", false).unwrap().peak_memory;
            train_in("cut", true).unwrap_err();
            let cut = train_in("cut", false).unwrap().peak_memory;
            println!("held {whole}, after an interruption {cut}");
            assert!(cut.0.abs_diff(whole.0) < whole.0 / 20, "{cut}, {whole}");
        },
    );
}
