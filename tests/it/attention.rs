//! Causal attention against the oracle, forward and backward, on both devices.

use bkbench::Error;
use bkbench::math::oracle::attention::Problem;
use bkbench::math::random::{Coordinate, Purpose, normal_vec};
use bkbench::ops::attention::{causal, query_rows};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::misses;
use crate::support;

/// Batch, heads, positions, width of a head: less than a chunk, one, one more, several.
const SHAPES: [[usize; 4]; 5] = [
    [1, 1, 1, 2],
    [2, 3, 7, 4],
    [1, 1, 128, 6],
    [1, 2, 129, 3],
    [2, 1, 300, 8],
];

/// Spread so that softmaxes are neither flat nor decided.
fn normals(row: u32, n: usize) -> Vec<f64> {
    let stream = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    let values = normal_vec(3, stream, n, 1.5).into_iter();
    values.map(f64::from).collect()
}

fn agrees(shape: [usize; 4], device: &Device, dtype: DType, tolerance: f64) {
    let [_, _, seq, width] = shape;
    let n = shape.iter().product();
    let [q, k, v, d_y] = [1, 2, 3, 4].map(|row| normals(row, n));
    let problem = Problem {
        seq,
        width,
        q: &q,
        k: &k,
        v: &v,
    };
    let trace = problem.forward();
    let [d_q, d_k, d_v] = problem.adjoint_of(&trace, &d_y);
    let expected = [("y", trace.y), ("d_q", d_q), ("d_k", d_k), ("d_v", d_v)];

    let device = device.clone().autodiff();
    let leaves = [&q, &k, &v].map(|x| support::tensor(x, shape, &device, dtype).require_grad());
    let [q, k, v] = leaves.clone();
    let y: Tensor<4> = causal(q, k, v).unwrap();
    let weights: Tensor<4> = support::tensor(&d_y, shape, &device, dtype);
    let gradients = (y.clone() * weights.detach()).sum().backward();
    let values = |x: Tensor<4>| support::values(x);
    let gradient = |i: usize| values(leaves[i].grad(&gradients).unwrap());
    let got = [
        ("y", values(y.inner())),
        ("d_q", gradient(0)),
        ("d_k", gradient(1)),
        ("d_v", gradient(2)),
    ];
    let missed = misses(&got, &expected, tolerance);
    assert!(missed.is_empty(), "{shape:?} {dtype:?}: {missed:?}");
}

#[test]
fn chunks_are_the_textbook_on_the_cpu() {
    for shape in SHAPES {
        agrees(shape, &support::cpu(), DType::F64, 1e-12);
        agrees(shape, &support::cpu(), DType::F32, 2e-5);
    }
}

#[test]
fn chunks_are_the_textbook_on_an_adapter() {
    for shape in SHAPES {
        agrees(shape, &support::wgpu(), DType::F32, 2e-5);
    }
}

/// Two heads of five positions.
fn of_five([q, k, v]: &[Vec<f64>; 3]) -> Problem<'_, f64> {
    Problem {
        seq: 5,
        width: 4,
        q,
        k,
        v,
    }
}

/// The oracle's gradients are those of its output.
#[test]
fn the_adjoint_is_the_derivative() {
    const STEP: f64 = 1e-6;
    let n = 2 * 5 * 4;
    let inputs = [1, 2, 3].map(|row| normals(row, n));
    let d_y = normals(4, n);
    let objective = |inputs: &[Vec<f64>; 3]| -> f64 {
        let y = of_five(inputs).forward().y;
        y.iter().zip(&d_y).map(|(y, d)| y * d).sum()
    };
    let exact = of_five(&inputs).adjoint_of(&of_five(&inputs).forward(), &d_y);
    for (which, gradient) in exact.iter().enumerate() {
        for i in 0..n {
            let at = |step: f64| {
                let mut moved = inputs.clone();
                moved[which][i] += step;
                objective(&moved)
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!((slope - gradient[i]).abs() < 1e-7, "{which} {i}");
        }
    }
}

/// To the bit, though other rows of the chunk change.
#[test]
fn what_comes_later_changes_nothing_before() {
    let shape = [1, 2, 150, 4];
    let n = shape.iter().product();
    let run = |late: f64| {
        let changed = |row| {
            let mut x = normals(row, n);
            for head in x.chunks_mut(150 * 4) {
                head[100 * 4..].iter_mut().for_each(|x| *x *= late);
            }
            support::tensor(&x, shape, &support::cpu(), DType::F32)
        };
        support::values(causal(changed(1), changed(2), changed(3)).unwrap())
    };
    let (before, after) = (run(1.0), run(-7.0));
    for (before, after) in before.chunks(600).zip(after.chunks(600)) {
        assert_eq!(before[..400], after[..400]);
        assert_ne!(before[400..], after[400..]);
    }
}

#[test]
fn long_sequences_go_in_few_rows() {
    assert_eq!(query_rows(64, 512), 128);
    assert_eq!(query_rows(8, 1 << 16), 8);
    assert_eq!(query_rows(8, 1 << 20), 1);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &support::cpu());
    for (k, v) in [([1, 2, 3, 4], [1, 2, 3, 5]), ([1, 2, 4, 4], [1, 2, 3, 4])] {
        let outcome = causal(zeros([1, 2, 3, 4]), zeros(k), zeros(v));
        assert!(matches!(outcome, Err(Error::Shape { .. })), "{outcome:?}");
    }
    let empty = [1, 2, 0, 4];
    assert!(causal(zeros(empty), zeros(empty), zeros(empty)).is_err());
}
