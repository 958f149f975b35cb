//! The recall probe: its sequences, its controls, and a tiny run of it.

use std::collections::BTreeMap;

use bkbench::Error;
use bkbench::config::{Config, ModelConfig, TrainConfig};
use bkbench::eval::recall::task::{
    Batch, FILLER, N_PAIRS, N_SYMBOLS, PAIRS_LEN, Pairs, VOCAB_SIZE, query_position,
};
use bkbench::eval::recall::{PROTOCOL, distances, measure, train};
use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, LanguageModel, weights};
use bkbench::report;
use bkbench::results::{
    Finite, Outcome, Parameters, RecallBucket, RecallKey, RecallProtocol, RecallResult,
    RecallSequences, RecallVerdict, ShuffledControl,
};
use bkbench::train::{Objective, Sequences, segments};

use crate::{made_up, support};

const TINY: RecallProtocol = RecallProtocol {
    n_steps: 3,
    batch_size: 2,
    short: RecallSequences {
        seq_len: 32,
        n_queries: 8,
    },
    long: RecallSequences {
        seq_len: 40,
        n_queries: 8,
    },
    long_every: 2,
    learning_rate: 1e-2,
    n_sequences: 5,
};

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 16,
        n_layers: 1,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, VOCAB_SIZE)
        .unwrap()
        .remove(0)
}

#[test]
fn every_answer_is_the_value_beside_its_key_and_appears_nowhere_else() {
    for (step, expected) in [
        (0, PROTOCOL.short),
        (7, PROTOCOL.long),
        (15_998, PROTOCOL.short),
    ] {
        let RecallSequences { seq_len, n_queries } = PROTOCOL.sequences(step.into());
        assert_eq!((seq_len, n_queries), (expected.seq_len, expected.n_queries));
        let batch = Batch::draw(42, step, &PROTOCOL);
        assert_eq!(batch.inputs.len(), PROTOCOL.batch_size * seq_len);
        assert_eq!(batch.queries.len(), PROTOCOL.batch_size * n_queries);
        let mut scored = vec![false; batch.inputs.len()];
        let mut asked: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        for (&query, &answer) in batch.queries.iter().zip(&batch.answers) {
            let (row, position) = (query as usize / seq_len, query as usize % seq_len);
            let sequence = &batch.inputs[row * seq_len..][..seq_len];
            let key = sequence[position];
            let places: Vec<usize> = (0..PAIRS_LEN).filter(|&i| sequence[i] == key).collect();
            assert_eq!(places.len(), 1, "key {key} stands once among the pairs");
            assert_eq!(places[0] % 2, 0, "at a key's place");
            assert_eq!(sequence[places[0] + 1], answer);
            assert!(
                position >= PAIRS_LEN && sequence[position - 1] == FILLER || position == PAIRS_LEN
            );
            assert!(
                !std::mem::replace(&mut scored[query as usize], true),
                "asked twice at one place"
            );
            *asked.entry((row, key)).or_default() += 1;
        }
        let each = n_queries / N_PAIRS;
        assert!(asked.len() == PROTOCOL.batch_size * N_PAIRS && asked.values().all(|&n| n == each));
        // Behind the pairs there is filler and queried keys alone: no value that could give an answer away.
        for (i, &token) in batch.inputs.iter().enumerate() {
            let behind = i % seq_len >= PAIRS_LEN;
            assert!(!behind || token == FILLER || (scored[i] && token >= N_SYMBOLS as u32));
        }
    }
    assert_ne!(Batch::draw(42, 0, &PROTOCOL), Batch::draw(42, 1, &PROTOCOL));
    assert_ne!(Batch::draw(42, 0, &PROTOCOL), Batch::draw(43, 0, &PROTOCOL));
    assert_eq!(Batch::draw(42, 7, &PROTOCOL), Batch::draw(42, 7, &PROTOCOL));
}

