//! Runs of several benchmarks: one record, equal trainings done once, every benchmark's own files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bkbench::config::{Benchmark, Config};
use bkbench::results::{Cell, Outcome, RunRecord, comparisons};

use crate::made_up;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

/// Two models, one seed: 4 cells of lengths, 2 of widths whose trainings are those of the longer length, 2 of a budget.
const SETTINGS: &str = "
benchmarks = [\"efficiency\", \"quantization\", \"longcontext\"]
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
eval_tokens = 512
[train]
batch_size = 2
budget = { steps = 3 }
[longcontext]
seq_lengths = [32, 64]
[quantization]
seq_len = 64
batch_size = 2
bit_widths = [32, 4]
[efficiency]
seq_len = 64
batch_size = 2
flops_budgets = [4e5]
[seeds]
count = 1
[device]
name = \"cpu\"
";
const N_STEPS: usize = 3;

fn command(dir: &Path, line: &str) -> Command {
    std::fs::write(dir.join("several.toml"), SETTINGS).unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bkbench"));
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    command
}

fn run_line(flags: &str) -> String {
    format!("run --config several.toml --text {TEXT} --quiet {flags}")
}

fn output(dir: &Path, line: &str) -> Output {
    command(dir, line).output().unwrap()
}

fn succeeds(dir: &Path, line: &str) -> String {
    let output = output(dir, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn folder(dir: &Path) -> Option<PathBuf> {
    let runs = std::fs::read_dir(dir.join("results")).ok()?;
    let mut runs = runs.map(|run| run.unwrap().path());
    runs.find(|run| run.join("result.json").exists())
}

fn of(record: &RunRecord, benchmark: Benchmark) -> Vec<&Cell> {
    let cells = record.cells.iter();
    cells.filter(|cell| cell.benchmark == benchmark).collect()
}

/// Names of the trainings, each once.
fn trainings(record: &RunRecord) -> BTreeSet<&str> {
    record.cells.iter().map(|it| it.training.as_str()).collect()
}

#[test]
fn one_record_holds_several_benchmarks_and_equal_trainings_are_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let stdout = succeeds(dir, &run_line("--output out.json"));
    let folder = folder(dir).unwrap();
    let name = folder.file_name().unwrap().to_str().unwrap();
    assert!(
        name.contains("Z-longcontext+quantization+efficiency-"),
        "{name}"
    );
    let record = RunRecord::load(&folder).unwrap();
    let n_cells = Benchmark::ALL.map(|benchmark| of(&record, benchmark).len());
    assert_eq!(n_cells[..3], [4, 2, 2]);
    assert!(
        record
            .cells
            .iter()
            .all(|it| it.outcome == Outcome::Completed)
    );
    for part in record.parts() {
        assert!(part.is_derived(), "{}", part.config.title());
    }
    for it in &record.quantization {
        let has_numbers = it.size_mb.is_some() && it.nll_nats.is_some();
        assert!(it.n_seeds == 1 && has_numbers, "{it:?}");
    }
    // Every step that was taken has a line.
    assert_eq!(trainings(&record).len(), 6);
    let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6 * N_STEPS);
    for cell in of(&record, Benchmark::Quantization) {
        let first = record.trained_by(&cell.training).unwrap();
        assert_eq!(
            (first.benchmark, first.seq_len),
            (Benchmark::Longcontext, 64)
        );
        assert_eq!(first.model, cell.model);
        assert_ne!(first.id, cell.id);
        let (ours, theirs) = (
            cell.metrics.as_ref().unwrap(),
            first.metrics.as_ref().unwrap(),
        );
        assert_eq!(ours.weights_sha256, theirs.weights_sha256);
        assert_eq!(ours.curves, theirs.curves);
        assert_eq!(ours.evaluation, theirs.evaluation);
        assert_eq!(cell.quantization.as_ref().unwrap().widths.len(), 2);
    }
    assert!(!folder.join("checkpoints").exists(), "swept up");

    // What follows from the cells is kept apart.
    assert_eq!(record.summaries.len(), 8);
    assert_eq!(record.limits.len(), 2);
    assert_eq!(record.quantization.len(), 2 * 2);
    assert_eq!(record.efficiency.len(), 2);
    let settings: Vec<String> = comparisons(&record)
        .into_iter()
        .map(|it| it.setting)
        .collect();
    assert_eq!(
        settings,
        ["seq_len_32", "seq_len_64", "fp32", "int4", "flops_4e5"]
    );

    // Every benchmark has its tables, its picture, and its file in the guide's shape.
    for title in ["longcontext", "quantization", "efficiency"] {
        assert!(stdout.lines().any(|line| line == title), "{stdout}");
    }
    for (graph, benchmark) in [
        ("stability", "longcontext"),
        ("quantization", "quantization"),
        ("efficiency", "efficiency"),
    ] {
        assert!(folder.join(format!("{graph}.png")).exists());
        for source in [
            format!("out.{benchmark}.json"),
            folder.display().to_string(),
        ] {
            let line = format!("plot {graph} --results_file {source} --output {benchmark}.svg");
            succeeds(dir, &line);
        }
    }
    assert!(!dir.join("out.json").exists());
    let again = output(dir, &run_line("--output out.json"));
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");

    let replayed = succeeds(dir, &format!("replay {}", folder.display()));
    assert!(replayed.contains(" 0 differ"), "{replayed}");
    let resumed = output(dir, &format!("resume {}", folder.display()));
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(said.contains("8 of 8 cells are finished"), "{said}");
    let stats = succeeds(dir, &format!("stats {} --json", folder.display()));
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["runs"][0]["comparisons"].as_array().unwrap().len(), 5);
    succeeds(
        dir,
        &format!("report {} --format markdown", folder.display()),
    );
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(report.contains("8 cells of 6 trainings"), "{report}");
    for title in ["Longcontext", "Quantization", "Efficiency"] {
        assert!(report.contains(&format!("# {title}\n")), "{report}");
    }
}

