//! Runs side by side: what may be compared, whose seeds are taken together, what the tables say.

use bkbench::config::{Backpropagation, Config, Fairness};
use bkbench::report::compare::text;
use bkbench::report::plot::across::draw;
use bkbench::results::{
    Agreement, Denormals, KernelAccuracy, LossAt, Machine, MultiplyAdd, Numerics, Outcome,
    RunRecord, across_adapters, incomparable, not_poolable,
};
use bkbench::stats;
use serde_json::json;

use crate::made_up::{changed, diverged, evaluation, finite, of_config, trials};

/// Models a and b at two lengths, on an adapter of that name.
fn on(adapter: &str, first_seed: u64, n_seeds: u64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.longcontext.seq_lengths = vec![512, 2048];
    (config.seeds.first, config.seeds.count) = (first_seed, n_seeds);
    let mut record = of_config(config, 40, false);
    record.hardware = json!({"adapter": adapter, "api": "vulkan", "driver_info": "1.0"});
    changed(&record, |cell| {
        let nll = 2.0 + (cell.seed as f64) / 100.0;
        cell.metrics.as_mut().unwrap().evaluation = evaluation(nll);
        true
    })
}

fn named(records: Vec<RunRecord>) -> Vec<(String, RunRecord)> {
    let names = (b'a'..).map(|letter| char::from(letter).to_string());
    names.zip(records).collect()
}

fn keys(a: &RunRecord, b: &RunRecord) -> Vec<String> {
    let found = incomparable(a, b).unwrap();
    found.into_iter().map(|it| it.key).collect()
}

#[test]
fn what_determines_results_must_agree_and_nothing_else() {
    let a = on("some", 42, 3);
    let with = |change: fn(&mut RunRecord)| {
        let mut b = a.clone();
        change(&mut b);
        keys(&a, &b)
    };
    for (change, key) in [
        (
            (|it| it.protocol_version = 1) as fn(&mut RunRecord),
            "protocol_version",
        ),
        (
            |it| it.config.train.learning_rate = 0.5,
            "config.train.learning_rate",
        ),
        (
            |it| it.config.train.precision = bkbench::config::Precision::Mixed,
            "config.train.precision",
        ),
        (|it| it.config.model.d_model = 128, "config.model.d_model"),
        (
            |it| it.config.longcontext.seq_lengths = vec![512],
            "config.longcontext.seq_lengths",
        ),
        (
            |it| it.data["tokenizer_sha256"] = "other".into(),
            "data.tokenizer_sha256",
        ),
        (
            |it| it.data["train"]["sha256"] = "other".into(),
            "data.train.sha256",
        ),
    ] {
        assert_eq!(with(change), [key]);
    }
    let indifferent: fn(&mut RunRecord) = |it| {
        it.config.device.name = "wgpu:gl".into();
        it.config.device.memory_limit_mib = Some(1000);
        it.config.seeds.first = 99;
        it.config.quantization.bit_widths = vec![8];
        it.config.train.segment_len = Some(128);
        it.config.train.loss_chunk_tokens = 64;
        it.config.train.checkpoint_every_seconds = 1.0;
        it.config.train.cpu_offloading = true;
        it.config.train.gradient_checkpointing = true;
        it.data["source"] = "elsewhere".into();
        it.hardware = json!({"adapter": "other"});
        it.provenance.bkbench_version = "9.9.9".into();
    };
    assert_eq!(with(indifferent), [""; 0]);
    // Where gradients end at the borders of segments, the segments decide.
    let mut truncated = a.clone();
    truncated.config.train.backpropagation = Backpropagation::Truncated;
    let mut shorter = truncated.clone();
    shorter.config.train.segment_len = Some(128);
    assert_eq!(keys(&truncated, &shorter), ["config.train.segment_len"]);
    let values = &incomparable(&truncated, &shorter).unwrap()[0].values;
    assert_eq!(*values, [json!(null), json!(128)]);
}

