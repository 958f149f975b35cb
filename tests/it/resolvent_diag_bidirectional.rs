//! `ops::resolvent_diag::bidirectional` against the sequential oracle, and the oracle against dense inverses.

use std::slice::from_ref;

use bkbench::Error;
use bkbench::math::oracle::resolvent_diag_bidirectional::Problem as Oracle;
use bkbench::ops::resolvent_diag::bidirectional::{Gradient, diagonal};
use bkbench::ops::resolvent_diag::cpu::{Dims, bidirectional as cpu};
use bkbench::ops::resolvent_diag::{Coupling, Plan};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, mutants, normals};
use crate::resolvent_diag::{ETAS, SIZES, between};
use crate::support::{self, tensor, values};

#[derive(Clone)]
struct Problem {
    batch: usize,
    seq: usize,
    heads: usize,
    diag: Vec<f64>,
    /// One value a row and head, all equal where `constant`.
    coupling: Vec<f64>,
    constant: bool,
    shift: Vec<f64>,
    d_full: Vec<f64>,
    eta_min: f32,
}

fn problem((batch, seq, heads): (usize, usize, usize), eta: f64, constant: bool) -> Problem {
    let n = batch * seq * heads;
    let mut shift = between(0, heads, -1.0, 1.0);
    shift.extend(between(1, heads, eta, 1.5 * eta));
    Problem {
        batch,
        seq,
        heads,
        diag: between(2, n, -5.0, 5.0),
        coupling: if constant {
            vec![1.0; n]
        } else {
            between(3, n, 0.0, 4.0)
        },
        constant,
        shift,
        d_full: normals(5, 2 * n, 1.0),
        eta_min: eta as f32,
    }
}

impl Problem {
    fn oracle(&self) -> Oracle<'_, f64> {
        Oracle {
            batch: self.batch,
            seq: self.seq,
            heads: self.heads,
            diag: &self.diag,
            coupling: &self.coupling,
            shift: &self.shift,
        }
    }

    /// G and the exact gradients, then the published one. That of a constant coupling does not exist.
    fn expected(&self) -> Vec<Named> {
        let want = self.oracle().adjoint(&self.d_full);
        let mut named = vec![
            ("full", self.oracle().forward()),
            ("published", self.oracle().published(&self.d_full)),
            ("d_diag", want.diag),
            ("d_shift", want.shift),
        ];
        if !self.constant {
            named.push(("d_coupling", want.coupling));
        }
        named
    }
}

/// As [`Problem::expected`], through burn.
fn through_burn(p: &Problem, device: &Device, dtype: DType) -> Vec<Named> {
    let plain = |v: &[f64], columns| tensor(v, [p.batch, p.seq, columns], device, dtype);
    let device = device.clone().autodiff();
    let leaf = |v: &[f64], columns| tensor(v, [p.batch, p.seq, columns], &device, dtype);
    let diag = leaf(&p.diag, p.heads).require_grad();
    let varying = leaf(&p.coupling, p.heads).require_grad();
    let shift = tensor(&p.shift, [2, p.heads], &device, dtype).require_grad();
    let coupling = if p.constant {
        Coupling::Constant(p.coupling[0] as f32)
    } else {
        Coupling::Varying(varying.clone())
    };
    let with = |gradient| {
        let full = diagonal(
            diag.clone(),
            coupling.clone(),
            shift.clone(),
            p.eta_min,
            gradient,
        )
        .unwrap();
        let grads = (full.clone() * leaf(&p.d_full, 2 * p.heads))
            .sum()
            .backward();
        (full, grads)
    };
    let (full, exact) = with(Gradient::Exact);
    let full = values(full);

    let (again, published) = with(Gradient::Published);
    assert_eq!(full, values(again), "the gradient changes no output");
    assert!(varying.grad(&published).is_none() && shift.grad(&published).is_none());
    let coupling = if p.constant {
        Coupling::Constant(p.coupling[0] as f32)
    } else {
        Coupling::Varying(plain(&p.coupling, p.heads))
    };
    let shift_ = shift.clone().inner();
    let diag_ = plain(&p.diag, p.heads);
    let inferred = diagonal(diag_, coupling, shift_, p.eta_min, Gradient::Exact).unwrap();
    assert_eq!(full, values(inferred), "with and without a graph");

    let mut named = vec![
        ("full", full),
        ("published", values(diag.grad(&published).unwrap())),
        ("d_diag", values(diag.grad(&exact).unwrap())),
        ("d_shift", values(shift.grad(&exact).unwrap())),
    ];
    if !p.constant {
        named.push(("d_coupling", values(varying.grad(&exact).unwrap())));
    }
    named
}

