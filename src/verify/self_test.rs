//! Faults put in on purpose: what the judges of this crate are worth on this device. Each must be caught, and what it
//! is put into must pass without it.

use burn::tensor::{Device, Tensor, TensorData};

use super::audit::GradientProblem;
use super::{Check, Tolerance};
use crate::config::{ModelConfig, TrainConfig};
use crate::eval::audit;
use crate::hardware::read;
use crate::math::oracle;
use crate::math::random::{Coordinate, Purpose, normal_vec};
use crate::models::registry::{Architecture, ModelShape, matched_shapes};
use crate::models::{BatchShape, Choices, LanguageModel, weights};
use crate::ops::causal_conv::{self, Activation};
use crate::ops::non_finite;
use crate::results::{AuditCheck, NonFinite, Verdict};
use crate::train::{Objective, Sequences, diagnose, segments};
use crate::{Error, Result};

/// Words of the models that are tried.
const VOCAB: usize = 31;
/// Tokens of their texts.
const TOKENS: usize = 24;

/// One kind of fault.
#[derive(Debug)]
pub struct Trial {
    /// The fault, in words.
    pub fault: &'static str,
    /// Why it may not be relied upon to be caught; none where it was.
    pub problem: Option<String>,
}

/// Fails where a fault passes, or where something passes not even without one.
type Judged = fn(&Device) -> Result<()>;

/// Puts in every kind of fault on `device`, which is without autodiff.
pub fn run(device: &Device) -> Vec<Trial> {
    let trials: [(&str, Judged); 5] = [
        ("NaN and infinities among numbers", not_finite),
        (
            "a kernel off by 1 %, by one place, without its tail",
            wrong_kernel,
        ),
        ("a gradient that is off by 1 %", wrong_gradient),
        ("a NaN at a step, traced to its layer", not_finite_step),
        ("a model that sees the tokens it is to predict", leak),
    ];
    trials
        .into_iter()
        .map(|(fault, trial)| Trial {
            fault,
            problem: read::guarded("testing itself", || Ok(trial(device)))
                .and_then(|outcome| outcome)
                .err()
                .map(|error| error.to_string()),
        })
        .collect()
}

fn require(holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::CheckFailed(problem()))
    }
}

