//! Runs on several adapters side by side, as plain-text tables.

use serde_json::{Value, json};

use super::document::visible;
use super::table::{aligned, aligned_rows, estimate};
use crate::results::{
    AcrossAdapters, AdapterRuns, Agreement, LossAt, Place, Shift, SpeedAt, WarningOn,
};
use crate::units::{Bytes, Count};

const LOSSES: [&str; 8] = [
    "setting",
    "model",
    "adapter",
    "completed",
    "held-out loss",
    "perplexity",
    "bits/byte",
    "loss - [1]",
];
const SPEEDS: [&str; 8] = [
    "setting",
    "model",
    "of",
    "adapter",
    "tokens/s",
    "over [1]",
    "peak memory",
    "estimated",
];
const AGREEMENT: [&str; 9] = [
    "setting",
    "model",
    "adapter",
    "seeds",
    "steps",
    "largest difference",
    "finite on one alone",
    "equal text order",
    "equal weights",
];

/// The adapters with their hardware, then losses, speed and memory, and how well the trainings agree.
pub fn text(across: &AcrossAdapters) -> String {
    let mut lines: Vec<String> = across.adapters.iter().enumerate().map(adapter).collect();
    lines.extend(pooling(&across.adapters));
    lines.push(String::new());
    lines.push("Hardware:".into());
    lines.extend(hardware(&across.adapters));
    lines.push(String::new());
    let numerics = numerics(&across.adapters);
    if !numerics.is_empty() {
        lines.push(
            "Rounding, and kernels against the oracle, largest error over largest value:".into(),
        );
        lines.extend(numerics);
        lines.push(String::new());
    }
    lines.push("Means over completed seeds, +- half the 95 % t interval; losses in nats per token, differences by seed:".into());
    let losses = across.losses.iter().map(|it| loss(it, across));
    lines.extend(aligned(LOSSES, losses));
    lines.push(String::new());
    lines.push("Speed, and the largest measured peak of memory over seeds:".into());
    let speeds = across.speeds.iter().map(|it| speed(it, across));
    lines.extend(aligned(SPEEDS, speeds));
    if !across.agreement.is_empty() {
        lines.push(String::new());
        lines.push(
            "Agreement with [1], seed by seed: training losses at equal steps, nats per token:"
                .into(),
        );
        let agreement = across.agreement.iter().map(|it| agree(it, across));
        lines.extend(aligned(AGREEMENT, agreement));
    }
    let n_adapters = across.adapters.len();
    lines.extend(across.warnings.iter().map(|it| warning(it, n_adapters)));
    lines.extend(across.notes.iter().map(|note| format!("note: {note}")));
    visible(&(lines.join("\n") + "\n"))
}

fn warning(WarningOn { warning, adapters }: &WarningOn, n_adapters: usize) -> String {
    if adapters.len() == n_adapters {
        return format!("warning: {warning}");
    }
    let places: Vec<String> = adapters.iter().map(|it| format!("[{}]", it + 1)).collect();
    format!("warning: {} {warning}", places.join(" "))
}

/// Name of an adapter, its API, and of the CPU backend what decides its numbers.
pub(super) fn name(adapter: &AdapterRuns) -> String {
    let field = |key: &str| match adapter.hardware.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let name = field("adapter").unwrap_or("an unnamed device".into());
    match (field("api"), field("threads"), field("simd")) {
        (Some(api), ..) => format!("{name} ({api})"),
        (None, Some(threads), Some(simd)) => {
            format!("{name} (CPU backend, {threads} threads, {simd})")
        }
        _ => name,
    }
}

fn adapter((i, adapter): (usize, &AdapterRuns)) -> String {
    let seeds: Vec<String> = adapter.seeds.iter().map(ToString::to_string).collect();
    format!(
        "[{}] {}: seeds {} of {}",
        i + 1,
        name(adapter),
        seeds.join(" "),
        adapter.runs.join(", ")
    )
}

/// Whose seeds are taken together, and what forbids more.
fn pooling(adapters: &[AdapterRuns]) -> Vec<String> {
    let [_, others @ ..] = adapters else {
        return Vec::new();
    };
    if others.is_empty() {
        return vec!["One fingerprint: the seeds of all runs are taken together.".into()];
    }
    let mut lines =
        vec!["Seeds are taken together by adapter, for the fingerprints differ:".to_owned()];
    for (i, other) in others.iter().enumerate() {
        let differs = other.differs.iter();
        lines.extend(differs.map(|it| format!("  [1] against [{}]: {it}", i + 2)));
    }
    lines
}

fn hardware(adapters: &[AdapterRuns]) -> Vec<String> {
    beside(adapters, |adapter| {
        let fields = adapter.hardware.as_object();
        let fields = fields.into_iter().flatten();
        let mut known: Vec<(String, String)> = fields
            .map(|(key, value)| (key.clone(), word(value)))
            .collect();
        let rates = adapter.machine.as_ref().and_then(|it| it.rates.as_ref());
        known.extend(rates.into_iter().flat_map(|rates| {
            let copied = rates.copy.bytes_per_second.get() / 1e9;
            let multiplied = rates.matmul.flops_per_second.get() / 1e9;
            [
                ("copies".to_owned(), format!("{copied:.1} GB/s")),
                ("multiplies".to_owned(), format!("{multiplied:.1} GFLOP/s")),
            ]
        }));
        known
    })
}