#[test]
fn seeds_are_taken_together_on_one_fingerprint_only() {
    let a = on("some", 42, 3);
    let mut b = on("some", 45, 2);
    assert_eq!(not_poolable(&a, &b), []);
    // Rates and the like are not part of it.
    b.hardware["measured"] = json!(17);
    assert_eq!(not_poolable(&a, &b), []);
    b.hardware["driver_info"] = "2.0".into();
    let found = not_poolable(&a, &b);
    assert_eq!(
        found[0].to_string(),
        "hardware.driver_info: \"1.0\" against \"2.0\""
    );
    assert_eq!(found.len(), 1);
    // Nothing is known of either.
    let mut nameless = a.clone();
    nameless.hardware = json!({});
    assert_eq!(not_poolable(&nameless, &nameless.clone()).len(), 1);

    let runs = named(vec![a, on("some", 45, 2), on("other", 42, 3)]);
    let across = across_adapters(&runs, false).unwrap();
    assert_eq!(across.adapters.len(), 2);
    assert_eq!(across.adapters[0].runs, ["a", "b"]);
    assert_eq!(across.adapters[0].seeds, [42, 43, 44, 45, 46]);
    assert_eq!(across.adapters[1].differs[0].key, "hardware.adapter");
    let losses = &across.losses[..2];
    let n = |at: &LossAt| at.nll_nats.unwrap().n;
    assert_eq!((n(&losses[0]), n(&losses[1])), (5, 3));
    // 2.42 to 2.46, and 2.42 to 2.44.
    assert!((losses[0].nll_nats.unwrap().mean - 2.44).abs() < 1e-12);
    let shift = losses[1].difference_nats.unwrap();
    assert_eq!((shift.mean, shift.n_pairs), (0.0, 3), "by seed");
    assert!(across.losses.iter().all(|it| it.place.adapter.is_some()));
}

#[test]
fn adapters_are_pooled_only_when_asked_and_every_seed_counts_once() {
    let slightly_off = changed(&on("other", 42, 3), |cell| {
        let nll = 2.0 + (cell.seed as f64) / 100.0 + 0.001;
        cell.metrics.as_mut().unwrap().evaluation = evaluation(nll);
        true
    });
    let runs = named(vec![on("some", 42, 3), slightly_off]);
    let across = across_adapters(&runs, true).unwrap();
    let pooled: Vec<&LossAt> = across
        .losses
        .iter()
        .filter(|it| it.place.adapter.is_none())
        .collect();
    assert_eq!(pooled.len(), 3 * 2, "a model and length each");
    let estimate = pooled[0].nll_nats.unwrap();
    assert_eq!((estimate.n, pooled[0].n_cells), (3, 6));
    let expected = stats::Estimate::of(&[2.4205, 2.4305, 2.4405]).unwrap();
    assert!((estimate.mean - expected.mean).abs() < 1e-12);
    assert!((estimate.sd.unwrap() - expected.sd.unwrap()).abs() < 1e-12);
    let printed = text(&across);
    assert!(
        printed.contains("all adapters, pooled by seed"),
        "{printed}"
    );
    let shift = across.losses[1].difference_nats.unwrap();
    assert!((shift.mean - 0.001).abs() < 1e-12 && shift.n_pairs == 3);
}

#[test]
fn means_are_subtracted_where_no_seed_is_shared_and_nothing_where_none_completed() {
    let runs = named(vec![on("some", 42, 3), on("other", 50, 3)]);
    let across = across_adapters(&runs, false).unwrap();
    let shift = across.losses[1].difference_nats.unwrap();
    assert!((shift.mean - 0.08).abs() < 1e-12);
    assert_eq!(shift.n_pairs, 0);
    let welch = stats::welch_t(&[2.5, 2.51, 2.52], &[2.42, 2.43, 2.44]).unwrap();
    let interval = shift.interval.unwrap();
    assert!((interval.high - welch.interval.high).abs() < 1e-9);
    assert!(across.agreement.is_empty(), "no seed ran on both");

    let broken = changed(&on("other", 42, 3), |cell| {
        cell.outcome = diverged(7);
        cell.metrics.as_mut().unwrap().evaluation = None;
        true
    });
    let runs = named(vec![on("some", 42, 3), broken]);
    let across = across_adapters(&runs, true).unwrap();
    let at = &across.losses[1];
    assert_eq!((at.n_cells, at.n_completed), (3, 0));
    assert_eq!((at.nll_nats, at.difference_nats), (None, None));
    assert_eq!(across.speeds[1].tokens_per_second, None);
    let printed = text(&across);
    assert!(printed.contains("0 of 3"), "{printed}");
    assert!(!printed.contains("NaN") && !printed.contains(" inf"));
}

