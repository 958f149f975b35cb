//! Tokens per second of one training step on the CPU backend: forward, backward, clipping and `AdamW`, at
//! d_model 256, 6 layers, byte vocabulary.
//!
//! `cargo bench --profile dev --bench train_step`

use bkbench::config::{ModelConfig, TrainConfig};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, matched_shapes};
use bkbench::models::{BatchShape, Dropout, LanguageModel};
use bkbench::train::{Objective, optimiser};
use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const VOCAB_SIZE: usize = 256;

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
            let objective = Objective {
                load_balance_weight: 0.01,
                dropout: Dropout {
                    probability: 0.0,
                    seed: 0,
                    step: 0,
                },
                loss_chunk_tokens: config.loss_chunk_tokens,
            };
            let mut model = LanguageModel::new(shape, 42, &device);
            let mut adamw = optimiser::adamw(&model, &config, optimiser::Decay::Standard);
            let name = format!("{}/{batch}x{seq_len}", shape.architecture.name());
            group.throughput(Throughput::Elements(at.n_tokens() as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let gradient = objective
                        .gradient(&model, &tokens[..at.n_tokens()], &tokens[1..], at)
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
