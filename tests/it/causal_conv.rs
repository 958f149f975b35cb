//! `ops::causal_conv` against the sequential oracle and against published vectors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bkbench::Error;
use bkbench::math::oracle::causal_conv::{Gradients, Inputs};
use bkbench::ops::causal_conv::{Activation, cpu, infer, train};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, mutants, normals};
use crate::support::{self, Golden, tensor, values};

const FORWARD_F32: f64 = 2e-6;
const GRADIENT_F32: f64 = 1e-5;

/// Sizes: one step, shorter than the state, around the chunk of 32, a prime, several chunks.
const SIZES: [(usize, usize, usize, usize); 9] = [
    (1, 1, 1, 2),
    (2, 1, 3, 4),
    (2, 2, 5, 4),
    (1, 3, 4, 4),
    (3, 31, 2, 3),
    (2, 32, 7, 4),
    (1, 33, 64, 5),
    (2, 97, 257, 4),
    (1, 131, 13, 7),
];

struct Problem {
    inputs: Inputs<f64>,
    d_y: Vec<f64>,
    d_x_last: Vec<f64>,
}

fn problem(
    (batch, seq_len, channels, d_conv): (usize, usize, usize, usize),
    silu: bool,
) -> Problem {
    let n = batch * seq_len * channels;
    let n_state = batch * (d_conv - 1) * channels;
    Problem {
        inputs: Inputs {
            batch,
            seq_len,
            channels,
            d_conv,
            silu,
            x: normals(0, n, 2.0),
            weight: normals(1, channels * d_conv, 0.7),
            bias: normals(2, channels, 0.5),
            x0: normals(3, n_state, 2.0),
        },
        d_y: normals(4, n, 1.0),
        d_x_last: normals(5, n_state, 1.0),
    }
}

fn activation(silu: bool) -> Activation {
    if silu {
        Activation::Silu
    } else {
        Activation::Identity
    }
}

/// One input of a call.
type Field = fn(&mut Inputs<f64>) -> &mut Vec<f64>;

fn gradients(g: Gradients<f64>) -> Vec<Named> {
    vec![
        ("d_x", g.d_x),
        ("d_weight", g.d_weight),
        ("d_bias", g.d_bias),
        ("d_x0", g.d_x0),
    ]
}

fn expected(p: &Problem) -> (Vec<Named>, Vec<Named>) {
    let forward = vec![("y", p.inputs.forward()), ("x_last", p.inputs.last())];
    (forward, gradients(p.inputs.backward(&p.d_y, &p.d_x_last)))
}

/// Outputs of `infer`, and gradients of `train`, through burn.
fn through_burn(p: &Problem, device: &Device, dtype: DType) -> (Vec<Named>, Vec<Named>) {
    let i = &p.inputs;
    let device = device.clone().autodiff();
    let leaf3 = |v: &[f64], rows| tensor(v, [i.batch, rows, i.channels], &device, dtype);
    let x = leaf3(&i.x, i.seq_len).require_grad();
    let x0 = leaf3(&i.x0, i.d_conv - 1).require_grad();
    let weight = tensor(&i.weight, [i.channels, i.d_conv], &device, dtype).require_grad();
    let bias = tensor(&i.bias, [i.channels], &device, dtype).require_grad();
    let d_y = leaf3(&p.d_y, i.seq_len);
    let d_x_last = leaf3(&p.d_x_last, i.d_conv - 1);
    let act = activation(i.silu);

    let (y, x_last) = infer(x.clone(), weight.clone(), bias.clone(), x0.clone(), act).unwrap();
    let forward = vec![("y", values(y)), ("x_last", values(x_last))];

    let y = train(
        x.clone(),
        weight.clone(),
        bias.clone(),
        x0.clone(),
        d_x_last,
        act,
    )
    .unwrap();
    let trained = values(y.clone());
    assert_eq!(
        trained, forward[0].1,
        "infer and train compute the same output"
    );
    let grads = (y * d_y).sum().backward();
    let backward = vec![
        ("d_x", values(x.grad(&grads).unwrap())),
        ("d_weight", values(weight.grad(&grads).unwrap())),
        ("d_bias", values(bias.grad(&grads).unwrap())),
        ("d_x0", values(x0.grad(&grads).unwrap())),
    ];
    (forward, backward)
}

fn check(device: &Device, dtype: DType, forward: f64, gradient: f64) {
    for silu in [true, false] {
        for size in SIZES {
            let p = problem(size, silu);
            let (got, got_gradients) = through_burn(&p, device, dtype);
            let (want, want_gradients) = expected(&p);
            let mut missed = misses(&got, &want, forward);
            missed.extend(misses(&got_gradients, &want_gradients, gradient));
            assert!(missed.is_empty(), "{size:?}, silu {silu}: {missed:?}");
        }
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-12, 1e-12);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, FORWARD_F32, GRADIENT_F32);
}

#[test]
fn wgsl_stays_within_the_bar() {
    check(&support::wgpu(), DType::F32, FORWARD_F32, GRADIENT_F32);
}

