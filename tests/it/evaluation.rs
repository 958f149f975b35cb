//! Held-out evaluation in segments, by position, and with the state reset.

use bkbench::config::ModelConfig;
use bkbench::data::Tokens;
use bkbench::eval::{Evaluator, HeldOut};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, Carry, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel};

use crate::support;

const VOCAB: usize = 32;

fn text(n: usize) -> Tokens {
    let id = |i| words(3, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB as u32;
    Tokens::from_ids(&(0..n as u64).map(id).collect::<Vec<_>>(), VOCAB)
}

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 2,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0)
}

fn model(architecture: Architecture) -> LanguageModel {
    LanguageModel::new(&shape(architecture), 7, &support::cpu())
}

fn evaluate(model: &LanguageModel, tokens: &Tokens, window: usize, segment: usize) -> HeldOut {
    let evaluator = Evaluator {
        model,
        segment,
        loss_chunk_tokens: 100,
    };
    evaluator
        .evaluate(tokens, tokens.len() as u64, window)
        .unwrap()
        .expect("a finite loss")
}

/// Losses of the whole window that begins at `start`, in one piece and outside the evaluator.
fn losses(model: &LanguageModel, tokens: &Tokens, start: usize, seq_len: usize) -> Vec<f64> {
    let shape = BatchShape { batch: 1, seq_len };
    let inputs = tokens.get(start..start + seq_len);
    let targets = tokens.get(start + 1..start + seq_len + 1);
    let hidden = model
        .infer(&inputs, shape, model.initial_states(1))
        .unwrap();
    support::values(model.nll(hidden.x, &targets, 512).unwrap())
}

fn close(got: f64, expected: f64) {
    assert!(
        (got / expected - 1.0).abs() < 2e-6,
        "{got} is not {expected}"
    );
}

#[test]
fn a_window_in_segments_scores_as_a_whole_window() {
    let tokens = text(1000);
    let finite = |model: &Architecture| model.carry() == Carry::Finite;
    for architecture in Architecture::ALL.into_iter().filter(finite) {
        let model = model(architecture);
        // 999 targets: three windows of 301 and one of 96
        let whole = evaluate(&model, &tokens, 301, 301);
        let by_hand: f64 = [(0, 301), (301, 301), (602, 301), (903, 96)]
            .into_iter()
            .flat_map(|(start, n)| losses(&model, &tokens, start, n))
            .sum();
        close(whole.evaluation.nll_sum_nats.get(), by_hand);
        assert_eq!(whole.evaluation.n_tokens, 999);
        for segment in [1, 64, 150, 300, 4096] {
            let pieces = evaluate(&model, &tokens, 301, segment);
            close(pieces.evaluation.nll_sum_nats.get(), by_hand);
            assert_eq!(pieces.evaluation.n_tokens, 999);
            for (a, b) in pieces.nll_by_position.iter().zip(&whole.nll_by_position) {
                assert_eq!((a.first, a.last, a.n_tokens), (b.first, b.last, b.n_tokens));
                close(a.nll_nats.get(), b.nll_nats.get());
            }
        }
    }
}

#[test]
fn positions_fall_into_octaves_that_make_up_the_whole() {
    let tokens = text(1000);
    let model = model(Architecture::Mamba);
    let held_out = evaluate(&model, &tokens, 301, 64);
    let found: Vec<_> = held_out
        .nll_by_position
        .iter()
        .map(|bucket| (bucket.first, bucket.last, bucket.n_tokens))
        .collect();
    // four windows, the last one of 96 tokens
    assert_eq!(
        found,
        [
            (0, 1, 8),
            (2, 3, 8),
            (4, 7, 16),
            (8, 15, 32),
            (16, 31, 64),
            (32, 63, 128),
            (64, 127, 3 * 64 + 32),
            (128, 255, 3 * 128),
            (256, 300, 3 * 45),
        ]
    );
    let sum: f64 = held_out
        .nll_by_position
        .iter()
        .map(|bucket| bucket.nll_nats.get() * bucket.n_tokens as f64)
        .sum();
    close(sum, held_out.evaluation.nll_sum_nats.get());
    let first: f64 = [0, 301, 602, 903]
        .into_iter()
        .flat_map(|start| losses(&model, &tokens, start, 2))
        .sum();
    close(held_out.nll_by_position[0].nll_nats.get(), first / 8.0);
}

