//! The CPU kernel of the bidirectional resolvent diagonal, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec, uniform_vec};
use bkbench::ops::resolvent_diag::Plan;
use bkbench::ops::resolvent_diag::cpu::{Dims, bidirectional as cpu};
use bkbench::speed::resolvent_diag_bidirectional::{plain_backward, plain_forward};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ROWS: usize = 1 << 20;

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