fn check(device: &Device, dtype: DType) {
    for (eta, forward, gradient) in ETAS {
        for (size, constant) in SIZES.into_iter().flat_map(|s| [(s, true), (s, false)]) {
            // A tensor of a few numbers has none that is large beside those that cancel.
            let few = if size.1 < 8 { 20.0 } else { 1.0 };
            let (forward, gradient) = match dtype {
                DType::F64 => (1e-10, 1e-10),
                _ => (forward, few * gradient),
            };
            let p = problem(size, eta, constant);
            let (got, want) = (through_burn(&p, device, dtype), p.expected());
            let mut missed = misses(&got[..1], &want[..1], forward);
            missed.extend(misses(&got[1..], &want[1..], gradient));
            assert!(
                missed.is_empty(),
                "{size:?}, eta {eta}, constant {constant}: {missed:?}"
            );
        }
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32);
}

#[test]
fn wgsl_stays_within_the_bar() {
    for device in support::wgpu_of_each_class() {
        check(&device, DType::F32);
    }
}

/// A complex number.
type C = (f64, f64);

fn times(a: C, b: C) -> C {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// The inverse of a small complex matrix, by elimination with pivots.
fn inverse(mut a: Vec<Vec<C>>) -> Vec<Vec<C>> {
    let n = a.len();
    let size = |x: C| x.0.hypot(x.1);
    let unit = |i: usize| (0..n).map(move |j| (f64::from(u8::from(i == j)), 0.0));
    let mut inverse: Vec<Vec<C>> = (0..n).map(|i| unit(i).collect()).collect();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &j| size(a[i][column]).total_cmp(&size(a[j][column])))
            .unwrap();
        a.swap(column, pivot);
        inverse.swap(column, pivot);
        let (re, im) = a[column][column];
        let reciprocal = (re / (re * re + im * im), -im / (re * re + im * im));
        for x in a[column].iter_mut().chain(&mut inverse[column]) {
            *x = times(*x, reciprocal);
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row][column];
            for matrix in [&mut a, &mut inverse] {
                let pivot = matrix[column].clone();
                for (x, y) in matrix[row].iter_mut().zip(pivot) {
                    let (re, im) = times(factor, y);
                    *x = (x.0 - re, x.1 - im);
                }
            }
        }
    }
    inverse
}

/// `G = diag((H - z)^-1)` and `dG_ii / d diag_j = -G_ij G_ji`, from the inverse itself.
#[test]
fn the_oracle_is_the_diagonal_of_a_dense_inverse() {
    for n in [1, 2, 3, 24] {
        let p = problem((1, n, 1), 0.3, false);
        let mut matrix = vec![vec![(0.0, 0.0); n]; n];
        for i in 0..n {
            matrix[i][i] = (p.diag[i] - p.shift[0], -p.shift[1]);
            if i > 0 {
                // Only the product of the off-diagonals counts: they need not be equal.
                matrix[i - 1][i] = (p.coupling[i] / 0.7, 0.0);
                matrix[i][i - 1] = (0.7, 0.0);
            }
        }
        let inverse = inverse(matrix);
        let full: Vec<f64> = (0..n)
            .flat_map(|i| [inverse[i][i].0, inverse[i][i].1])
            .collect();
        let gradient = |j: usize| -> f64 {
            let term = |i: usize| {
                let w = (p.d_full[2 * i], -p.d_full[2 * i + 1]);
                -times(w, times(inverse[i][j], inverse[j][i])).0
            };
            (0..n).map(term).sum()
        };
        let want = [
            ("full", full),
            ("d_diag", (0..n).map(gradient).collect::<Vec<_>>()),
        ];
        let got = p.expected();
        let missed = misses(&[got[0].clone(), got[2].clone()], &want, 1e-12);
        assert!(missed.is_empty(), "{n} rows: {missed:?}");
    }
}

