//! The multidataset benchmark from the command line to its files.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bkbench::config::DataConfig;
use bkbench::data::{Collection, Dataset};
use bkbench::results::{
    Cell, Finite, MultidatasetGuide, OnDataset, Outcome, ResultsFile, RunRecord, Summary,
};

use crate::datasets::named_config;
use crate::documents::{gz, json_lines, put, texts, zst};
use crate::support::sealed;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

const SETTINGS: &str = "
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
[train]
budget = { steps = 3 }
[quantization]
seq_len = 64
batch_size = 2
bit_widths = [32]
[multidataset]
seq_len = 64
batch_size = 2
[seeds]
count = 2
[device]
name = \"cpu\"
";

/// Of five datasets, one of lines with all its splits, one of documents without a held-out one, and one with nothing to
/// train on.
fn data(dir: &Path) {
    for (split, n) in [("train", 60), ("valid", 1), ("test", 4)] {
        let articles: Vec<String> = (0..n)
            .map(|i| format!(" = {split} {i} = \n \n Some words of article {i} . \n"))
            .collect();
        let name = format!("wikitext-103-raw/wiki.{split}.raw");
        put(dir, &name, articles.concat());
    }
    put(
        dir,
        "c4/c4-train.00000-of-01024.json.gz",
        gz(&json_lines(&texts(300))),
    );
    put(dir, "pile/val.jsonl.zst", zst(&json_lines(&texts(6))));
}

fn bkbench(dir: &Path, line: &str) -> std::process::Output {
    fs::write(dir.join("settings.toml"), SETTINGS).unwrap();
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    command.output().unwrap()
}

