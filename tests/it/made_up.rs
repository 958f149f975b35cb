//! Made-up results: they exist only here, and no number of them was measured.

use bkbench::config::{Benchmark, Budget, Config, Fairness};
use bkbench::math::random::{Coordinate, Purpose, normal};
use bkbench::results::{
    AuditReport, AuditedWeights, Cell, CellKey, Curves, DivergenceCause, Evaluation, Finding,
    Finite, GRID, Leak, LeakSearch, LongContextMetrics, Memory, MemoryLedger, NO_CONTEXT, Outcome,
    Parameters, PositionBucket, RunRecord, TUNING_SEED, TrainingKey, Tuning, Warning,
};
use bkbench::units::Bytes;
use serde_json::json;

/// The smoke preset's grid with smooth curves and a little ripple; `mamba` diverges in one seed at the longest length where asked.
pub(crate) fn record(n_steps: u64, with_divergence: bool) -> RunRecord {
    let config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    of_config(config, n_steps, with_divergence)
}

/// The same for another grid.
pub(crate) fn of_config(mut config: Config, n_steps: u64, with_divergence: bool) -> RunRecord {
    config.train.budget = Budget::Steps(n_steps);
    let data = json!({"name": "made up", "train": {"sha256": "00"}});
    let mut record = RunRecord::new(config, json!({"adapter": "made up"}), data).unwrap();
    record.provenance.started_utc = "2000-01-01T00:00:00Z".into();
    record.provenance.argv = vec!["bkbench".into(), "run".into()];
    record.provenance.bkbench_version = "0.0.0".into();
    record.provenance.platform = "made up".into();
    record.warnings.push(Warning::TooFewSteps {
        steps: n_steps,
        needed: 200,
    });
    let config = record.config.clone();
    for &benchmark in &config.benchmarks {
        for seq_len in config.only(benchmark).seq_lengths() {
            for seed in config.seeds.iter() {
                for (m, model) in config.models.labels().iter().enumerate() {
                    let model = model.as_str();
                    let breaks = with_divergence && (model, seq_len, seed) == ("mamba", 8192, 43);
                    let at = (benchmark, seq_len, seed);
                    let cell = cell(&record, (m, model), at, n_steps, breaks);
                    record.push(cell);
                }
            }
        }
    }
    record
}

/// A record of the same run with other cells: those for which `change` says so, as it leaves them.
pub(crate) fn changed(record: &RunRecord, change: impl Fn(&mut Cell) -> bool) -> RunRecord {
    let mut changed = record.clone();
    (changed.cells, changed.summaries, changed.limits) = (Vec::new(), Vec::new(), Vec::new());
    for mut cell in record.cells.iter().cloned() {
        if change(&mut cell) {
            changed.push(cell);
        }
    }
    changed
}

fn cell(
    record: &RunRecord,
    (m, model): (usize, &str),
    (benchmark, seq_len, seed): (Benchmark, usize, u64),
    n_steps: u64,
    breaks: bool,
) -> Cell {
    let parameters = Parameters {
        total: 50_000 + m as u64,
        non_embedding: 40_000 + m as u64,
        active: 30_000,
    };
    let config = record.config.only(benchmark);
    let shape = json!(model);
    let training = TrainingKey::new(&config, &shape, "00", seq_len, seed, n_steps);
    let training = training.id().unwrap();
    let key = CellKey::new(&config, benchmark, &training, &record.data);
    let mut curves = Curves::default();
    let end = if breaks { n_steps * 3 / 5 } else { n_steps };
    for step in 0..end {
        let t = step as f64 / n_steps as f64;
        let ripple = ((step * 7 + seed * 13) % 11) as f64 / 40.0 + (seed as f64 - 43.0) * 0.05;
        let loss = 2.3 + 0.12 * m as f64 + 3.0 / (1.0 + 9.0 * t) + ripple;
        let broken = breaks && step + 5 >= end;
        curves.push(if broken { f64::NAN } else { loss }, 0.5 + ripple);
    }
    let outcome = if breaks {
        Outcome::Diverged {
            step: end - 1,
            cause: DivergenceCause::NonFinite,
        }
    } else {
        Outcome::Completed
    };
    let evaluation =
        (!breaks).then(|| Evaluation::new(2.4 * 65_536.0, 65_536, 65_536, seq_len).unwrap());
    let metrics = LongContextMetrics {
        final_loss_nats: curves.final_loss_nats(),
        gradient_norm_mean: curves.gradient_norm_mean(),
        gradient_norm_std: curves.gradient_norm_std(),
        gradient_norm_max: curves.gradient_norm_max(),
        nan_count: curves.nan_count(),
        loss_scale_overflows: curves.loss_scale_overflows.len() as u64,
        spike_steps: curves.spike_steps(),
        skipped_steps: curves.nan_count(),
        curves,
        evaluation,
        nll_by_position: nll_by_position(seq_len, breaks),
        forward_flops_per_token: None,
        last_quarter: None,
        kernel_errors: Vec::new(),
        unigram_ce_nats: Finite::new(3.05).unwrap(),
        three_gram_ce_nats: None,
        train_seconds: Finite::new(10.0).unwrap(),
        tokens_per_second: Finite::new(100.0),
        memory: Memory {
            estimated: MemoryLedger {
                parameters: Bytes(1 << 17),
                gradients: Bytes(1 << 17),
                optimizer_states: Bytes(1 << 18),
                activations_saved: Bytes(1 << 19),
                activations_boundary: Bytes(1 << 10),
                buffers: Bytes(1 << 12),
            },
            peak_memory_bytes: Bytes(1 << 20),
            at_start_bytes: Bytes(1 << 21),
        },
        weights_sha256: "00".into(),
        data_order_sha256: "00".into(),
    };
    Cell {
        id: key.id().unwrap(),
        benchmark,
        training,
        model: model.into(),
        seq_len,
        seed,
        n_steps,
        learning_rate: finite(config.train.learning_rate),
        parameters,
        outcome,
        warnings: Vec::new(),
        metrics: Some(metrics),
        quantization: None,
        at_budget: None,
        on_dataset: None,
        given: None,
    }
}

