//! Products with a packed matrix against burn's f32 matmul, on the CPU and on the adapter if there is one: one token
//! (decode) and many (prefill), a projection and a head. The bytes of the matrix stand in the names.

use bkbench::hardware::{DeviceChoice, open};
use bkbench::math::random::{Coordinate, Purpose, normal_vec};
use bkbench::ops::packed_matmul::PackedTensor;
use bkbench::quant::{BitWidth, PackedMatrix};
use bkbench::units::Bytes;
use burn::tensor::{Device, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

/// Name, outputs and inputs: `in_proj` at D 256, and a head of GPT-2's vocabulary.
const MATRICES: [(&str, usize, usize); 2] = [("in_proj", 1024, 256), ("head", 50_257, 256)];
const TOKENS: [(&str, usize); 2] = [("decode", 1), ("prefill", 512)];

fn draw(row: u32, n: usize) -> Vec<f32> {
    let at = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    normal_vec(1, at, n, 0.1)
}

/// The device has finished when this returns.
fn finish(y: Tensor<2>) {
    let device = y.device();
    drop(y);
    device.sync().expect("a working device");
}

fn bench_on(criterion: &mut Criterion, name: &str, device: &Device) {
    let tensor =
        |values: Vec<f32>, shape| Tensor::<2>::from_data(TensorData::new(values, shape), device);
    for (matrix, rows, columns) in MATRICES {
        let weight = draw(0, rows * columns);
        let dense = tensor(weight.clone(), [rows, columns]).transpose();
        for (phase, tokens) in TOKENS {
            let x = tensor(draw(1, tokens * columns), [tokens, columns]);
            let mut group = criterion.benchmark_group(format!(
                "packed_matmul/{name}, {phase}, {matrix} {rows}x{columns}"
            ));
            group
                .throughput(Throughput::Elements((tokens * rows * columns) as u64))
                .measurement_time(Duration::from_millis(400))
                .warm_up_time(Duration::from_millis(100))
                .sample_size(10);
            let bytes = Bytes(4 * weight.len() as u64);
            group.bench_function(format!("burn f32, {bytes}"), |b| {
                b.iter(|| finish(x.clone().matmul(dense.clone())));
            });
            for width in BitWidth::ALL {
                let packed = PackedMatrix::pack(width, [rows, columns], &weight).expect("finite");
                let bytes = Bytes(4 * packed.words.len() as u64);
                let packed = PackedTensor::new(packed, device);
                group.bench_function(format!("packed {width}, {bytes}"), |b| {
                    b.iter(|| finish(packed.multiply(x.clone()).expect("shapes that fit")));
                });
            }
            group.finish();
        }
    }
}

fn bench(criterion: &mut Criterion) {
    bench_on(criterion, "cpu", &Device::flex());
    let any = DeviceChoice::Wgpu {
        api: None,
        which: None,
    };
    if let Ok(hardware) = open(&any, None) {
        bench_on(criterion, &hardware.fingerprint.adapter, &hardware.device);
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
