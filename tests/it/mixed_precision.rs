//! Products in f16: what they give up against f32, and the scale of the loss that keeps gradients in their range.

use std::path::Path;

use bkbench::config::{Config, ModelConfig, Precision, TrainConfig};
use bkbench::data::{Batches, Tokens};
use bkbench::math::random::{Coordinate, Purpose, normal_vec, words};
use bkbench::models::registry::{Architecture, Carry, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel, weights};
use bkbench::ops::linear_cross_entropy;
use bkbench::results::{DivergenceCause, NonFinite, Outcome, TrainingKey};
use bkbench::train::{
    CheckpointFolder, Gradient, Interrupt, LossScale, Objective, Sequences, TrainState, Trained,
    Training, optimiser, segments, train,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};

use crate::support::{self, tensor, values};

const VOCAB: usize = 64;
const SEQ_LEN: usize = 48;
const BATCH: usize = 2;
const SHAPE: BatchShape = BatchShape {
    batch: BATCH,
    seq_len: SEQ_LEN,
};

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0)
}

/// Pseudo-text: each token depends on the one before it, with noise.
fn ids(n: usize) -> Vec<u32> {
    let mut ids = vec![0_u32; n];
    for i in 1..n {
        let [noise, pick, ..] = words(3, Coordinate::new(Purpose::Test).at(i as u64));
        let expected = (ids[i - 1] * 5 + 1) % 64;
        ids[i] = if noise % 4 == 0 { pick % 64 } else { expected };
    }
    ids
}

fn config(precision: Precision) -> TrainConfig {
    TrainConfig {
        precision,
        learning_rate: 3e-3,
        checkpoint_every_seconds: 0.0,
        ..TrainConfig::default()
    }
}

/// Trains on wgpu, from the newest checkpoint in `folder` where there is one.
fn run(architecture: Architecture, precision: Precision, n_steps: u64, folder: &Path) -> Trained {
    let training = Training {
        shape: &shape(architecture),
        model: &ModelConfig::default(),
        config: &config(precision),
        batches: &Batches::new(Tokens::from_ids(&ids(4000), VOCAB), SEQ_LEN, BATCH, 42).unwrap(),
        batch_shape: SHAPE,
        n_steps,
        seed: 42,
        stream: 0,
        device: &support::wgpu(),
        memory_limit: None,
        checkpoints: Some(&CheckpointFolder::new(folder)),
        interrupt: &Interrupt::default(),
    };
    train(&training, &mut ()).unwrap()
}

/// Leaves a checkpoint at the start of a training: what it begins with is then up to us.
fn begin(folder: &Path, architecture: Architecture, scale: LossScale, poison: Option<&str>) {
    let device = support::wgpu().autodiff();
    let model = LanguageModel::new(&shape(architecture), 42, &device);
    let mut old = weights::named(&model).unwrap().into_iter();
    let model = weights::load(model, |name, _| {
        let mut values = old.next().unwrap().values;
        if poison.is_some_and(|poisoned| name.ends_with(poisoned)) {
            values[0] = f32::INFINITY;
        }
        Ok(values)
    })
    .unwrap();
    let state = TrainState {
        loss_scale: Some(scale),
        ..TrainState::default()
    };
    let adamw = optimiser::adamw(
        &model,
        &config(Precision::Mixed),
        optimiser::Decay::Standard,
    );
    CheckpointFolder::new(folder)
        .save(&state, &model, &adamw)
        .unwrap();
}

fn scale_after(folder: &Path) -> LossScale {
    let (newest, _) = CheckpointFolder::new(folder).newest();
    newest.unwrap().state.loss_scale.unwrap()
}

fn losses(trained: &Trained) -> Vec<f64> {
    let curve = &trained.curves.loss_nats;
    curve
        .iter()
        .map(|loss| loss.expect("finite").get())
        .collect()
}