fn succeeds(dir: &Path, line: &str) -> String {
    let output = bkbench(dir, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn folder(dir: &Path, stdout: &str) -> PathBuf {
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "));
    dir.join(folder.unwrap())
}

fn on(cell: &Cell) -> &OnDataset {
    cell.on_dataset.as_ref().unwrap()
}

#[test]
fn models_are_trained_and_evaluated_on_every_dataset_that_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(&dir.join("data"));
    let line = "run --benchmark multidataset --config settings.toml --data_dir data --quiet --output guide.json";
    let stdout = succeeds(dir, line);
    for part in [
        "3 of 5 datasets are present: wikitext-103, c4, pile",
        "wikitext-2 is not here: bring it with: bkbench data fetch wikitext-2 --data_dir data",
        "ptb is not here: the Penn Treebank (LDC99T42)",
        "carried: from the first token of every document to its last",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let folder = folder(dir, &stdout);
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.cells.len(), 3 * 2 * 2, "datasets x models x seeds");
    let datasets = record.datasets.clone().unwrap();
    let names = |key: &str| -> Vec<String> {
        let manifests = datasets.present.iter();
        manifests
            .filter_map(|it| Some(it.get(key)?.as_str()?.to_owned()))
            .collect()
    };
    assert_eq!(names("name"), ["wikitext-103", "c4", "pile"]);
    assert_eq!(names("trained_on"), ["wikitext-103"]);
    let absent: Vec<&str> = datasets.absent.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(absent, ["wikitext-2", "ptb"]);

    // The raw text of wikitext's test split: its bytes, and its words with an end of sentence a line.
    let test = fs::read_to_string(dir.join("data/wikitext-103-raw/wiki.test.raw")).unwrap();
    let n_words = (test.split_whitespace().count() + test.lines().count()) as u64;
    for cell in &record.cells {
        assert_eq!(cell.outcome, Outcome::Completed);
        let on = on(cell);
        let window = cell.evaluation().unwrap();
        let carry = on.carry.as_ref().unwrap();
        assert_eq!((window.window, carry.n_tokens), (64, window.n_tokens));
        let longest = match on.dataset.as_str() {
            "wikitext-103" => test.len() - 1,
            // The last token of all is nobody's context.
            "pile" => (0..6).map(|i| texts(6)[i].len() - i / 5).max().unwrap(),
            _ => carry.window,
        };
        assert_eq!(carry.window, longest, "reset where a document ends");
        assert_ne!(carry.nll_sum_nats, window.nll_sum_nats);
        let bits = window.nll_sum_nats.get() / 2_f64.ln() / window.n_bytes as f64;
        assert!((window.bits_per_byte.get() - bits).abs() < 1e-12);
        if on.dataset == "wikitext-103" {
            assert_eq!(window.n_bytes, test.len() as u64);
            assert_eq!(
                window.n_tokens,
                test.len() as u64 - 1,
                "bytes, but the first"
            );
            assert_eq!(on.n_words, Some(n_words));
            let word = on.word_perplexity(window).map(Finite::get);
            let expected = (window.nll_sum_nats.get() / n_words as f64).exp();
            assert_eq!(word, Some(expected).filter(|it| it.is_finite()));
        } else {
            assert_eq!(on.n_words, None, "documents have no official words");
        }
        let expected = if on.dataset == "c4" {
            "c4"
        } else {
            "wikitext-103"
        };
        assert_eq!(on.trained_on, expected);
        let first = record.trained_by(&cell.training).unwrap();
        let weights = |cell: &Cell| cell.metrics.as_ref().unwrap().weights_sha256.clone();
        assert_eq!(weights(first), weights(cell));
        // The Pile is scored by the models that were trained on WikiText.
        assert_eq!(first.id != cell.id, on.dataset == "pile", "{}", on.dataset);
    }
    let log = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(
        log.lines().count(),
        2 * 2 * 2 * 3,
        "two trainings a model and seed"
    );

    assert_eq!(record.multidataset.len(), 3 * 2);
    for summary in &record.multidataset {
        assert_eq!(summary.n_seeds, 2);
        assert_eq!(
            summary.word_perplexity.is_some(),
            summary.dataset == "wikitext-103"
        );
    }
    let settings: Vec<String> = record.summaries.iter().map(Summary::setting).collect();
    assert_eq!(settings[..3], ["wikitext-103", "wikitext-103", "c4"]);

    let ResultsFile::Multidataset(guide) = ResultsFile::load(&dir.join("guide.json")).unwrap()
    else {
        panic!("the shape is not recognised")
    };
    assert_eq!(guide, MultidatasetGuide::new(&record));
    let json = guide.to_json();
    assert_eq!(json["pile"]["mamba"]["trained_on"], "wikitext-103");
    assert!(json["c4"]["resnetbk"]["ppl"].as_f64().unwrap() > 1.0);
    assert!(folder.join("multidataset.png").exists());
    for source in ["guide.json".into(), folder.display().to_string()] {
        succeeds(
            dir,
            &format!("plot multidataset --results_file {source} --output a.svg"),
        );
        let svg = fs::read_to_string(dir.join("a.svg")).unwrap();
        assert!(svg.contains("pile: trained on wikitext-103"), "{source}");
    }
    let line = format!(
        "plot stability --results_file {} --output b.svg",
        folder.display()
    );
    let mixed = bkbench(dir, &line);
    assert_eq!(mixed.status.code(), Some(2), "one length, several texts");
    let replayed = succeeds(dir, &format!("replay {}", folder.display()));
    assert!(replayed.contains(" 0 differ"), "{replayed}");
    let stats = succeeds(dir, &format!("stats {} --json", folder.display()));
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let compared = stats["runs"][0]["comparisons"].as_array().unwrap().iter();
    let compared: Vec<&str> = compared.map(|it| it["setting"].as_str().unwrap()).collect();
    assert_eq!(compared, ["wikitext-103", "c4", "pile"]);
    succeeds(
        dir,
        &format!("report {} --format markdown", folder.display()),
    );
    let report = fs::read_to_string(folder.join("report.md")).unwrap();
    for part in [
        "3 of 5 datasets are present",
        "tokens of wikitext-103 to train on",
        "documents whose sha256 mod 20 is 0 are held out",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }

    // A dataset that is gone or has come makes another run of it.
    fs::remove_file(dir.join("data/pile/val.jsonl.zst")).unwrap();
    let mut cut = record.clone();
    cut.cells.pop();
    cut.derive();
    let cut = sealed(serde_json::to_value(&cut).unwrap());
    fs::write(folder.join("result.json"), cut).unwrap();
    let refused = bkbench(dir, &format!("resume {}", folder.display()));
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("datasets."), "{said}");
    data(&dir.join("data"));
    succeeds(dir, &format!("resume {} --quiet", folder.display()));
    let weights = |record: &RunRecord| -> Vec<(String, Option<Finite>)> {
        let cells = record.cells.iter();
        let loss = |cell: &Cell| cell.evaluation().map(|it| it.nll_sum_nats);
        cells.map(|cell| (cell.id.clone(), loss(cell))).collect()
    };
    assert_eq!(
        weights(&RunRecord::load(&folder).unwrap()),
        weights(&record)
    );
}

#[test]
fn without_any_dataset_it_runs_on_the_text_under_its_own_name_and_shares_its_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let settings = "benchmarks = [\"multidataset\", \"quantization\"]\n";
    fs::write(dir.join("both.toml"), format!("{settings}{SETTINGS}")).unwrap();
    let line =
        format!("run --config both.toml --text {TEXT} --data_dir none --num_seeds 1 --quiet");
    let stdout = succeeds(dir, &line);
    let own = "text:pride_and_prejudice.txt";
    let said =
        format!("0 of 5 datasets are present; the benchmark runs on {own}, which is none of them");
    assert!(stdout.contains(&said), "{stdout}");
    let folder = folder(dir, &stdout);
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.cells.len(), 4);
    let several = record
        .cells
        .iter()
        .filter_map(|cell| cell.on_dataset.as_ref());
    assert!(several.clone().count() == 2 && several.into_iter().all(|on| on.dataset == own));
    let log = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(
        log.lines().count(),
        2 * 3,
        "one training a model for both benchmarks"
    );
}