/// The record in both ways; those of `models` are tuned to another rate, at which they lose half a nat less.
fn tuned(record: &RunRecord, models: &[&str], rate: f64) -> RunRecord {
    let common = record.config.train.learning_rate;
    let mut both = record.clone();
    both.config.fairness = Fairness::ALL.into();
    both.tuning = Some(trials(record, |model, tried| {
        let best = if models.contains(&model) {
            rate
        } else {
            common
        };
        2.0 + (tried / best).ln().abs()
    }));
    for cell in record
        .cells
        .iter()
        .filter(|it| models.contains(&it.model.as_str()))
    {
        let mut cell = cell.clone();
        cell.id = format!("{} tuned", cell.id);
        cell.learning_rate = finite(rate);
        let metrics = cell.metrics.as_mut().unwrap();
        let nll = metrics.evaluation.as_ref().unwrap().nll_nats.get();
        metrics.evaluation = evaluation(nll - 0.5);
        both.cells.push(cell);
    }
    both.derive();
    both
}

#[test]
fn learning_rates_set_in_several_ways_stand_apart() {
    let (a, b) = (on("some", 42, 3), on("other", 42, 3));
    let runs = named(vec![
        tuned(&a, &["mamba"], 1e-3),
        tuned(&b, &["mamba"], 1e-3),
    ]);
    let across = across_adapters(&runs, true).unwrap();
    let mean = |model: &str, fairness: Fairness, adapter: Option<usize>| {
        let is_it = |it: &&LossAt| {
            let place = &it.place;
            (place.model.as_str(), place.setting.as_str()) == (model, "seq_len_512")
                && (place.fairness, place.adapter) == (fairness, adapter)
        };
        let at = across.losses.iter().find(is_it).unwrap();
        let n_cells = if adapter.is_none() { 6 } else { 3 };
        assert_eq!(at.n_cells, n_cells, "no cell of the other way");
        at.nll_nats.unwrap().mean
    };
    for adapter in [Some(0), Some(1), None] {
        for (fairness, expected) in [(Fairness::Identical, 2.43), (Fairness::EqualTuning, 1.93)] {
            let found = mean("mamba", fairness, adapter);
            assert!((found - expected).abs() < 1e-12, "{fairness:?}: {found}");
        }
        // Tuned to the common rate, its cells belong to both.
        let found = mean("resnetbk", Fairness::EqualTuning, adapter);
        assert!((found - 2.43).abs() < 1e-12, "{found}");
    }
    assert_eq!(across.agreement.len(), 2 * 3 * 2, "ways x models x lengths");
    assert!(across.agreement.iter().all(|it| it.n_seeds == 3));
    assert_eq!(across.notes, [""; 0]);
    let printed = text(&across);
    assert!(printed.contains("seq_len_512 equal_tuning"), "{printed}");
    let drawing = draw(&across).unwrap();
    assert!(drawing.svg.contains("seq_len_512 identical: held-out loss"));
}

#[test]
fn other_chosen_rates_are_said_and_their_seeds_not_taken_together() {
    let (a, b) = (on("some", 42, 3), on("other", 42, 3));
    let runs = named(vec![tuned(&a, &["mamba"], 1e-3), tuned(&b, &[], 1e-3)]);
    let across = across_adapters(&runs, false).unwrap();
    assert_eq!(across.notes.len(), 2, "a length each: {:?}", across.notes);
    assert_eq!(
        across.notes[0],
        "mamba at seq_len_512, learning rates tuned equally for each model, has the learning rate 0.001 on [1] and \
         0.003 on [2]: their losses differ by it too"
    );
    let of_tuned_mamba =
        |it: &&Agreement| it.place.model == "mamba" && it.place.fairness == Fairness::EqualTuning;
    let n_agreements = across.agreement.iter().filter(of_tuned_mamba).count();
    assert_eq!(n_agreements, 0, "not the same trainings");

    let later = on("some", 45, 2);
    let runs = named(vec![tuned(&a, &["mamba"], 1e-3), tuned(&later, &[], 1e-3)]);
    let across = across_adapters(&runs, false).unwrap();
    let n_cells = |fairness: Fairness| {
        let is_it = |it: &&LossAt| it.place.model == "mamba" && it.place.fairness == fairness;
        across.losses.iter().find(is_it).unwrap().n_cells
    };
    assert_eq!(
        (n_cells(Fairness::Identical), n_cells(Fairness::EqualTuning)),
        (5, 3)
    );
    assert!(
        across.notes[0].contains("has the learning rate 0.003 in b and 0.001 in the run before it"),
        "{:?}",
        across.notes
    );
}

