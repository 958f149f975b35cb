//! The CPU kernel of the resolvent diagonal, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec, uniform_vec};
use bkbench::ops::resolvent_diag::{Plan, cpu};
use bkbench::speed::resolvent_diag::{plain_backward, plain_forward};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ROWS: usize = 1 << 20;

fn bench(criterion: &mut Criterion) {
    let at = |row| Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    let diag = uniform_vec(1, at(0), ROWS, -5.0, 5.0);
    let d_g = normal_vec(1, at(1), 2 * ROWS, 1.0);
    let mut g = vec![0.0; 2 * ROWS];
    let mut d_diag = vec![0.0; ROWS];

    let mut group = criterion.benchmark_group("resolvent_diag");
    group
        .throughput(Throughput::Elements(ROWS as u64))
        .sample_size(20);
    group.bench_function("forward/plain", |b| {
        b.iter(|| plain_forward::<1>(ROWS, &diag, black_box(&mut g)));
    });
    group.bench_function("backward/plain", |b| {
        b.iter(|| plain_backward::<1>(ROWS, (&g, &d_g), black_box(&mut d_diag), &mut [0.0; 2]));
    });
    for (eta, heads) in [(1.0, 1), (0.01, 1), (1.0, 64)] {
        let seq = ROWS / heads;
        let dims = cpu::Dims {
            batch: 1,
            seq,
            heads,
        };
        let plan = Plan::new(f32::MANTISSA_DIGITS, eta, 1.0, seq);
        let shift = [vec![0.0; heads], vec![eta; heads]].concat();
        let zero = vec![0.0; 2 * heads];
        let coupling = &[1.0];
        let inputs = cpu::Inputs {
            dims,
            plan,
            diag: &diag,
            coupling,
            shift: &shift,
            g0: &zero,
        };
        group.bench_function(format!("forward/eta {eta}, {heads} heads"), |b| {
            b.iter(|| cpu::forward(&inputs, black_box(&mut g)));
        });
        let saved = cpu::Saved {
            dims,
            plan,
            coupling,
            g0: &zero,
            g: &g,
            d_g: &d_g,
            d_g_last: &zero,
        };
        let (mut d_shift, mut d_g0) = (zero.clone(), zero.clone());
        group.bench_function(format!("backward/eta {eta}, {heads} heads"), |b| {
            b.iter(|| {
                let out = cpu::Gradients {
                    d_diag: black_box(&mut d_diag),
                    d_coupling: &mut [],
                    d_shift: &mut d_shift,
                    d_g0: &mut d_g0,
                };
                cpu::backward(&saved, out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
