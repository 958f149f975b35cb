//! Comparable runs side by side, adapter by adapter.

mod measured;

use serde::Serialize;
use serde_json::Value;

use super::compatibility::fingerprint;
use super::observation::{Observation, nll_nats};
use super::{
    AtWidth, Cell, Difference, Evaluation, Finite, Machine, Outcome, RunRecord, Warning,
    not_poolable,
};
use crate::Result;
use crate::config::{Benchmark, Fairness};
use crate::stats::{Estimate, Interval, mean, welch_t};
use crate::units::Bytes;
use measured::{Measured, is_of_one_place};

/// Runs that may be compared, adapter by adapter. Places count from 0 in `adapters`; the first one is what the others
/// are held against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AcrossAdapters {
    /// The adapters, in the order in which their runs were named.
    pub adapters: Vec<AdapterRuns>,
    /// One entry a setting, model and adapter.
    pub losses: Vec<LossAt>,
    /// Likewise, and for every kind of speed.
    pub speeds: Vec<SpeedAt>,
    /// One entry a setting, model and adapter but the first.
    pub agreement: Vec<Agreement>,
    /// What the runs warn of, each warning once.
    pub warnings: Vec<WarningOn>,
    /// What went wrong without harm.
    pub notes: Vec<String>,
}

/// A warning and the adapters whose runs bear it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WarningOn {
    /// The warning.
    pub warning: Warning,
    /// Places of the adapters.
    pub adapters: Vec<usize>,
}

/// Runs of one fingerprint: their seeds are taken together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterRuns {
    /// The runs.
    pub runs: Vec<String>,
    /// Their fingerprint.
    pub hardware: Value,
    /// What else the first of them measured of the machine.
    pub machine: Option<Machine>,
    /// Their seeds, each once.
    pub seeds: Vec<u64>,
    /// Where the fingerprint differs from that of the first adapter.
    pub differs: Vec<Difference>,
}

/// A setting of a model on one adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// How learning rates were set.
    pub fairness: Fairness,
    /// The benchmark.
    pub benchmark: Benchmark,
    /// Key of the setting in the guide's JSON.
    pub setting: String,
    /// Registered name of the model.
    pub model: String,
    /// Place of the adapter; absent where seeds of all adapters are pooled.
    pub adapter: Option<usize>,
}

/// Held-out text. Estimates are over completed seeds; absent where none completed or one lacks the value. Where adapters
/// are pooled each seed counts once, with the mean over the adapters that completed it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossAt {
    /// Of what.
    #[serde(flatten)]
    pub place: Place,
    /// Cells.
    pub n_cells: usize,
    /// Those that completed.
    pub n_completed: usize,
    /// Held-out loss, nats per token.
    pub nll_nats: Option<Estimate>,
    /// Held-out perplexity per token.
    pub token_perplexity: Option<Estimate>,
    /// Held-out bits per byte.
    pub bits_per_byte: Option<Estimate>,
    /// Held-out loss minus that on the first adapter; absent there.
    pub difference_nats: Option<Shift>,
}

/// A difference of means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shift {
    /// The difference.
    pub mean: f64,
    /// Its interval at 95 %: Student's t over the pairs, Welch's where there are none.
    pub interval: Option<Interval>,
    /// Seeds that both completed; 0 where they share none and the means of all seeds are subtracted.
    pub n_pairs: usize,
}

/// How fast, and in how much memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeedAt {
    /// Of what.
    #[serde(flatten)]
    pub place: Place,
    /// `training`, `prefill` or `decode`.
    pub what: &'static str,
    /// Tokens a second, over completed seeds.
    pub tokens_per_second: Option<Estimate>,
    /// Its mean over that on the first adapter.
    pub ratio: Option<f64>,
    /// The largest measured peak over seeds, of trainings.
    pub peak_memory: Option<Bytes>,
    /// What was estimated, the largest over seeds.
    pub estimated_memory: Option<Bytes>,
}

/// How well the trainings on an adapter agree with those of the first adapter, seed by seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Of what.
    #[serde(flatten)]
    pub place: Place,
    /// Seeds that began on both.
    pub n_seeds: usize,
    /// Steps taken on both, over all seeds.
    pub n_steps: usize,
    /// The largest difference of training losses at equal steps; absent where no step was finite on both.
    pub largest: Option<LargestDifference>,
    /// Steps that were finite on one of the two alone.
    pub n_finite_on_one: usize,
    /// Seeds that read the text in the same order.
    pub n_equal_order: usize,
    /// Seeds that end with the same weights, to the bit.
    pub n_equal_weights: usize,
}

