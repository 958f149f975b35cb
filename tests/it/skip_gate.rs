//! `ops::skip_gate` against the oracle.

use bkbench::Error;
use bkbench::math::oracle::skip_gate::{Gradients, Inputs};
use bkbench::ops::skip_gate::{self, cpu, gated};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, mutants, normals};
use crate::support::{self, tensor, values};

const FORWARD_F32: f64 = 2e-6;
const GRADIENT_F32: f64 = 1e-5;

/// Rows and channels: one element, around the lanes and the chunk of 32, several chunks.
const SIZES: [(usize, usize); 7] = [
    (1, 1),
    (3, 15),
    (31, 16),
    (32, 17),
    (33, 64),
    (97, 257),
    (131, 5),
];

struct Problem {
    size: (usize, usize),
    inputs: Inputs<f64>,
    d_out: Vec<f64>,
}

fn problem(size: (usize, usize)) -> Problem {
    let n = size.0 * size.1;
    Problem {
        size,
        inputs: Inputs {
            y: normals(0, n, 1.0),
            u: normals(1, n, 1.0),
            skip: normals(2, size.1, 1.0),
            z: normals(3, n, 3.0),
        },
        d_out: normals(4, n, 1.0),
    }
}

fn named(g: Gradients<f64>) -> Vec<Named> {
    vec![
        ("d_y", g.d_y),
        ("d_u", g.d_u),
        ("d_skip", g.d_skip),
        ("d_z", g.d_z),
    ]
}

/// The output, then the gradients.
fn expected(p: &Problem) -> (Vec<Named>, Vec<Named>) {
    let forward = vec![("out", p.inputs.forward())];
    (forward, named(p.inputs.backward(&p.d_out)))
}

fn through_burn(p: &Problem, device: &Device, dtype: DType) -> (Vec<Named>, Vec<Named>) {
    let device = device.clone().autodiff();
    let (rows, channels) = p.size;
    let leaf = |v: &[f64]| tensor(v, [rows, channels], &device, dtype).require_grad();
    let inputs = skip_gate::Inputs {
        y: leaf(&p.inputs.y),
        u: leaf(&p.inputs.u),
        skip: tensor(&p.inputs.skip, [channels], &device, dtype).require_grad(),
        z: leaf(&p.inputs.z),
    };
    let out = gated(inputs.clone()).unwrap();
    let forward = vec![("out", values(out.clone()))];
    let d_out = tensor(&p.d_out, [rows, channels], &device, dtype);
    let grads = (out * d_out).sum().backward();
    let of = |leaf: &Tensor<2>| values(leaf.grad(&grads).unwrap());
    let backward = vec![
        ("d_y", of(&inputs.y)),
        ("d_u", of(&inputs.u)),
        ("d_skip", values(inputs.skip.grad(&grads).unwrap())),
        ("d_z", of(&inputs.z)),
    ];
    (forward, backward)
}

fn check(device: &Device, dtype: DType, forward: f64, gradient: f64) {
    for size in SIZES {
        let p = problem(size);
        let (got, got_gradients) = through_burn(&p, device, dtype);
        let (want, want_gradients) = expected(&p);
        let mut missed = misses(&got, &want, forward);
        missed.extend(misses(&got_gradients, &want_gradients, gradient));
        assert!(missed.is_empty(), "{size:?}: {missed:?}");
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

#[test]
fn reruns_are_bitwise_equal() {
    let p = problem((97, 257));
    for device in [support::cpu(), support::wgpu()] {
        let first = through_burn(&p, &device, DType::F32);
        assert_eq!(first, through_burn(&p, &device, DType::F32));
    }
}

#[test]
fn oracle_gradients_are_finite_differences_of_its_output() {
    let p = problem((3, 5));
    let objective = |inputs: &Inputs<f64>| -> f64 {
        let out = inputs.forward();
        out.iter().zip(&p.d_out).map(|(a, b)| a * b).sum()
    };
    let fields: [fn(&mut Inputs<f64>) -> &mut Vec<f64>; 4] =
        [|i| &mut i.y, |i| &mut i.u, |i| &mut i.skip, |i| &mut i.z];
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

#[test]
fn cpu_outputs_are_fully_overwritten() {
    let p = problem((70, 21));
    let i = &p.inputs;
    let inputs = cpu::Inputs {
        y: &i.y,
        u: &i.u,
        skip: &i.skip,
        z: &i.z,
    };
    let poisoned = |n: usize| vec![f64::NAN; n];
    let mut out = poisoned(i.y.len());
    cpu::forward(&inputs, &mut out);
    let mut g = Gradients {
        d_y: poisoned(i.y.len()),
        d_u: poisoned(i.u.len()),
        d_skip: poisoned(i.skip.len()),
        d_z: poisoned(i.z.len()),
    };
    let into = cpu::Gradients {
        d_y: &mut g.d_y,
        d_u: &mut g.d_u,
        d_skip: &mut g.d_skip,
        d_z: &mut g.d_z,
    };
    cpu::backward(&inputs, &p.d_out, into);
    let (forward, backward) = expected(&p);
    assert!(misses(&[("out", out)], &forward, 1e-12).is_empty());
    assert!(misses(&named(g), &backward, 1e-12).is_empty());
}

#[test]
fn wrong_results_are_rejected() {
    let (forward, backward) = expected(&problem((33, 7)));
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
fn nan_and_large_gates_come_through() {
    let device = support::cpu();
    let f32s = |v: &[f64]| tensor::<2>(v, [1, 4], &device, DType::F32);
    let out = gated(skip_gate::Inputs {
        y: f32s(&[1.0; 4]),
        u: f32s(&[1.0; 4]),
        skip: tensor(&[1.0; 4], [4], &device, DType::F32),
        z: f32s(&[f64::NAN, -1e4, 1e4, 0.0]),
    });
    let out = values(out.unwrap());
    assert!(out[0].is_nan());
    assert!(
        out[1].abs() < 1e-30 && out[2] == 2e4 && out[3] == 0.0,
        "{out:?}"
    );
}

#[test]
fn bad_shapes_are_refused_by_name() {
    let device = support::cpu();
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &device);
    let call = |y, u, skip: usize, z| {
        let inputs = skip_gate::Inputs {
            y: zeros(y),
            u: zeros(u),
            skip: Tensor::zeros([skip], &device),
            z: zeros(z),
        };
        match gated(inputs) {
            Err(Error::Shape { arg, .. }) => arg,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(call([0, 2], [0, 2], 2, [0, 2]), "y");
    assert_eq!(call([3, 2], [2, 3], 2, [3, 2]), "u");
    assert_eq!(call([3, 2], [3, 2], 3, [3, 2]), "skip");
    assert_eq!(call([3, 2], [3, 2], 2, [3, 1]), "z");
}
