//! The CPU kernel over rows of logits against one plain thread, and the whole operation.

use bkbench::config::Precision;
use bkbench::math::random::{Coordinate, Purpose, normal_vec, words};
use bkbench::ops::linear_cross_entropy::{cpu, train};
use bkbench::speed::linear_cross_entropy::plain_rows;
use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn draw(row: u32, n: usize) -> Vec<f32> {
    normal_vec(
        1,
        Coordinate {
            row,
            ..Coordinate::new(Purpose::Test)
        },
        n,
        1.0,
    )
}

fn bench(criterion: &mut Criterion) {
    for (tokens, vocab) in [(512, 256), (64, 50_257)] {
        let targets: Vec<u32> = (0..tokens as u64)
            .map(|i| words(2, Coordinate::new(Purpose::Test).at(i))[0] % vocab as u32)
            .collect();
        let logits = draw(0, tokens * vocab);
        let mut nll = vec![0.0; tokens];
        let mut group = criterion.benchmark_group(format!("linear_cross_entropy/{tokens}x{vocab}"));
        group
            .throughput(Throughput::Elements((tokens * vocab) as u64))
            .sample_size(20);
        let fresh = || logits.clone();
        group.bench_function("rows/plain", |b| {
            let run = |l: &mut Vec<f32>| plain_rows(l, &targets, 0.1, &mut nll);
            b.iter_batched_ref(fresh, run, BatchSize::LargeInput);
        });
        group.bench_function("rows/kernel", |b| {
            let run = |l: &mut Vec<f32>| cpu::row_nll(l, &targets, Some(0.1), &mut nll);
            b.iter_batched_ref(fresh, run, BatchSize::LargeInput);
        });

        let device = Device::flex().autodiff();
        let leaf = |row, rows| {
            let data = TensorData::new(draw(row, rows * 256), [rows, 256]);
            Tensor::<2>::from_data(data, &device).require_grad()
        };
        let (x, weight) = (leaf(1, tokens), leaf(2, vocab));
        group.bench_function("train, d_model 256", |b| {
            b.iter(|| {
                let loss = train(
                    x.clone(),
                    weight.clone(),
                    &targets,
                    512,
                    0.1,
                    Precision::F32,
                );
                loss.expect("valid inputs").backward()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