/// Where two curves lie furthest apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LargestDifference {
    /// Absolute difference, nats per token.
    pub nats: f64,
    /// The seed.
    pub seed: u64,
    /// The step, counted from 0.
    pub step: usize,
}

/// Puts comparable runs, given with their names, side by side. Runs of one fingerprint are taken together; those of
/// several are pooled, in entries of their own, only if `pool` says so.
///
/// # Errors
/// If a record has no JSON form.
pub fn across_adapters(runs: &[(String, RunRecord)], pool: bool) -> Result<AcrossAdapters> {
    let mut groups: Vec<Vec<&(String, RunRecord)>> = Vec::new();
    for run in runs {
        let is_its = |group: &&mut Vec<&(String, RunRecord)>| {
            group
                .first()
                .is_some_and(|first| not_poolable(&first.1, &run.1).is_empty())
        };
        match groups.iter_mut().find(is_its) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let mut notes = Vec::new();
    let mut measured = Vec::new();
    for group in &groups {
        measured.push(Measured::of(group, &mut notes)?);
    }
    notes.extend(other_rates(&measured));
    let first = groups.first().and_then(|group| group.first());
    let adapter = |(group, measured): (&Vec<&(String, RunRecord)>, &Measured<'_>)| {
        let record = group.first().map(|(_, record)| record);
        let differs = first
            .zip(record)
            .map(|((_, first), record)| not_poolable(first, record));
        let mut seeds: Vec<u64> = measured.cells.iter().map(|(_, cell)| cell.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        AdapterRuns {
            runs: group.iter().map(|(name, _)| name.clone()).collect(),
            hardware: record.map(fingerprint).unwrap_or_default(),
            machine: group.iter().find_map(|(_, record)| record.machine.clone()),
            seeds,
            differs: differs.unwrap_or_default(),
        }
    };
    let mut adapters: Vec<AdapterRuns> = groups.iter().zip(&measured).map(adapter).collect();
    if let Some(first) = adapters.first_mut() {
        first.differs.clear();
    }
    Ok(AcrossAdapters {
        adapters,
        losses: losses(&measured, pool),
        speeds: speeds(&measured),
        agreement: agreement(&measured),
        warnings: warnings(&groups),
        notes,
    })
}

fn warnings(groups: &[Vec<&(String, RunRecord)>]) -> Vec<WarningOn> {
    let mut found: Vec<WarningOn> = Vec::new();
    for (adapter, group) in groups.iter().enumerate() {
        for warning in group.iter().flat_map(|(_, record)| &record.warnings) {
            match found.iter_mut().find(|known| known.warning == *warning) {
                Some(known) if known.adapters.contains(&adapter) => {}
                Some(known) => known.adapters.push(adapter),
                None => found.push(WarningOn {
                    warning: warning.clone(),
                    adapters: vec![adapter],
                }),
            }
        }
    }
    found
}

/// Whether two cells are one training, of one seed at one learning rate.
fn is_twin(a: &Cell, b: &Cell) -> bool {
    (a.seed, a.learning_rate) == (b.seed, b.learning_rate) && is_of_one_place(a, b)
}

/// Where another learning rate was chosen for a model than on the first adapter.
fn other_rates(measured: &[Measured<'_>]) -> Vec<String> {
    let rate = |on: &Measured<'_>, place: &Place| {
        let cells = on.cells_at(place);
        cells.first().map(|cell| cell.learning_rate.get())
    };
    let mut notes = Vec::new();
    for place in places_of_cells(measured) {
        let mut rates = measured.iter().map(|on| rate(on, &place));
        let Some(first) = rates.next().flatten() else {
            continue;
        };
        for (i, other) in rates.enumerate() {
            if let Some(other) = other.filter(|other| other.total_cmp(&first).is_ne()) {
                notes.push(format!(
                    "{} at {}, {}, has the learning rate {first} on [1] and {other} on [{}]: their losses differ by it \
                     too",
                    place.model,
                    place.setting,
                    place.fairness.title(),
                    i + 2
                ));
            }
        }
    }
    notes
}

/// Settings and models, each pair once, way by way and there in order of first appearance.
fn places<'a>(all: impl Iterator<Item = (Fairness, Benchmark, String, &'a str)>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for (fairness, benchmark, setting, model) in all {
        let place = Place {
            fairness,
            benchmark,
            setting,
            model: model.to_owned(),
            adapter: None,
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places.sort_by_key(|place| place.fairness);
    places
}

impl Place {
    fn on(&self, adapter: usize) -> Self {
        Self {
            adapter: Some(adapter),
            ..self.clone()
        }
    }
}

/// All of the values, or nothing where one is absent: a mean that leaves out a seed would not say so.
fn estimate(values: impl Iterator<Item = Option<f64>>) -> Option<Estimate> {
    Estimate::of(&values.collect::<Option<Vec<f64>>>()?)
}

// ---- held-out text ----

fn losses<'a>(measured: &[Measured<'a>], pool: bool) -> Vec<LossAt> {
    let observed = measured.iter().flat_map(|on| &on.observations);
    let places = places(observed.map(|(fairness, it)| {
        let (cell, setting) = (it.cell, it.setting.clone());
        (*fairness, cell.benchmark, setting, cell.model.as_str())
    }));
    let mut losses = Vec::new();
    for place in places {
        let on = |measured: &Measured<'a>| measured.observations_at(&place);
        let by_adapter: Vec<Vec<Observation<'a>>> = measured.iter().map(on).collect();
        for (adapter, here) in by_adapter.iter().enumerate() {
            if here.is_empty() {
                continue;
            }
            let shift = (adapter > 0).then(|| shift(here, &by_adapter[0])).flatten();
            losses.push(loss(place.on(adapter), here, shift));
        }
        if pool && measured.len() > 1 {
            losses.push(loss(place.clone(), &by_adapter.concat(), None));
        }
    }
    losses
}

