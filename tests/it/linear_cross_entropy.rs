//! `ops::linear_cross_entropy` against the oracle and against plain burn operations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bkbench::Error;
use bkbench::config::Precision;
use bkbench::math::oracle::linear_cross_entropy as oracle;
use bkbench::ops::linear_cross_entropy::{cpu, infer, train};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::log_softmax};

use crate::compare::{Named, indices, misses, mutants, normals};
use crate::support::{self, tensor, values};

/// Cotangent of the loss: the backward pass must apply it.
const UPSTREAM: f64 = -3.0;

struct Problem {
    tokens: usize,
    d_model: usize,
    vocab: usize,
    x: Vec<f64>,
    weight: Vec<f64>,
    targets: Vec<u32>,
    scale: f32,
}

fn problem(tokens: usize, d_model: usize, vocab: usize) -> Problem {
    Problem {
        tokens,
        d_model,
        vocab,
        x: normals(0, tokens * d_model, 2.0),
        weight: normals(1, vocab * d_model, 1.0),
        targets: indices(2, tokens, vocab),
        scale: 0.125,
    }
}

/// Tokens, width, vocabulary, chunk: around the workgroup of 64 and the block of 1024, primes, many chunks.
const SIZES: [(usize, usize, usize, usize); 8] = [
    (1, 1, 1, 1),
    (1, 3, 2, 512),
    (2, 5, 63, 1),
    (7, 8, 64, 3),
    (13, 4, 65, 13),
    (65, 16, 257, 64),
    (130, 24, 1031, 43),
    (5, 8, 50_257, 2),
];

fn expected(p: &Problem) -> Vec<Named> {
    let targets: Vec<usize> = p.targets.iter().map(|&t| t as usize).collect();
    let nll = oracle::nll(&p.x, &p.weight, p.d_model, &targets);
    let loss = f64::from(p.scale) * nll.iter().sum::<f64>();
    let scale = UPSTREAM * f64::from(p.scale);
    let (d_x, d_weight) = oracle::gradients(&p.x, &p.weight, p.d_model, &targets, scale);
    vec![
        ("nll", nll),
        ("loss", vec![loss]),
        ("d_x", d_x),
        ("d_weight", d_weight),
    ]
}

fn through_burn(p: &Problem, chunk: usize, device: &Device, dtype: DType) -> Vec<Named> {
    let device = device.clone().autodiff();
    let x = tensor(&p.x, [p.tokens, p.d_model], &device, dtype).require_grad();
    let weight = tensor(&p.weight, [p.vocab, p.d_model], &device, dtype).require_grad();
    let nll = infer(x.clone(), weight.clone(), &p.targets, chunk).unwrap();
    let loss = train(
        x.clone(),
        weight.clone(),
        &p.targets,
        chunk,
        p.scale,
        Precision::F32,
    )
    .unwrap();
    let grads = (loss.clone() * UPSTREAM).sum().backward();
    vec![
        ("nll", values(nll)),
        ("loss", values(loss)),
        ("d_x", values(x.grad(&grads).unwrap())),
        ("d_weight", values(weight.grad(&grads).unwrap())),
    ]
}

fn check(device: &Device, dtype: DType, forward: f64, gradient: f64) {
    for (tokens, d_model, vocab, chunk) in SIZES {
        // Over 50,257 words burn's f32 matmul sums d_x in one run; without our kernels it errs as much.
        let gradient = if vocab > 2000 {
            gradient * 20.0
        } else {
            gradient
        };
        let p = problem(tokens, d_model, vocab);
        let (got, want) = (through_burn(&p, chunk, device, dtype), expected(&p));
        let mut missed = misses(&got[..2], &want[..2], forward);
        missed.extend(misses(&got[2..], &want[2..], gradient));
        assert!(
            missed.is_empty(),
            "{tokens} x {d_model} x {vocab} by {chunk}: {missed:?}"
        );
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-12, 1e-12);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, 1e-6, 2e-6);
}

#[test]
fn wgsl_stays_within_the_bar() {
    check(&support::wgpu(), DType::F32, 1e-6, 2e-6);
}

#[test]
fn plain_burn_agrees() {
    let p = problem(65, 16, 257);
    for device in [support::cpu(), support::wgpu()] {
        let ours = through_burn(&p, 64, &device, DType::F32);
        let device = device.autodiff();
        let x = tensor(&p.x, [p.tokens, p.d_model], &device, DType::F32).require_grad();
        let weight = tensor(&p.weight, [p.vocab, p.d_model], &device, DType::F32).require_grad();
        let targets: Vec<i32> = p.targets.iter().map(|&t| t.cast_signed()).collect();
        let targets = TensorData::new(targets, [p.tokens, 1]);
        let targets = Tensor::<2, Int>::from_data(targets, &device);
        let log_p = log_softmax(x.clone().matmul(weight.clone().transpose()), 1);
        let nll = -log_p.gather(1, targets).reshape([p.tokens]);
        let loss = nll.clone().sum() * p.scale;
        let grads = (loss.clone() * UPSTREAM).backward();
        let plain = [
            ("nll", values(nll)),
            ("loss", values(loss)),
            ("d_x", values(x.grad(&grads).unwrap())),
            ("d_weight", values(weight.grad(&grads).unwrap())),
        ];
        assert_eq!(misses(&ours, &plain, 5e-6), [""; 0]);
    }
}

