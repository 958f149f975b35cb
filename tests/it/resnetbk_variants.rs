//! `resnetbk-mh`, whose shifts are learned; `resnetbk-published`, which is not causal; `resnetbk-scatter` and
//! `resnetbk-act`, whose tokens cost what they are.

use bkbench::Error;
use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::hardware::read;
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, Carry, matched_shapes};
use bkbench::models::{BatchShape, BlockState, Forward, LanguageModel, Observer, weights};
use bkbench::ops::ledger::Ledger;
use bkbench::results::{FlopsCategory, FlopsPass};
use bkbench::train::{Gradient, Objective, Sequences};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::compare::misses;
use crate::support;

const VOCAB: usize = 23;
const SHAPE: BatchShape = BatchShape {
    batch: 2,
    seq_len: 19,
};

fn model(architecture: Architecture, device: &Device) -> LanguageModel {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    let shape = matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0);
    LanguageModel::new(&shape, 11, device)
}

fn tokens(n: usize) -> Vec<u32> {
    let at = |i| words(5, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    (0..n as u64).map(at).collect()
}

/// Cross-entropy alone: no terms of routers.
fn gradient(model: &LanguageModel) -> Gradient {
    gradient_with(model, 0.0)
}

/// No load balance.
fn gradient_with(model: &LanguageModel, act_penalty: f64) -> Gradient {
    let config = ModelConfig {
        load_balance_weight: 0.0,
        act_penalty,
        ..ModelConfig::default()
    };
    let n = SHAPE.n_tokens();
    let ids = tokens(2 * n);
    let sequences = Sequences {
        inputs: &ids[..n],
        targets: &ids[n..],
        shape: SHAPE,
    };
    let objective = Objective::new(&config, &TrainConfig::default(), 7, 0);
    let whole = 0..SHAPE.seq_len;
    objective
        .gradient(model, &sequences, &[whole], None)
        .unwrap()
}

/// Casts every parameter to `f64`, and adds `step` to element `element` of the parameter whose path ends
/// with `name` in the first layer that has it.
struct Moved<'a> {
    path: Vec<String>,
    name: &'a str,
    element: usize,
    step: f64,
    done: bool,
}

impl ModuleMapper for Moved<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let here = !self.done && self.path.join(".").ends_with(self.name);
        self.done |= here;
        param.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            let mut values = read::doubles(tensor, "test").unwrap();
            if here {
                values[self.element] += self.step;
            }
            let data = TensorData::new(values, shape);
            Tensor::from_data(data, (&device, DType::F64)).require_grad()
        })
    }
}

fn moved(model: &LanguageModel, name: &str, element: usize, step: f64) -> LanguageModel {
    let mut mapper = Moved {
        path: Vec::new(),
        name,
        element,
        step,
        done: false,
    };
    let model = model.clone().map(&mut mapper);
    assert!(mapper.done, "no parameter is called {name}");
    model
}

/// The gradient of the first parameter whose path ends with `name`.
fn gradient_of(model: &LanguageModel, gradient: &Gradient, name: &str) -> Option<Vec<f64>> {
    struct Find<'a> {
        path: Vec<String>,
        name: &'a str,
        gradient: &'a Gradient,
        /// Layer by layer; none where no gradient reached it.
        found: Vec<Option<Vec<f64>>>,
    }
    impl ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.path.join(".").ends_with(self.name) {
                let gradient = self.gradient.gradients.get::<D>(param.id);
                self.found
                    .push(gradient.map(|g| read::doubles(g, "test").unwrap()));
            }
        }
    }
    let mut find = Find {
        path: Vec::new(),
        name,
        gradient,
        found: Vec::new(),
    };
    model.visit(&mut find);
    find.found.swap_remove(0)
}

/// Through the shifts, the potential and the output, in `f64`; the first layer is seen through the second.
#[test]
fn gradients_of_many_heads_are_finite_differences_of_the_loss() {
    let model = model(Architecture::ResNetBkMh, &support::cpu().autodiff());
    let start = moved(&model, "shifts.re", 0, 0.0);
    let exact = gradient(&start);
    let step = 1e-5;
    for name in [
        "shifts.re",
        "shifts.raw_im",
        "potential.bias",
        "output.bias",
    ] {
        let got = gradient_of(&start, &exact, name).unwrap();
        assert!(got.iter().any(|&d| d != 0.0), "{name} has no gradient");
        let loss = |element, step| gradient(&moved(&model, name, element, step)).loss_nats;
        let differences = (0..got.len())
            .map(|k| (loss(k, step) - loss(k, -step)) / (2.0 * step))
            .collect();
        let missed = misses(&[("gradient", got)], &[("gradient", differences)], 1e-5);
        assert!(missed.is_empty(), "{name}: {missed:?}");
    }
}