/// Vectors made with the published selective-scan code in f64 (layout [batch, channel, seq] there).
#[test]
fn golden_vectors_agree_on_every_device() {
    let golden = Golden::read("mamba_conv");
    assert_eq!(golden.cases.len(), 6);
    for case in &golden.cases {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (batch, channels, seq_len, d_conv) = (size("B"), size("D"), size("L"), size("K"));
        let read = |name: &str| golden.tensor(case, name);
        let channel_last = |name: &str| {
            let values = read(name).unwrap();
            let at = |i: usize| {
                let (b, t, c) = (i / channels / seq_len, i / channels % seq_len, i % channels);
                values[(b * channels + c) * seq_len + t]
            };
            (0..values.len()).map(at).collect::<Vec<f64>>()
        };
        let n_state = batch * (d_conv - 1) * channels;
        let p = Problem {
            inputs: Inputs {
                batch,
                seq_len,
                channels,
                d_conv,
                silu: case["silu"].as_bool().unwrap(),
                x: channel_last("x"),
                weight: read("weight").unwrap(),
                bias: read("bias").unwrap_or(vec![0.0; channels]),
                x0: vec![0.0; n_state],
            },
            d_y: channel_last("dy"),
            d_x_last: vec![0.0; n_state],
        };
        let y = [("y", channel_last("y"))];
        let mut want = vec![
            ("d_x", channel_last("d_x")),
            ("d_weight", read("d_weight").unwrap()),
        ];
        want.extend(read("d_bias").map(|d_bias| ("d_bias", d_bias)));
        for (device, dtype, forward, gradient) in [
            (support::cpu(), DType::F64, 1e-10, 1e-10),
            (support::cpu(), DType::F32, FORWARD_F32, GRADIENT_F32),
            (support::wgpu(), DType::F32, FORWARD_F32, GRADIENT_F32),
        ] {
            let (got, got_gradients) = through_burn(&p, &device, dtype);
            let mut missed = misses(&got[..1], &y, forward);
            missed.extend(misses(&got_gradients[..want.len()], &want, gradient));
            assert!(missed.is_empty(), "{}, {dtype:?}: {missed:?}", case["name"]);
        }
    }
}

#[test]
fn reruns_are_bitwise_equal() {
    let p = problem((2, 97, 257, 4), true);
    for device in [support::cpu(), support::wgpu()] {
        let first = through_burn(&p, &device, DType::F32);
        assert_eq!(first, through_burn(&p, &device, DType::F32));
    }
}

#[test]
fn oracle_gradients_are_finite_differences_of_its_output() {
    let p = problem((2, 5, 3, 4), true);
    let objective = |inputs: &Inputs<f64>| -> f64 {
        let dot = |a: Vec<f64>, b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        dot(inputs.forward(), &p.d_y) + dot(inputs.last(), &p.d_x_last)
    };
    let fields: [Field; 4] = [
        |i| &mut i.x,
        |i| &mut i.weight,
        |i| &mut i.bias,
        |i| &mut i.x0,
    ];
    let step = 1e-5;
    for (field, (name, gradient)) in fields.iter().zip(expected(&p).1) {
        let differences: Vec<f64> = (0..gradient.len())
            .map(|k| {
                let mut moved = p.inputs.clone();
                field(&mut moved)[k] += step;
                let up = objective(&moved);
                field(&mut moved)[k] -= 2.0 * step;
                (up - objective(&moved)) / (2.0 * step)
            })
            .collect();
        let missed = misses(&[(name, gradient)], &[(name, differences)], 1e-8);
        assert!(missed.is_empty(), "{missed:?}");
    }
}

