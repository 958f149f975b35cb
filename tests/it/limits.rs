//! How far a model gets, and whether it uses its context: derived from made-up cells.

use bkbench::models::registry::Architecture;
use bkbench::report::table::table;
use bkbench::results::{
    Cell, Censoring, DivergenceCause, Evaluation, FailureKind, Finite, Limit, ModelLimits,
    NO_CONTEXT, Outcome, RunRecord, Summary, UsefulContext,
};

use crate::made_up;
use crate::support::sealed;

/// 200 steps at N = 512, 2048 and 8192, three seeds, three models; all completed.
fn completed() -> RunRecord {
    made_up::record(200, false)
}

/// The limits of `mamba` where some of its cells ended otherwise.
fn limits(record: &RunRecord, ended: impl Fn(&Cell) -> Option<Outcome>) -> ModelLimits {
    let record = made_up::changed(record, |cell| {
        let outcome = ended(cell).filter(|_| cell.model == "mamba");
        cell.outcome = outcome.unwrap_or_else(|| cell.outcome.clone());
        true
    });
    of_mamba(&record)
}

fn of_mamba(record: &RunRecord) -> ModelLimits {
    let found = record.limits.iter().find(|limits| limits.model == "mamba");
    found.unwrap().clone()
}

fn limit(length: impl Into<Option<usize>>, censored_by: Censoring) -> Limit {
    Limit {
        length: length.into(),
        censored_by,
    }
}

fn diverged() -> Outcome {
    Outcome::Diverged {
        step: 100,
        cause: DivergenceCause::BlowUp,
    }
}

/// Every way not to complete, and how it censors.
fn obstacles() -> [(Outcome, Censoring); 5] {
    let words = || "made up".to_owned();
    [
        (diverged(), Censoring::None),
        (
            Outcome::OutOfMemory {
                requested_bytes: None,
            },
            Censoring::OutOfMemory,
        ),
        (
            Outcome::TimedOut {
                seconds: Finite::default(),
            },
            Censoring::TimedOut,
        ),
        (
            Outcome::Skipped {
                reason: words(),
                needs: words(),
                have: words(),
            },
            Censoring::Skipped,
        ),
        (
            Outcome::Failed {
                failure: FailureKind::DeviceLost,
                reason: words(),
            },
            Censoring::Failed,
        ),
    ]
}

#[test]
fn a_model_is_stable_up_to_the_first_length_at_which_a_seed_fails() {
    let record = completed();
    let stable =
        |ended: &dyn Fn(&Cell) -> Option<Outcome>| limits(&record, ended).max_stable_length;
    assert_eq!(
        stable(&|_| None),
        Some(limit(8192, Censoring::MaxTested)),
        "nothing failed"
    );
    for (outcome, censored_by) in obstacles() {
        let at = |seq_len: usize| {
            let outcome = outcome.clone();
            stable(&move |cell| {
                ((cell.seq_len, cell.seed) == (seq_len, 43)).then(|| outcome.clone())
            })
        };
        assert_eq!(at(8192), Some(limit(2048, censored_by)));
        // What lies beyond a failure does not count, though it completed.
        assert_eq!(at(2048), Some(limit(512, censored_by)));
        assert_eq!(at(512), Some(limit(None, censored_by)));
    }
}

#[test]
fn a_seed_that_diverged_shows_the_limit_whatever_became_of_the_others() {
    let record = completed();
    for (other, _) in obstacles() {
        let limits = limits(&record, |cell| match (cell.seq_len, cell.seed) {
            (8192, 42) => Some(other.clone()),
            (8192, 44) => Some(diverged()),
            _ => None,
        });
        let expected = limit(2048, Censoring::None);
        assert_eq!(limits.max_stable_length, Some(expected), "{other:?}");
    }
}

