//! A training that was stopped and goes on ends with the bits of one that was not.

use std::path::Path;

use bkbench::config::{ModelConfig, Precision, TrainConfig};
use bkbench::data::{Batches, Tokens};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel, weights};
use bkbench::results::Outcome;
use bkbench::train::{
    CheckpointFolder, Interrupt, LossScale, Observer, Step, TrainState, Trained, Training,
    optimiser, train,
};
use bkbench::{Error, Result};
use burn::tensor::Device;

use crate::support;

const N_STEPS: u64 = 6;
const FILES: [&str; 3] = ["weights.safetensors", "moments.bpk", "state.json"];

/// Hears of a training; stops it after the step `stop_after`.
#[derive(Default)]
struct Listener {
    stop_after: Option<u64>,
    /// By a failure of the device instead of a request.
    by_failure: bool,
    interrupt: Interrupt,
    steps: Vec<Step>,
    messages: Vec<String>,
}

impl Observer for Listener {
    fn message(&mut self, text: &str) {
        self.messages.push(text.into());
    }
    fn start(&mut self, first: u64) -> Result<()> {
        self.steps.retain(|step| step.index < first);
        Ok(())
    }
    fn step(&mut self, step: Step) -> Result<()> {
        self.steps.push(step);
        if self.stop_after == Some(step.index) {
            if self.by_failure {
                self.stop_after = None;
                return Err(Error::Device {
                    doing: "a test".into(),
                    reason: "made up".into(),
                });
            }
            self.interrupt.request();
        }
        Ok(())
    }
    fn before_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, 64)
        .unwrap()
        .remove(0)
}

fn run(
    architecture: Architecture,
    device: &Device,
    folder: &Path,
    listener: &mut Listener,
) -> Result<Trained> {
    run_with(
        &TrainConfig::default(),
        architecture,
        device,
        folder,
        listener,
    )
}

fn run_with(
    config: &TrainConfig,
    architecture: Architecture,
    device: &Device,
    folder: &Path,
    listener: &mut Listener,
) -> Result<Trained> {
    let random = |at: u64| words(3, Coordinate::new(Purpose::Test).at(at))[0] % 64;
    let text: Vec<u32> = (0..2000).map(random).collect();
    let model = ModelConfig {
        dropout: 0.1,
        ..ModelConfig::default()
    };
    let config = TrainConfig {
        learning_rate: 1e-2,
        checkpoint_every_seconds: 0.0,
        ..config.clone()
    };
    let interrupt = listener.interrupt.clone();
    let training = Training {
        shape: &shape(architecture),
        model: &model,
        config: &config,
        batches: &Batches::new(Tokens::from_ids(&text, 64), 24, 2, 42).unwrap(),
        batch_shape: BatchShape {
            batch: 2,
            seq_len: 24,
        },
        n_steps: N_STEPS,
        seed: 42,
        stream: 0,
        device,
        memory_limit: None,
        checkpoints: Some(&CheckpointFolder::new(folder)),
        interrupt: &interrupt,
    };
    train(&training, listener)
}

/// Everything about a training that must not depend on where it was stopped.
fn bits(trained: &Trained) -> (String, String, String, u64, Outcome) {
    (
        weights::sha256(&trained.model).unwrap(),
        serde_json::to_string(&trained.curves).unwrap(),
        trained.data_order_sha256.clone(),
        trained.skipped_steps,
        trained.outcome.clone(),
    )
}

#[test]
fn a_training_stopped_at_any_step_ends_with_the_bits_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in Architecture::ALL {
        for (name, device) in [("cpu", support::cpu()), ("wgpu", support::wgpu())] {
            let at = |stop: &str| {
                folder
                    .path()
                    .join(format!("{architecture:?}-{name}-{stop}"))
            };
            let whole = run(
                architecture,
                &device,
                &at("never"),
                &mut Listener::default(),
            )
            .unwrap();
            // Stopped again and again, each time after one step.
            let stops = at("always");
            for step in 0..N_STEPS - 1 {
                let mut listener = Listener {
                    stop_after: Some(step),
                    ..Listener::default()
                };
                let error = run(architecture, &device, &stops, &mut listener).unwrap_err();
                assert!(matches!(error, Error::Interrupted), "{error}");
                let taken: Vec<u64> = listener.steps.iter().map(|step| step.index).collect();
                assert_eq!(taken, [step], "no step is taken twice");
            }
            let last = run(architecture, &device, &stops, &mut Listener::default()).unwrap();
            assert_eq!(bits(&last), bits(&whole), "{architecture:?} on {name}");
            // A training that had ended is not trained on.
            let mut listener = Listener::default();
            let again = run(architecture, &device, &stops, &mut listener).unwrap();
            assert_eq!((bits(&again), listener.steps), (bits(&whole), Vec::new()));
        }
    }
}

