//! The CPU kernel of the selective scan, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, uniform_vec};
use bkbench::ops::selective_scan::cpu::{self, Dims, Gradients, Inputs};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SEQ_LEN: usize = 4096;
const D_INNER: usize = 512;
const D_STATE: usize = 16;

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The recurrence as it is written, channel by channel. `h` is `[d_state, d_inner]`, as `a` is.
fn plain_forward(i: Inputs<'_, f32>, h: &mut [f32], y: &mut [f32]) {
    for t in 0..SEQ_LEN {
        for d in 0..D_INNER {
            let delta = softplus(i.delta_raw[t * D_INNER + d]);
            let mut sum = 0.0;
            for n in 0..D_STATE {
                let h = &mut h[n * D_INNER + d];
                let input = delta * i.b[t * D_STATE + n] * i.u[t * D_INNER + d];
                *h = (delta * i.a[n * D_INNER + d]).exp() * *h + input;
                sum += i.c[t * D_STATE + n] * *h;
            }
            y[t * D_INNER + d] = sum;
        }
    }
}

/// Stores every state, then goes back. `d_h` is `[d_state, d_inner]` and ends as the gradient of h0.
fn plain_backward(
    i: Inputs<'_, f32>,
    h0: &[f32],
    d_y: &[f32],
    d_h: &mut [f32],
    g: &mut [Vec<f32>; 5],
) {
    const PER_TOKEN: usize = D_INNER * D_STATE;
    let [d_u, d_delta_raw, d_a, d_b, d_c] = g;
    for sums in [&mut *d_a, &mut *d_b, &mut *d_c] {
        sums.fill(0.0);
    }
    let mut states = h0.to_vec();
    states.resize((SEQ_LEN + 1) * PER_TOKEN, 0.0);
    for t in 0..SEQ_LEN {
        for d in 0..D_INNER {
            let delta = softplus(i.delta_raw[t * D_INNER + d]);
            for n in 0..D_STATE {
                let k = t * PER_TOKEN + n * D_INNER + d;
                let input = delta * i.b[t * D_STATE + n] * i.u[t * D_INNER + d];
                states[k + PER_TOKEN] = (delta * i.a[n * D_INNER + d]).exp() * states[k] + input;
            }
        }
    }
    for t in (0..SEQ_LEN).rev() {
        for d in 0..D_INNER {
            let at = t * D_INNER + d;
            let (u, delta) = (i.u[at], softplus(i.delta_raw[at]));
            let (mut d_x, mut d_delta) = (0.0, 0.0);
            for n in 0..D_STATE {
                let (k, s) = (n * D_INNER + d, t * D_STATE + n);
                let decay = (delta * i.a[k]).exp();
                let decayed = decay * states[t * PER_TOKEN + k];
                d_c[s] += d_y[at] * states[(t + 1) * PER_TOKEN + k];
                d_h[k] += i.c[s] * d_y[at];
                d_b[s] += d_h[k] * delta * u;
                d_a[k] += d_h[k] * decayed * delta;
                d_delta += d_h[k] * decayed * i.a[k];
                d_x += d_h[k] * i.b[s];
                d_h[k] *= decay;
            }
            d_u[at] = d_x * delta;
            d_delta_raw[at] = (d_delta + d_x * u) / (1.0 + (-i.delta_raw[at]).exp());
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let draw = |row, n, low, high| {
        let coordinate = Coordinate {
            row,
            ..Coordinate::new(Purpose::Test)
        };
        uniform_vec(1, coordinate, n, low, high)
    };
    let (n, per_state, state) = (SEQ_LEN * D_INNER, SEQ_LEN * D_STATE, D_STATE * D_INNER);
    let (u, d_y) = (draw(0, n, -1.0, 1.0), draw(1, n, -1.0, 1.0));
    let (b, c) = (draw(2, per_state, -1.0, 1.0), draw(3, per_state, -1.0, 1.0));
    let (h0, d_h_last) = (draw(4, state, -1.0, 1.0), draw(5, state, -1.0, 1.0));
    // As Mamba starts: softplus(delta_raw) from 0.0025 to 0.1, a = -1, ..., -d_state.
    let delta_raw = draw(6, n, -6.0, -2.25);
    let a: Vec<f32> = (0..state).map(|k| -((k / D_INNER + 1) as f32)).collect();
    let inputs = Inputs {
        u: &u,
        delta_raw: &delta_raw,
        a: &a,
        b: &b,
        c: &c,
        softplus: true,
    };
    let dims = Dims {
        batch: 1,
        seq: SEQ_LEN,
        d_inner: D_INNER,
        d_state: D_STATE,
    };
    let mut y = vec![0.0; n];
    let mut states = vec![0.0; (dims.n_chunks() + 1) * state];
    let mut g = [n, n, state, per_state, per_state].map(|n| vec![0.0; n]);
    let mut d_h0 = vec![0.0; state];

    let mut group = criterion.benchmark_group("selective_scan");
    group
        .throughput(Throughput::Elements((n * D_STATE) as u64))
        .sample_size(10);
    group.bench_function("forward/plain", |bencher| {
        bencher.iter(|| plain_forward(inputs, &mut h0.clone(), black_box(&mut y)));
    });
    group.bench_function("forward/kernel", |bencher| {
        bencher.iter(|| cpu::forward(dims, inputs, &h0, black_box(&mut y), &mut states));
    });
    group.bench_function("backward/plain", |bencher| {
        bencher.iter(|| {
            plain_backward(inputs, &h0, &d_y, &mut d_h_last.clone(), black_box(&mut g));
        });
    });
    group.bench_function("backward/kernel", |bencher| {
        bencher.iter(|| {
            let [u, delta_raw, a, b, c] = black_box(&mut g);
            let into = Gradients {
                u,
                delta_raw,
                a,
                b,
                c,
                h0: &mut d_h0,
            };
            cpu::backward(dims, inputs, &states, &d_y, &d_h_last, into);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