#[test]
fn oracle_gradients_are_finite_differences_of_its_output() {
    let p = problem((2, 5, 3), 0.3, false);
    let objective = |p: &Problem| -> f64 {
        let full = p.oracle().forward();
        full.iter().zip(&p.d_full).map(|(a, b)| a * b).sum()
    };
    let fields: [fn(&mut Problem) -> &mut Vec<f64>; 3] =
        [|p| &mut p.diag, |p| &mut p.shift, |p| &mut p.coupling];
    let step = 1e-6;
    for (field, (name, gradient)) in fields.iter().zip(&p.expected()[2..]) {
        let differences: Vec<f64> = (0..gradient.len())
            .map(|k| {
                let mut moved = p.clone();
                field(&mut moved)[k] += step;
                let up = objective(&moved);
                field(&mut moved)[k] -= 2.0 * step;
                (up - objective(&moved)) / (2.0 * step)
            })
            .collect();
        let missed = misses(&[(name, gradient.clone())], &[(name, differences)], 1e-7);
        assert!(missed.is_empty(), "{missed:?}");
    }
}

/// Mid-chain values of a long chain at z = i, to the four digits in which they are known.
#[test]
fn long_chains_have_the_known_values() {
    for (v, re, im) in [
        (0.0, -0.3031, 0.3882),
        (1.0, -0.1086, 0.4602),
        (2.0, 0.0, 0.4472),
        (3.0, 0.1086, 0.4602),
        (-1.0, -0.3283, 0.1757),
    ] {
        let n = 401;
        let full = diagonal(
            tensor(&vec![v - 2.0; n], [1, n, 1], &support::cpu(), DType::F64),
            Coupling::Constant(1.0),
            tensor(&[0.0, 1.0], [2, 1], &support::cpu(), DType::F64),
            1.0,
            Gradient::Exact,
        );
        let full = values(full.unwrap());
        let error = (full[n - 1] - re).abs().max((full[n] - im).abs());
        assert!(error < 5.1e-5, "v = {v}: {:?}", &full[n - 1..=n]);
    }
}

/// Outputs of the CPU path, poisoned beforehand.
fn on_slices(p: &Problem, plan: Plan) -> Vec<Named> {
    let n = p.diag.len();
    let matrices = cpu::Matrices {
        dims: Dims {
            batch: p.batch,
            seq: p.seq,
            heads: p.heads,
        },
        plan,
        diag: &p.diag,
        coupling: if p.constant {
            &p.coupling[..1]
        } else {
            &p.coupling
        },
        shift: &p.shift,
    };
    let poisoned = |n: usize| vec![f64::NAN; n];
    let mut full = poisoned(2 * n);
    cpu::forward(&matrices, &mut full);
    let (mut d_diag, mut d_shift) = (poisoned(n), poisoned(2 * p.heads));
    let mut d_coupling = poisoned(if p.constant { 0 } else { n });
    let out = cpu::Gradients {
        d_diag: &mut d_diag,
        d_coupling: &mut d_coupling,
        d_shift: &mut d_shift,
    };
    cpu::backward(&matrices, &full, &p.d_full, out);
    let mut published = poisoned(n);
    cpu::published(p.heads, &full, &p.d_full, &mut published);
    let mut named = vec![
        ("full", full),
        ("published", published),
        ("d_diag", d_diag),
        ("d_shift", d_shift),
    ];
    if !p.constant {
        named.push(("d_coupling", d_coupling));
    }
    named
}

