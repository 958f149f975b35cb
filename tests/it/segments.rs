//! Training in segments gives the gradients of the whole sequence.

use std::ops::Range;

use bkbench::config::{Backpropagation, ModelConfig, TrainConfig};
use bkbench::hardware::read;
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, Carry, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel};
use bkbench::train::{Gradient, Objective, Sequences, segments};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};

use crate::support;

const VOCAB: usize = 23;
const SEQ_LEN: usize = 61;
const BATCH: usize = 2;

/// The models that may be trained in segments.
fn finite() -> impl Iterator<Item = Architecture> {
    let carries = |model: &Architecture| model.carry() == Carry::Finite;
    Architecture::ALL.into_iter().filter(carries)
}

/// Casts every parameter.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.0;
        param.map(|tensor| Tensor::from_inner(tensor.inner().cast(dtype)).require_grad())
    }
}

fn model(architecture: Architecture, device: &Device, dtype: DType) -> LanguageModel {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    let shape = matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0);
    LanguageModel::new(&shape, 11, &device.clone().autodiff()).map(&mut Cast(dtype))
}

/// With everything that could go wrong at a boundary: dropout, and terms of routers that weigh as much as the loss.
fn objective() -> Objective {
    let model = ModelConfig {
        dropout: 0.2,
        load_balance_weight: 1.0,
        act_penalty: 1.0,
        ..ModelConfig::default()
    };
    let train = TrainConfig {
        loss_chunk_tokens: 10,
        ..TrainConfig::default()
    };
    Objective::new(&model, &train, 7, 3)
}

fn gradient(objective: &Objective, model: &LanguageModel, segments: &[Range<usize>]) -> Gradient {
    let at = |i| words(5, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    let ids: Vec<u32> = (0..=(BATCH * SEQ_LEN) as u64).map(at).collect();
    let sequences = Sequences {
        inputs: &ids[..BATCH * SEQ_LEN],
        targets: &ids[1..],
        shape: BatchShape {
            batch: BATCH,
            seq_len: SEQ_LEN,
        },
    };
    objective
        .gradient(model, &sequences, segments, None)
        .unwrap()
}

/// Seven pieces, no two of one length, down to a single position.
fn unequal() -> Vec<Range<usize>> {
    let ends = [1, 3, 10, 22, 31, 47, SEQ_LEN];
    let starts = [0].into_iter().chain(ends);
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

/// Largest ratio, over the parameters, of the root mean square of the difference to that of the reference.
fn distance(model: &LanguageModel, reference: &GradientsParams, other: &GradientsParams) -> f64 {
    struct Compare<'a> {
        reference: &'a GradientsParams,
        other: &'a GradientsParams,
        worst: f64,
    }
    impl ModuleVisitor for Compare<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let [a, b] = [self.reference, self.other].map(|gradients| {
                let gradient = gradients.get::<D>(param.id);
                gradient.map(|gradient| read::doubles(gradient, "test").unwrap())
            });
            let (Some(a), Some(b)) = (&a, &b) else {
                assert_eq!(a, b, "only one of them has a gradient");
                return;
            };
            let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
            let scale = sum(&mut a.iter().copied());
            let off = sum(&mut a.iter().zip(b).map(|(a, b)| a - b));
            let ratio = if off == 0.0 {
                0.0
            } else {
                (off / scale).sqrt()
            };
            // NaN is farther than anything.
            self.worst = if ratio <= self.worst {
                self.worst
            } else {
                ratio
            };
        }
    }
    let mut compare = Compare {
        reference,
        other,
        worst: 0.0,
    };
    model.visit(&mut compare);
    compare.worst
}

#[test]
fn segments_are_cut_from_the_left() {
    assert_eq!(segments(10, 4), [0..4, 4..8, 8..10]);
    assert_eq!(segments(4, 4), [0..4]);
    assert_eq!(segments(1, 4), [0..1]);
}

#[test]
fn in_f64_segments_give_the_gradient_of_the_whole() {
    let device = support::cpu();
    for architecture in finite() {
        let model = model(architecture, &device, DType::F64);
        let whole = gradient(&objective(), &model, &[0..SEQ_LEN]);
        let recompute = Objective {
            gradient_checkpointing: true,
            ..objective()
        };
        for (objective, pieces) in [
            (objective(), segments(SEQ_LEN, 21)),
            (objective(), unequal()),
            (recompute, segments(SEQ_LEN, SEQ_LEN)),
            (recompute, unequal()),
        ] {
            let other = gradient(&objective, &model, &pieces);
            let off = distance(&model, &whole.gradients, &other.gradients);
            assert!(
                off < 1e-10,
                "{architecture:?}, {objective:?}, {pieces:?}: {off:e}"
            );
            assert!((whole.loss_nats / other.loss_nats - 1.0).abs() < 1e-10);
            assert!((whole.norm / other.norm - 1.0).abs() < 1e-10);
        }
    }
}

#[test]
fn in_f32_segments_give_the_gradient_of_the_whole_on_both_devices() {
    for device in [support::cpu(), support::wgpu()] {
        for architecture in finite() {
            let model = model(architecture, &device, DType::F32);
            let whole = gradient(&objective(), &model, &[0..SEQ_LEN]);
            let pieces = gradient(&objective(), &model, &unequal());
            let off = distance(&model, &whole.gradients, &pieces.gradients);
            assert!(off < 1e-4, "{architecture:?} on {device:?}: {off:e}");

            let on_host = Objective {
                states_on_host: true,
                ..objective()
            };
            let on_host = gradient(&on_host, &model, &unequal());
            let off = distance(&model, &pieces.gradients, &on_host.gradients);
            assert!(off == 0.0, "{architecture:?} on {device:?}: {off:e}");
        }
    }
}

#[test]
fn a_gradient_that_ends_at_boundaries_is_another_one() {
    let truncated = Objective {
        backpropagation: Backpropagation::Truncated,
        ..objective()
    };
    for architecture in [Architecture::Mamba, Architecture::ResNetBk] {
        let model = model(architecture, &support::cpu(), DType::F64);
        let [exact, truncated] =
            [objective(), truncated].map(|objective| gradient(&objective, &model, &unequal()));
        assert_eq!(exact.loss_nats.to_bits(), truncated.loss_nats.to_bits());
        let off = distance(&model, &exact.gradients, &truncated.gradients);
        assert!(off > 1e-3, "{architecture:?}: {off:e}");
    }
}