/// Falls with the octave; absent where the evaluation is.
fn nll_by_position(seq_len: usize, breaks: bool) -> Vec<PositionBucket> {
    let octaves = if breaks { 0 } else { seq_len.ilog2() as usize };
    let bucket = |octave: usize| {
        let n_tokens = (65_536 / seq_len as u64).max(1) << octave.max(1);
        PositionBucket::new(octave, seq_len, 2.4 * n_tokens as f64, n_tokens).unwrap()
    };
    (0..octaves).map(bucket).collect()
}

/// The trials of every model and setting of a record: at each rate of the grid the loss that `nats` gives, of the model
/// and the rate.
pub(crate) fn trials(record: &RunRecord, nats: impl Fn(&str, f64) -> f64) -> Tuning {
    let mut tuning = Tuning::new(vec![json!({"held_out_rule": "made up"})]).unwrap();
    let template = record.cells.iter().find(|cell| cell.metrics.is_some());
    for cell in &record.cells {
        for rate in GRID {
            if tuning.has_tried(cell.benchmark, &cell.setting(), &cell.model, rate) {
                continue;
            }
            let mut trial = Cell {
                seed: TUNING_SEED,
                learning_rate: finite(rate),
                outcome: Outcome::Completed,
                metrics: template.and_then(|cell| cell.metrics.clone()),
                quantization: None,
                ..cell.clone()
            };
            if let Some(metrics) = &mut trial.metrics {
                metrics.evaluation = evaluation(nats(&cell.model, rate));
            }
            tuning.trials.push(trial);
        }
    }
    tuning.derive();
    tuning
}

/// The record with learning rates tuned too, the best one of every model being the common one.
pub(crate) fn in_both_ways(record: &RunRecord) -> RunRecord {
    let common = record.config.train.learning_rate;
    let mut both = record.clone();
    both.tuning = Some(trials(record, |_, rate| 2.0 + (rate / common).ln().abs()));
    both.config.fairness = Fairness::ALL.into();
    both.derive();
    both
}

/// The record with a control whose held-out loss lies above those of the others, which therefore use context.
pub(crate) fn using_context(record: &RunRecord) -> RunRecord {
    changed(record, |cell| {
        let above = 0.3 + 0.001 * noise(cell);
        let is_control = cell.model == NO_CONTEXT;
        if let Some(metrics) = cell.metrics.as_mut().filter(|_| is_control) {
            let nll = metrics.evaluation.as_ref().unwrap().nll_nats.get();
            metrics.evaluation = evaluation(nll + above);
        }
        true
    })
}

pub(crate) const GUIDE_LENGTHS: [usize; 5] = [8192, 32_768, 131_072, 524_288, 1_048_576];

/// Models a, b and the control at these lengths, all completed.
pub(crate) fn longcontext(seq_lengths: &[usize], n_seeds: u64, n_steps: u64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.longcontext.seq_lengths = seq_lengths.to_vec();
    config.seeds.count = n_seeds;
    of_config(config, n_steps, false)
}

pub(crate) fn evaluation(nll_nats: f64) -> Option<Evaluation> {
    Evaluation::new(nll_nats * 65_536.0, 65_536, 65_536, 512)
}

pub(crate) fn finite(value: f64) -> Finite {
    Finite::new(value).unwrap()
}

/// Some noise by seed and model, of the size of 1.
pub(crate) fn noise(cell: &Cell) -> f64 {
    let step = cell.model.bytes().map(u32::from).sum();
    let coordinate = Coordinate {
        step,
        ..Coordinate::new(Purpose::Test)
    };
    normal(cell.seed, coordinate.at(cell.seq_len as u64))
}

/// The record with other held-out losses.
pub(crate) fn with_nll(record: &RunRecord, nll: impl Fn(&Cell) -> f64) -> RunRecord {
    changed(record, |cell| {
        let nll = nll(cell);
        cell.metrics.as_mut().unwrap().evaluation = evaluation(nll);
        true
    })
}

pub(crate) fn with_outcome(
    record: &RunRecord,
    outcome: impl Fn(&Cell) -> Option<Outcome>,
) -> RunRecord {
    changed(record, |cell| {
        if let Some(outcome) = outcome(cell) {
            cell.outcome = outcome;
            cell.metrics.as_mut().unwrap().evaluation = None;
        }
        true
    })
}

pub(crate) fn diverged(step: u64) -> Outcome {
    Outcome::Diverged {
        step,
        cause: DivergenceCause::BlowUp,
    }
}

pub(crate) fn out_of_memory() -> Outcome {
    Outcome::OutOfMemory {
        requested_bytes: None,
    }
}

/// Adds an audit that found a leak in `model`.
pub(crate) fn leak(record: &mut RunRecord, model: &str) {
    let finding = Finding::Causality(LeakSearch {
        n_tokens: 8,
        cuts: vec![4],
        largest_change: Some(finite(1.0)),
        leak: Some(Leak {
            first_offset: -1,
            cut: 4,
        }),
        n_flips: 0,
    });
    record.audits.push(AuditReport {
        model: model.into(),
        weights: AuditedWeights::Initial,
        seed: 42,
        checks: vec![finding.into()],
    });
}
