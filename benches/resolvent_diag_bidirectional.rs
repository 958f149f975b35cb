//! The CPU kernel of the bidirectional resolvent diagonal, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec, uniform_vec};
use bkbench::ops::resolvent_diag::Plan;
use bkbench::ops::resolvent_diag::cpu::{Dims, bidirectional as cpu};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ROWS: usize = 1 << 20;

type Complex = [f32; 2];

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// `1 / (re - i im)`.
fn inverse(re: f32, im: f32) -> Complex {
    let inverse = 1.0 / (re * re + im * im);
    [re * inverse, im * inverse]
}

/// g, r and G at coupling 1 and z = i.
fn plain_forward(diag: &[f32], [g, r, full]: [&mut [Complex]; 3]) {
    let mut state = [0.0; 2];
    for (diag, g) in diag.iter().zip(&mut *g) {
        state = inverse(diag - state[0], 1.0 + state[1]);
        *g = state;
    }
    state = [0.0; 2];
    for (diag, r) in diag.iter().zip(&mut *r).rev() {
        state = inverse(diag - state[0], 1.0 + state[1]);
        *r = state;
    }
    for (i, full) in full.iter_mut().enumerate() {
        let before = if i > 0 { g[i - 1] } else { [0.0; 2] };
        let after = r.get(i + 1).copied().unwrap_or_default();
        *full = inverse(diag[i] - before[0] - after[0], 1.0 + before[1] + after[1]);
    }
}

/// Gradient of the diagonal; returns that of the shift.
fn plain_backward(
    diag: &[f32],
    d_full: &[f32],
    [g, r, full]: [&mut [Complex]; 3],
    d_diag: &mut [f32],
) -> Complex {
    plain_forward(diag, [&mut *g, &mut *r, &mut *full]);
    let (mut lambda, mut d_shift) = ([0.0; 2], [0.0; 2]);
    for i in (0..diag.len()).rev() {
        let w = [d_full[2 * i], -d_full[2 * i + 1]];
        let rho = times(w, times(full[i], full[i]));
        let beyond = times(lambda, times(g[i], g[i]));
        lambda = [rho[0] + beyond[0], rho[1] + beyond[1]];
        full[i] = rho;
        d_diag[i] = -lambda[0];
        d_shift = [d_shift[0] + lambda[0], d_shift[1] - lambda[1]];
    }
    lambda = [0.0; 2];
    for i in 0..diag.len() {
        let beyond = times(lambda, times(r[i], r[i]));
        lambda = [full[i][0] + beyond[0], full[i][1] + beyond[1]];
        d_diag[i] -= beyond[0];
        d_shift = [d_shift[0] + beyond[0], d_shift[1] - beyond[1]];
    }
    d_shift
}

fn bench(criterion: &mut Criterion) {
    let at = |row| Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    let diag = uniform_vec(1, at(0), ROWS, -5.0, 5.0);
    let d_full = normal_vec(1, at(1), 2 * ROWS, 1.0);
    let mut full = vec![0.0; 2 * ROWS];
    let mut d_diag = vec![0.0; ROWS];
    let mut plain = [0; 3].map(|_| vec![[0.0; 2]; ROWS]);

    let mut group = criterion.benchmark_group("resolvent_diag_bidirectional");
    group
        .throughput(Throughput::Elements(ROWS as u64))
        .sample_size(20);
    group.bench_function("forward/plain", |b| {
        b.iter(|| plain_forward(&diag, black_box(plain.each_mut().map(Vec::as_mut_slice))));
    });
    group.bench_function("backward/plain", |b| {
        b.iter(|| {
            let scratch = plain.each_mut().map(Vec::as_mut_slice);
            plain_backward(&diag, &d_full, scratch, black_box(&mut d_diag))
        });
    });
    for (eta, heads) in [(1.0, 1), (0.01, 1), (1.0, 64)] {
        let seq = ROWS / heads;
        let shift = [vec![0.0; heads], vec![eta; heads]].concat();
        let matrices = cpu::Matrices {
            dims: Dims {
                batch: 1,
                seq,
                heads,
            },
            plan: Plan::independent(f32::MANTISSA_DIGITS, eta, 1.0, seq),
            diag: &diag,
            coupling: &[1.0],
            shift: &shift,
        };
        group.bench_function(format!("forward/eta {eta}, {heads} heads"), |b| {
            b.iter(|| cpu::forward(&matrices, black_box(&mut full)));
        });
        let mut d_shift = shift.clone();
        group.bench_function(format!("backward/eta {eta}, {heads} heads"), |b| {
            b.iter(|| {
                let out = cpu::Gradients {
                    d_diag: black_box(&mut d_diag),
                    d_coupling: &mut [],
                    d_shift: &mut d_shift,
                };
                cpu::backward(&matrices, &full, &d_full, out);
            });
        });
        group.bench_function(format!("published/eta {eta}, {heads} heads"), |b| {
            b.iter(|| cpu::published(heads, &full, &d_full, black_box(&mut d_diag)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