/// NaN of either sign and any payload, both infinities; extremes that are finite.
fn not_finite(device: &Device) -> Result<()> {
    let finite = [f32::MAX, f32::MIN, 1e-45, -0.0];
    let faults = [
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let mut values: Vec<f32> = finite.iter().copied().cycle().take(1000).collect();
    for (n, fault) in (0..=faults.len() as u64).zip(faults.iter().chain([&0.0])) {
        let data = TensorData::new(values.clone(), [values.len()]);
        let counted = non_finite::count(Tensor::from_data(data, device))?;
        require(counted == n, || format!("{counted} were counted of {n}"))?;
        values[n as usize * 199] = *fault;
    }
    Ok(())
}

fn wrong_kernel(device: &Device) -> Result<()> {
    const SEQ_LEN: usize = 67;
    const CHANNELS: usize = 3;
    let draw = |row, n| {
        let at = Coordinate {
            row,
            ..Coordinate::new(Purpose::Test)
        };
        normal_vec(3, at, n, 1.0)
    };
    let double = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let n = SEQ_LEN * CHANNELS;
    let (x, weight, bias) = (draw(0, n), draw(1, CHANNELS * 4), draw(2, CHANNELS));
    let exact = oracle::causal_conv::Inputs {
        batch: 1,
        seq_len: SEQ_LEN,
        channels: CHANNELS,
        d_conv: 4,
        silu: true,
        x: double(&x),
        weight: double(&weight),
        bias: double(&bias),
        x0: vec![0.0; 3 * CHANNELS],
    }
    .forward();
    let (y, _) = causal_conv::infer(
        Tensor::from_data(TensorData::new(x, [1, SEQ_LEN, CHANNELS]), device),
        Tensor::from_data(TensorData::new(weight, [CHANNELS, 4]), device),
        Tensor::from_data(TensorData::new(bias, [CHANNELS]), device),
        Tensor::zeros([1, 3, CHANNELS], device),
        Activation::Silu,
    )?;
    let y = read::doubles(y, "testing itself")?;
    let agrees = |y: &[f64]| {
        let tolerance = Tolerance::Relative {
            tol: 1e-5,
            atol: 0.0,
        };
        let check = Check::new("y", (&[n], y), (&[n], &exact), tolerance);
        check.miss.is_none()
    };
    require(agrees(&y), || "the right kernel was refused".into())?;
    let scaled: Vec<f64> = y.iter().map(|v| 1.01 * v).collect();
    let (mut shifted, mut cut) = (y.clone(), y);
    shifted.rotate_right(CHANNELS);
    cut[n - CHANNELS..].fill(0.0);
    for (fault, wrong) in [("1 %", scaled), ("a shift", shifted), ("a lost tail", cut)] {
        require(!agrees(&wrong), || format!("{fault} passed"))?;
    }
    Ok(())
}

fn wrong_gradient(device: &Device) -> Result<()> {
    let problem = GradientProblem::new(Architecture::Mamba, device)?;
    let loss = |index: usize, values: &[f64]| problem.loss(index, values);
    let passes = |gradients: &[Vec<f64>]| {
        let finding = audit::gradient(&problem.weights, gradients, true, &loss)?;
        Ok::<_, Error>(AuditCheck::from(finding).verdict == Verdict::Pass)
    };
    require(passes(&problem.gradients)?, || {
        "the right gradient was refused".into()
    })?;
    let mut wrong = problem.gradients.clone();
    for gradient in wrong.last_mut().into_iter().flatten() {
        *gradient *= 1.01;
    }
    require(!passes(&wrong)?, || "it passed".into())
}

fn not_finite_step(device: &Device) -> Result<()> {
    const POISONED: &str = "in_proj.weight";
    let config = config();
    let shape = shape(Architecture::Mamba)?;
    let objective = Objective::new(&config, &TrainConfig::default(), 5, 0);
    let ids: Vec<u32> = (0..=TOKENS as u32).map(|i| i * 7 % VOCAB as u32).collect();
    let sequences = Sequences {
        inputs: &ids[..TOKENS],
        targets: &ids[1..],
        shape: BatchShape {
            batch: 1,
            seq_len: TOKENS,
        },
    };
    let found = |poison: Option<f32>| {
        let model = LanguageModel::new(&shape, 5, &device.clone().autodiff());
        let mut values = weights::named(&model)?.into_iter();
        let model = weights::load(model, |name, _| {
            let mut values = values.next().map_or(Vec::new(), |weight| weight.values);
            let is_it = name.starts_with("layers.1.") && name.ends_with(POISONED);
            if let (true, Some(poison), Some(last)) = (is_it, poison, values.last_mut()) {
                *last = poison;
            }
            Ok(values)
        })?;
        let gradient = objective.gradient(&model, &sequences, &segments(TOKENS, TOKENS), None)?;
        diagnose(&objective, &model, &sequences, TOKENS, &gradient.gradients)
    };
    let honest = found(None)?;
    require(honest.is_none(), || format!("without it: {honest:?}"))?;
    let found = found(Some(f32::NAN))?;
    let expected = NonFinite::Forward {
        layer: 2,
        operation: "in_proj".into(),
    };
    require(found.as_ref() == Some(&expected), || {
        format!("put into in_proj of layer 2, found: {found:?}")
    })
}

fn leak(device: &Device) -> Result<()> {
    let is_causal = |architecture| {
        let model = LanguageModel::new(&shape(architecture)?, 5, device);
        let scores =
            |tokens: &[u32], pinned: &[Option<Choices>]| audit::scores(&model, tokens, pinned);
        let finding = audit::causality(&scores, VOCAB, TOKENS, 5)?;
        Ok::<_, Error>(AuditCheck::from(finding).verdict == Verdict::Pass)
    };
    require(is_causal(Architecture::ResNetBk)?, || {
        "a causal model was refused".into()
    })?;
    require(!is_causal(Architecture::ResNetBkPublished)?, || {
        "it passed".into()
    })
}

fn config() -> ModelConfig {
    ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    }
}

fn shape(architecture: Architecture) -> Result<ModelShape> {
    Ok(matched_shapes(&[architecture], &config(), VOCAB)?.remove(0))
}