#[test]
fn the_loss_scale_is_part_of_where_a_training_stands() {
    let folder = tempfile::tempdir().unwrap();
    let device = support::wgpu();
    let config = TrainConfig {
        precision: Precision::Mixed,
        ..TrainConfig::default()
    };
    // Too high at first, or to be doubled on the way.
    for (name, scale) in [
        (
            "halved",
            LossScale {
                factor: 2_f64.powi(34),
                n_held: 0,
            },
        ),
        (
            "doubled",
            LossScale {
                factor: 256.0,
                n_held: 1997,
            },
        ),
    ] {
        let begin = |stop: &str| {
            let path = folder.path().join(format!("{name}-{stop}"));
            let model =
                LanguageModel::new(&shape(Architecture::Mamba), 42, &device.clone().autodiff());
            let adamw = optimiser::adamw(&model, &config, optimiser::Decay::Standard);
            let state = TrainState {
                loss_scale: Some(scale),
                ..TrainState::default()
            };
            CheckpointFolder::new(&path)
                .save(&state, &model, &adamw)
                .unwrap();
            path
        };
        let train = |path: &Path, listener: &mut Listener| {
            run_with(&config, Architecture::Mamba, &device, path, listener)
        };
        let end = |path: &Path| {
            let (newest, _) = CheckpointFolder::new(path).newest();
            newest.unwrap().state.loss_scale.unwrap()
        };
        let (never, always) = (begin("never"), begin("always"));
        let whole = train(&never, &mut Listener::default()).unwrap();
        for step in 0..N_STEPS - 1 {
            let mut listener = Listener {
                stop_after: Some(step),
                ..Listener::default()
            };
            train(&always, &mut listener).unwrap_err();
        }
        let last = train(&always, &mut Listener::default()).unwrap();
        assert_eq!(bits(&last), bits(&whole), "{name}");
        assert_eq!(end(&always), end(&never), "{name}");
        let n_overflows = i32::try_from(whole.curves.loss_scale_overflows.len()).unwrap();
        let (expected, n_held) = match name {
            "halved" => (2_f64.powi(34 - n_overflows), 6),
            _ => (512.0, 3),
        };
        assert_eq!(
            (end(&never).factor, end(&never).n_held),
            (expected, n_held),
            "{name}"
        );
        assert_eq!(n_overflows > 0, name == "halved");
    }
}

#[test]
fn a_device_that_fails_once_leaves_no_trace_in_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let device = support::cpu();
    let mamba = |name: &str, listener: &mut Listener| {
        run(
            Architecture::Mamba,
            &device,
            &folder.path().join(name),
            listener,
        )
    };
    let whole = mamba("whole", &mut Listener::default()).unwrap();
    let mut listener = Listener {
        stop_after: Some(3),
        by_failure: true,
        ..Listener::default()
    };
    let error = mamba("failing", &mut listener).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert_eq!(
        bits(&mamba("failing", &mut listener).unwrap()),
        bits(&whole)
    );
    let heard: Vec<u64> = listener.steps.iter().map(|step| step.index).collect();
    assert_eq!(
        heard,
        [0, 1, 2, 3, 4, 5],
        "step 3 was taken back and taken again"
    );
}

#[test]
fn moments_are_part_of_where_a_training_stands() {
    let folder = tempfile::tempdir().unwrap();
    let device = support::cpu();
    let whole = folder.path().join("whole");
    let expected = run(
        Architecture::ResNetBk,
        &device,
        &whole,
        &mut Listener::default(),
    )
    .unwrap();

    let stopped = CheckpointFolder::new(folder.path().join("stopped"));
    let mut listener = Listener {
        stop_after: Some(2),
        ..Listener::default()
    };
    run(
        Architecture::ResNetBk,
        &device,
        stopped.path(),
        &mut listener,
    )
    .unwrap_err();
    let checkpoint = stopped.newest().0.unwrap();
    let model = LanguageModel::new(
        &shape(Architecture::ResNetBk),
        7,
        &device.clone().autodiff(),
    );
    let model = checkpoint.weights(model).unwrap();
    let forgetful = optimiser::adamw(&model, &TrainConfig::default(), optimiser::Decay::Standard);
    // The same step, weights and curves, with moments that know nothing.
    stopped.save(&checkpoint.state, &model, &forgetful).unwrap();
    let trained = run(
        Architecture::ResNetBk,
        &device,
        stopped.path(),
        &mut Listener::default(),
    )
    .unwrap();
    assert_ne!(bits(&trained).0, bits(&expected).0);
}