#[test]
fn distances_count_from_a_pairs_value_to_the_query_of_its_key() {
    let pairs = Pairs::measured(1, 3);
    let tokens: Vec<u32> = pairs.tokens().collect();
    assert_eq!(tokens.len(), PAIRS_LEN);
    for pair in 0..N_PAIRS {
        let value = query_position(pair, 0);
        assert_eq!(
            (tokens[value - 1], tokens[value]),
            (pairs.key(pair), pairs.value(pair))
        );
        for distance in distances(&PROTOCOL, 1 << 20) {
            assert_eq!(query_position(pair, distance) - value, distance);
            assert!(
                query_position(pair, distance) > PAIRS_LEN,
                "filler before every query"
            );
        }
    }
    assert_eq!(
        distances(&PROTOCOL, 1024),
        [16, 32, 64, 128, 256, 512, 1024]
    );
    assert_eq!(
        distances(&PROTOCOL, 8),
        [16, 32, 64, 128],
        "trained ones always"
    );
    assert_eq!(distances(&PROTOCOL, 1 << 20).last(), Some(&(1 << 20)));
}

/// A shuffle of 64 values is guessed once in 64 by any model, and so are the values themselves by one that knows nothing.
#[test]
fn an_untrained_model_is_at_chance_and_so_is_its_control() {
    let many = RecallProtocol {
        n_sequences: 100,
        ..PROTOCOL
    };
    for architecture in [
        Architecture::Mamba,
        Architecture::ResNetBk,
        Architecture::NoMixer,
    ] {
        let model = LanguageModel::new(&shape(architecture), 5, &support::cpu());
        let recalled = measure(&model, &many, 5, &[16, 32]).unwrap();
        let name = architecture.name();
        assert!(
            recalled.shuffled.is_at_chance(),
            "{name}: {:?}",
            recalled.shuffled
        );
        assert_eq!(recalled.shuffled.n_queries, 2 * 8 * 100);
        for bucket in &recalled.buckets {
            let n_right = (bucket.accuracy.get() * 800.0).round() as u64;
            let control = ShuffledControl::of(n_right, 800, 1.0 / 64.0).unwrap();
            assert!(control.is_at_chance(), "{name}: {bucket:?}");
        }
    }
}

#[test]
fn a_tiny_probe_trains_measures_and_repeats_itself() {
    let device = support::cpu();
    for architecture in [Architecture::ResNetBk, Architecture::Mamba] {
        let run = |seed| {
            let mut losses = Vec::new();
            let config = ModelConfig::default();
            let shape = shape(architecture);
            let (model, outcome) = train(&shape, &config, &TINY, seed, &device, &mut |_, loss| {
                losses.push(loss);
                Ok(())
            })
            .unwrap();
            assert_eq!(outcome, Outcome::Completed);
            (
                losses,
                weights::sha256(&model).unwrap(),
                measure(&model, &TINY, seed, &[16, 32, 300]).unwrap(),
            )
        };
        let first = run(1);
        assert_eq!(first.0.len(), 3);
        // Untrained: as likely as any other token, ln 129, up to the spread of the first logits.
        assert!((first.0[0] - 129_f64.ln()).abs() < 0.2, "{:?}", first.0);
        assert_eq!(first, run(1), "the same seed gives the same bits");
        assert_ne!(first.1, run(2).1);
        let measured: Vec<_> = first
            .2
            .buckets
            .iter()
            .map(|b| (b.distance, b.n_sequences))
            .collect();
        assert_eq!(measured, [(16, 5), (32, 5), (300, 5)]);
        let trained = first.2.buckets[..2]
            .iter()
            .map(|b| b.accuracy.get())
            .sum::<f64>()
            / 2.0;
        assert_eq!(
            first.2.trained_accuracy,
            Finite::new(trained),
            "300 is no trained distance"
        );
    }
}