#[test]
fn the_last_quarter_is_compared_with_a_context_of_1024_tokens() {
    let (window, tokens) = (2000, text(4500));
    let model = model(Architecture::Mamba);
    let useful = evaluate(&model, &tokens, window, 700).last_quarter.unwrap();
    assert_eq!(useful.difference.n, 2, "the third window is not whole");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let with_state = [0, 2000].map(|start| mean(&losses(&model, &tokens, start, 2000)[1500..]));
    let reset = [0, 2000].map(|start| mean(&losses(&model, &tokens, start + 476, 1524)[1024..]));
    close(useful.with_state_nats.get(), mean(&with_state));
    close(useful.reset_nats.get(), mean(&reset));
    assert_ne!(useful.with_state_nats, useful.reset_nats);

    assert_eq!(
        evaluate(&model, &text(3999), window, 700).last_quarter,
        None,
        "one whole window"
    );
    assert_eq!(
        evaluate(&model, &tokens, 1365, 700).last_quarter,
        None,
        "1,024 tokens are all there is"
    );
    assert!(evaluate(&model, &tokens, 1366, 700).last_quarter.is_some());

    // No context at all: nothing changes where the state is reset.
    let blind = self::model(Architecture::NoMixer);
    let nothing = evaluate(&blind, &tokens, window, 700).last_quarter.unwrap();
    assert!(nothing.difference.mean.abs() < 1e-6, "{nothing:?}");
}

#[test]
fn flops_are_those_of_the_held_out_tokens() {
    const WINDOW: usize = 64;
    let text = text(4 * WINDOW + 1);
    for architecture in [
        Architecture::Mamba,
        Architecture::ResNetBk,
        Architecture::ResNetBkAct,
        Architecture::ResNetBkScatter,
    ] {
        let got = evaluate(&model(architecture), &text, WINDOW, WINDOW).flops;
        let most = shape(architecture).forward_flops_per_token(WINDOW);
        let [with, without] = [
            got.with_head.get() / most.with_head,
            got.without_head.get() / most.without_head,
        ];
        // Windows go through together, and what is worked out once a pass counts once.
        let expected = if architecture.has_variable_cost() {
            0.3..0.98
        } else {
            0.98..1.0 + 1e-12
        };
        assert!(expected.contains(&with), "{architecture:?}: {with}");
        assert!(expected.contains(&without), "{architecture:?}: {without}");
    }
}

#[test]
fn a_state_is_carried_through_documents_and_no_further() {
    let ids = |from: usize, n: usize| text(1000).get(from..from + n);
    let documents = [ids(0, 300), ids(300, 40), ids(340, 160)];
    for separator in [None, Some(VOCAB as u32 - 1)] {
        let tokens = Tokens::from_documents(&documents, separator, VOCAB);
        let n_between = usize::from(separator.is_some());
        // A document is scored from its first token, a separator, on; the last token is nobody's context.
        let lengths = [300, 40 + n_between, 160 + n_between - 1];
        for architecture in [Architecture::Mamba, Architecture::ResNetBkMh] {
            let model = model(architecture);
            let mut start = 0;
            let mut by_hand = 0.0;
            for n in lengths {
                by_hand += losses(&model, &tokens, start, n).iter().sum::<f64>();
                start += n;
            }
            for segment in [64, 4096] {
                let evaluator = Evaluator {
                    model: &model,
                    segment,
                    loss_chunk_tokens: 100,
                };
                let found = evaluator.evaluate_documents(&tokens, 500).unwrap().unwrap();
                close(found.nll_sum_nats.get(), by_hand);
                assert_eq!(found.n_tokens as usize, tokens.len() - 1);
                assert_eq!(found.window, 300);
            }
            let evaluator = Evaluator {
                model: &model,
                segment: 64,
                loss_chunk_tokens: 100,
            };
            let cut = evaluator.evaluate_documents(&tokens.prefix(301), 301);
            assert_eq!(
                cut.unwrap().unwrap().n_tokens,
                300,
                "the second has one token"
            );
            let through = evaluate(&model, &tokens, tokens.len(), 4096).evaluation;
            let moved = through.nll_sum_nats.get() - by_hand;
            assert!(moved.abs() > 1e-4, "{architecture:?}: {moved}");
        }
    }
}