#[test]
fn too_few_steps_and_too_few_seeds_support_no_claim() {
    let short = made_up::record(199, false);
    assert_eq!(of_mamba(&short).max_stable_length, None);
    assert!(table(&short).contains("no claim (fewer than 200 steps)"));

    // A run that was cut off: the last seed of the longest length has not run.
    let cut = made_up::changed(&completed(), |cell| (cell.seq_len, cell.seed) != (8192, 44));
    let expected = limit(2048, Censoring::MaxTested);
    assert_eq!(of_mamba(&cut).max_stable_length, Some(expected));
    // One that diverged needs no others.
    let expected = limit(2048, Censoring::None);
    let limits = limits(&cut, |cell| (cell.seq_len == 8192).then(diverged));
    assert_eq!(limits.max_stable_length, Some(expected));
}

/// Losses of three windows with the state carried: `gain` lower on average than with the state reset.
fn far_context(gain: f64) -> Option<UsefulContext> {
    let carried: Vec<f64> = [-0.01, 0.0, 0.01].map(|noise| 3.0 - gain + noise).into();
    UsefulContext::of(&carried, &[3.0; 3])
}

/// A record in which far context helps `mamba` by `gain(seq_len, seed)`.
fn with_gains(gain: impl Fn(usize, u64) -> Option<f64>) -> RunRecord {
    made_up::changed(&completed(), |cell| {
        let metrics = cell.metrics.as_mut().unwrap();
        metrics.last_quarter = gain(cell.seq_len, cell.seed).and_then(far_context);
        true
    })
}

fn useful(record: &RunRecord) -> Limit {
    of_mamba(record).max_useful_length
}

#[test]
fn a_length_is_useful_where_far_context_helps_in_every_seed() {
    // The interval of the gain is +- 4.303 * 0.01 / sqrt(3) = 0.0248.
    let useful_to = |end: usize, gain: f64| {
        useful(&with_gains(|seq_len, seed| {
            Some(if seq_len > end && seed == 43 {
                gain
            } else {
                0.1
            })
        }))
    };
    assert_eq!(useful_to(8192, 0.0), limit(8192, Censoring::MaxTested));
    assert_eq!(useful_to(2048, 0.025), limit(8192, Censoring::MaxTested));
    assert_eq!(useful_to(2048, 0.024), limit(2048, Censoring::None));
    assert_eq!(useful_to(512, 0.0), limit(512, Censoring::None));
    assert_eq!(useful_to(0, 0.0), limit(None, Censoring::None));
}

#[test]
fn what_was_not_measured_censors_a_useful_length() {
    assert_eq!(
        useful(&completed()),
        limit(None, Censoring::NotMeasured),
        "nowhere measured"
    );
    // Measured at 512 alone, or unmeasured in one seed.
    let at_512 = with_gains(|seq_len, _| (seq_len == 512).then_some(0.1));
    assert_eq!(useful(&at_512), limit(512, Censoring::NotMeasured));
    let a_seed_short = with_gains(|seq_len, seed| (seq_len < 8192 || seed < 44).then_some(0.1));
    assert_eq!(useful(&a_seed_short), limit(2048, Censoring::NotMeasured));
    // A single window has no interval.
    let one_window = made_up::changed(&completed(), |cell| {
        let metrics = cell.metrics.as_mut().unwrap();
        metrics.last_quarter = UsefulContext::of(&[2.0], &[3.0]);
        true
    });
    assert_eq!(useful(&one_window), limit(None, Censoring::NotMeasured));
}

#[test]
fn a_useful_length_ends_with_the_stable_ones() {
    let record = with_gains(|_, _| Some(0.1));
    for (outcome, censored_by) in obstacles() {
        let at = |seq_len: usize| {
            limits(&record, |cell| {
                (cell.seq_len == seq_len).then(|| outcome.clone())
            })
        };
        assert_eq!(at(8192).max_useful_length, limit(2048, censored_by));
        assert_eq!(at(512).max_useful_length, limit(None, censored_by));
    }
    // Too few steps forbid a claim about stability, not about use.
    let short = made_up::changed(&record, |cell| {
        cell.n_steps = 30;
        true
    });
    assert_eq!(of_mamba(&short).max_stable_length, None);
    assert_eq!(useful(&short), limit(8192, Censoring::MaxTested));
}

