//! Shards of a run joined: equal to the run that was never cut, or refused.

use std::path::{Path, PathBuf};

use bkbench::config::{Config, Fairness};
use bkbench::results::{
    AbsentDataset, CellKey, Datasets, RunRecord, RunWriter, Warning, merge, problems,
};
use serde_json::json;

use crate::made_up::{changed, finite, leak, of_config, trials};
use crate::support;

fn shard(first_seed: u64, n_seeds: u64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.longcontext.seq_lengths = vec![512, 2048];
    (config.seeds.first, config.seeds.count) = (first_seed, n_seeds);
    let mut record = of_config(config, 40, false);
    record.hardware = json!({"adapter": "some", "threads": 2});
    record.warnings.push(Warning::FewSeeds { count: n_seeds });
    record
}

fn merged(shards: &[RunRecord]) -> bkbench::Result<RunRecord> {
    let named = shards.iter().enumerate();
    let named: Vec<(String, RunRecord)> = named
        .map(|(i, record)| (format!("shard-{i}"), record.clone()))
        .collect();
    merge(&named)
}

fn refused(shards: &[RunRecord], code: u8) -> String {
    let error = merged(shards).unwrap_err();
    assert_eq!(error.exit_code(), code, "{error}");
    error.to_string()
}

#[test]
fn shards_make_the_run_that_was_never_cut() {
    let whole = shard(42, 5);
    let (mut a, b) = (shard(42, 3), shard(45, 2));
    leak(&mut a, "mamba");
    // Named in any order.
    let joined = merged(&[b.clone(), a.clone()]).unwrap();
    assert_eq!(joined.config, whole.config);
    assert_eq!(joined.config_sha256, whole.config_sha256);
    assert_eq!(joined.cells, whole.cells, "in the order of one run");
    assert_eq!(joined.summaries, whole.summaries);
    assert_eq!(joined.limits, whole.limits);
    assert_eq!(joined.audits, a.audits);
    let warnings = [Warning::TooFewSteps {
        steps: 40,
        needed: 200,
    }];
    assert_eq!(joined.warnings, warnings, "five seeds are no longer few");
    assert_eq!(problems(&joined), [""; 0]);
    let shards = &joined.provenance.shards;
    assert_eq!(
        (shards[0].run.as_str(), shards[0].seeds.first),
        ("shard-0", 45)
    );
    assert_eq!(shards[1].record_sha256, a.content_sha256().unwrap());
    assert_eq!(shards[1].provenance, a.provenance);

    let few = merged(&[shard(42, 1), shard(43, 1)]).unwrap();
    assert!(few.warnings.contains(&Warning::FewSeeds { count: 2 }));
}

#[test]
fn a_cell_of_two_shards_counts_once_and_must_have_the_same_numbers() {
    let (a, b) = (shard(42, 3), shard(44, 3));
    let slower = changed(&b, |cell| {
        cell.metrics.as_mut().unwrap().train_seconds = finite(99.0);
        true
    });
    let joined = merged(&[a.clone(), slower]).unwrap();
    let ids = |record: &RunRecord| -> Vec<String> {
        record.cells.iter().map(|cell| cell.id.clone()).collect()
    };
    assert_eq!(ids(&joined), ids(&shard(42, 5)));
    let seconds = joined.cells.iter().filter(|cell| cell.seed == 44);
    let mut seconds = seconds.map(|cell| cell.metrics.as_ref().unwrap().train_seconds);
    assert!(
        seconds.all(|it| it == finite(10.0)),
        "the first counts, times may differ"
    );
    let other = changed(&b, |cell| {
        if cell.seed == 44 && cell.model == "mamba" {
            cell.metrics.as_mut().unwrap().weights_sha256 = "11".into();
        }
        true
    });
    let said = refused(&[a, other], 3);
    assert!(
        said.contains("metrics.weights_sha256: \"00\" against \"11\""),
        "{said}"
    );
}

#[test]
fn runs_that_are_no_shards_are_refused_with_what_differs() {
    let a = shard(42, 3);
    let with = |change: fn(&mut RunRecord)| {
        let mut b = shard(45, 2);
        change(&mut b);
        refused(&[a.clone(), b], 3)
    };
    for (change, part) in [
        (
            (|it| it.hardware["adapter"] = "other".into()) as fn(&mut RunRecord),
            "hardware.adapter: \"some\" against \"other\"",
        ),
        (
            |it| it.hardware["threads"] = json!(4),
            "hardware.threads: 2 against 4",
        ),
        (
            |it| it.config.train.learning_rate = 0.5,
            "config.train.learning_rate: 0.003 against 0.5",
        ),
        (
            |it| it.config.train.cpu_offloading = true,
            "config.train.cpu_offloading: false against true",
        ),
        (
            |it| it.protocol_version = 1,
            "protocol_version: 3 against 1",
        ),
        (
            |it| it.data["name"] = "other".into(),
            "data.name: \"made up\" against \"other\"",
        ),
    ] {
        let said = with(change);
        assert!(said.contains(part), "{said}");
        assert!(
            said.contains("shard-1 is no shard of the run of shard-0"),
            "{said}"
        );
    }
    let said = refused(&[a.clone(), shard(47, 2)], 2);
    assert!(said.contains("--seed 45 --num_seeds 2"), "{said}");
    assert!(refused(&[a], 2).contains("two runs or more"));
}

