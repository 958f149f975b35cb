//! The CPU kernel of the selective scan, forward and backward, against one plain thread; and the whole way of a forward
//! pass on an adapter, by the kernels of each class.

use bkbench::accounting::memory;
use bkbench::hardware::adapters::Class;
use bkbench::hardware::{DeviceChoice, open_as, read};
use bkbench::math::random::{Coordinate, Purpose, uniform_vec};
use bkbench::ops::selective_scan::cpu::{self, Dims, Gradients, Inputs};
use bkbench::ops::selective_scan::{self, infer};
use bkbench::speed::selective_scan::{self as plain, plain_backward, plain_forward};
use burn::tensor::{Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SEQ_LEN: usize = 4096;
const D_INNER: usize = 512;
const D_STATE: usize = 16;
/// Time steps on an adapter.
const SEQ_LEN_THERE: usize = 2048;

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
    let plain = plain::Inputs {
        d_inner: D_INNER,
        d_state: D_STATE,
        u: &u,
        delta_raw: &delta_raw,
        a: &a,
        b: &b,
        c: &c,
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
        bencher.iter(|| plain_forward(plain, &mut h0.clone(), black_box(&mut y)));
    });
    group.bench_function("forward/kernel", |bencher| {
        bencher.iter(|| cpu::forward(dims, inputs, &h0, black_box(&mut y), &mut states));
    });
    group.bench_function("backward/plain", |bencher| {
        let mut g = plain::Gradients::default();
        bencher.iter(|| {
            plain_backward(plain, &h0, &d_y, &mut d_h_last.clone(), black_box(&mut g));
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
    on_adapter(
        criterion,
        Inputs {
            u: &u[..SEQ_LEN_THERE * D_INNER],
            delta_raw: &delta_raw[..SEQ_LEN_THERE * D_INNER],
            b: &b[..SEQ_LEN_THERE * D_STATE],
            c: &c[..SEQ_LEN_THERE * D_STATE],
            ..inputs
        },
    );
}

/// Forward passes with values uploaded before and read back after.
fn on_adapter(criterion: &mut Criterion, inputs: Inputs<'_, f32>) {
    // As a training does.
    memory::keep_freed();
    // The operation has the states of a channel side by side.
    let rate = |k: usize| inputs.a[k % D_STATE * D_INNER + k / D_STATE];
    let rates: Vec<f32> = (0..D_INNER * D_STATE).map(rate).collect();
    let mut group = criterion.benchmark_group("selective_scan");
    for class in [Class::Gpu, Class::Software] {
        let choice = DeviceChoice::Wgpu {
            api: None,
            which: None,
        };
        let Ok(hardware) = open_as(&choice, None, Some(class)) else {
            return; // no adapter here
        };
        let device = hardware.device;
        let wide = [1, SEQ_LEN_THERE, D_INNER];
        let narrow = [1, SEQ_LEN_THERE, D_STATE];
        let there =
            |v: &[f32], shape| Tensor::<3>::from_data(TensorData::new(v.to_vec(), shape), &device);
        let forward = || {
            let given = selective_scan::Inputs {
                u: there(inputs.u, wide),
                delta_raw: there(inputs.delta_raw, wide),
                a: there(&rates, [1, D_INNER, D_STATE]).squeeze_dim(0),
                b: there(inputs.b, narrow),
                c: there(inputs.c, narrow),
                softplus: true,
            };
            let h0 = Tensor::zeros([1, D_INNER, D_STATE], &device);
            let (y, _) = infer(given, h0).expect("shapes that fit together");
            read::floats(y, "reading the output").expect("a device that works")
        };
        group
            .throughput(Throughput::Elements((inputs.u.len() * D_STATE) as u64))
            .sample_size(40);
        let name = format!("forward/adapter, kernels of class {}", class.name());
        group.bench_function(name, |bencher| bencher.iter(forward));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
