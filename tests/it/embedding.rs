//! `ops::embedding` against the oracle and against plain burn operations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bkbench::Error;
use bkbench::math::oracle::embedding as oracle;
use bkbench::ops::embedding::{Plan, cpu, gather_rows};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::compare::{Named, indices, misses, mutants, normals};
use crate::support::{self, tensor, values};

struct Problem {
    rows: usize,
    d: usize,
    ids: Vec<u32>,
    weight: Vec<f64>,
    d_y: Vec<f64>,
}

fn problem(rows: usize, d: usize, n: usize, hot: usize) -> Problem {
    // The first `hot` positions all gather the last row.
    let mut ids = vec![rows as u32 - 1; hot];
    ids.extend(indices(0, n - hot, rows));
    let (weight, d_y) = (normals(1, rows * d, 1.0), normals(2, n * d, 1.0));
    Problem {
        rows,
        d,
        ids,
        weight,
        d_y,
    }
}

/// Around the group of 64 and the workgroup of 256, primes, rows never gathered, hot rows.
fn problems() -> Vec<Problem> {
    let sizes = [
        (1, 1, 1, 0),
        (1, 1, 63, 0),
        (2, 3, 64, 0),
        (7, 5, 65, 65),
        (256, 32, 1031, 300),
    ];
    let more = [(1031, 1, 257, 0), (5003, 8, 97, 2), (3, 257, 8209, 4100)];
    sizes
        .into_iter()
        .chain(more)
        .map(|(r, d, n, h)| problem(r, d, n, h))
        .collect()
}

fn expected(p: &Problem) -> [Named; 2] {
    let ids: Vec<usize> = p.ids.iter().map(|&id| id as usize).collect();
    let y = oracle::gather_rows(&p.weight, p.d, &ids);
    [
        ("y", y),
        ("d_weight", oracle::d_weight(&p.d_y, p.rows, p.d, &ids)),
    ]
}

fn through_burn(p: &Problem, device: &Device, dtype: DType) -> [Named; 2] {
    let device = device.clone().autodiff();
    let weight = tensor(&p.weight, [p.rows, p.d], &device, dtype).require_grad();
    let y = gather_rows(weight.clone(), &p.ids).unwrap();
    let d_y = tensor(&p.d_y, [p.ids.len(), p.d], &device, dtype);
    let grads = (y.clone() * d_y).sum().backward();
    [
        ("y", values(y)),
        ("d_weight", values(weight.grad(&grads).unwrap())),
    ]
}

#[test]
fn gather_is_exact_and_its_gradient_equals_the_oracle() {
    for (device, dtype, tolerance) in [
        (support::cpu(), DType::F64, 1e-13),
        (support::cpu(), DType::F32, 1e-6),
        (support::wgpu(), DType::F32, 1e-6),
    ] {
        for p in problems() {
            let [y, d_weight] = through_burn(&p, &device, dtype);
            let [want_y, want_d_weight] = expected(&p);
            let sizes = (p.rows, p.d, p.ids.len());
            assert_eq!(y, want_y, "{sizes:?} {dtype:?}");
            let missed = misses(&[d_weight], &[want_d_weight], tolerance);
            assert!(missed.is_empty(), "{sizes:?} {dtype:?}: {missed:?}");
        }
    }
}

#[test]
fn plain_burn_agrees() {
    let p = problem(256, 32, 1031, 300);
    for device in [support::cpu(), support::wgpu()] {
        let ours = through_burn(&p, &device, DType::F32);
        let device = device.autodiff();
        let ids: Vec<i32> = p.ids.iter().map(|&id| id.cast_signed()).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [p.ids.len()]), &device);
        let weight = tensor(&p.weight, [p.rows, p.d], &device, DType::F32).require_grad();
        let y = weight.clone().select(0, ids);
        let d_y = tensor(&p.d_y, [p.ids.len(), p.d], &device, DType::F32);
        let grads = (y.clone() * d_y).sum().backward();
        let plain = [
            ("y", values(y)),
            ("d_weight", values(weight.grad(&grads).unwrap())),
        ];
        assert_eq!(misses(&ours, &plain, 1e-6), [""; 0]);
    }
}

#[test]
fn reruns_are_bitwise_equal() {
    let p = problem(256, 33, 8192, 2000);
    for device in [support::cpu(), support::wgpu()] {
        let first = through_burn(&p, &device, DType::F32);
        assert_eq!(first, through_burn(&p, &device, DType::F32));
    }
}

#[test]
fn cpu_outputs_are_fully_overwritten() {
    let p = problem(7, 5, 200, 100);
    let [y, d_weight] = expected(&p);
    let mut got_y = vec![f64::NAN; y.1.len()];
    cpu::gather(&p.weight, &p.ids, p.d, &mut got_y);
    let mut got_d_weight = vec![f64::NAN; d_weight.1.len()];
    cpu::scatter_sum(&p.d_y, &Plan::new(&p.ids, p.rows), p.d, &mut got_d_weight);
    let got = [("y", got_y), ("d_weight", got_d_weight)];
    assert_eq!(misses(&got, &[y, d_weight], 1e-13), [""; 0]);
}

#[test]
fn wrong_results_are_rejected() {
    for tensor in expected(&problem(7, 5, 65, 30)) {
        for (mutant, values) in mutants(&tensor.1) {
            let missed = misses(&[(tensor.0, values)], std::slice::from_ref(&tensor), 1e-6);
            assert_eq!(missed.len(), 1, "{}: {mutant} passed", tensor.0);
        }
    }
}

#[test]
fn bad_ids_are_refused_with_their_index() {
    let weight = Tensor::<2>::zeros([4, 2], &support::cpu());
    let refused = gather_rows(weight.clone(), &[3, 0, 4, 9]);
    assert!(matches!(refused, Err(Error::Domain { index, value: 4.0, .. }) if index == [2]));
    assert!(matches!(
        gather_rows(weight, &[]),
        Err(Error::Shape { arg: "ids", .. })
    ));
}