#[test]
fn shards_that_chose_other_learning_rates_are_refused() {
    let tuned = |record: &RunRecord, best: f64| {
        let mut record = record.clone();
        record.config.fairness = Fairness::ALL.into();
        record.tuning = Some(trials(&record, |model, rate| {
            let best = if model == "mamba" { best } else { 3e-3 };
            2.0 + (rate / best).ln().abs()
        }));
        record.derive();
        record
    };
    let (a, b) = (tuned(&shard(42, 3), 3e-3), shard(45, 2));
    assert!(merged(&[a.clone(), tuned(&b, 3e-3)]).is_ok());
    let said = refused(&[a, tuned(&b, 1e-3)], 3);
    let part = "chosen learning rates.longcontext seq_len_512 mamba: 0.003 against 0.001";
    assert!(said.contains(part), "{said}");
}

#[test]
fn where_texts_lie_and_what_would_bring_absent_ones_keeps_no_shards_apart() {
    let at = |record: RunRecord, folder: &str| {
        let mut record = record;
        record.data["source"] = folder.into();
        record.datasets = Some(Datasets {
            present: vec![json!({"name": "c4", "source": folder, "text_sha256": "00"})],
            absent: vec![AbsentDataset {
                name: "ptb".into(),
                advice: format!("put it into {folder}"),
            }],
        });
        let data = record.data.clone();
        for cell in &mut record.cells {
            let key = CellKey::new(&record.config, cell.benchmark, &cell.training, &data);
            cell.id = key.id().unwrap();
        }
        record
    };
    let (a, b) = (at(shard(42, 3), "/home/a"), at(shard(44, 3), "/home/b"));
    let joined = merged(&[a, b.clone()]).unwrap();
    // The seed of both counts once, and all cells are called as one run at the first place calls them.
    assert_eq!(joined.cells, at(shard(42, 5), "/home/a").cells);
    let mut gone = b.clone();
    gone.datasets.as_mut().unwrap().absent[0].name = "pile".into();
    let a = at(shard(42, 3), "/home/a");
    assert!(refused(&[a.clone(), gone], 3).contains("datasets.absent"));
    let mut other = b;
    other.datasets.as_mut().unwrap().present[0]["text_sha256"] = "11".into();
    assert!(refused(&[a, other], 3).contains("text_sha256: \"00\" against \"11\""));
}

// ---- the command ----

fn saved(dir: &Path, record: &RunRecord) -> PathBuf {
    let writer = RunWriter::create(dir, &record.config).unwrap();
    writer.save(record).unwrap();
    writer.dir().to_owned()
}

#[test]
fn a_merged_run_is_a_run_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let runs = [shard(42, 3), shard(45, 2)].map(|it| saved(&dir.path().join("shards"), &it));
    let before = runs
        .each_ref()
        .map(|run| std::fs::read(run.join("result.json")).unwrap());
    let bkbench = |line: &str| {
        let (code, printed, said) = support::bkbench(dir.path(), line);
        assert_eq!(code, Some(0), "{line}: {said}");
        printed
    };
    let [a, b] = runs.each_ref().map(|run| run.display().to_string());
    let printed = bkbench(&format!("merge {a} {b}"));
    let folder = printed
        .lines()
        .find_map(|it| it.strip_prefix("results: "))
        .unwrap();
    let record = RunRecord::load(&dir.path().join(folder)).unwrap();
    assert_eq!(record.cells.len(), 3 * 2 * 5);
    assert_eq!(record.provenance.shards[0].run, a);
    let after = runs
        .each_ref()
        .map(|run| std::fs::read(run.join("result.json")).unwrap());
    assert!(before == after, "the shards stay as they are");

    bkbench(&format!("stats {folder}"));
    bkbench(&format!("report {folder}"));
    let page = std::fs::read_to_string(dir.path().join(folder).join("report.html")).unwrap();
    assert!(page.contains("merged from") && page.contains("seed(s) from 45"));
    assert!(bkbench(&format!("resume {folder}")).contains("5 of 5"));
    // A merged run is a shard like any other.
    let third = saved(&dir.path().join("shards"), &shard(47, 1));
    let printed = bkbench(&format!("merge {folder} {}", third.display()));
    assert!(printed.contains("6 of 6"), "{printed}");
}

const SETTINGS: &str = "
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
eval_tokens = 500
[train]
budget = { steps = 6 }
[longcontext]
seq_lengths = [32, 64]
[device]
name = \"cpu\"
";

#[test]
fn a_merged_run_is_replayed_and_says_where_its_checkpoints_are() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("settings.toml"), SETTINGS).unwrap();
    let bkbench = |line: &str| support::bkbench(dir.path(), line);
    let folder = |printed: &str| {
        let mut lines = printed.lines();
        let folder = lines.find_map(|it| it.strip_prefix("results: "));
        folder.unwrap().to_owned()
    };
    let shards = [(42, 2), (44, 1)].map(|(first, count)| {
        let line = format!(
            "run --config settings.toml --save_checkpoints --quiet --seed {first} --num_seeds {count}"
        );
        let (code, printed, said) = bkbench(&line);
        assert_eq!(code, Some(0), "{said}");
        folder(&printed)
    });
    let (_, printed, _) = bkbench(&format!("merge {} {}", shards[0], shards[1]));
    let merged = folder(&printed);
    let (code, printed, said) = bkbench(&format!("replay {merged}"));
    assert_eq!(code, Some(0), "{printed}{said}");
    // Of the run four comparisons, of each of 2 x 2 x 3 cells four; its last weights are elsewhere.
    assert!(
        printed.ends_with("52 same, 0 differ, 12 not compared\n"),
        "{printed}"
    );
    for (shard, n_cells) in shards.iter().zip([8, 4]) {
        let where_from = format!("checkpoints stay with the shards: replay {shard}");
        assert_eq!(printed.matches(&where_from).count(), n_cells, "{printed}");
    }
    let (_, printed, _) = bkbench(&format!("replay {}", shards[1]));
    assert!(
        printed.ends_with("28 same, 0 differ, 0 not compared\n"),
        "{printed}"
    );
}