fn set_nll(cell: &mut Cell, nll_nats: f64) {
    let metrics = cell.metrics.as_mut().unwrap();
    metrics.evaluation = Evaluation::new(nll_nats * 100.0, 100, 100, cell.seq_len);
}

#[test]
fn a_useful_model_lies_below_token_frequencies() {
    // The unigram loss is 3.05; the mean over seeds is judged.
    let at_8192 = |mean: f64| {
        useful(&made_up::changed(&with_gains(|_, _| Some(0.1)), |cell| {
            if cell.seq_len == 8192 {
                let nll = mean + 0.04 * (cell.seed as f64 - 43.0);
                set_nll(cell, nll);
            }
            true
        }))
    };
    assert_eq!(at_8192(2.999), limit(8192, Censoring::MaxTested));
    assert_eq!(at_8192(3.001), limit(2048, Censoring::None));
}

/// A record of `n_seeds` with both models' held-out losses below the control's by `gain`, which scatters over the seeds by
/// 0.01 from one to the next.
fn against_control(gain: f64, n_seeds: u64) -> RunRecord {
    let record = made_up::longcontext(&[512, 2048, 8192], n_seeds, 200);
    made_up::changed(&record, |cell| {
        let seed = cell.seed as f64 - 42.0 - (n_seeds - 1) as f64 / 2.0;
        // All models follow the seed, which pairing removes.
        let common = 2.5 + 0.3 * seed;
        let own = if cell.model == NO_CONTEXT {
            0.0
        } else {
            0.01 * seed - gain
        };
        set_nll(cell, common + own);
        true
    })
}

fn mamba_at_2048(record: &RunRecord) -> &Summary {
    let mut summaries = record.summaries.iter();
    let found = summaries.find(|s| s.model == "mamba" && s.seq_len == 2048);
    found.unwrap()
}

/// The row of `mamba` at 2,048 tokens.
fn row_of_mamba(record: &RunRecord) -> String {
    let table = table(record);
    let is_it = |line: &&str| line.starts_with("2,048") && line.contains("mamba");
    table.lines().find(is_it).unwrap().to_owned()
}

#[test]
fn a_model_that_does_not_beat_the_control_is_not_shown_to_use_context() {
    assert_eq!(NO_CONTEXT, Architecture::NoMixer.name());
    // The standard error is 0.00707. A gain of 0.03 has p = 0.013 by itself; there are six tests, all alike.
    for (gain, p, beats, words) in [
        (0.04, 0.0048, true, "used (Holm 2.9e-2)"),
        (0.03, 0.0132, false, "not shown to be used (Holm 7.9e-2)"),
        (-0.04, 0.0048, false, "not shown to be used (Holm 2.9e-2)"),
    ] {
        let record = against_control(gain, 5);
        let summary = mamba_at_2048(&record);
        let test = summary.against_no_context.unwrap();
        assert!((test.mean_difference + gain).abs() < 1e-12 && test.df == 4);
        assert!((test.p - p).abs() < 1e-4, "{}", test.p);
        let adjusted = summary.against_no_context_p_holm.unwrap();
        assert!((adjusted / (6.0 * test.p) - 1.0).abs() < 1e-6, "{adjusted}");
        assert_eq!(summary.beats_no_context(), Some(beats), "{gain}");
        let row = row_of_mamba(&record);
        assert!(row.contains(words), "{row}");
        let control = record.summaries.iter().find(|s| s.model == NO_CONTEXT);
        assert_eq!(
            control.unwrap().against_no_context,
            None,
            "not against itself"
        );
    }
}

#[test]
fn few_seeds_have_a_difference_from_the_control_and_no_verdict() {
    let record = against_control(0.5, 3);
    let summary = mamba_at_2048(&record);
    assert!(summary.against_no_context.unwrap().p < 1e-3);
    assert_eq!(summary.beats_no_context(), None);
    // 4.303 * 0.01 / sqrt(3).
    let row = row_of_mamba(&record);
    assert!(row.contains("-0.500 +- 0.025, too few seeds"), "{row}");
}