/// Damages a file of a checkpoint in one of three ways.
fn damage(file: &Path, how: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    match how {
        0 => bytes.truncate(bytes.len() / 2),
        1 => {
            // Inside the values, where no parser can see it.
            let at = bytes.len() * 3 / 4;
            bytes[at] ^= 1;
        }
        _ => return std::fs::remove_file(file).unwrap(),
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_announced_and_the_one_before_it_taken() {
    let folder = tempfile::tempdir().unwrap();
    let device = support::cpu();
    let mamba =
        |path: &Path, listener: &mut Listener| run(Architecture::Mamba, &device, path, listener);
    let whole = mamba(&folder.path().join("whole"), &mut Listener::default()).unwrap();
    for (index, file) in FILES.into_iter().enumerate() {
        for how in 0..3 {
            let path = folder.path().join(format!("{index}-{how}"));
            let mut stopped = Listener {
                stop_after: Some(3),
                ..Listener::default()
            };
            mamba(&path, &mut stopped).unwrap_err();
            damage(&path.join("step-4").join(file), how);

            let mut listener = Listener::default();
            let trained = mamba(&path, &mut listener).unwrap();
            let heard = listener.messages.join("\n");
            assert!(
                heard.contains("step-4 is damaged") && heard.contains(file),
                "{heard}"
            );
            assert!(heard.contains("going on from step 3"), "{heard}");
            assert_eq!(listener.steps[0].index, 3, "{file}, damage {how}");
            assert_eq!(bits(&trained), bits(&whole), "{file}, damage {how}");
        }
    }
    // Both damaged: from the start.
    let path = folder.path().join("all");
    let mut stopped = Listener {
        stop_after: Some(3),
        ..Listener::default()
    };
    mamba(&path, &mut stopped).unwrap_err();
    for step in ["step-3", "step-4"] {
        damage(&path.join(step).join(FILES[0]), 0);
    }
    let mut listener = Listener::default();
    assert_eq!(bits(&mamba(&path, &mut listener).unwrap()), bits(&whole));
    assert_eq!((listener.messages.len(), listener.steps[0].index), (2, 0));
}

#[test]
fn a_checkpoint_that_was_being_written_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let device = support::cpu();
    let mut stopped = Listener {
        stop_after: Some(3),
        ..Listener::default()
    };
    run(Architecture::NoMixer, &device, folder.path(), &mut stopped).unwrap_err();
    let (newest, unfinished) = (
        folder.path().join("step-4"),
        folder.path().join("unfinished"),
    );
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join(FILES[0]), b"the beginning").unwrap();
    let mut listener = Listener::default();
    run(Architecture::NoMixer, &device, folder.path(), &mut listener).unwrap();
    assert_eq!(listener.steps[0].index, 4);
    assert_eq!(listener.messages, [""; 0]);
    assert!(!unfinished.exists() && !newest.exists(), "swept up");
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "the newest and the one before it");
}

#[test]
fn a_training_that_takes_too_long_is_timed_out_after_a_whole_step() {
    let folder = tempfile::tempdir().unwrap();
    let limited = |seconds| {
        let config = TrainConfig {
            max_cell_seconds: Some(seconds),
            ..TrainConfig::default()
        };
        let (device, mut listener) = (support::cpu(), Listener::default());
        let folder = folder.path().join(seconds.to_string());
        run_with(
            &config,
            Architecture::Mamba,
            &device,
            &folder,
            &mut listener,
        )
        .unwrap()
    };
    let trained = limited(1e-9);
    assert!(
        matches!(trained.outcome, Outcome::TimedOut { .. }),
        "{:?}",
        trained.outcome
    );
    assert_eq!(trained.curves.loss_nats.len(), 1);
    assert_eq!(limited(1e9).outcome, Outcome::Completed);
}