#[test]
fn trainings_are_held_against_each_other_step_by_step() {
    let other = changed(&on("other", 42, 3), |cell| {
        let metrics = cell.metrics.as_mut().unwrap();
        if (cell.model.as_str(), cell.seq_len, cell.seed) == ("mamba", 2048, 43) {
            let loss = metrics.curves.loss_nats[7].unwrap().get();
            metrics.curves.loss_nats[7] = Some(finite(loss + 0.25));
            metrics.curves.loss_nats[9] = None;
            metrics.weights_sha256 = "11".into();
        }
        metrics.tokens_per_second = Some(finite(400.0));
        cell.outcome == Outcome::Completed
    });
    let across = across_adapters(&named(vec![on("some", 42, 3), other]), false).unwrap();
    assert_eq!(across.agreement.len(), 3 * 2);
    let of = |model: &str, setting: &str| -> &Agreement {
        let is_it = |it: &&Agreement| {
            (it.place.model.as_str(), it.place.setting.as_str()) == (model, setting)
        };
        across.agreement.iter().find(is_it).unwrap()
    };
    let same = of("mamba", "seq_len_512");
    assert_eq!((same.n_seeds, same.n_steps), (3, 120));
    assert_eq!((same.n_equal_order, same.n_equal_weights), (3, 3));
    assert_eq!(same.largest.unwrap().nats, 0.0);
    let off = of("mamba", "seq_len_2048");
    let largest = off.largest.unwrap();
    assert!((largest.nats - 0.25).abs() < 1e-12);
    assert_eq!((largest.seed, largest.step), (43, 7));
    assert_eq!((off.n_equal_weights, off.n_finite_on_one), (2, 1));
    assert_eq!(across.speeds[1].ratio, Some(4.0));
}

#[test]
fn a_seed_that_ran_twice_counts_once_and_other_numbers_are_said() {
    let again = on("some", 42, 3);
    let slower = changed(&again, |cell| {
        cell.metrics.as_mut().unwrap().train_seconds = finite(99.0);
        true
    });
    let runs = named(vec![again.clone(), slower]);
    let across = across_adapters(&runs, false).unwrap();
    assert_eq!(across.losses[0].n_cells, 3);
    assert_eq!(across.notes, [""; 0], "times are no numbers of a training");
    let other = changed(&again, |cell| {
        cell.metrics.as_mut().unwrap().weights_sha256 = "11".into();
        cell.model == "mamba" && cell.seed == 44
    });
    let across = across_adapters(&named(vec![again, other]), false).unwrap();
    assert_eq!(across.losses[0].n_cells, 3);
    assert_eq!(across.notes.len(), 2, "{:?}", across.notes);
    assert!(across.notes[0].starts_with("mamba at seq_len_512, seed 44, has other numbers in b"));
}

#[test]
fn rounding_stands_side_by_side_where_it_was_measured() {
    let (mut a, b) = (on("some", 42, 3), on("other", 42, 3));
    a.machine = Some(Machine {
        cpu: json!({}),
        adapter: None,
        rates: None,
        numerics: Numerics {
            kernels: vec![KernelAccuracy {
                operation: "selective_scan".into(),
                tensor: "y".into(),
                max: Some(finite(2.5e-7)),
                rms: None,
            }],
            denormal_inputs: Denormals::Flushed,
            denormal_results: Denormals::Kept,
            multiply_add: MultiplyAdd::Fused,
            exp: Vec::new(),
        },
    });
    let printed = text(&across_adapters(&named(vec![a, b.clone()]), false).unwrap());
    let row = |start: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("no {start} in {printed}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(row("selective_scan: y"), ["2.5e-7", "-"]);
    assert_eq!(row("denormal inputs"), ["flushed", "-"]);
    let printed = text(&across_adapters(&named(vec![b.clone(), b]), false).unwrap());
    assert!(!printed.contains("Rounding"));
}

#[test]
fn the_picture_has_two_panels_a_setting() {
    let runs = named(vec![on("some", 42, 3), on("other", 42, 3)]);
    let drawing = draw(&across_adapters(&runs, false).unwrap()).unwrap();
    for part in [
        "seq_len_512: held-out loss",
        "seq_len_2048: speed",
        "[1] some (vulkan)",
        "[2] other (vulkan)",
        "adapters: mean losses within 0.0e0 nats of [1] at equal seeds",
    ] {
        assert!(drawing.svg.contains(part), "{part}");
    }
    if let Some(dir) = std::env::var_os("BKBENCH_PICTURES") {
        let path = std::path::Path::new(&dir).join("across.png");
        drawing.save(&path).unwrap();
    }
}
