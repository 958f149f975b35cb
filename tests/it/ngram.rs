//! The interpolated 3-gram: by hand, as a distribution, and as it scores a text.

use bkbench::data::Tokens;
use bkbench::eval::ThreeGram;
use bkbench::math::random::{Coordinate, Purpose, words};

fn counted(ids: &[u32], vocab_size: usize) -> ThreeGram {
    ThreeGram::new(&Tokens::from_ids(ids, vocab_size), vocab_size)
}

/// The text 0 1 0 1 2 of a vocabulary of 4: 0 and 1 twice, 2 once, 3 never.
#[test]
fn probabilities_are_those_by_hand() {
    let model = counted(&[0, 1, 0, 1, 2], 4);
    // Five tokens of three kinds.
    let alone = |n: f64| (n + 3.0 / 4.0) / 8.0;
    // After 1 came 0 and 2; after 0 came 1 twice; after 2 nothing.
    let after_1 = |n: f64, shorter: f64| (n + 2.0 * shorter) / 4.0;
    let after_0 = |n: f64, shorter: f64| (n + shorter) / 3.0;
    // After 0 1 came 0 and 2; after 1 0 came 1.
    let cases = [
        (vec![], 0, alone(2.0)),
        (vec![], 3, alone(0.0)),
        (vec![2], 0, alone(2.0)),
        (vec![3, 2], 1, alone(2.0)),
        (vec![1], 2, after_1(1.0, alone(1.0))),
        (vec![0], 1, after_0(2.0, alone(2.0))),
        (vec![2, 0], 1, after_0(2.0, alone(2.0))),
        (vec![0, 1], 2, after_1(1.0, after_1(1.0, alone(1.0)))),
        (vec![3, 0, 1], 3, after_1(0.0, after_1(0.0, alone(0.0)))),
        (vec![1, 0], 1, f64::midpoint(1.0, after_0(2.0, alone(2.0)))),
    ];
    for (context, token, expected) in cases {
        let got = model.probability(&context, token);
        assert!((got - expected).abs() < 1e-15, "{context:?} {token}: {got}");
    }
}

#[test]
fn probabilities_of_all_tokens_sum_to_1() {
    let id = |i| words(3, Coordinate::new(Purpose::Test).at(i))[0] % 11;
    // Longer than a block of the count.
    let text: Vec<u32> = (0..70_000).map(id).collect();
    let model = counted(&text, 13);
    for context in [
        vec![],
        vec![12],
        vec![3],
        vec![3, 12],
        vec![5, 5],
        vec![0, 10],
    ] {
        let sum: f64 = (0..13).map(|id| model.probability(&context, id)).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{context:?}: {sum}");
    }
    // Every token was counted once, those around the end of a block too: 11 kinds seen.
    let zeros = text.iter().filter(|&&id| id == 0).count() as f64;
    let expected = (zeros + 11.0 / 13.0) / (70_000.0 + 11.0);
    assert!((model.probability(&[], 0) - expected).abs() < 1e-15);
}

#[test]
fn a_text_is_scored_once_and_contexts_end_at_windows() {
    let model = counted(&[0, 1, 0, 1, 2], 4);
    let text = Tokens::from_ids(&[1, 0, 1, 2], 4);
    let nll = |cases: [(&[u32], u32); 3]| -> f64 {
        let probability = |&(context, id): &(&[u32], u32)| model.probability(context, id);
        cases.iter().map(|case| -probability(case).ln()).sum()
    };
    let whole = model.evaluate(&text, 8, 10).unwrap();
    let expected = nll([(&[1], 0), (&[1, 0], 1), (&[0, 1], 2)]);
    assert_eq!((whole.n_tokens, whole.n_bytes), (3, 8));
    assert!((whole.nll_sum_nats.get() - expected).abs() < 1e-14);
    let windows = model.evaluate(&text, 8, 2).unwrap();
    let expected = nll([(&[1], 0), (&[1, 0], 1), (&[1], 2)]);
    assert!((windows.nll_sum_nats.get() - expected).abs() < 1e-14);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let model = counted(&[0, 1, 0, 1, 2], 4);
    for text in [vec![], vec![1], vec![1, 9]] {
        let outcome = model.evaluate(&Tokens::from_ids(&text, 16), 4, 4);
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
