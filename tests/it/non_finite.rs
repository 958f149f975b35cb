//! Values that are not finite: counted by their bits, and traced to where they arose.

use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel, weights};
use bkbench::ops::non_finite;
use bkbench::results::NonFinite;
use bkbench::train::{Objective, Sequences, diagnose, optimiser};
use burn::tensor::{DType, Device};

use crate::support;

const SEQ_LEN: usize = 24;

#[test]
fn infinities_and_nans_are_counted_on_both_devices() {
    for device in [support::cpu(), support::wgpu()] {
        // one value, a workgroup's share and its neighbours, several workgroups
        for n in [1, 63, 64, 65, 16_383, 16_384, 16_385, 70_001] {
            let mut values = vec![1.0; n];
            let at = |values: &[f64]| {
                let x = support::tensor(values, [n], &device, DType::F32);
                non_finite::count(x).unwrap()
            };
            // The largest and the smallest numbers there are, and both zeros, are finite.
            for (i, extreme) in [3.4e38, -3.4e38, 1e-45, -0.0].into_iter().enumerate() {
                values[i * (n - 1) / 3] = extreme;
            }
            assert_eq!(at(&values), 0, "{n} finite values");
            values[0] = f64::NAN;
            assert_eq!(at(&values), 1, "{n} values, the first NaN");
            values[n - 1] = f64::NEG_INFINITY;
            values[n / 2] = f64::INFINITY;
            let expected = [0, n / 2, n - 1]
                .into_iter()
                .collect::<std::collections::HashSet<_>>();
            assert_eq!(at(&values), expected.len() as u64, "{n} values");
        }
    }
}

#[test]
fn nothing_cannot_be_counted() {
    let nothing = support::tensor::<1>(&[], [0], &support::cpu(), DType::F32);
    assert_eq!(non_finite::count(nothing).unwrap_err().exit_code(), 2);
}

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 3,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, 31)
        .unwrap()
        .remove(0)
}

fn objective() -> Objective {
    Objective::new(&ModelConfig::default(), &TrainConfig::default(), 5, 0)
}

fn ids() -> Vec<u32> {
    (0..=SEQ_LEN as u32).map(|i| i * 7 % 31).collect()
}

fn sequences(ids: &[u32]) -> Sequences<'_> {
    Sequences {
        inputs: &ids[..SEQ_LEN],
        targets: &ids[1..],
        shape: BatchShape {
            batch: 1,
            seq_len: SEQ_LEN,
        },
    }
}

/// What the diagnosis says of a model in which `poison` stands at the end of the parameter called `name`.
fn first(
    architecture: Architecture,
    device: &Device,
    name: &str,
    poison: f32,
) -> Option<NonFinite> {
    let model = LanguageModel::new(&shape(architecture), 5, &device.clone().autodiff());
    let mut values = weights::named(&model).unwrap().into_iter();
    let mut found = false;
    let model = weights::load(model, |parameter, _| {
        let mut values = values.next().unwrap().values;
        if parameter.ends_with(name) && parameter.starts_with("layers.1.") {
            found = true;
            *values.last_mut().unwrap() = poison;
        }
        Ok(values)
    })
    .unwrap();
    assert!(found || name.is_empty(), "no parameter ends with {name}");
    let (objective, ids) = (objective(), ids());
    let sequences = sequences(&ids);
    let gradient = objective
        .gradient(&model, &sequences, &[0..SEQ_LEN], None)
        .unwrap();
    diagnose(&objective, &model, &sequences, 10, &gradient.gradients).unwrap()
}

#[test]
fn an_injected_fault_is_traced_to_its_layer_and_operation() {
    let forward = |operation: &str| {
        Some(NonFinite::Forward {
            layer: 2,
            operation: operation.to_owned(),
        })
    };
    for device in [support::cpu(), support::wgpu()] {
        for poison in [f32::NAN, f32::INFINITY] {
            for (architecture, name, operation) in [
                (Architecture::Mamba, "in_proj.weight", "in_proj"),
                (Architecture::Mamba, "conv_bias", "causal_conv"),
                (Architecture::Mamba, "x_proj.weight", "x_proj"),
                (
                    Architecture::Mamba,
                    "dt_proj.bias",
                    "selective_scan.delta_raw",
                ),
                (Architecture::Mamba, "out_proj.weight", "out_proj"),
                (Architecture::ResNetBk, "router.bias", "router"),
                (Architecture::ResNetBk, "output.weight", "output"),
                (Architecture::ResNetBkAct, "router.bias", "router"),
                (
                    Architecture::ResNetBkScatter,
                    "networks.3.down.bias",
                    "experts",
                ),
            ] {
                let found = first(architecture, &device, name, poison);
                assert_eq!(found, forward(operation), "{poison} in {name}");
            }
        }
    }
}

#[test]
fn a_finite_step_has_no_fault() {
    for architecture in [Architecture::Mamba, Architecture::ResNetBk] {
        assert_eq!(first(architecture, &support::cpu(), "", 0.0), None);
    }
}

#[test]
fn a_fault_of_the_backward_pass_names_the_parameter_it_came_to_first() {
    let device = support::cpu().autodiff();
    let model = LanguageModel::new(&shape(Architecture::Mamba), 5, &device);
    let (objective, ids) = (objective(), ids());
    let sequences = sequences(&ids);
    let whole = [0..SEQ_LEN];
    let gradient = objective
        .gradient(&model, &sequences, &whole, None)
        .unwrap();
    let gradients = optimiser::scale(&model, gradient.gradients, f64::INFINITY);
    let found = diagnose(&objective, &model, &sequences, SEQ_LEN, &gradients).unwrap();
    let parameter = "norm.gamma".to_owned();
    assert_eq!(found, Some(NonFinite::Backward { parameter }));
}
