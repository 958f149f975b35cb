//! The CPU kernel of the causal convolution, forward and backward, against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec};
use bkbench::ops::causal_conv::{Activation, cpu};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SEQ_LEN: usize = 4096;
const CHANNELS: usize = 512;
const D_CONV: usize = 4;

fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// `bias + sum_k weight[k] * x[t - 3 + k]`, nothing before the first input.
fn plain_pre_activation(x: &[f32], weight: &[f32], bias: &[f32], t: usize, c: usize) -> f32 {
    let mut pre = bias[c];
    for k in 0..D_CONV {
        if t + k + 1 >= D_CONV {
            pre += weight[c * D_CONV + k] * x[(t + k + 1 - D_CONV) * CHANNELS + c];
        }
    }
    pre
}

fn plain_forward(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    for t in 0..SEQ_LEN {
        for c in 0..CHANNELS {
            let pre = plain_pre_activation(x, weight, bias, t, c);
            y[t * CHANNELS + c] = pre * sigmoid(pre);
        }
    }
}

fn plain_backward(x: &[f32], weight: &[f32], bias: &[f32], d_y: &[f32], d: &mut [Vec<f32>; 3]) {
    let [d_x, d_weight, d_bias] = d;
    d_x.fill(0.0);
    d_weight.fill(0.0);
    d_bias.fill(0.0);
    for t in 0..SEQ_LEN {
        for c in 0..CHANNELS {
            let pre = plain_pre_activation(x, weight, bias, t, c);
            let s = sigmoid(pre);
            let d_pre = d_y[t * CHANNELS + c] * s * (1.0 + pre * (1.0 - s));
            d_bias[c] += d_pre;
            for k in 0..D_CONV {
                if t + k + 1 >= D_CONV {
                    let i = (t + k + 1 - D_CONV) * CHANNELS + c;
                    d_weight[c * D_CONV + k] += d_pre * x[i];
                    d_x[i] += d_pre * weight[c * D_CONV + k];
                }
            }
        }
    }
}

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
    let mut y = vec![0.0; n];
    let mut d = [vec![0.0; n], vec![0.0; weight.len()], vec![0.0; CHANNELS]];
    let mut d_x0 = state.clone();

    let mut group = criterion.benchmark_group("causal_conv");
    group
        .throughput(Throughput::Elements(n as u64))
        .sample_size(20);
    group.bench_function("forward/plain", |b| {
        b.iter(|| plain_forward(&x, &weight, &bias, black_box(&mut y)));
    });
    group.bench_function("forward/kernel", |b| {
        b.iter(|| cpu::forward(&inputs, black_box(&mut y)));
    });
    group.bench_function("backward/plain", |b| {
        b.iter(|| plain_backward(&x, &weight, &bias, &d_y, black_box(&mut d)));
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