#[test]
fn many_heads_start_at_the_shift_of_the_one_head_and_keep_above_their_floor() {
    let model = model(Architecture::ResNetBkMh, &support::cpu());
    let values = |name: &str| -> Vec<f32> {
        let weights = weights::named(&model).unwrap();
        let named = weights.into_iter().find(|w| w.name.ends_with(name));
        named.expect("a parameter of that name").values
    };
    assert_eq!(values("shifts.re"), [0.0; 4]);
    for raw in values("shifts.raw_im") {
        let im = 0.05 + f64::from(raw).exp().ln_1p();
        assert!((im - 1.0).abs() < 1e-7, "Im z starts at {im}");
    }
}

#[test]
fn many_heads_need_a_width_that_four_divides() {
    let config = ModelConfig {
        d_model: 18,
        ..ModelConfig::default()
    };
    match matched_shapes(&[Architecture::ResNetBkMh], &config, VOCAB) {
        Err(error @ Error::Config { .. }) => {
            assert!(error.to_string().contains("multiple of 4"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// Largest change of the hidden activations of each position when the token at `changed` becomes another.
fn changes(model: &LanguageModel, changed: usize) -> Vec<f64> {
    let shape = BatchShape {
        batch: 1,
        seq_len: 41,
    };
    let hidden = |tokens: &[u32]| {
        let states = model.initial_states(1);
        let hidden = model.forward(tokens, states, &Forward::infer(shape));
        support::values(hidden.unwrap().x)
    };
    let before = tokens(shape.seq_len);
    let mut after = before.clone();
    after[changed] = (after[changed] + 1) % VOCAB as u32;
    let (before, after) = (hidden(&before), hidden(&after));
    let width = before.len() / shape.seq_len;
    let rows = before.chunks(width).zip(after.chunks(width));
    rows.map(|(a, b)| a.iter().zip(b).fold(0.0, |m, (a, b)| (a - b).abs().max(m)))
        .collect()
}

#[test]
fn the_published_model_sees_the_token_that_it_is_to_predict() {
    const CHANGED: usize = 20;
    let device = support::cpu();
    let leak = changes(&model(Architecture::ResNetBkPublished, &device), CHANGED);
    assert!(
        leak[CHANGED - 1] > 1e-3,
        "it leaks {} only",
        leak[CHANGED - 1]
    );
    assert!(leak[CHANGED + 1] > 1e-3, "it sees what came before, too");
    for architecture in [Architecture::ResNetBk, Architecture::ResNetBkMh] {
        let leak = changes(&model(architecture, &device), CHANGED);
        let earlier = leak[..CHANGED].iter().copied().fold(0.0, f64::max);
        assert!(earlier <= 1e-6, "{architecture:?} leaks {earlier}");
        assert!(leak[CHANGED + 1] > 1e-3, "{architecture:?} sees nothing");
    }
}

#[test]
fn the_published_model_carries_nothing_and_its_router_does_not_learn() {
    let device = support::cpu().autodiff();
    let published = model(Architecture::ResNetBkPublished, &device);
    assert_eq!(Architecture::ResNetBkPublished.carry(), Carry::None);
    let states = published.initial_states(3);
    assert!(
        states
            .iter()
            .all(|state| matches!(state, BlockState::Empty))
    );
    for (architecture, learns) in [
        (Architecture::ResNetBkPublished, false),
        (Architecture::ResNetBk, true),
    ] {
        let model = model(architecture, &device);
        let gradient = gradient(&model);
        let router = gradient_of(&model, &gradient, "router.weight");
        assert_eq!(router.is_some(), learns, "{architecture:?}");
        let potential = gradient_of(&model, &gradient, "potential.weight").unwrap();
        assert!(potential.iter().any(|&d| d != 0.0), "{architecture:?}");
    }
}

/// A state of another kind is an error, not a wrong answer.
#[test]
fn a_state_of_another_model_is_refused() {
    let device = support::cpu();
    let [published, causal] = [Architecture::ResNetBkPublished, Architecture::ResNetBk]
        .map(|architecture| model(architecture, &device));
    let ids = tokens(SHAPE.n_tokens());
    for (model, other) in [(&published, &causal), (&causal, &published)] {
        let states = other.initial_states(SHAPE.batch);
        let outcome = model.forward(&ids, states, &Forward::infer(SHAPE));
        assert!(matches!(outcome, Err(Error::CheckFailed(_))), "{outcome:?}");
    }
}

/// The mean over layers and tokens of the probability that a token is sent to some expert.
#[derive(Debug, Default)]
struct Activity(std::cell::RefCell<Vec<f64>>);

impl Observer for Activity {
    fn see(&self, _layer: usize, what: &'static str, values: Tensor<1>) {
        if what == "router" {
            let probabilities = read::doubles(values, "test").unwrap();
            let of_none = probabilities.chunks(5).map(|row| row[4]);
            self.0.borrow_mut().extend(of_none.map(|p| 1.0 - p));
        }
    }
}

fn activity(model: &LanguageModel) -> f64 {
    let seen = Activity::default();
    let model = model.valid();
    let how = Forward {
        observer: Some(&seen),
        ..Forward::infer(SHAPE)
    };
    let ids = tokens(2 * SHAPE.n_tokens());
    let states = model.initial_states(SHAPE.batch);
    model
        .forward(&ids[..SHAPE.n_tokens()], states, &how)
        .unwrap();
    let seen = seen.0.into_inner();
    assert_eq!(seen.len(), 2 * SHAPE.n_tokens(), "layers x tokens");
    seen.iter().sum::<f64>() / seen.len() as f64
}

#[test]
fn computation_costs_its_penalty_times_the_mean_probability_of_an_expert() {
    let model = model(Architecture::ResNetBkAct, &support::cpu().autodiff());
    let start = moved(&model, "router.bias", 0, 0.0);
    let of = |penalty| {
        let gradient = gradient_with(&start, penalty);
        gradient_of(&start, &gradient, "router.bias").unwrap()
    };
    let (free, charged) = (of(0.0), of(0.7));
    let got = charged.iter().zip(&free).map(|(a, b)| a - b).collect();
    let step = 1e-5;
    let at = |element, step| activity(&moved(&model, "router.bias", element, step));
    let slope = |k| 0.7 * (at(k, step) - at(k, -step)) / (2.0 * step);
    let differences: Vec<f64> = (0..5).map(slope).collect();
    assert!(differences[4] < -0.01, "{differences:?}");
    let missed = misses(&[("gradient", got)], &[("gradient", differences)], 1e-6);
    assert!(missed.is_empty(), "{missed:?}");
}

/// FLOPs of a forward pass, and the activations behind the last layer.
fn counted(model: &LanguageModel) -> (u64, Vec<f64>) {
    let ledger = Ledger::default();
    let model = model.valid();
    let ids = tokens(SHAPE.n_tokens());
    let states = model.initial_states(SHAPE.batch);
    let hidden = ledger.watch(|| model.forward(&ids, states, &Forward::infer(SHAPE)));
    let flops = ledger.breakdown(SHAPE.batch, SHAPE.n_tokens());
    (
        flops.total().algorithmic,
        support::values(hidden.unwrap().x),
    )
}

#[test]
fn tokens_that_go_to_no_expert_cost_nothing_and_get_nothing() {
    for device in [support::cpu(), support::wgpu()] {
        let model = model(Architecture::ResNetBkAct, &device.autodiff());
        let with = |change: &dyn Fn(&str, &mut Vec<f32>)| {
            let mut named = weights::named(&model).unwrap().into_iter();
            weights::load(model.clone(), |name, _| {
                let mut values = named.next().unwrap().values;
                change(name, &mut values);
                Ok(values)
            })
            .unwrap()
        };
        let to_none = |name: &str, values: &mut Vec<f32>| {
            if name.ends_with("router.bias") {
                values[4] = 100.0;
            }
        };
        let idle = with(&to_none);
        let no_experts = with(&|name, values| {
            to_none(name, values);
            if name.contains(".networks.") {
                values.fill(7.0);
            }
        });
        let ((some, _), (none, y)) = (counted(&model), counted(&idle));
        assert_eq!(y, counted(&no_experts).1, "experts that nobody asks");
        let shape = matched_shapes(
            &[Architecture::ResNetBkAct],
            &ModelConfig {
                d_model: 16,
                n_layers: 2,
                ..ModelConfig::default()
            },
            VOCAB,
        )
        .unwrap()
        .remove(0);
        // Nothing but what the layers do without experts; head and loss were not asked for.
        let by_formula = |rows: u64| -> u64 {
            let ops = shape.forward_ops_as_routed(SHAPE, &[rows; 2]);
            let body = ops.iter().filter(|(of, _)| *of != FlopsCategory::Head);
            body.map(|(_, op)| op.cost(FlopsPass::Forward)).sum()
        };
        assert_eq!(none, by_formula(0));
        assert!(none < some && some <= by_formula(SHAPE.n_tokens() as u64));
        // It can be trained from there.
        let gradient = gradient_with(&idle, 0.1);
        assert!(gradient.norm.is_finite() && gradient.norm > 0.0);
    }
}

#[test]
fn the_phase_needs_no_parameters_and_its_gates_no_gradient() {
    let model = model(Architecture::ResNetBkScatter, &support::cpu().autodiff());
    let named = weights::named(&model).unwrap();
    assert!(named.iter().all(|weight| !weight.name.contains("router")));
    let gradient = gradient(&model);
    let potential = gradient_of(&model, &gradient, "potential.weight").unwrap();
    assert!(
        potential.iter().any(|&d| d != 0.0),
        "through the other branch"
    );
    // With that branch off, nothing is left of it.
    let mut values = named.into_iter();
    let cut = weights::load(model, |name, _| {
        let weight = values.next().unwrap();
        Ok(if name.ends_with("scale") {
            vec![0.0]
        } else {
            weight.values
        })
    })
    .unwrap();
    let gradient = self::gradient(&cut);
    let potential = gradient_of(&cut, &gradient, "potential.weight").unwrap();
    assert!(potential.iter().all(|&d| d == 0.0));
}