#[test]
fn scoring_every_token_as_an_answer_gives_the_ordinary_gradient() {
    let shape = shape(Architecture::ResNetBk);
    let model = LanguageModel::new(&shape, 3, &support::cpu().autodiff());
    let (n, batch) = (
        48,
        BatchShape {
            batch: 2,
            seq_len: 24,
        },
    );
    let ids = |seed| -> Vec<u32> {
        let id = |i| words(seed, Coordinate::new(Purpose::Test).at(i))[0] % VOCAB_SIZE as u32;
        (0..n).map(id).collect()
    };
    let (inputs, targets) = (ids(1), ids(2));
    let objective = Objective::new(&ModelConfig::default(), &TrainConfig::default(), 3, 0);
    let sequences = Sequences {
        inputs: &inputs,
        targets: &targets,
        shape: batch,
    };
    let pieces = segments(24, 24);
    let ordinary = objective
        .gradient(&model, &sequences, &pieces, None)
        .unwrap();
    let answers = |rows: &[u32], targets: &[u32]| {
        let gradient = objective.gradient_of_answers(&model, &inputs, batch, rows, targets);
        gradient.unwrap()
    };
    let rows: Vec<u32> = (0..n as u32).collect();
    let all = answers(&rows, &targets);
    assert!((all.loss_nats - ordinary.loss_nats).abs() < 1e-6);
    assert!((all.norm / ordinary.norm - 1.0).abs() < 1e-5);
    // The mean over a few is the mean of those alone.
    let (first, second) = (
        answers(&rows[..1], &targets[..1]),
        answers(&rows[40..41], &targets[40..41]),
    );
    let both = answers(&[0, 40], &[targets[0], targets[40]]);
    let mean = f64::midpoint(first.loss_nats, second.loss_nats);
    assert!((both.loss_nats - mean).abs() < 1e-6);
    assert!(
        objective
            .gradient_of_answers(&model, &inputs, batch, &[48], &[0])
            .is_err()
    );
}

#[test]
fn the_loss_of_the_answers_falls() {
    let protocol = RecallProtocol {
        n_steps: 60,
        batch_size: 16,
        ..TINY
    };
    let mut losses = Vec::new();
    let (shape, config) = (shape(Architecture::Mamba), ModelConfig::default());
    let mut on_step = |_, loss| {
        losses.push(loss);
        Ok(())
    };
    train(&shape, &config, &protocol, 3, &support::cpu(), &mut on_step).unwrap();
    // Answers are values, which are 64 of the 129 tokens: knowing that alone leaves ln 64.
    let tail = losses[55..].iter().sum::<f64>() / 5.0;
    assert!(tail < losses[0] - 0.4, "{losses:?}");
}