/// What does not depend on the clock or the machine's memory.
fn numbers(record: &RunRecord) -> Vec<(String, Option<String>, Option<f64>)> {
    let of = |cell: &Cell| {
        let weights = cell.metrics.as_ref().map(|it| it.weights_sha256.clone());
        let nll = cell.evaluation().map(|it| it.nll_sum_nats.get());
        (cell.id.clone(), weights, nll)
    };
    record.cells.iter().map(of).collect()
}

#[test]
fn a_run_that_is_killed_goes_on_and_still_trains_everything_once() {
    let whole = tempfile::tempdir().unwrap();
    succeeds(whole.path(), &run_line("--checkpoint_every 0"));
    let undisturbed = RunRecord::load(&folder(whole.path()).unwrap()).unwrap();
    // In the second training, in that whose weights are needed again, and behind it.
    for n_lines in [4, 10, 13] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let mut line = command(dir, &run_line("--checkpoint_every 0"));
        let mut child = line
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let n_written = || {
            let log = folder(dir).map(|run| run.join("metrics.jsonl"));
            let log = log.and_then(|log| std::fs::read_to_string(log).ok());
            log.map_or(0, |log| log.lines().count())
        };
        while n_written() < n_lines && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let run = folder(dir).unwrap();
        succeeds(dir, &format!("resume {} --quiet", run.display()));
        let record = RunRecord::load(&run).unwrap();
        assert_eq!(
            numbers(&record),
            numbers(&undisturbed),
            "killed at {n_lines}"
        );
        assert_eq!(n_written(), 6 * N_STEPS, "killed at {n_lines}");
        assert!(!run.join("checkpoints").exists());
    }
}

#[test]
fn a_benchmark_alone_has_its_own_cells_and_what_follows_from_them() {
    let benchmarks = "benchmarks = [\"efficiency\", \"longcontext\", \"longcontext\"]";
    let config = Config::resolve(Some("smoke"), None, benchmarks.parse().unwrap()).unwrap();
    assert_eq!(
        config.benchmarks,
        [Benchmark::Longcontext, Benchmark::Efficiency]
    );
    assert_eq!(config.title(), "longcontext+efficiency");
    let record = made_up::of_config(config, 20, false);
    let parts = record.parts();
    assert_eq!(parts.len(), 2);
    let n_cells: Vec<usize> = parts.iter().map(|part| part.cells.len()).collect();
    assert_eq!(n_cells.iter().sum::<usize>(), record.cells.len());
    let [lengths, budgets] = &parts[..] else {
        panic!("two parts")
    };
    assert_eq!(lengths.limits, record.limits);
    assert!(budgets.limits.is_empty());
    assert_eq!(
        budgets.config.train.batch_size,
        budgets.config.efficiency.batch_size
    );
    assert!(lengths.is_derived() && budgets.is_derived());
    // A length of two benchmarks is two settings.
    let n_summaries = parts.iter().map(|part| part.summaries.len()).sum::<usize>();
    assert_eq!(n_summaries, record.summaries.len());
    assert!(record.is_derived());
    let none = Config::resolve(Some("smoke"), None, "benchmarks = []".parse().unwrap());
    assert_eq!(none.unwrap_err().exit_code(), 2);
}