#[test]
fn a_model_that_sees_its_targets_is_in_no_family_of_tests() {
    let mut record = against_control(0.04, 5);
    let alone = mamba_at_2048(&record).against_no_context.unwrap().p;
    made_up::leak(&mut record, "resnetbk");
    record.derive();
    let adjusted = mamba_at_2048(&record).against_no_context_p_holm.unwrap();
    assert!((adjusted / (3.0 * alone) - 1.0).abs() < 1e-6, "{adjusted}");
    let leaking = record.summaries.iter().find(|s| s.model == "resnetbk");
    assert_eq!(leaking.unwrap().against_no_context_p_holm, None);
}

#[test]
fn a_record_from_before_these_tests_were_adjusted_is_read_like_any_other() {
    let record = against_control(0.04, 5);
    let mut json = serde_json::to_value(&record).unwrap();
    for summary in json["summaries"].as_array_mut().unwrap() {
        let summary = summary.as_object_mut().unwrap();
        summary.remove("against_no_context_p_holm");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    std::fs::write(&path, sealed(json)).unwrap();
    let read = RunRecord::load(&path).unwrap();
    assert_eq!(read.summaries, record.summaries);
    assert!(read.is_derived());
}

#[test]
fn without_a_pair_a_seed_there_is_no_verdict() {
    let record = against_control(0.1, 5);
    let tested = |record: &RunRecord| mamba_at_2048(record).beats_no_context();
    let without = |drop: &dyn Fn(&Cell) -> bool| made_up::changed(&record, |cell| !drop(cell));
    assert_eq!(tested(&record), Some(true));
    let is = |cell: &Cell, model: &str| (cell.model.as_str(), cell.seed) == (model, 44);
    assert_eq!(tested(&without(&|cell| is(cell, NO_CONTEXT))), None);
    assert_eq!(tested(&without(&|cell| is(cell, "mamba"))), None);
    assert_eq!(tested(&without(&|cell| cell.model == NO_CONTEXT)), None);
    assert_eq!(tested(&without(&|cell| cell.seed > 42)), None, "one seed");
    let diverged = made_up::changed(&record, |cell| {
        if is(cell, "mamba") {
            cell.metrics.as_mut().unwrap().evaluation = None;
        }
        true
    });
    assert_eq!(tested(&diverged), None);
}

#[test]
fn the_table_says_in_words_why_a_length_is_not_larger() {
    let record = completed();
    let words = |seq_len: usize, outcome: Option<Outcome>| {
        let record = made_up::changed(&record, |cell| {
            if let Some(outcome) = outcome.clone().filter(|_| cell.seq_len == seq_len) {
                cell.outcome = outcome;
            }
            true
        });
        let table = table(&record);
        let lines: Vec<&str> = table.lines().collect();
        lines[lines.len() - 2].to_owned()
    };
    assert!(words(0, None).contains(">= 8,192 (longest tested)"));
    let [diverged, out_of_memory, ..] = obstacles().map(|(outcome, _)| outcome);
    let row = words(8192, Some(diverged.clone()));
    assert!(row.starts_with("mamba     2,048  "), "{row}");
    assert!(words(512, Some(diverged)).contains("none"));
    let row = words(8192, Some(out_of_memory.clone()));
    assert!(row.contains(">= 2,048 (out of memory beyond)"), "{row}");
    assert!(row.contains("unknown (not measured)"), "{row}");
    assert!(words(512, Some(out_of_memory)).contains("unknown (out of memory)"));
}

#[test]
fn spikes_and_steps_that_were_not_finite_are_summed_over_seeds() {
    let record = made_up::changed(&completed(), |cell| {
        let metrics = cell.metrics.as_mut().unwrap();
        metrics.spike_steps = vec![40, 80];
        metrics.nan_count = 7;
        true
    });
    let summary = mamba_at_2048(&record);
    assert_eq!((summary.spikes, summary.nan_count), (6, 21));
}