/// One sequence in unequal pieces, states carried forward and cotangents backward, is the whole.
#[test]
fn pieces_equal_the_whole() {
    let p = problem((2, 41, 3, 4), true);
    let i = &p.inputs;
    let (whole, whole_gradients) = through_burn(&p, &support::cpu(), DType::F64);
    let piece = |values: &[f64], from: usize, to: usize| -> Vec<f64> {
        let row = i.seq_len * i.channels;
        values
            .chunks(row)
            .flat_map(|v| v[from * i.channels..to * i.channels].to_vec())
            .collect()
    };
    let bounds = [0, 1, 3, 36, 41];
    let mut pieces: Vec<Problem> = Vec::new();
    let mut x0 = i.x0.clone();
    for span in bounds.windows(2) {
        let (from, to) = (span[0], span[1]);
        let inputs = Inputs {
            seq_len: to - from,
            x: piece(&i.x, from, to),
            x0,
            ..i.clone()
        };
        let p = Problem {
            inputs,
            d_y: piece(&p.d_y, from, to),
            d_x_last: p.d_x_last.clone(),
        };
        let (forward, _) = through_burn(&p, &support::cpu(), DType::F64);
        let missed = misses(&forward[..1], &[("y", piece(&whole[0].1, from, to))], 1e-12);
        assert!(missed.is_empty(), "{from}..{to}: {missed:?}");
        x0 = forward[1].1.clone();
        pieces.push(p);
    }
    assert_eq!(x0, whole[1].1, "the last state");

    let mut d_state = p.d_x_last.clone();
    let mut d_weight = vec![0.0; i.weight.len()];
    for (p, span) in pieces.iter_mut().zip(bounds.windows(2)).rev() {
        p.d_x_last = d_state;
        let (_, g) = through_burn(p, &support::cpu(), DType::F64);
        let d_x = piece(&whole_gradients[0].1, span[0], span[1]);
        let missed = misses(&g[..1], &[("d_x", d_x)], 1e-12);
        assert!(missed.is_empty(), "{span:?}: {missed:?}");
        d_weight
            .iter_mut()
            .zip(&g[1].1)
            .for_each(|(sum, part)| *sum += part);
        d_state = g[3].1.clone();
    }
    let missed = misses(
        &[("d_weight", d_weight), ("d_x0", d_state)],
        &[whole_gradients[1].clone(), whole_gradients[3].clone()],
        1e-10,
    );
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn cpu_outputs_are_fully_overwritten() {
    let p = problem((2, 70, 5, 4), true);
    let i = &p.inputs;
    let inputs = cpu::Inputs {
        seq_len: i.seq_len,
        channels: i.channels,
        d_conv: i.d_conv,
        activation: Activation::Silu,
        x: &i.x,
        weight: &i.weight,
        bias: &i.bias,
        x0: &i.x0,
    };
    let poisoned = |n: usize| vec![f64::NAN; n];
    let mut y = poisoned(i.x.len());
    cpu::forward(&inputs, &mut y);
    let mut g = Gradients {
        d_x: poisoned(i.x.len()),
        d_weight: poisoned(i.weight.len()),
        d_bias: poisoned(i.bias.len()),
        d_x0: poisoned(i.x0.len()),
    };
    let into = cpu::Gradients {
        d_x: &mut g.d_x,
        d_weight: &mut g.d_weight,
        d_bias: &mut g.d_bias,
        d_x0: &mut g.d_x0,
    };
    cpu::backward(&inputs, &p.d_y, &p.d_x_last, into);
    let (forward, backward) = expected(&p);
    assert!(misses(&[("y", y)], &forward[..1], 1e-12).is_empty());
    assert!(misses(&gradients(g), &backward, 1e-12).is_empty());
}

#[test]
fn wrong_results_are_rejected() {
    let (forward, backward) = expected(&problem((2, 33, 3, 4), true));
    for tensor in forward.into_iter().chain(backward) {
        let accepts =
            |v: Vec<f64>| misses(&[(tensor.0, v)], std::slice::from_ref(&tensor), 1e-5).is_empty();
        assert!(accepts(tensor.1.clone()));
        for (mutant, values) in mutants(&tensor.1) {
            assert!(!accepts(values), "{}: {mutant} passed", tensor.0);
        }
    }
}

#[test]
fn nan_inputs_reach_the_output() {
    let mut p = problem((1, 40, 20, 4), true);
    p.inputs.x[0] = f64::NAN;
    let i = &p.inputs;
    let device = support::cpu();
    let f32s = |v: &[f64], rows| tensor(v, [i.batch, rows, i.channels], &device, DType::F32);
    let (y, _) = infer(
        f32s(&i.x, i.seq_len),
        tensor(&i.weight, [i.channels, i.d_conv], &device, DType::F32),
        tensor(&i.bias, [i.channels], &device, DType::F32),
        f32s(&i.x0, i.d_conv - 1),
        Activation::Silu,
    )
    .unwrap();
    let nan: Vec<usize> = (0..800)
        .filter(|k| values(y.clone())[*k].is_nan())
        .collect();
    assert_eq!(
        nan,
        [0, 20, 40, 60],
        "the four steps that see the first input of channel 0"
    );
}

#[test]
fn bad_shapes_are_refused_by_name() {
    let device = support::cpu();
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    let call = |x, weight: [usize; 2], bias: usize, x0, last| {
        let weight = Tensor::<2>::zeros(weight, &device);
        let bias = Tensor::<1>::zeros([bias], &device);
        match train(
            zeros(x),
            weight,
            bias,
            zeros(x0),
            zeros(last),
            Activation::Silu,
        ) {
            Err(Error::Shape { arg, .. }) => arg,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(call([1, 0, 2], [2, 4], 2, [1, 3, 2], [1, 3, 2]), "x");
    assert_eq!(call([1, 5, 2], [3, 4], 2, [1, 3, 2], [1, 3, 2]), "weight");
    assert_eq!(call([1, 5, 2], [2, 1], 2, [1, 3, 2], [1, 3, 2]), "weight");
    assert_eq!(call([1, 5, 2], [2, 4], 3, [1, 3, 2], [1, 3, 2]), "bias");
    assert_eq!(call([1, 5, 2], [2, 4], 2, [1, 4, 2], [1, 3, 2]), "x0");
    assert_eq!(call([1, 5, 2], [2, 4], 2, [1, 3, 2], [2, 3, 2]), "d_x_last");
}
