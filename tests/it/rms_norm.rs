//! `ops::rms_norm` against the oracle.

use bkbench::Error;
use bkbench::math::oracle::layers::RmsNorm;
use bkbench::ops::rms_norm::{cpu, normalise};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, mutants, normals};
use crate::support::{self, tensor, values};

const FORWARD_F32: f64 = 2e-6;
const GRADIENT_F32: f64 = 1e-5;

/// Rows and columns: one element, around the lanes, the workgroup and the chunk of 32, several chunks.
const SIZES: [(usize, usize); 8] = [
    (1, 1),
    (3, 15),
    (31, 16),
    (32, 17),
    (33, 63),
    (34, 64),
    (97, 257),
    (131, 5),
];

struct Problem {
    size: (usize, usize),
    x: Vec<f64>,
    gamma: Vec<f64>,
    d_y: Vec<f64>,
}

fn problem(size: (usize, usize)) -> Problem {
    let n = size.0 * size.1;
    Problem {
        size,
        x: normals(0, n, 2.0),
        gamma: normals(1, size.1, 1.0),
        d_y: normals(2, n, 1.0),
    }
}

/// The output, then the gradients.
fn expected(p: &Problem) -> (Vec<Named>, Vec<Named>) {
    let norm = RmsNorm::forward(&p.x, &p.gamma);
    let (d_x, d_gamma) = norm.backward(&p.gamma, &p.d_y);
    let backward = vec![("d_x", d_x), ("d_gamma", d_gamma)];
    (vec![("y", norm.y)], backward)
}

fn through_burn(p: &Problem, device: &Device, dtype: DType) -> (Vec<Named>, Vec<Named>) {
    let device = device.clone().autodiff();
    let (rows, width) = p.size;
    let x = tensor(&p.x, [rows, width], &device, dtype).require_grad();
    let gamma = tensor(&p.gamma, [width], &device, dtype).require_grad();
    let y = normalise(x.clone(), gamma.clone()).unwrap();
    let forward = vec![("y", values(y.clone()))];
    let d_y = tensor(&p.d_y, [rows, width], &device, dtype);
    let grads = (y * d_y).sum().backward();
    let backward = vec![
        ("d_x", values(x.grad(&grads).unwrap())),
        ("d_gamma", values(gamma.grad(&grads).unwrap())),
    ];
    (forward, backward)
}

fn check(device: &Device, dtype: DType, forward: f64, gradient: f64) {
    for size in SIZES {
        let p = problem(size);
        let (got, got_gradients) = through_burn(&p, device, dtype);
        let (want, want_gradients) = expected(&p);
        let mut missed = misses(&got, &want, forward);
        // A single column leaves no gradient but that of epsilon.
        let gradients = if size.1 == 1 { 1..2 } else { 0..2 };
        let (got, want) = (
            &got_gradients[gradients.clone()],
            &want_gradients[gradients],
        );
        missed.extend(misses(got, want, gradient));
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
    let objective = |x: &[f64], gamma: &[f64]| -> f64 {
        let y = RmsNorm::forward(x, gamma).y;
        y.iter().zip(&p.d_y).map(|(a, b)| a * b).sum()
    };
    let step = 1e-5;
    let difference = |values: &[f64], f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let at = |k: usize, by: f64| {
            let mut moved = values.to_vec();
            moved[k] += by;
            f(&moved)
        };
        (0..values.len())
            .map(|k| (at(k, step) - at(k, -step)) / (2.0 * step))
            .collect()
    };
    let differences = [
        ("d_x", difference(&p.x, &|x| objective(x, &p.gamma))),
        (
            "d_gamma",
            difference(&p.gamma, &|gamma| objective(&p.x, gamma)),
        ),
    ];
    let missed = misses(&expected(&p).1, &differences, 1e-8);
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn cpu_outputs_are_fully_overwritten() {
    let p = problem((70, 21));
    let poisoned = |n: usize| vec![f64::NAN; n];
    let mut y = poisoned(p.x.len());
    cpu::forward(&p.x, &p.gamma, &mut y);
    let (mut d_x, mut d_gamma) = (poisoned(p.x.len()), poisoned(p.gamma.len()));
    cpu::backward(&p.x, &p.gamma, &p.d_y, &mut d_x, &mut d_gamma);
    let (forward, backward) = expected(&p);
    assert!(misses(&[("y", y)], &forward, 1e-12).is_empty());
    assert!(misses(&[("d_x", d_x), ("d_gamma", d_gamma)], &backward, 1e-12).is_empty());
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
fn nan_reaches_its_row_alone() {
    let mut p = problem((3, 20));
    p.x[25] = f64::NAN;
    let (forward, _) = through_burn(&p, &support::cpu(), DType::F32);
    let nan: Vec<usize> = (0..60).filter(|&i| forward[0].1[i].is_nan()).collect();
    assert_eq!(nan, (20..40).collect::<Vec<_>>());
}

#[test]
fn bad_shapes_are_refused_by_name() {
    let device = support::cpu();
    let call = |x: [usize; 2], gamma: usize| {
        let gamma = Tensor::<1>::zeros([gamma], &device);
        match normalise(Tensor::zeros(x, &device), gamma) {
            Err(Error::Shape { arg, .. }) => arg,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(call([0, 2], 2), "x");
    assert_eq!(call([3, 2], 3), "gamma");
}
