//! Tokens per second of one training step on the CPU backend: forward, backward, clipping and `AdamW`, at
//! `d_model` 256, 6 layers, byte vocabulary.
//!
//! `cargo bench --profile dev --bench train_step`

use bkbench::accounting::memory;
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
    memory::keep_freed();
    let device = Device::flex().autodiff();
    let config = TrainConfig::default();
    let models = [Architecture::Mamba, Architecture::ResNetBk];
    let shapes = matched_shapes(&models, &ModelConfig::default(), VOCAB_SIZE)
        .expect("the default models match");
    let mut group = c.benchmark_group("train_step");
    group.sample_size(10);
    for shape in &shapes {
        // The last one whole, for the price of its segments.
        let sizes = [(1, 512), (8, 512), (1, 8192)].map(|size| (size, SEGMENT_LEN));
        for ((batch, seq_len), segment_len) in sizes.into_iter().chain([((1, 8192), 8192)]) {
            let at = BatchShape { batch, seq_len };
            let random = |position| words(1, Coordinate::new(Purpose::Test).at(position))[0] % 256;
            let tokens: Vec<u32> = (0..=at.n_tokens() as u64).map(random).collect();
            let objective = Objective::new(&ModelConfig::default(), &config, 42, 0);
            let sequences = Sequences {
                inputs: &tokens[..at.n_tokens()],
                targets: &tokens[1..],
                shape: at,
            };
            let segments = segments(seq_len, segment_len);
            let mut model = LanguageModel::new(shape, 42, &device);
            let mut adamw = optimiser::adamw(&model, &config, optimiser::Decay::Standard);
            let whole = if segment_len > SEGMENT_LEN {
                " whole"
            } else {
                ""
            };
            let name = format!("{}/{batch}x{seq_len}{whole}", shape.architecture.name());
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
