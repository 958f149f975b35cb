//! The CPU kernel of the embedding's gradient against one plain thread.

use bkbench::math::random::{Coordinate, Purpose, normal_vec, words};
use bkbench::ops::embedding::{Plan, cpu};
use bkbench::speed::embedding::plain_backward;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const POSITIONS: usize = 8192;
const WIDTH: usize = 256;

fn bench(criterion: &mut Criterion) {
    let at = Coordinate::new(Purpose::Test);
    let d_y = normal_vec(1, at, POSITIONS * WIDTH, 1.0);
    for rows in [256, 50_257] {
        let ids: Vec<u32> = (0..POSITIONS as u64)
            .map(|i| words(2, at.at(i))[0] % rows as u32)
            .collect();
        let mut d_weight = vec![0.0; rows * WIDTH];
        let mut group = criterion.benchmark_group(format!("embedding/backward, {rows} rows"));
        group
            .throughput(Throughput::Elements(d_y.len() as u64))
            .sample_size(20);
        group.bench_function("plain", |b| {
            b.iter(|| plain_backward(&d_y, &ids, WIDTH, black_box(&mut d_weight)));
        });
        group.bench_function("kernel, plan included", |b| {
            b.iter(|| {
                let plan = Plan::new(&ids, rows);
                cpu::scatter_sum(&d_y, &plan, WIDTH, black_box(&mut d_weight));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