#[test]
fn a_run_goes_on_and_is_replayed_where_its_datasets_have_been_moved() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(&dir.join("cache/datasets"));
    let line = "run --benchmark multidataset --config settings.toml --num_seeds 1 --quiet";
    let folder = folder(dir, &succeeds(dir, line));
    let record = RunRecord::load(&folder).unwrap();
    let mut cut = record.clone();
    cut.cells.pop();
    cut.derive();
    let cut = sealed(serde_json::to_value(&cut).unwrap());
    fs::write(folder.join("result.json"), cut).unwrap();

    fs::rename(dir.join("cache"), dir.join("elsewhere")).unwrap();
    let succeeds = |line: &str| {
        let mut command = Command::cargo_bin("bkbench").unwrap();
        let command = command.current_dir(dir).args(line.split_whitespace());
        let output = command.env("BKBENCH_CACHE", dir.join("elsewhere")).output();
        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    succeeds(&format!("resume {} --quiet", folder.display()));
    let resumed = RunRecord::load(&folder).unwrap();
    let ids = |record: &RunRecord| -> Vec<String> {
        record.cells.iter().map(|cell| cell.id.clone()).collect()
    };
    assert_eq!(ids(&resumed), ids(&record), "no cell is trained again");
    assert_eq!(resumed.datasets, record.datasets);
    let replayed = succeeds(&format!("replay {}", folder.display()));
    assert!(replayed.contains(" 0 differ"), "{replayed}");
}

#[test]
fn a_text_that_would_not_be_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(&dir.join("data"));
    let run = "run --config settings.toml --dry-run --device wgpu:99 --data_dir data";
    let planned = |flags: &str| bkbench(dir, &format!("{run} --text {TEXT} {flags}"));
    let refused = planned("--benchmark multidataset");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--text: would not be read"), "{said}");
    for flags in [
        // Nothing of these can be trained on.
        "--benchmark multidataset --datasets pile wikitext-2",
        "--benchmark quantization",
        "--all",
    ] {
        let planned = planned(flags);
        let said = String::from_utf8_lossy(&planned.stderr).into_owned();
        assert_eq!(planned.status.code(), Some(0), "{flags}: {said}");
    }
}

#[test]
fn trials_are_counted_on_every_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(&dir.join("data"));
    let line = "run --benchmark multidataset --config settings.toml --data_dir data --fairness equal_tuning --dry-run \
                --device wgpu:99";
    let planned = succeeds(dir, line);
    // Four rates, two models, three datasets that are here.
    assert!(planned.contains("equal tuning: 24 trials"), "{planned}");
}

fn collect(names: &[&str], config: &DataConfig, cache: &Path) -> Vec<Dataset> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let found = Collection::load(&names, config, Some(500), cache, &mut |_| {}).unwrap();
    found
        .present
        .into_iter()
        .map(|(_, dataset)| dataset)
        .collect()
}

#[test]
fn datasets_are_read_as_far_as_the_steps_ask_and_borrow_their_training_text() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, data_dir) = (dir.path().join("cache"), dir.path().join("data"));
    data(&data_dir);
    let config = DataConfig {
        eval_tokens: Some(100),
        text: Some(TEXT.into()),
        ..named_config("c4", &data_dir)
    };
    let found = collect(&["pile", "c4", "wikitext-103"], &config, &cache);
    let [pile, c4, wikitext] = &found[..] else {
        panic!("three datasets")
    };
    // The first that has a training split gives it to the one that has none.
    assert_eq!(pile.manifest.trained_on.as_deref(), Some("c4"));
    assert_eq!(pile.manifest.train, c4.manifest.train);
    assert_eq!(pile.manifest.held_out_rule, "the official validation split");
    assert_eq!(wikitext.manifest.trained_on, None);
    assert!(
        c4.train.len() >= 500 && c4.train.len() < 2000,
        "{}",
        c4.train.len()
    );
    assert!(found.iter().all(|it| it.eval.len() == 100));
    // Alone, it is scored by models of the configured text, all of it.
    let found = collect(&["pile"], &config, &cache);
    let expected = "text:pride_and_prejudice.txt";
    assert_eq!(found[0].manifest.trained_on.as_deref(), Some(expected));
    assert!(found[0].train.len() > 10_000);
    // What the configuration itself names is read as it says.
    let config = DataConfig {
        text: None,
        ..config
    };
    assert!(collect(&["c4"], &config, &cache)[0].train.len() > 2000);
}
