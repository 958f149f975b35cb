//! The CPU kernel of the causal convolution, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec};
use bkbench::ops::causal_conv::{Activation, cpu};
use bkbench::speed::causal_conv::{self as plain, plain_backward, plain_forward};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SEQ_LEN: usize = 4096;
const CHANNELS: usize = 512;
const D_CONV: usize = 4;

fn bench(criterion: &mut Criterion) {
    let draw = |row, n| {
        normal_vec(
            1,
            Coordinate {
                row,
                ..Coordinate::new(Purpose::Test)
            },
            n,
            1.0,
        )
    };
    let n = SEQ_LEN * CHANNELS;
    let (x, d_y) = (draw(0, n), draw(1, n));
    let (weight, bias) = (draw(2, CHANNELS * D_CONV), draw(3, CHANNELS));
    let state = vec![0.0; (D_CONV - 1) * CHANNELS];
    let inputs = cpu::Inputs {
        seq_len: SEQ_LEN,
        channels: CHANNELS,
        d_conv: D_CONV,
        activation: Activation::Silu,
        x: &x,
        weight: &weight,
        bias: &bias,
        x0: &state,
    };
    let plain = plain::Inputs {
        seq_len: SEQ_LEN,
        x: &x,
        weight: &weight,
        bias: &bias,
    };
    let mut y = vec![0.0; n];
    let mut d = [vec![0.0; n], vec![0.0; weight.len()], vec![0.0; CHANNELS]];
    let mut d_x0 = state.clone();

    let mut group = criterion.benchmark_group("causal_conv");
    group
        .throughput(Throughput::Elements(n as u64))
        .sample_size(20);
    group.bench_function("forward/plain", |b| {
        b.iter(|| plain_forward(plain, black_box(&mut y)));
    });
    group.bench_function("forward/kernel", |b| {
        b.iter(|| cpu::forward(&inputs, black_box(&mut y)));
    });
    group.bench_function("backward/plain", |b| {
        b.iter(|| plain_backward(plain, &d_y, black_box(&mut d)));
    });
    group.bench_function("backward/kernel", |b| {
        b.iter(|| {
            let [d_x, d_weight, d_bias] = black_box(&mut d);
            let into = cpu::Gradients {
                d_x,
                d_weight,
                d_bias,
                d_x0: &mut d_x0,
            };
            cpu::backward(&inputs, &d_y, &state, into);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