/// Root mean square of the difference over that of the reference.
fn ratio(reference: &[f64], other: &[f64]) -> f64 {
    let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let off = sum(&mut reference.iter().zip(other).map(|(a, b)| a - b));
    let scale = sum(&mut reference.iter().copied());
    if off == 0.0 {
        0.0
    } else {
        (off / scale).sqrt()
    }
}

/// Loss and gradients of the head on wgpu.
fn head(scale: f32, precision: Precision) -> [Vec<f64>; 3] {
    let device = support::wgpu().autodiff();
    let (tokens, d_model, vocab) = (89, 40, 301);
    let draw = |row: u32, n: usize| {
        let at = Coordinate {
            row,
            ..Coordinate::new(Purpose::Test)
        };
        let values = normal_vec(4, at, n, 1.0);
        values.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let leaf = |row, shape: [usize; 2]| {
        tensor(&draw(row, shape[0] * shape[1]), shape, &device, DType::F32).require_grad()
    };
    let (x, weight) = (leaf(0, [tokens, d_model]), leaf(1, [vocab, d_model]));
    let targets: Vec<u32> = (0..tokens as u32).map(|t| t * 7 % vocab as u32).collect();
    let loss =
        linear_cross_entropy::train(x.clone(), weight.clone(), &targets, 43, scale, precision)
            .unwrap();
    let gradients = loss.backward();
    [
        values(loss.inner()),
        values(x.grad(&gradients).unwrap()),
        values(weight.grad(&gradients).unwrap()),
    ]
}

#[test]
fn the_head_loses_three_digits_in_f16_and_everything_where_its_gradients_are_too_small() {
    let [full, mixed] =
        [Precision::F32, Precision::Mixed].map(|precision| head(1.0 / 89.0, precision));
    for (what, (full, mixed)) in ["loss", "d_x", "d_weight"]
        .iter()
        .zip(full.iter().zip(&mixed))
    {
        let off = ratio(full, mixed);
        assert!(off < 2e-3, "{what}: {off:e}");
        assert!(off > 0.0, "{what}: was that f16?");
    }
    let [_, d_x, d_weight] = head(1e-9, Precision::Mixed);
    assert!(d_x.iter().chain(&d_weight).all(|&g| g == 0.0));
    let [_, d_x, _] = head(1e-9, Precision::F32);
    assert!(d_x.iter().all(|&g| g != 0.0));
}

fn gradient(objective: &Objective, model: &LanguageModel, segment_len: usize) -> Gradient {
    let ids = ids(BATCH * SEQ_LEN + 1);
    let sequences = Sequences {
        inputs: &ids[..BATCH * SEQ_LEN],
        targets: &ids[1..],
        shape: SHAPE,
    };
    let pieces = segments(SEQ_LEN, segment_len);
    objective
        .gradient(model, &sequences, &pieces, None)
        .unwrap()
}

fn on_host(model: &LanguageModel, gradients: &GradientsParams) -> Vec<(String, Vec<f64>)> {
    struct Reader<'a> {
        path: Vec<String>,
        gradients: &'a GradientsParams,
        read: Vec<(String, Vec<f64>)>,
    }
    impl ModuleVisitor for Reader<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.gradients.get::<D>(param.id);
            let read = gradient.map(values).unwrap_or_default();
            self.read.push((self.path.join("."), read));
        }
    }
    let mut reader = Reader {
        path: Vec::new(),
        gradients,
        read: Vec::new(),
    };
    model.visit(&mut reader);
    reader.read
}

fn finite() -> impl Iterator<Item = Architecture> {
    let carries = |model: &Architecture| model.carry() == Carry::Finite;
    Architecture::ALL.into_iter().filter(carries)
}

/// A load balance that weighs as much as the loss, so that a scale that it lacks shows.
fn objective(precision: Precision) -> Objective {
    let model = ModelConfig {
        dropout: 0.2,
        load_balance_weight: 1.0,
        act_penalty: 1.0,
        ..ModelConfig::default()
    };
    Objective::new(&model, &config(precision), 7, 3)
}

