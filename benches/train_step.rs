//! Tokens per second of one training step on the CPU backend: forward, backward, clipping and `AdamW`, at
//! `d_model` 256, 6 layers, byte vocabulary.
//!
//! `cargo bench --profile dev --bench train_step`

use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel};
use bkbench::train::{Objective, Sequences, optimiser, segments};
use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const VOCAB_SIZE: usize = 256;
const SEGMENT_LEN: usize = 4096;

fn train_step(c: &mut Criterion) {
    let device = Device::flex().autodiff();
    let config = TrainConfig::default();
    let models = [Architecture::Mamba, Architecture::ResNetBk];
    let shapes = matched_shapes(&models, &ModelConfig::default(), VOCAB_SIZE)
        .expect("the default models match");
    let mut group = c.benchmark_group("train_step");
    group.sample_size(10);
    for shape in &shapes {
        for (batch, seq_len) in [(1, 512), (8, 512), (1, 8192)] {
            let at = BatchShape { batch, seq_len };
            let random = |position| words(1, Coordinate::new(Purpose::Test).at(position))[0] % 256;
            let tokens: Vec<u32> = (0..=at.n_tokens() as u64).map(random).collect();
            let objective = Objective::new(&ModelConfig::default(), &config, 42, 0);
            let sequences = Sequences {
                inputs: &tokens[..at.n_tokens()],
                targets: &tokens[1..],
                shape: at,
            };
            let segments = segments(seq_len, SEGMENT_LEN);
            let mut model = LanguageModel::new(shape, 42, &device);
            let mut adamw = optimiser::adamw(&model, &config, optimiser::Decay::Standard);
            let name = format!("{}/{batch}x{seq_len}", shape.architecture.name());
            group.throughput(Throughput::Elements(at.n_tokens() as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let gradient = objective
                        .gradient(&model, &sequences, &segments, None)
                        .expect("a finite step");
                    let gradients = gradient.clipped(&model, config.gradient_clip_norm);
                    model = adamw.step(1e-3, model.clone(), gradients);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, train_step);
criterion_main!(benches);
