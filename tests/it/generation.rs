//! Recurrent inference: tokens one at a time, the state carried, against whole sequences in one pass.

use bkbench::config::ModelConfig;
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::generation::{Decoder, Sampling};
use bkbench::models::registry::{Architecture, Carry, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};

use crate::support;

const VOCAB: usize = 61;

fn model(architecture: Architecture, device: &Device) -> LanguageModel {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    let shape = matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0);
    LanguageModel::new(&shape, 11, device)
}

fn finite() -> impl Iterator<Item = Architecture> {
    let carries = |model: &Architecture| model.carry() == Carry::Finite;
    Architecture::ALL.into_iter().filter(carries)
}

fn tokens(n: usize) -> Vec<u32> {
    let at = |i| words(8, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    (0..n as u64).map(at).collect()
}

/// Scores at every position of sequences that go in one pass, and the same token by token.
fn both_ways(model: &LanguageModel, ids: &[u32], batch: usize) -> [Vec<f64>; 2] {
    let seq_len = ids.len() / batch;
    let whole = BatchShape { batch, seq_len };
    let hidden = model
        .infer(ids, whole, model.initial_states(batch))
        .unwrap();
    let parallel = support::values(model.logits(hidden.x).unwrap());

    let one = BatchShape { batch, seq_len: 1 };
    let mut states = model.initial_states(batch);
    let mut recurrent = vec![f64::NAN; parallel.len()];
    for position in 0..seq_len {
        let column: Vec<u32> = ids.chunks(seq_len).map(|row| row[position]).collect();
        let hidden = model.infer(&column, one, states).unwrap();
        states = hidden.states;
        let scores = support::values(model.logits(hidden.x).unwrap());
        for (row, scores) in scores.chunks(VOCAB).enumerate() {
            let first = (row * seq_len + position) * VOCAB;
            recurrent[first..first + VOCAB].copy_from_slice(scores);
        }
    }
    [parallel, recurrent]
}

/// The largest difference, relative to the largest value.
fn difference([a, b]: &[Vec<f64>; 2]) -> f64 {
    let largest = a.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let pairs = a.iter().zip(b);
    // NaN must not pass for 0.
    pairs.fold(0.0_f64, |m, (a, b)| {
        let off = (a - b).abs() / largest;
        if off.is_nan() {
            f64::INFINITY
        } else {
            m.max(off)
        }
    })
}

struct InDoubles;

impl ModuleMapper for InDoubles {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(DType::F64))
    }
}

#[test]
fn token_by_token_gives_the_scores_of_the_whole_sequence_in_doubles() {
    for architecture in finite() {
        let model = model(architecture, &support::cpu()).map(&mut InDoubles);
        for (batch, seq_len) in [(1, 1), (3, 2), (1, 17), (2, 131)] {
            let off = difference(&both_ways(&model, &tokens(batch * seq_len), batch));
            println!("{architecture:?}, {batch} x {seq_len}: {off:.1e}");
            assert!(off <= 1e-12, "{architecture:?}, {batch} x {seq_len}: {off}");
        }
    }
}

#[test]
fn token_by_token_gives_the_scores_of_the_whole_sequence_on_both_devices() {
    for (name, device) in [("cpu", support::cpu()), ("wgpu", support::wgpu())] {
        for architecture in finite() {
            let model = model(architecture, &device);
            for (batch, seq_len) in [(1, 1), (2, 37)] {
                let off = difference(&both_ways(&model, &tokens(batch * seq_len), batch));
                println!("{architecture:?} on {name}, {batch} x {seq_len}: {off:.1e}");
                // A few dozen roundings of 6e-8 each, on scores of about the size of their terms.
                assert!(
                    off <= 2e-6,
                    "{architecture:?} on {name}, {batch} x {seq_len}: {off}"
                );
            }
        }
    }
}

#[test]
fn a_decoder_goes_on_from_any_prompt_as_the_whole_sequence_does() {
    let ids = tokens(29);
    for architecture in finite() {
        let model = model(architecture, &support::cpu());
        let [parallel, _] = both_ways(&model, &ids, 1);
        for n_prompt in [1, 16, 28] {
            let mut decoder = Decoder::new(&model, &ids[..n_prompt]).unwrap();
            let mut scores = decoder.logits().to_vec();
            for &id in &ids[n_prompt..] {
                decoder.push(id).unwrap();
                scores.extend(decoder.logits());
            }
            let expected = parallel[(n_prompt - 1) * VOCAB..].to_vec();
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            assert_eq!(scores.len(), expected.len());
            let off = difference(&[expected, scores]);
            assert!(off <= 2e-6, "{architecture:?} after {n_prompt}: {off}");
        }
        // Without the state the last token would say something else, but to the control.
        let forgetful = Decoder::new(&model, &ids[28..]).unwrap();
        let forgetful = forgetful.logits().iter().copied().map(f64::from).collect();
        let off = difference(&[parallel[28 * VOCAB..].to_vec(), forgetful]);
        assert_eq!(off > 1e-4, architecture != Architecture::NoMixer, "{off}");
    }
}

#[test]
fn a_long_prompt_is_read_in_parts_to_the_same_end() {
    let ids = tokens(1024 + 513);
    for architecture in [Architecture::Mamba, Architecture::ResNetBkMh] {
        let model = model(architecture, &support::cpu());
        let decoder = Decoder::new(&model, &ids).unwrap();
        let shape = BatchShape {
            batch: 1,
            seq_len: ids.len(),
        };
        let hidden = model.infer(&ids, shape, model.initial_states(1)).unwrap();
        let last = hidden.x.narrow(0, ids.len() - 1, 1);
        let expected = support::values(model.logits(last).unwrap());
        let scores = decoder.logits().iter().copied().map(f64::from).collect();
        let off = difference(&[expected, scores]);
        assert!(off <= 2e-6, "{architecture:?}: {off}");
    }
}

#[test]
fn what_cannot_be_written_from_is_refused() {
    let mamba = model(Architecture::Mamba, &support::cpu());
    let published = model(Architecture::ResNetBkPublished, &support::cpu());
    for (error, part) in [
        (Decoder::new(&mamba, &[]).unwrap_err(), "prompt"),
        (
            Decoder::new(&published, &[1]).unwrap_err(),
            "carries no state",
        ),
        (
            Decoder::new(&mamba, &[VOCAB as u32]).unwrap_err(),
            "below the number of rows",
        ),
    ] {
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn equal_seeds_draw_equal_tokens_and_other_seeds_others() {
    let model = model(Architecture::ResNetBk, &support::cpu());
    let write = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: None,
            seed,
        };
        let mut decoder = Decoder::new(&model, &[1, 2, 3]).unwrap();
        let draw = |index| {
            let id = sampling.choose(decoder.logits(), index).unwrap();
            decoder.push(id).unwrap();
            id
        };
        (0..24).map(draw).collect::<Vec<_>>()
    };
    assert_eq!(write(1), write(1));
    assert_ne!(write(1), write(2));
}