/// With one expert: a token that rounding sends elsewhere would change more than rounding does.
fn model(architecture: Architecture, device: &Device) -> LanguageModel {
    let shape = ModelShape {
        n_experts: 1,
        ..shape(architecture)
    };
    LanguageModel::new(&shape, 11, &device.clone().autodiff())
}

#[test]
fn in_f32_a_loss_scale_leaves_every_bit_of_the_gradient_as_it_is() {
    for architecture in finite() {
        let model = model(architecture, &support::cpu());
        for gradient_checkpointing in [false, true] {
            for segment_len in [SEQ_LEN, 13] {
                let plain = Objective {
                    gradient_checkpointing,
                    ..objective(Precision::F32)
                };
                let scaled = Objective {
                    loss_scale: 4096.0,
                    ..plain
                };
                let [plain, scaled] =
                    [plain, scaled].map(|objective| gradient(&objective, &model, segment_len));
                assert_eq!(
                    (plain.loss_nats, plain.norm),
                    (scaled.loss_nats, scaled.norm)
                );
                let [plain, scaled] =
                    [plain, scaled].map(|gradient| on_host(&model, &gradient.gradients));
                assert!(
                    plain == scaled,
                    "{architecture:?}, segments of {segment_len}"
                );
            }
        }
    }
}

#[test]
fn gradients_in_f16_are_those_of_f32_but_for_rounding_whole_and_in_segments() {
    for architecture in finite() {
        let model = model(architecture, &support::wgpu());
        let full = gradient(&objective(Precision::F32), &model, SEQ_LEN);
        let full = on_host(&model, &full.gradients);
        let flat = |gradients: &[(String, Vec<f64>)]| -> Vec<f64> {
            gradients
                .iter()
                .flat_map(|(_, values)| values.clone())
                .collect()
        };
        for (gradient_checkpointing, segment_len) in [(false, SEQ_LEN), (false, 13), (true, 13)] {
            let objective = Objective {
                loss_scale: 1024.0,
                gradient_checkpointing,
                ..objective(Precision::Mixed)
            };
            let mixed = gradient(&objective, &model, segment_len);
            let mixed = on_host(&model, &mixed.gradients);
            // The derivative by a single number may be a small difference of large ones.
            for ((name, full), (_, mixed)) in full.iter().zip(&mixed) {
                let off = ratio(full, mixed);
                assert!(
                    off < 0.1,
                    "{architecture:?}, {segment_len}, {name}: {off:e}"
                );
            }
            let off = ratio(&flat(&full), &flat(&mixed));
            assert!(off < 2e-2, "{architecture:?}, {segment_len}: {off:e}");
            assert!(off > 1e-4, "{architecture:?}, {segment_len}: was that f16?");
        }
    }
}

#[test]
fn mixed_and_f32_train_alike_and_a_rerun_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in [Architecture::ResNetBk, Architecture::Mamba] {
        let train = |name: &str, precision| {
            let folder = folder.path().join(format!("{architecture:?}-{name}"));
            run(architecture, precision, 8, &folder)
        };
        let full = train("full", Precision::F32);
        let (mixed, again) = (
            train("mixed", Precision::Mixed),
            train("again", Precision::Mixed),
        );
        assert_eq!(
            [&mixed, &again].map(|trained| weights::sha256(&trained.model).unwrap())[0],
            weights::sha256(&again.model).unwrap()
        );
        assert_eq!(mixed.curves, again.curves);
        assert_ne!(losses(&full), losses(&mixed), "was that f16?");
        let off = losses(&full)
            .into_iter()
            .zip(losses(&mixed))
            .map(|(full, mixed)| (full - mixed).abs() / full)
            .fold(0.0, f64::max);
        assert!(off < 1e-3, "{architecture:?}: {off:e}");
        assert_eq!(mixed.curves.nan_count(), 0);
        assert!(full.curves.loss_scale_overflows.is_empty());
    }
}