#[test]
fn an_interrupt_ends_the_training_at_once() {
    let (shape, config) = (shape(Architecture::Mamba), ModelConfig::default());
    let mut n_steps = 0;
    let mut on_step = |step, _| {
        n_steps = step;
        if step == 2 {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    };
    let ended = train(&shape, &config, &TINY, 3, &support::cpu(), &mut on_step);
    assert!(matches!(ended, Err(Error::Interrupted)));
    assert_eq!(n_steps, 2, "of three");
}

#[test]
fn a_run_is_complete_with_a_probe_for_every_model_and_seed() {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    assert_eq!(config.n_probes(), 0, "off unless asked for");
    config.longcontext.recall_probe = true;
    assert_eq!(config.n_probes(), 3 * 3);
}

fn result(model: &str, seed: u64, accuracy: f64, n_hits: u64) -> RecallResult {
    RecallResult {
        id: format!("{model}{seed}"),
        model: model.into(),
        seed,
        parameters: Parameters {
            total: 1,
            non_embedding: 1,
            active: 1,
        },
        outcome: Outcome::Completed,
        buckets: vec![RecallBucket::of(16, &[accuracy, accuracy]).unwrap()],
        trained_accuracy: Finite::new(accuracy),
        shuffled: ShuffledControl::of(n_hits, 200, 1.0 / 64.0),
    }
}

#[test]
fn the_probe_is_broken_where_a_control_fails() {
    let verdict = |mamba: [f64; 3], n_hits| {
        let results: Vec<RecallResult> = (42..)
            .zip(mamba)
            .map(|(seed, accuracy)| result("mamba", seed, accuracy, 3))
            .chain([result("resnetbk", 42, 0.02, n_hits)])
            .collect();
        RecallVerdict::of(&results).unwrap()
    };
    let broken = |verdict, word: &str| match verdict {
        RecallVerdict::Broken { reason } => assert!(reason.contains(word), "{reason}"),
        RecallVerdict::Sound => panic!("{word}: must be broken"),
    };
    assert_eq!(verdict([0.95, 0.91, 0.1], 3), RecallVerdict::Sound);
    broken(verdict([0.95, 0.90, 0.1], 3), "1 of 3 seeds");
    // Twelve hits of 200 at 1/64: p = 8.6e-5.
    broken(verdict([0.95, 0.91, 0.1], 12), "resnetbk seed 42");
    broken(
        RecallVerdict::of(&[result("resnetbk", 1, 0.99, 3)]).unwrap(),
        "without mamba",
    );
    assert_eq!(RecallVerdict::of(&[]), None);
}

#[test]
fn the_interval_is_over_sequences_and_within_zero_and_one() {
    // 0.875, 1, 1, 1: mean 0.96875, standard error 0.03125, t of 3 degrees 3.182.
    let bucket = RecallBucket::of(64, &[0.875, 1.0, 1.0, 1.0]).unwrap();
    let interval = bucket.interval.unwrap();
    assert!(
        (interval.low - (0.96875 - 3.182 * 0.03125)).abs() < 1e-4,
        "{interval:?}"
    );
    assert!((interval.high - 1.0).abs() < 1e-12, "cut at 1");
    assert_eq!(
        RecallBucket::of(64, &[1.0, 1.0]).unwrap().interval,
        None,
        "no spread"
    );
    assert_eq!(RecallBucket::of(64, &[]), None);
}

#[test]
fn an_entry_is_named_by_what_determines_it_and_the_table_shows_it() {
    let mut record = made_up::record(10, false);
    assert_eq!(report::recall::table(&record), None);
    record.push_recall(result("mamba", 42, 0.95, 3));
    record.push_recall(result("no-mixer", 42, 0.015, 2));
    assert_eq!(record.recall_verdict, Some(RecallVerdict::Sound));
    let table = report::recall::table(&record).unwrap();
    for part in ["mamba (n = 1)", "0.950", "sound"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains('['), "no two sequences differ: {table}");
    // Of one seed over its sequences, of several over seeds: 1 and 0.8 give 0.9 +- 12.706 * 0.1.
    let mut of_sequences = result("resnetbk", 42, 0.5, 3);
    of_sequences.buckets = vec![RecallBucket::of(16, &[0.875, 1.0, 1.0, 1.0]).unwrap()];
    record.push_recall(of_sequences);
    for (seed, accuracy) in [(42, 1.0), (43, 0.8)] {
        record.push_recall(result("transformer", seed, accuracy, 3));
    }
    let table = report::recall::table(&record).unwrap();
    for part in [
        "resnetbk (n = 1)",
        "0.969 [0.869, 1.000]",
        "transformer (n = 2)",
        "0.900 [0.000, 1.000]",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let config = ModelConfig::default();
    let parameters = result("mamba", 1, 1.0, 0).parameters;
    let id = |seed, distances: &[usize]| {
        let key = RecallKey::new(&PROTOCOL, &config, "mamba", parameters, seed, distances);
        key.id().unwrap()
    };
    assert_eq!(id(1, &[16]), id(1, &[16]));
    assert_ne!(id(1, &[16]), id(2, &[16]));
    assert_ne!(id(1, &[16]), id(1, &[16, 32]));
}