#[test]
fn every_plan_overwrites_every_output_with_the_same_result() {
    for (size, constant) in [
        ((2, 101, 2), true),
        ((1, 4099, 1), false),
        ((2, 300, 20), false),
    ] {
        let p = problem(size, 1.0, constant);
        for (chunk, warm_up) in [(64, 60), (256, 70), (1024, 1024), (4112, 0)] {
            let plan = Plan {
                chunk,
                warm_up: Some(warm_up),
            };
            let missed = misses(&on_slices(&p, plan), &p.expected(), 1e-10);
            assert!(missed.is_empty(), "{size:?}, {plan:?}: {missed:?}");
        }
    }
}

/// A memory longer than the usual chunk: the chunks grow with it, and the last is short.
#[test]
fn a_long_memory_lengthens_the_chunks() {
    let (eta, seq) = (2e-3, 30_011);
    let plan = Plan::independent(f32::MANTISSA_DIGITS, eta as f32, 1.0, seq);
    assert!(plan.chunk > 1024 && plan.chunk < seq, "{plan:?}");
    let p = problem((1, seq, 1), eta, true);
    for device in [support::cpu(), support::wgpu()] {
        let missed = misses(&through_burn(&p, &device, DType::F32), &p.expected(), 1e-3);
        assert!(missed.is_empty(), "{missed:?}");
    }
}

#[test]
fn reruns_are_bitwise_equal() {
    for p in [
        problem((2, 2203, 3), 1.0, false),
        problem((1, 4099, 4), 0.01, true),
    ] {
        for device in [support::cpu(), support::wgpu()] {
            let first = through_burn(&p, &device, DType::F32);
            assert_eq!(first, through_burn(&p, &device, DType::F32));
        }
    }
}

/// Largest `|G - G_oracle| / |G_oracle|`, element by element, at coupling 1 and z = i eta.
fn worst_error(device: &Device, eta: f64, seq: usize) -> f64 {
    let mut p = problem((1, seq, 1), eta, true);
    p.shift = vec![0.0, f64::from(eta as f32)];
    let want = p.oracle().forward();
    let full = diagonal(
        tensor(&p.diag, [1, seq, 1], device, DType::F32),
        Coupling::Constant(1.0),
        tensor(&p.shift, [2, 1], device, DType::F32),
        p.eta_min,
        Gradient::Exact,
    );
    let error = |(g, want): (&[f64], &[f64])| {
        (g[0] - want[0]).hypot(g[1] - want[1]) / want[0].hypot(want[1])
    };
    values(full.unwrap())
        .chunks(2)
        .zip(want.chunks(2))
        .map(error)
        .fold(0.0, |a, e| if e > a || e.is_nan() { e } else { a })
}

/// Im z and the bar for the elementwise relative error of `f32`.
const BARS: [(f64, f64); 5] = [
    (1.0, 2.7e-7),
    (0.5, 3.1e-7),
    (0.1, 1.4e-6),
    (0.01, 1.1e-5),
    (1e-3, 1.2e-4),
];

#[test]
fn elementwise_errors_stay_within_the_bar() {
    for (eta, bar) in BARS {
        for device in [support::cpu(), support::wgpu()] {
            let error = worst_error(&device, eta, 20_011);
            assert!(error <= 1.5 * bar, "eta {eta}: {error:.2e} > {bar:.1e}");
        }
    }
}

