//! The kernels on a model's own tensors, against the oracle.

use bkbench::config::ModelConfig;
use bkbench::eval::kernel_errors;
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::LanguageModel;
use bkbench::models::registry::{Architecture, Carry, matched_shapes};
use bkbench::results::{Cell, Finite, KernelError, Warning, kernel_drift};
use burn::tensor::Device;

use crate::{made_up, support};

const VOCAB: usize = 32;

fn model(architecture: Architecture, device: &Device) -> LanguageModel {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 4,
        ..ModelConfig::default()
    };
    let shape = matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0);
    LanguageModel::new(&shape, 7, device)
}

fn text(n: u64) -> Vec<u32> {
    let id = |i| words(3, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    (0..n).map(id).collect()
}

#[test]
fn every_kernel_of_every_model_is_within_rounding_of_the_oracle_on_both_devices() {
    for device in [support::cpu(), support::wgpu()] {
        for architecture in Architecture::ALL {
            let model = model(architecture, &device);
            let ids = text(2500);
            let segment = match architecture.carry() {
                Carry::Finite => 700,
                Carry::None => 2500,
            };
            let errors = kernel_errors(&model, &ids, segment).unwrap();
            let operation = match architecture {
                Architecture::Mamba => "selective_scan",
                Architecture::ResNetBkPublished => "resolvent_diag_bidirectional",
                _ => "resolvent_diag",
            };
            let found: Vec<_> = errors
                .iter()
                .map(|error| {
                    (
                        error.operation.as_str(),
                        error.layer,
                        error.first,
                        error.last,
                    )
                })
                .collect();
            let expected: Vec<_> = [1, 2, 4]
                .into_iter()
                .flat_map(|layer| [(operation, layer, 0, 1023), (operation, layer, 1476, 2499)])
                // Neither has a kernel that mixes positions.
                .filter(|_| {
                    let without = [Architecture::NoMixer, Architecture::Transformer];
                    !without.contains(&architecture)
                })
                .collect();
            assert_eq!(found, expected, "{architecture:?}");
            for error in &errors {
                // The bar of the resolvent at eta = 1 over a million steps is 2.7e-7, of the scan 6e-6.
                assert!(error.largest() < 6e-6, "{architecture:?}: {error:?}");
                assert!(error.largest() > 0.0, "compared with itself: {error:?}");
            }
        }
    }
}

#[test]
fn a_short_sequence_is_compared_whole() {
    let model = model(Architecture::ResNetBk, &support::cpu());
    for n in [1, 2, 37] {
        let errors = kernel_errors(&model, &text(n), 16).unwrap();
        let positions: Vec<_> = errors
            .iter()
            .map(|error| (error.first, error.last))
            .collect();
        assert_eq!(positions, vec![(0, n as usize - 1); 6]);
    }
}

#[test]
fn a_kernel_that_drifted_is_found_in_whatever_order_the_lengths_ran() {
    let mut cells = made_up::longcontext(&[512, 2048, 8192], 1, 20).cells;
    for cell in &mut cells {
        let max = if cell.seq_len == 8192 { 1e-3 } else { 1e-7 };
        cell.metrics.as_mut().unwrap().kernel_errors = vec![KernelError {
            operation: "selective_scan".into(),
            layer: 1,
            first: 0,
            last: 511,
            max: Finite::new(max),
            rms: Finite::new(max),
        }];
    }
    let places = |cells: &[Cell]| -> Vec<(String, usize)> {
        let found = kernel_drift(cells)
            .into_iter()
            .map(|warning| match warning {
                Warning::KernelDrift {
                    place,
                    shortest_len,
                    ..
                } => (place, shortest_len),
                other => panic!("{other:?}"),
            });
        found.collect()
    };
    let expected = vec![("longcontext seq_len_8192".to_owned(), 512); 3];
    assert_eq!(places(&cells), expected);
    cells.reverse();
    assert_eq!(places(&cells), expected);
}
