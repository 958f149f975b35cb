//! The models: sizes, causality, initial loss, equal weights everywhere, and whether they can learn what
//! they should.

use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::data::{Batches, Tokens};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel, weights};
use bkbench::train::{Interrupt, Training, train};
use burn::tensor::Device;

use crate::support;

const VOCAB: usize = 97;

fn config(d_model: usize, n_layers: usize) -> ModelConfig {
    ModelConfig {
        d_model,
        n_layers,
        ..ModelConfig::default()
    }
}

fn shapes(d_model: usize, n_layers: usize) -> Vec<ModelShape> {
    matched_shapes(&Architecture::ALL, &config(d_model, n_layers), VOCAB).expect("sizes that match")
}

fn small(architecture: Architecture) -> ModelShape {
    let mut shapes = shapes(32, 2);
    shapes.retain(|shape| shape.architecture == architecture);
    shapes.remove(0)
}

fn tokens(n: usize) -> Vec<u32> {
    let at = |i| words(5, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    (0..n as u64).map(at).collect()
}

/// `[tokens, vocab]` scores of whole sequences.
fn logits(model: &LanguageModel, tokens: &[u32], shape: BatchShape) -> Vec<Vec<f64>> {
    let states = model.initial_states(shape.batch);
    let hidden = model.infer(tokens, shape, states).expect("a forward pass");
    let values = support::values(model.logits(hidden.x).unwrap());
    values
        .chunks(values.len() / tokens.len())
        .map(<[f64]>::to_vec)
        .collect()
}

#[test]
fn formulas_count_the_parameters_that_are_built() {
    let mut all = [shapes(32, 2), shapes(48, 3)].concat();
    // What published Mamba models may have and ours do not.
    all.push(ModelShape {
        tied_head: false,
        dt_rank: 5,
        projection_bias: true,
        ..small(Architecture::Mamba)
    });
    for shape in all {
        let model = LanguageModel::new(&shape, 0, &support::cpu());
        let sizes: Vec<(String, usize)> = weights::named(&model)
            .unwrap()
            .into_iter()
            .map(|weight| (weight.name, weight.values.len()))
            .collect();
        let sum = |counts: fn(&str) -> bool| -> usize {
            sizes
                .iter()
                .filter(|(name, _)| counts(name))
                .map(|(_, n)| n)
                .sum()
        };
        let count = shape.parameters();
        assert_eq!(count.total, sum(|_| true), "{shape:?}");
        let inner = sum(|name| name != "embedding" && name != "head");
        assert_eq!(count.non_embedding, inner, "{shape:?}");
        // Of four equal experts a token uses one, or two at most.
        let experts = sum(|name| name.contains(".experts.networks."));
        let n_idle = match shape.architecture {
            Architecture::ResNetBkScatter => 2,
            _ => 3,
        };
        assert_eq!(count.active, inner - experts * n_idle / 4, "{shape:?}");
    }
}

#[test]
fn matched_models_differ_by_a_tenth_at_most() {
    for (d_model, n_layers) in [(64, 2), (256, 6)] {
        let sizes = shapes(d_model, n_layers)
            .iter()
            .map(|shape| shape.parameters().non_embedding)
            .collect::<Vec<_>>();
        let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(
            *max as f64 / *min as f64 <= 1.10,
            "D {d_model}, L {n_layers}: {sizes:?}"
        );
    }
}

/// Largest difference of a position's scores, relative to the largest score.
fn change(a: &[Vec<f64>], b: &[Vec<f64>], position: usize) -> f64 {
    let largest = a.iter().flatten().fold(0.0_f64, |m, v| m.max(v.abs()));
    let pairs = a[position].iter().zip(&b[position]);
    pairs.fold(0.0_f64, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn later_tokens_leave_earlier_logits_alone() {
    const N: usize = 70;
    let shape = BatchShape {
        batch: 2,
        seq_len: N,
    };
    let original = tokens(2 * N);
    // The published model sees what it is to predict: `resnetbk_variants` measures how much.
    let causal = |model: &Architecture| *model != Architecture::ResNetBkPublished;
    for architecture in Architecture::ALL.into_iter().filter(causal) {
        let model = LanguageModel::new(&small(architecture), 1, &support::cpu());
        let before = logits(&model, &original, shape);
        for t in [1, N / 2, N - 1] {
            let mut changed = original.clone();
            for sequence in changed.chunks_mut(N) {
                sequence[t..]
                    .iter_mut()
                    .for_each(|token| *token = (*token + 1) % VOCAB as u32);
            }
            let after = logits(&model, &changed, shape);
            for position in 0..2 * N {
                let difference = change(&before, &after, position);
                if position % N < t {
                    assert!(
                        difference <= 1e-5,
                        "{architecture:?}, {t}: {position} moved by {difference}"
                    );
                } else if position % N == t {
                    assert!(
                        difference > 1e-3,
                        "{architecture:?} does not see its own token"
                    );
                }
            }
        }
    }
}

#[test]
fn models_see_the_token_before_and_the_control_does_not() {
    const N: usize = 12;
    let shape = BatchShape {
        batch: 1,
        seq_len: N,
    };
    let original = tokens(N);
    let mut changed = original.clone();
    changed[5] = (changed[5] + 1) % VOCAB as u32;
    for architecture in Architecture::ALL {
        let model = LanguageModel::new(&small(architecture), 1, &support::cpu());
        let (before, after) = (
            logits(&model, &original, shape),
            logits(&model, &changed, shape),
        );
        let after_the_change = (6..N).map(|position| change(&before, &after, position));
        let largest = after_the_change.fold(0.0, f64::max);
        if architecture == Architecture::NoMixer {
            assert!(largest <= 1e-6, "the control moved by {largest}");
        } else {
            assert!(largest > 1e-4, "{architecture:?} moved by {largest} only");
        }
    }
}

#[test]
fn the_initial_loss_is_that_of_guessing() {
    let shape = BatchShape {
        batch: 4,
        seq_len: 64,
    };
    let (inputs, targets) = (tokens(256), tokens(512).split_off(256));
    for architecture in Architecture::ALL {
        let model = LanguageModel::new(&small(architecture), 3, &support::cpu());
        let hidden = model
            .infer(&inputs, shape, model.initial_states(4))
            .unwrap();
        let nll = support::values(model.nll(hidden.x, &targets, 100).unwrap());
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        let guessing = (VOCAB as f64).ln();
        assert!(
            (mean - guessing).abs() < 0.3,
            "{architecture:?}: {mean} against {guessing}"
        );
    }
}

#[test]
fn a_seed_gives_the_same_weights_on_every_device_and_another_seed_others() {
    for architecture in Architecture::ALL {
        let hash = |seed, device: &Device| {
            let model = LanguageModel::new(&small(architecture), seed, device);
            weights::sha256(&model).unwrap()
        };
        let here = hash(7, &support::cpu());
        assert_eq!(here, hash(7, &support::cpu()));
        assert_eq!(here, hash(7, &support::wgpu()));
        assert_ne!(here, hash(8, &support::cpu()));
    }
}

#[test]
fn the_control_is_resnetbk_without_the_mixing() {
    let device = support::cpu();
    let [full, control] = [Architecture::ResNetBk, Architecture::NoMixer]
        .map(|architecture| LanguageModel::new(&small(architecture), 2, &device));
    let hash = |model: &LanguageModel| weights::sha256(model).unwrap();
    assert_eq!(hash(&full), hash(&control), "equal parameters");

    let shape = BatchShape {
        batch: 1,
        seq_len: 20,
    };
    let scores = |model: &LanguageModel| logits(model, &tokens(20), shape);
    assert_ne!(scores(&full), scores(&control));
    let unscaled = |model: LanguageModel| {
        let named = weights::named(&model).unwrap();
        let mut values = named.into_iter();
        weights::load(model, |name, _| {
            let weight = values.next().unwrap();
            assert_eq!(weight.name, name);
            let is_scale = name.rsplit('.').next() == Some("scale");
            Ok(if is_scale { vec![0.0] } else { weight.values })
        })
        .unwrap()
    };
    assert_eq!(scores(&unscaled(full)), scores(&unscaled(control)));
}

/// A text in which what follows 1 depends on what came before it: targets that are off by one, or a model
/// that mixes nothing, cannot reach 0.
#[test]
fn a_repeated_pattern_is_learnt_by_the_models_and_not_by_the_control() {
    let pattern = [1, 2, 1, 3, 1, 4, 5];
    let text: Vec<u32> = pattern.into_iter().cycle().take(2000).collect();
    for architecture in Architecture::ALL {
        let train_config = TrainConfig {
            learning_rate: 1e-2,
            ..TrainConfig::default()
        };
        let training = Training {
            shape: &small(architecture),
            model: &ModelConfig::default(),
            config: &train_config,
            batches: &Batches::new(Tokens::from_ids(&text, VOCAB), 64, 2, 42).unwrap(),
            batch_shape: BatchShape {
                batch: 2,
                seq_len: 64,
            },
            n_steps: 600,
            seed: 42,
            stream: 0,
            device: &support::cpu(),
            memory_limit: None,
            checkpoints: None,
            interrupt: &Interrupt::default(),
        };
        let trained = train(&training, &mut ()).unwrap();
        // The median, for single steps leap.
        let mut losses = trained.curves.loss_nats[500..].to_vec();
        losses.sort_by(|a, b| a.unwrap().get().total_cmp(&b.unwrap().get()));
        let loss = losses[50].unwrap().get();
        println!("{architecture:?} reached {loss:.3} nat");
        if architecture == Architecture::NoMixer {
            // Three of seven tokens are a 1, and three things follow it: 3/7 ln 3 = 0.471 nat.
            assert!((loss - 0.471).abs() < 0.05, "the control reached {loss}");
        } else {
            let bound = match architecture {
                // The published gradient is none, and that of the scattering model does not foresee that a step of the potential
                // changes experts: both get there slowly, and how far hangs on the rounding of products. Below this they
                // use what came before.
                Architecture::ResNetBkPublished | Architecture::ResNetBkScatter => 0.471 - 0.05,
                _ => 0.05,
            };
            assert!(loss < bound, "{architecture:?} reached {loss} only");
        }
    }
}

#[test]
fn a_blank_model_has_the_parameters_of_a_drawn_one_and_no_values() {
    for shape in shapes(32, 2) {
        let drawn = LanguageModel::new(&shape, 5, &support::cpu());
        let blank = LanguageModel::blank(&shape, &support::cpu());
        let drawn = weights::named(&drawn).unwrap();
        let names: Vec<_> = drawn.into_iter().map(|it| (it.name, it.shape)).collect();
        assert_eq!(weights::shapes(&blank), names);
        // What is drawn; scales, norms and the like start as they do.
        let embedding = &weights::named(&blank).unwrap()[0];
        assert_eq!(embedding.name, "embedding");
        assert!(embedding.values.iter().all(|&value| value == 0.0));
    }
}