#[test]
fn an_overflow_is_counted_apart_and_the_same_batch_tried_again_at_half_the_scale() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in [Architecture::ResNetBk, Architecture::Mamba] {
        let train = |name: &str, factor: f64| {
            let folder = folder.path().join(format!("{architecture:?}-{name}"));
            let scale = LossScale {
                factor,
                n_held: 1998,
            };
            begin(&folder, architecture, scale, None);
            let trained = run(architecture, Precision::Mixed, 4, &folder);
            (trained, scale_after(&folder))
        };
        let (high, scale) = train("high", 2_f64.powi(40));
        let overflows = &high.curves.loss_scale_overflows;
        assert!(overflows.len() > 10, "2^40 is too much: {overflows:?}");
        assert_eq!(
            overflows.iter().filter(|&&step| step == 0).count(),
            overflows.len()
        );
        assert_eq!(
            scale.factor,
            2_f64.powi(40 - i32::try_from(overflows.len()).unwrap())
        );
        assert_eq!(scale.n_held, 4, "the count began anew");
        assert_eq!(high.outcome, Outcome::Completed);
        assert_eq!((high.curves.nan_count(), high.skipped_steps), (0, 0));

        let low = folder.path().join(format!("{architecture:?}-low"));
        let first = LossScale { n_held: 0, ..scale };
        begin(&low, architecture, first, None);
        let low = run(architecture, Precision::Mixed, 4, &low);
        assert!(low.curves.loss_scale_overflows.is_empty());
        assert_eq!(losses(&low), losses(&high));
        assert_eq!(low.curves.gradient_norm, high.curves.gradient_norm);
        assert_eq!(low.data_order_sha256, high.data_order_sha256);
        let hash = |trained: &Trained| weights::sha256(&trained.model).unwrap();
        assert_eq!(hash(&low), hash(&high));

        let (_, scale) = train("growing", 256.0);
        assert_eq!(
            (scale.factor, scale.n_held),
            (512.0, 2),
            "doubled after two steps"
        );
    }
}

#[test]
fn a_gradient_that_no_scale_explains_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let scale = LossScale {
        factor: 256.0,
        n_held: 7,
    };
    // The potential is bounded, so that the loss stays finite; what flows back is 0 times infinity.
    let name = "layers.0.block.ResNetBk.potential.weight";
    begin(folder.path(), Architecture::ResNetBk, scale, Some(name));
    let trained = run(Architecture::ResNetBk, Precision::Mixed, 20, folder.path());
    let cause = DivergenceCause::NonFinite;
    assert_eq!(trained.outcome, Outcome::Diverged { step: 4, cause });
    let curves = &trained.curves;
    assert_eq!((curves.nan_count(), trained.skipped_steps), (5, 5));
    assert!(curves.loss_nats.iter().all(Option::is_some));
    assert!(curves.gradient_norm.iter().all(Option::is_none));
    let tried: Vec<u64> = (0..5).flat_map(|step| [step; 8]).collect();
    assert_eq!(curves.loss_scale_overflows, tried, "256 has eight halves");
    for fault in &curves.faults {
        let backward = matches!(fault.first, Some(NonFinite::Backward { .. }));
        assert!(backward, "{fault:?}");
    }
    // The last checkpoint is that after four of the steps: they left the scale as they found it.
    assert_eq!(scale_after(folder.path()), scale);
}

#[test]
fn a_loss_that_is_not_finite_is_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let scale = LossScale {
        factor: 256.0,
        n_held: 7,
    };
    begin(
        folder.path(),
        Architecture::Mamba,
        scale,
        Some("norm.gamma"),
    );
    let trained = run(Architecture::Mamba, Precision::Mixed, 20, folder.path());
    assert_eq!(trained.curves.nan_count(), 5);
    assert!(trained.curves.loss_scale_overflows.is_empty());
    assert_eq!(scale_after(folder.path()), scale);
}

#[test]
fn a_training_in_mixed_precision_is_another_training() {
    let id = |precision| {
        let mut config = Config::default();
        config.train.precision = precision;
        TrainingKey::new(&config, &"mamba".into(), "00", 512, 42, 10)
            .id()
            .unwrap()
    };
    assert_ne!(id(Precision::F32), id(Precision::Mixed));
}
