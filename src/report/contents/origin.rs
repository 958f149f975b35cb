//! Where a record comes from, and whether it is whole.

use serde_json::{Value, json};

use super::super::document::{Block, Kind};
use crate::results::{
    Denormals, Finite, KernelAccuracy, Machine, MultiplyAdd, Replay, ReplayCheck, ReplayVerdict,
    RunRecord,
};

pub(super) fn hardware(record: &RunRecord) -> Block {
    let rows = flat(&record.hardware);
    if rows.is_empty() {
        let text = "The record names no hardware.".to_owned();
        return Block::section("Hardware", vec![Block::Paragraph(text)]);
    }
    let table = Block::table(
        "The adapter that ran, and the software",
        ["key", "value"],
        (1, Kind::Text),
        rows,
    );
    let mut blocks = vec![table];
    if let Some(machine) = &record.machine {
        blocks.extend(measured(machine));
    }
    Block::section("Hardware", blocks)
}

fn measured(machine: &Machine) -> Vec<Block> {
    let rates = machine.rates.as_ref().map(|rates| {
        Block::Paragraph(format!(
            "Measured at the start of the run, and part of no result: the device {rates}."
        ))
    });
    let about = json!({"cpu": machine.cpu, "adapter": machine.adapter, "rates": machine.rates});
    let about = Block::table(
        "Processor, adapter and rates",
        ["key", "value"],
        (1, Kind::Text),
        flat(&about),
    );
    let numerics = &machine.numerics;
    let error = |error: Option<Finite>| {
        error.map_or("not finite".to_owned(), |error| {
            format!("{:.1e}", error.get())
        })
    };
    let of_kernel = |kernel: &KernelAccuracy| {
        [
            format!("{}: {}", kernel.operation, kernel.tensor),
            error(kernel.max),
            error(kernel.rms),
        ]
    };
    let mut rows: Vec<_> = numerics.kernels.iter().map(of_kernel).collect();
    rows.extend(numerics.exp.iter().map(|exp| {
        let range = format!("exp of {} to {}", exp.from.get(), exp.to.get());
        let ulp = exp.ulp.map(|ulp| format!("{:.1} ulp", ulp.get()));
        [range, ulp.unwrap_or("not finite".into()), String::new()]
    }));
    let rounding = format!(
        "Denormal numbers are {} as inputs and {} as results; a product added to a sum is rounded {}.",
        denormals(numerics.denormal_inputs),
        denormals(numerics.denormal_results),
        match numerics.multiply_add {
            MultiplyAdd::Fused => "once",
            MultiplyAdd::Separate => "twice",
            MultiplyAdd::Other => "in another way",
        }
    );
    let kernels = Block::table(
        "Kernels on fixed small inputs against the oracle in f64",
        [
            "kernel",
            "largest error over largest value",
            "RMS error over RMS",
        ],
        (1, Kind::Number),
        rows,
    );
    let details = vec![about, Block::Paragraph(rounding), kernels];
    rates
        .into_iter()
        .chain([Block::details("The machine", details)])
        .collect()
}

fn denormals(denormals: Denormals) -> &'static str {
    match denormals {
        Denormals::Kept => "kept",
        Denormals::Flushed => "flushed to 0",
        Denormals::Other => "neither kept nor flushed",
    }
}

/// The last replay, if there was one, and how to make another.
pub(super) fn replay(name: &str, record: &RunRecord, last: Option<&Replay>) -> Block {
    let mut blocks = match last {
        None => vec![Block::Paragraph(
            "This record was not replayed, or elsewhere.".into(),
        )],
        Some(last) => outcome(record, last),
    };
    let text = "This derives every mean again, takes the first steps of every training again, and compares to the bit:";
    blocks.push(Block::Paragraph(text.into()));
    blocks.push(Block::Code(format!("bkbench replay {name}")));
    Block::section("Replay", blocks)
}

fn outcome(record: &RunRecord, last: &Replay) -> Vec<Block> {
    let [n_same, n_differ, n_not_compared] = last.counts();
    let device = last.hardware.get("adapter").and_then(Value::as_str);
    let what = last.cell.as_ref().map_or_else(
        || "all cells".to_owned(),
        |cell| format!("cell {cell} alone"),
    );
    let counts = format!(
        "Last replay, {}, on {}, of {what}: {n_same} comparisons the same, {n_differ} different, {n_not_compared} not made.",
        last.finished_utc,
        device.unwrap_or("an unnamed device")
    );
    let is_of_this = |hash: String| hash == last.record_sha256;
    let mut blocks = vec![if n_differ > 0 {
        Block::Notice(counts)
    } else {
        Block::Paragraph(counts)
    }];
    if !record.content_sha256().is_ok_and(is_of_this) {
        let text = "That replay was of another state of the record, which has changed since.";
        blocks.push(Block::Notice(text.into()));
    }
    let differing = |check: &ReplayCheck| match &check.verdict {
        ReplayVerdict::Differs(how) => Some(format!("{}, {}: {how}", check.of, check.what)),
        ReplayVerdict::Same | ReplayVerdict::NotCompared(_) => None,
    };
    let differing: Vec<String> = last.checks.iter().filter_map(differing).collect();
    if !differing.is_empty() {
        blocks.push(Block::details(
            "What differed",
            vec![Block::List(differing)],
        ));
    }
    blocks
}

pub(super) fn provenance(record: &RunRecord) -> Block {
    let provenance = &record.provenance;
    let mut rows = vec![
        [
            "bkbench".to_owned(),
            format!(
                "{}, protocol {}, schema {}",
                provenance.bkbench_version, record.protocol_version, record.schema_version
            ),
        ],
        ["started".to_owned(), provenance.started_utc.clone()],
        ["platform".to_owned(), provenance.platform.clone()],
        ["config_sha256".to_owned(), record.config_sha256.clone()],
    ];
    for resumption in &provenance.resumptions {
        rows.push([
            "resumed".to_owned(),
            format!("{}: {}", resumption.started_utc, resumption.argv.join(" ")),
        ]);
    }
    for shard in &provenance.shards {
        rows.push([
            "merged from".to_owned(),
            format!(
                "{}, started {}, {} seed(s) from {}, content_sha256 {}",
                shard.run,
                shard.provenance.started_utc,
                shard.seeds.count,
                shard.seeds.first,
                shard.record_sha256
            ),
        ]);
    }
    let table =
        |caption: &str, rows| Block::table(caption, ["key", "value"], (1, Kind::Text), rows);
    let config =
        toml::to_string(&record.config).unwrap_or_else(|error| format!("cannot be shown: {error}"));
    Block::section(
        "Provenance",
        vec![
            table("Version, time and configuration", rows),
            Block::Paragraph("The command line:".into()),
            Block::Code(provenance.argv.join(" ")),
            Block::details(
                "The text",
                vec![table("Manifest of the text", flat(&record.data))],
            ),
            Block::details("The configuration", vec![Block::Code(config)]),
        ],
    )
}

/// The values of a JSON document by their paths; what is empty or absent is left out.
fn flat(value: &Value) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    collect("", value, &mut rows);
    rows
}

fn collect(path: &str, value: &Value, rows: &mut Vec<[String; 2]>) {
    let text = match value {
        Value::Null => return,
        Value::String(text) if text.is_empty() => return,
        Value::Object(fields) => {
            for (key, value) in fields {
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                collect(&below, value, rows);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    rows.push([path.to_owned(), text]);
}
