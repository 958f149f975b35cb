//! Shards of one run, by seed, joined into one record.

use super::compatibility::{not_of_one_run, other_numbers};
use super::{
    Cell, CellKey, Difference, Provenance, RecallVerdict, RunRecord, SEEDS_FOR_A_CLAIM, Shard,
    Warning,
};
use crate::config::{Benchmark, SeedConfig};
use crate::{Error, Result};

/// Joins the records of shards, given with their names: runs of one configuration, but for the seeds, on one fingerprint.
/// Cells that several of them hold count once; audits and warnings are joined; means are derived anew. The shards are
/// named in the provenance.
///
/// # Errors
/// [`Error::BadInput`] for fewer than two, and for seeds that leave a gap, which a configuration cannot name;
/// [`Error::NotComparable`] with what differs, and where two shards hold other numbers for the same cell.
pub fn merge(shards: &[(String, RunRecord)]) -> Result<RunRecord> {
    let [(first_name, first), others @ ..] = shards else {
        return Err(too_few());
    };
    if others.is_empty() {
        return Err(too_few());
    }
    for (name, record) in others {
        let differences = not_of_one_run(first, record)?;
        let what = format!("{name} is no shard of the run of {first_name}");
        refuse(what, &differences, ONE_RUN)?;
    }
    let mut config = first.config.clone();
    config.seeds = seeds(shards)?;
    let mut merged = RunRecord::new(config, first.hardware.clone(), first.data.clone())?;
    merged.datasets.clone_from(&first.datasets);
    // Trials have a seed of their own, and all shards chose alike: those of one stand for all.
    merged.tuning.clone_from(&first.tuning);
    merged.machine.clone_from(&first.machine);
    merged.provenance = Provenance {
        shards: shards.iter().map(shard).collect::<Result<_>>()?,
        ..Provenance::of_this_process()
    };
    for (name, record) in shards {
        for cell in &record.cells {
            let cell = named_by(&merged, cell, record)?;
            match merged.cell(&cell.id) {
                None => merged.cells.push(cell),
                Some(known) => agree(name, &cell.id, &other_numbers(known, &cell)?)?,
            }
        }
        for audit in &record.audits {
            if !merged.audits.contains(audit) {
                merged.audits.push(audit.clone());
            }
        }
        for result in &record.recall {
            match merged.recall.iter().find(|known| known.id == result.id) {
                None => merged.recall.push(result.clone()),
                Some(known) => agree(name, &result.id, &other_numbers(known, result)?)?,
            }
        }
        for warning in &record.warnings {
            // How many seeds there are has changed.
            let is_of_shard = matches!(warning, Warning::FewSeeds { .. });
            if !is_of_shard && !merged.warnings.contains(warning) {
                merged.warnings.push(warning.clone());
            }
        }
    }
    let count = merged.config.seeds.count;
    if count < SEEDS_FOR_A_CLAIM {
        merged.warnings.push(Warning::FewSeeds { count });
    }
    sort(&mut merged);
    merged.recall_verdict = RecallVerdict::of(&merged.recall);
    merged.derive();
    Ok(merged)
}

/// A cell of a shard, named as the merged run names it: the name covers the manifest of its text, and that the folder in
/// which the text lay.
fn named_by(merged: &RunRecord, cell: &Cell, shard: &RunRecord) -> Result<Cell> {
    let (here, there) = (merged.manifest_of(cell), shard.manifest_of(cell));
    let mut cell = cell.clone();
    if here != there {
        let key = CellKey::new(&merged.config, cell.benchmark, &cell.training, here);
        cell.id = key.at(cell.at_budget.as_ref()).id()?;
    }
    Ok(cell)
}

const ONE_RUN: &str =
    "merge runs of one adapter and configuration only; `bkbench compare` shows others side by side";

fn too_few() -> Error {
    Error::bad_input("merge", "one run is no shards", "name two runs or more")
}

fn refuse(what: String, differences: &[Difference], advice: &str) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::NotComparable {
        what,
        differences: differences.iter().map(ToString::to_string).collect(),
        advice: advice.into(),
    })
}

fn agree(name: &str, id: &str, differences: &[Difference]) -> Result<()> {
    refuse(
        format!("{name} has other numbers for {id} than a shard before it"),
        differences,
        "leave one of the two out; `bkbench replay` says which to trust",
    )
}

fn shard((name, record): &(String, RunRecord)) -> Result<Shard> {
    Ok(Shard {
        run: name.clone(),
        record_sha256: record.content_sha256()?,
        seeds: record.config.seeds.clone(),
        provenance: record.provenance.clone(),
    })
}

/// The seeds of all shards as one row.
fn seeds(shards: &[(String, RunRecord)]) -> Result<SeedConfig> {
    let mut rows: Vec<(&str, &SeedConfig)> = shards
        .iter()
        .map(|(name, record)| (name.as_str(), &record.config.seeds))
        .collect();
    rows.sort_by_key(|(_, seeds)| seeds.first);
    let end = |seeds: &SeedConfig| seeds.first.saturating_add(seeds.count);
    let first = rows.first().map_or(0, |(_, seeds)| seeds.first);
    let mut last = first;
    for (name, seeds) in rows {
        if seeds.first > last {
            return Err(Error::bad_input(
                name,
                format!(
                    "its seeds begin at {}, and no shard has those from {last} on",
                    seeds.first
                ),
                format!(
                    "run them too: --seed {last} --num_seeds {}",
                    seeds.first - last
                ),
            ));
        }
        last = last.max(end(seeds));
    }
    Ok(SeedConfig {
        first,
        count: last - first,
    })
}

/// Brings the cells into the order in which one run would have them: setting by setting, seed by seed, model by model.
fn sort(record: &mut RunRecord) {
    let mut settings: Vec<(Benchmark, String)> = Vec::new();
    for cell in &record.cells {
        let setting = (cell.benchmark, cell.setting());
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let models = record.config.models.labels();
    let place = |cell: &Cell| {
        let setting = (cell.benchmark, cell.setting());
        (
            settings.iter().position(|known| *known == setting),
            cell.seed,
            models.iter().position(|model| *model == cell.model),
        )
    };
    record.cells.sort_by_key(place);
    record.recall.sort_by_key(|result| result.seed);
}
