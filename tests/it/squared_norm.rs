//! `ops::squared_norm` against the oracle.

use bkbench::math::oracle::optimiser;
use bkbench::ops::squared_norm::squared_norm;
use burn::tensor::{DType, Device};

use crate::compare::{misses, normals};
use crate::support::{self, tensor, values};

/// Elements: one, around the lanes and a chunk, a product of odd sizes, more than a level of the tree.
const SHAPES: [[usize; 2]; 6] = [[1, 1], [1, 17], [32, 32], [1, 1025], [97, 257], [1000, 131]];

fn check(device: &Device, dtype: DType, tolerance: f64) {
    for shape in SHAPES {
        let x = normals(0, shape[0] * shape[1], 2.0);
        let got = values(squared_norm(tensor(&x, shape, device, dtype)));
        let want = vec![optimiser::squared_norm(&x)];
        let missed = misses(&[("sum", got)], &[("sum", want)], tolerance);
        assert!(missed.is_empty(), "{shape:?}: {missed:?}");
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-12);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, 1e-6);
}

#[test]
fn wgsl_stays_within_the_bar() {
    check(&support::wgpu(), DType::F32, 2e-6);
}

#[test]
fn reruns_are_bitwise_equal_and_a_transpose_is_read_right() {
    for device in [support::cpu(), support::wgpu()] {
        let x = tensor::<2>(&normals(0, 300 * 41, 1.0), [300, 41], &device, DType::F32);
        let first = values(squared_norm(x.clone()));
        assert_eq!(first, values(squared_norm(x.clone())));
        let turned = values(squared_norm(x.transpose()));
        assert!((turned[0] / first[0] - 1.0).abs() < 1e-6);
    }
}

#[test]
fn of_nothing_it_is_zero() {
    for device in [support::cpu(), support::wgpu()] {
        let x = burn::tensor::Tensor::<2>::zeros([0, 3], &device);
        assert_eq!(values(squared_norm(x)), [0.0]);
    }
}

#[test]
fn what_is_not_finite_is_not_lost() {
    let mut x = vec![1.0; 3000];
    x[2999] = 1e30;
    let x = tensor::<1>(&x, [3000], &support::cpu(), DType::F32);
    assert!(!values(squared_norm(x))[0].is_finite());
}