fn loss(place: Place, here: &[Observation<'_>], difference_nats: Option<Shift>) -> LossAt {
    let completed = || {
        let all = here.iter();
        all.filter(|it| it.cell.outcome == Outcome::Completed)
    };
    let mut seeds: Vec<u64> = completed().map(|it| it.cell.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let over_seeds = |value: fn(&Evaluation) -> Option<Finite>| {
        estimate(seeds.iter().map(|&seed| {
            let of_seed = completed().filter(|it| it.cell.seed == seed);
            let values = of_seed.map(|it| Some(value(it.evaluation?)?.get()));
            mean(&values.collect::<Option<Vec<f64>>>()?)
        }))
    };
    LossAt {
        place,
        n_cells: here.len(),
        n_completed: completed().count(),
        nll_nats: over_seeds(|it| Some(it.nll_nats)),
        token_perplexity: over_seeds(|it| it.token_perplexity),
        bits_per_byte: over_seeds(|it| Some(it.bits_per_byte)),
        difference_nats,
    }
}

/// The loss here minus that on the first adapter.
fn shift(here: &[Observation<'_>], first: &[Observation<'_>]) -> Option<Shift> {
    let pair = |it: &Observation<'_>| {
        let partner = first.iter().find(|other| other.cell.seed == it.cell.seed)?;
        Some(nll_nats(it)? - nll_nats(partner)?)
    };
    let pairs: Vec<f64> = here.iter().filter_map(pair).collect();
    if let Some(paired) = Estimate::of(&pairs) {
        return Some(Shift {
            mean: paired.mean,
            interval: paired.interval,
            n_pairs: paired.n,
        });
    }
    let shares_seeds = here
        .iter()
        .any(|it| first.iter().any(|other| other.cell.seed == it.cell.seed));
    if shares_seeds {
        return None;
    }
    let all = |of: &[Observation<'_>]| of.iter().filter_map(nll_nats).collect::<Vec<f64>>();
    let (here, first) = (all(here), all(first));
    Some(Shift {
        mean: Some(mean(&here)? - mean(&first)?).filter(|mean| mean.is_finite())?,
        interval: welch_t(&here, &first).map(|test| test.interval),
        n_pairs: 0,
    })
}

// ---- speed and memory ----

fn speeds(measured: &[Measured<'_>]) -> Vec<SpeedAt> {
    let mut speeds = of_trainings(measured);
    speeds.extend(of_inference(measured));
    for i in 0..speeds.len() {
        let first = speeds
            .iter()
            .find(|first| first.place == speeds[i].place.on(0) && first.what == speeds[i].what);
        let rate = |speed: &SpeedAt| Some(speed.tokens_per_second?.mean);
        let ratio = first.and_then(|first| Some(rate(&speeds[i])? / rate(first)?));
        speeds[i].ratio = ratio.filter(|ratio| ratio.is_finite());
    }
    speeds
}

fn of_trainings(measured: &[Measured<'_>]) -> Vec<SpeedAt> {
    let mut speeds = Vec::new();
    for place in places_of_cells(measured) {
        for (adapter, on) in measured.iter().enumerate() {
            let here = on.cells_at(&place);
            if here.is_empty() {
                continue;
            }
            let completed = here
                .iter()
                .filter(|cell| cell.outcome == Outcome::Completed);
            let memory = || {
                here.iter()
                    .filter_map(|cell| Some(cell.metrics.as_ref()?.memory))
            };
            speeds.push(SpeedAt {
                place: place.on(adapter),
                what: "training",
                tokens_per_second: estimate(
                    completed.map(|cell| Some(cell.metrics.as_ref()?.tokens_per_second?.get())),
                ),
                ratio: None,
                peak_memory: memory().map(|it| it.peak_memory_bytes).max(),
                estimated_memory: memory().map(|it| it.estimated.total()).max(),
            });
        }
    }
    speeds
}

fn of_inference(measured: &[Measured<'_>]) -> Vec<SpeedAt> {
    const RATES: [(&str, Rate); 2] = [
        ("prefill", |at| at.prefill_tokens_per_second),
        ("decode", |at| at.decode_tokens_per_second),
    ];
    let cells = measured.iter().flat_map(|on| &on.cells);
    let places = places(cells.flat_map(|&(fairness, cell)| {
        let name = |at: &AtWidth| at.width.name().to_owned();
        let widths = widths(cell);
        widths.map(move |at| (fairness, cell.benchmark, name(at), cell.model.as_str()))
    }));
    let mut speeds = Vec::new();
    for place in places {
        for (adapter, on) in measured.iter().enumerate() {
            let cells = on.cells.iter();
            let cells = cells.filter(|(fairness, _)| *fairness == place.fairness);
            let here = cells.filter_map(|(_, cell)| width_at(cell, &place));
            let here: Vec<&AtWidth> = here.collect();
            if here.is_empty() {
                continue;
            }
            speeds.extend(RATES.map(|(what, rate)| SpeedAt {
                place: place.on(adapter),
                what,
                tokens_per_second: estimate(here.iter().map(|at| Some(rate(at)?.get()))),
                ratio: None,
                peak_memory: None,
                estimated_memory: None,
            }));
        }
    }
    speeds
}

/// Tokens a second of a model in fewer bits.
type Rate = fn(&AtWidth) -> Option<Finite>;

fn widths(cell: &Cell) -> impl Iterator<Item = &AtWidth> {
    cell.quantization.iter().flat_map(|it| &it.widths)
}

/// The entry of a completed cell at the width that is the setting of `place`.
fn width_at<'a>(cell: &'a Cell, place: &Place) -> Option<&'a AtWidth> {
    let is_of_model = (cell.benchmark, &cell.model) == (place.benchmark, &place.model);
    let mut here = widths(cell).filter(|at| at.width.name() == place.setting);
    here.next()
        .filter(|_| is_of_model && cell.outcome == Outcome::Completed)
}

fn places_of_cells(measured: &[Measured<'_>]) -> Vec<Place> {
    let cells = measured.iter().flat_map(|on| &on.cells);
    places(cells.map(|&(fairness, cell)| {
        let (setting, model) = (cell.setting(), cell.model.as_str());
        (fairness, cell.benchmark, setting, model)
    }))
}

// ---- agreement of the trainings ----

fn agreement(measured: &[Measured<'_>]) -> Vec<Agreement> {
    let Some((first, others)) = measured.split_first() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for place in places_of_cells(measured) {
        for (i, on) in others.iter().enumerate() {
            let there = first.cells_at(&place);
            let pairs = on.cells_at(&place).into_iter().filter_map(|cell| {
                let twin = there.iter().find(|other| is_twin(other, cell))?;
                Some((cell, *twin))
            });
            found.extend(agree(place.on(i + 1), pairs));
        }
    }
    found
}

/// `None` where no seed began on both.
fn agree<'a>(place: Place, pairs: impl Iterator<Item = (&'a Cell, &'a Cell)>) -> Option<Agreement> {
    let mut found = Agreement {
        place,
        n_seeds: 0,
        n_steps: 0,
        largest: None,
        n_finite_on_one: 0,
        n_equal_order: 0,
        n_equal_weights: 0,
    };
    for (cell, twin) in pairs {
        let (Some(here), Some(there)) = (&cell.metrics, &twin.metrics) else {
            continue;
        };
        found.n_seeds += 1;
        found.n_equal_order += usize::from(here.data_order_sha256 == there.data_order_sha256);
        found.n_equal_weights += usize::from(here.weights_sha256 == there.weights_sha256);
        let losses = here.curves.loss_nats.iter().zip(&there.curves.loss_nats);
        for (step, losses) in losses.enumerate() {
            found.n_steps += 1;
            let (Some(a), Some(b)) = losses else {
                found.n_finite_on_one += usize::from(losses.0.is_some() != losses.1.is_some());
                continue;
            };
            let nats = (a.get() - b.get()).abs().min(f64::MAX);
            if found.largest.is_none_or(|largest| nats > largest.nats) {
                found.largest = Some(LargestDifference {
                    nats,
                    seed: cell.seed,
                    step,
                });
            }
        }
    }
    (found.n_seeds > 0).then_some(found)
}