/// The measurement of the operation's page: `cargo test --test it both_sides -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of half a minute"]
fn error_over_a_million_rows_from_both_sides() {
    for (eta, bar) in BARS {
        let error = |device| worst_error(&device, eta, 1 << 20);
        let (cpu, wgpu) = (error(support::cpu()), error(support::wgpu()));
        println!("eta {eta}: cpu {cpu:.2e}, wgpu {wgpu:.2e}");
        assert!(cpu <= 1.5 * bar && wgpu <= 1.5 * bar, "bar {bar:.1e}");
    }
}

#[test]
fn wrong_results_are_rejected() {
    for tensor in problem((2, 65, 3), 1.0, false).expected() {
        let accepts = |v: Vec<f64>| misses(&[(tensor.0, v)], from_ref(&tensor), 1e-5).is_empty();
        assert!(accepts(tensor.1.clone()));
        for (mutant, values) in mutants(&tensor.1) {
            assert!(!accepts(values), "{}: {mutant} passed", tensor.0);
        }
    }
}

/// The three gradients that could be taken for one another are far apart.
#[test]
fn the_published_gradient_is_another_than_the_exact_one() {
    let want = problem((1, 300, 2), 1.0, true).expected();
    let mut zeroed = want[2].clone();
    zeroed.1.fill(0.0);
    for other in [&want[2], &zeroed] {
        assert!(!misses(&[(other.0, other.1.clone())], &want[1..2], 0.1).is_empty());
    }
}

#[test]
fn the_published_gradient_hands_on_a_nan_and_bounds_the_rest() {
    for device in [support::cpu(), support::wgpu()] {
        let device = device.autodiff();
        let diag = tensor::<3>(&[0.0; 6], [1, 3, 2], &device, DType::F32).require_grad();
        let shift = tensor(&[0.0, 0.0, 1.0, 1.0], [2, 2], &device, DType::F32);
        let coupling = Coupling::Constant(1.0);
        let g = diagonal(diag.clone(), coupling, shift, 1.0, Gradient::Published).unwrap();
        let mut d_g = [0.0; 12];
        (d_g[0], d_g[5]) = (f64::NAN, 1e9);
        let d_g = tensor::<3>(&d_g, [1, 3, 4], &device, DType::F32);
        let gradients = (g * d_g).sum().backward();
        let got = values(diag.grad(&gradients).unwrap());
        assert!(got[0].is_nan(), "{got:?}");
        assert!(got[3].abs() == 1e3 && got[1] == 0.0, "{got:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = support::cpu();
    let leaf = |v: Vec<f64>, shape| -> Tensor<3> { tensor(&v, shape, &device, DType::F32) };
    let shift = |v: &[f64]| -> Tensor<2> { tensor(v, [2, v.len() / 2], &device, DType::F32) };
    let call = |coupling, shift, eta| {
        let diag = leaf(vec![0.0; 12], [2, 3, 2]);
        diagonal(diag, coupling, shift, eta, Gradient::Exact).err()
    };
    let z = || shift(&[0.0, 0.0, 1.0, 1.0]);
    let short = Coupling::Varying(leaf(vec![1.0; 6], [1, 3, 2]));
    assert!(matches!(
        call(short, z(), 1.0),
        Some(Error::Shape {
            arg: "coupling",
            ..
        })
    ));
    let constant = || Coupling::Constant(1.0);
    let two = shift(&[0.0, 1.0]);
    assert!(matches!(
        call(constant(), two, 1.0),
        Some(Error::Shape { arg: "shift", .. })
    ));
    assert!(matches!(
        call(constant(), z(), 0.0),
        Some(Error::Domain { arg: "eta_min", .. })
    ));
    let mut p = vec![1.0; 12];
    p[9] = -2.0;
    match call(Coupling::Varying(leaf(p, [2, 3, 2])), z(), 1.0) {
        Some(Error::Domain { index, value, .. }) => {
            assert_eq!((index, value), (vec![1, 1, 1], -2.0));
        }
        other => panic!("{other:?}"),
    }
}
