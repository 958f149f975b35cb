//! Which results may be compared, and of which the seeds may be taken together.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Datasets, Difference, RunRecord, Tuning};
use crate::config::{Backpropagation, Benchmark};
use crate::{Error, Result};

/// Keys of the configuration that change no result beyond rounding: where it runs, what it keeps, in which pieces it goes.
/// The text is in the manifest, by its hashes.
const NOT_DETERMINING: [&str; 7] = [
    "seeds",
    "device",
    "data",
    "train.checkpoint_every_seconds",
    "train.loss_chunk_tokens",
    "train.gradient_checkpointing",
    "train.cpu_offloading",
];
/// Keys of the manifest that are names, or follow from its hashes.
const NAMES: [&str; 4] = ["name", "source", "tokenizer", "unigram_ce_nats"];
/// What one fingerprint has in common, of what a record says of its hardware.
const FINGERPRINT: [&str; 14] = [
    "adapter",
    "vendor_id",
    "device_id",
    "api",
    "driver",
    "driver_info",
    "os_build",
    "platform",
    "threads",
    "simd",
    "kernels",
    "bkbench",
    "burn",
    "wgpu",
];
/// Measurements of a cell that differ from one time to the next.
const MEASURED_ANEW: [&str; 5] = [
    "train_seconds",
    "tokens_per_second",
    "memory",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
];

/// What keeps two records from being compared: protocol, configuration, text, tokenizer or precision. Seeds and
/// device may differ, and so may what changes no result. Empty where they may.
///
/// # Errors
/// If a configuration has no JSON form.
pub fn incomparable(a: &RunRecord, b: &RunRecord) -> Result<Vec<Difference>> {
    Ok(Difference::between("", &determining(a)?, &determining(b)?))
}

/// What keeps the seeds of two comparable records from being taken together: their fingerprints. A record that names no
/// adapter differs from every other.
pub fn not_poolable(a: &RunRecord, b: &RunRecord) -> Vec<Difference> {
    let (of_a, of_b) = (fingerprint(a), fingerprint(b));
    let found = Difference::between("hardware", &of_a, &of_b);
    let names_none = of_a["adapter"].is_null() && of_b["adapter"].is_null();
    if found.is_empty() && names_none {
        return vec![Difference {
            key: "hardware.adapter".into(),
            values: [Value::Null, Value::Null],
        }];
    }
    found
}

/// The part of a record's hardware that makes up its fingerprint.
pub(super) fn fingerprint(record: &RunRecord) -> Value {
    let field = |key: &str| {
        let value = record.hardware.get(key).cloned().unwrap_or_default();
        (key.to_owned(), value)
    };
    Value::Object(FINGERPRINT.into_iter().map(field).collect())
}

fn determining(record: &RunRecord) -> Result<Value> {
    let mut config = json_of(&record.config)?;
    for path in NOT_DETERMINING {
        remove(&mut config, path);
    }
    let others = Benchmark::ALL.iter();
    for other in others.filter(|it| !record.config.benchmarks.contains(it)) {
        remove(&mut config, other.name());
    }
    // Rounding alone depends on it, unless gradients end at its borders.
    if record.config.train.backpropagation == Backpropagation::Exact {
        remove(&mut config, "train.segment_len");
    }
    let by_hashes = |manifest: &Value| {
        let mut manifest = manifest.clone();
        for path in NAMES {
            remove(&mut manifest, path);
        }
        manifest
    };
    let present = record.datasets.iter().flat_map(|it| &it.present);
    Ok(json!({
        "protocol_version": record.protocol_version,
        "config": config,
        "data": by_hashes(&record.data),
        "datasets": present.map(by_hashes).collect::<Vec<_>>(),
    }))
}

/// The texts of a run, by their names and hashes: the folders that they lie in are no part of them. `data` and `datasets`
/// are as in a record.
pub fn texts(data: &Value, datasets: Option<&Datasets>) -> Value {
    let without_folder = |manifest: &Value| {
        let mut manifest = manifest.clone();
        remove(&mut manifest, "source");
        manifest
    };
    let datasets = datasets.map(|it| {
        let present: Vec<Value> = it.present.iter().map(without_folder).collect();
        let absent: Vec<&String> = it.absent.iter().map(|absent| &absent.name).collect();
        json!({"present": present, "absent": absent})
    });
    json!({"data": without_folder(data), "datasets": datasets})
}

/// The learning rates that trials chose, by benchmark, setting and model.
fn chosen_rates(tuning: &Tuning) -> Value {
    let chosen = tuning.chosen.iter().map(|it| {
        let place = format!("{} {} {}", it.benchmark.name(), it.setting, it.model);
        (place, json!(it.learning_rate))
    });
    Value::Object(chosen.collect())
}

/// Everything that two shards of one run share: the whole configuration but for the seeds, the text, the protocol, the
/// learning rates that were chosen and the fingerprint. Empty where they do.
pub(super) fn not_of_one_run(a: &RunRecord, b: &RunRecord) -> Result<Vec<Difference>> {
    let of = |record: &RunRecord| -> Result<Value> {
        let mut config = json_of(&record.config)?;
        remove(&mut config, "seeds");
        Ok(json!({
            "protocol_version": record.protocol_version,
            "config": config,
            "chosen learning rates": record.tuning.as_ref().map(chosen_rates),
        }))
    };
    let mut found = Difference::between("", &of(a)?, &of(b)?);
    let of_texts = |record: &RunRecord| texts(&record.data, record.datasets.as_ref());
    found.extend(Difference::between("", &of_texts(a), &of_texts(b)));
    found.extend(not_poolable(a, b));
    Ok(found)
}

/// Every value in which two entries of a record differ that the same work on the same device would give again: times
/// and memory are left out.
///
/// # Errors
/// If an entry has no JSON form.
pub(super) fn other_numbers(a: &impl Serialize, b: &impl Serialize) -> Result<Vec<Difference>> {
    let (mut a, mut b) = (json_of(a)?, json_of(b)?);
    forget(&mut a);
    forget(&mut b);
    Ok(Difference::between("", &a, &b))
}

fn json_of(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::CheckFailed(format!("a value has no JSON form: {error}")))
}

/// Removes the value at a path of keys.
fn remove(value: &mut Value, path: &str) {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = format!("/{}", parents.replace('.', "/"));
    let parent = if parents.is_empty() {
        Some(value)
    } else {
        value.pointer_mut(&pointer)
    };
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.remove(key);
    }
}

/// Removes, at every depth, what is measured anew each time.
fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !MEASURED_ANEW.contains(&key.as_str()));
            fields.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        _ => {}
    }
}