/// How the adapters round, and the largest error of each kernel over its largest value; empty where no run measured it.
fn numerics(adapters: &[AdapterRuns]) -> Vec<String> {
    beside(adapters, |adapter| {
        let Some(numerics) = adapter.machine.as_ref().map(|it| &it.numerics) else {
            return Vec::new();
        };
        let mut known = vec![
            (
                "denormal inputs".to_owned(),
                word(&json!(numerics.denormal_inputs)),
            ),
            (
                "denormal results".to_owned(),
                word(&json!(numerics.denormal_results)),
            ),
            (
                "multiply-add".to_owned(),
                word(&json!(numerics.multiply_add)),
            ),
        ];
        known.extend(numerics.exp.iter().map(|exp| {
            let range = format!("exp of {} to {}", exp.from.get(), exp.to.get());
            let ulp = exp.ulp.map(|ulp| format!("{:.1} ulp", ulp.get()));
            (range, ulp.unwrap_or("not finite".into()))
        }));
        known.extend(numerics.kernels.iter().map(|kernel| {
            let error = kernel.max.map(|max| format!("{:.1e}", max.get()));
            let name = format!("{}: {}", kernel.operation, kernel.tensor);
            (name, error.unwrap_or("not finite".into()))
        }));
        known
    })
}

/// A row a key, a column an adapter; empty where no adapter has any.
fn beside(
    adapters: &[AdapterRuns],
    known: impl Fn(&AdapterRuns) -> Vec<(String, String)>,
) -> Vec<String> {
    let known: Vec<Vec<(String, String)>> = adapters.iter().map(known).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in known.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Vec::new();
    }
    let heads = (1..=adapters.len()).map(|place| format!("[{place}]"));
    let head = std::iter::once(String::new()).chain(heads).collect();
    let row = |key: &String| {
        let value = |known: &Vec<(String, String)>| {
            let mut found = known.iter().filter(|(other, _)| other == key);
            found.next().map_or("-".into(), |(_, value)| value.clone())
        };
        std::iter::once(key.clone())
            .chain(known.iter().map(value))
            .collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(keys.into_iter().map(row))
        .collect();
    aligned_rows(&rows)
}

/// A value of a document without quotes, `-` where there is none.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::String(_) | Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// The setting, with its benchmark, and how learning rates were set, where there are several.
pub(super) fn setting(place: &Place, across: &AcrossAdapters) -> String {
    let any = |differs: fn(&Place, &Place) -> bool| {
        let mut others = across.losses.iter();
        others.any(|it| differs(&it.place, place))
    };
    let mut setting = place.setting.clone();
    if any(|a, b| a.benchmark != b.benchmark) {
        setting = format!("{} {setting}", place.benchmark.name());
    }
    if any(|a, b| a.fairness != b.fairness) {
        setting = format!("{setting} {}", place.fairness.name());
    }
    setting
}

fn on(place: &Place) -> String {
    match place.adapter {
        Some(adapter) => format!("[{}]", adapter + 1),
        None => "all adapters, pooled by seed".into(),
    }
}

fn loss(at: &LossAt, across: &AcrossAdapters) -> [String; 8] {
    [
        setting(&at.place, across),
        at.place.model.clone(),
        on(&at.place),
        format!("{} of {}", at.n_completed, at.n_cells),
        estimate(at.nll_nats, 4),
        estimate(at.token_perplexity, 3),
        estimate(at.bits_per_byte, 4),
        at.difference_nats.map_or("-".into(), shift),
    ]
}

fn shift(shift: Shift) -> String {
    let half = shift.interval.map_or(String::new(), |it| {
        format!(" +- {:.1e}", (it.high - it.low) / 2.0)
    });
    match shift.n_pairs {
        0 => format!("{:+.1e}{half} (no seed in common)", shift.mean),
        n => format!("{:+.1e}{half} (n = {n})", shift.mean),
    }
}

fn speed(at: &SpeedAt, across: &AcrossAdapters) -> [String; 8] {
    let memory = |bytes: Option<Bytes>| match bytes {
        Some(bytes) if bytes.0 > 0 => bytes.to_string(),
        _ => "-".into(),
    };
    [
        setting(&at.place, across),
        at.place.model.clone(),
        at.what.to_owned(),
        on(&at.place),
        at.tokens_per_second.map_or("-".into(), |rate| {
            Count(rate.mean.round() as u64).to_string()
        }),
        at.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
        memory(at.peak_memory),
        memory(at.estimated_memory),
    ]
}

fn agree(at: &Agreement, across: &AcrossAdapters) -> [String; 9] {
    let of_seeds = |n: usize| format!("{n} of {}", at.n_seeds);
    let largest = at.largest.map_or("-".into(), |largest| {
        format!(
            "{:.1e} (seed {}, step {})",
            largest.nats, largest.seed, largest.step
        )
    });
    [
        setting(&at.place, across),
        at.place.model.clone(),
        on(&at.place),
        at.n_seeds.to_string(),
        Count(at.n_steps as u64).to_string(),
        largest,
        Count(at.n_finite_on_one as u64).to_string(),
        of_seeds(at.n_equal_order),
        of_seeds(at.n_equal_weights),
    ]
}