#[test]
fn oracle_gradients_are_finite_differences_of_its_loss() {
    let p = problem(3, 4, 5);
    let want = expected(&p);
    let loss = |x: &[f64], weight: &[f64]| {
        let targets: Vec<usize> = p.targets.iter().map(|&t| t as usize).collect();
        let sum: f64 = oracle::nll(x, weight, p.d_model, &targets).iter().sum();
        UPSTREAM * f64::from(p.scale) * sum
    };
    let step = 1e-5;
    let difference = |values: &[f64], loss: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let moved = |k: usize, by: f64| {
            let mut values = values.to_vec();
            values[k] += by;
            loss(&values)
        };
        (0..values.len())
            .map(|k| (moved(k, step) - moved(k, -step)) / (2.0 * step))
            .collect()
    };
    let d_x = difference(&p.x, &|x| loss(x, &p.weight));
    let d_weight = difference(&p.weight, &|weight| loss(&p.x, weight));
    let differences = [("d_x", d_x), ("d_weight", d_weight)];
    assert_eq!(misses(&want[2..], &differences, 1e-8), [""; 0]);
}

#[test]
fn the_chunk_does_not_change_the_result() {
    let p = problem(37, 6, 41);
    let whole = through_burn(&p, 37, &support::cpu(), DType::F64);
    for chunk in [1, 5, 36, 1000] {
        let chunked = through_burn(&p, chunk, &support::cpu(), DType::F64);
        assert_eq!(misses(&chunked, &whole, 1e-13), [""; 0], "chunk {chunk}");
    }
}

#[test]
fn reruns_are_bitwise_equal_and_need_no_graph() {
    let p = problem(130, 24, 1031);
    for device in [support::cpu(), support::wgpu()] {
        let first = through_burn(&p, 43, &device, DType::F32);
        assert_eq!(first, through_burn(&p, 43, &device, DType::F32));
        let x = tensor(&p.x, [p.tokens, p.d_model], &device, DType::F32);
        let weight = tensor(&p.weight, [p.vocab, p.d_model], &device, DType::F32);
        let loss = train(x, weight, &p.targets, 43, p.scale, Precision::F32).unwrap();
        assert_eq!(values(loss), first[1].1, "the loss outside a graph");
    }
}

/// One running f32 over this many tokens would be off by 1e-4 and more.
#[test]
fn the_total_over_many_tokens_is_exact_to_rounding() {
    for (device, tokens, tolerance) in [
        (support::cpu(), 1 << 20, 1e-7),
        (support::wgpu(), (1 << 17) + 3, 5e-7),
    ] {
        let mut p = problem(tokens, 1, 2);
        p.scale = 1.0 / tokens as f32;
        let x = tensor(&p.x, [tokens, 1], &device, DType::F32);
        let weight = tensor(&p.weight, [2, 1], &device, DType::F32);
        let chunk = 100_000;
        let nll = values(infer(x.clone(), weight.clone(), &p.targets, chunk).unwrap());
        let mean = nll.iter().sum::<f64>() * f64::from(p.scale);
        let loss = values(train(x, weight, &p.targets, chunk, p.scale, Precision::F32).unwrap())[0];
        assert!(
            (loss / mean - 1.0).abs() < tolerance,
            "{tokens} tokens: {loss} against {mean}"
        );
    }
}

#[test]
fn large_logits_stay_finite() {
    for device in [support::cpu(), support::wgpu()] {
        let x = tensor(&[1e3, -1e3], [2, 1], &device, DType::F32);
        let weight = tensor(&[1.0, -1.0, 0.5], [3, 1], &device, DType::F32);
        let nll = values(infer(x, weight, &[1, 1], 8).unwrap());
        assert_eq!(nll, [2000.0, 0.0]);
    }
}

#[test]
fn cpu_outputs_are_fully_overwritten_and_nan_is_kept() {
    let mut logits = vec![0.5_f32, 1.0, f32::NAN, 2.0];
    let mut nll = vec![f32::NAN; 2];
    cpu::row_nll(&mut logits, &[1, 1], Some(1.0), &mut nll);
    assert!(nll[0].is_finite() && nll[1].is_nan(), "{nll:?}");
    assert!((logits[0] + logits[1]).abs() < 1e-7 && logits[2].is_nan() && logits[3].is_nan());
}

#[test]
fn wrong_results_are_rejected() {
    for tensor in expected(&problem(13, 4, 65))
        .into_iter()
        .filter(|t| t.1.len() > 1)
    {
        for (mutant, values) in mutants(&tensor.1) {
            let missed = misses(&[(tensor.0, values)], std::slice::from_ref(&tensor), 5e-6);
            assert_eq!(missed.len(), 1, "{}: {mutant} passed", tensor.0);
        }
    }
}

#[test]
fn bad_inputs_are_refused() {
    let device = support::cpu();
    let call = |x: [usize; 2], weight: [usize; 2], targets: &[u32], chunk| {
        infer(
            Tensor::zeros(x, &device),
            Tensor::zeros(weight, &device),
            targets,
            chunk,
        )
    };
    let shape = |result, name| matches!(result, Err(Error::Shape { arg, .. }) if arg == name);
    assert!(shape(call([0, 4], [5, 4], &[], 1), "x"));
    assert!(shape(call([2, 4], [5, 3], &[0, 1], 1), "weight"));
    assert!(shape(call([2, 4], [5, 4], &[0], 1), "targets"));
    let domain = |result, name| matches!(result, Err(Error::Domain { arg, .. }) if arg == name);
    assert!(domain(call([2, 4], [5, 4], &[0, 1], 0), "chunk_tokens"));
    let many = vec![0; 700];
    assert!(domain(
        call([700, 1], [50_257, 1], &many, 700),
        "chunk_tokens"
    ));
    let refused = call([2, 4], [5, 4], &[4, 5], 1);
    assert!(matches!(refused, Err(Error::Domain { index, value: 5.0, .. }) if index == [1]));
}
