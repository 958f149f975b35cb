//! The binary as a user meets it: bad input ends with one clear line, exit code 2, and nothing written.

use std::path::Path;

use assert_cmd::Command;
use bkbench::results::{GuideResults, RunWriter};

use crate::made_up;

/// A command in an empty folder that the caller looks at afterwards.
fn bkbench(dir: &Path, line: &str) -> Command {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command.current_dir(dir).args(line.split_whitespace());
    command
}

/// Runs a line that must be refused; returns what it printed.
fn refused(line: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    refused_in(dir.path(), line)
}

pub(crate) fn refused_in(dir: &Path, line: &str) -> String {
    let before = contents(dir);
    let output = bkbench(dir, line).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{line}");
    assert!(stderr.starts_with("error: "), "{line}: {stderr}");
    assert_eq!(contents(dir), before, "{line} left something behind");
    stderr
}

/// Names and bytes of everything in a folder.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn printed(dir: &Path, line: &str) -> String {
    let output = bkbench(dir, line).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn impossible_settings_are_refused_with_one_line_that_names_the_flag() {
    for (flags, part) in [
        ("--seq_lengths 0", "--seq_lengths"),
        ("--num_seeds 0", "--num_seeds"),
        ("--steps 0", "--steps"),
        ("--num_epochs 0", "--num_epochs"),
        ("--batch_size 0", "--batch_size"),
        ("--all --flops_budgets 0 1e6", "--flops_budgets"),
        ("--all --flops_budgets 2e6 1e6", "--flops_budgets"),
        ("--all --flops_budgets nan", "--flops_budgets"),
        ("--all --datasets c4 c4", "--datasets"),
        (
            "--preset huge",
            "unknown preset 'huge'; known: smoke, laptop, t4, guide",
        ),
        (
            "--benchmark speed",
            "unknown benchmark 'speed'; known: longcontext",
        ),
        ("--config absent.toml", "absent.toml"),
        ("--seed 18446744073709551615", "--seed"),
    ] {
        let message = refused(&format!("run {flags}"));
        assert!(message.contains(part), "{flags}: {message}");
        assert_eq!(message.lines().count(), 1, "{flags}: {message}");
    }
}

#[test]
fn mixed_precision_on_the_cpu_backend_is_refused_with_what_to_do() {
    let mixed = "mixed.toml";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(mixed);
    std::fs::write(&file, "[train]\nprecision = \"mixed\"\n").unwrap();
    for line in [
        "run --preset smoke --mixed_precision --device cpu".to_owned(),
        "run --mixed_precision true --device cpu --output new.json".to_owned(),
        format!("run --config {} --device cpu", file.display()),
        format!(
            "audit --model mamba --config {} --device cpu",
            file.display()
        ),
    ] {
        let message = refused(&line);
        for part in ["--mixed_precision", "CPU backend", "bkbench devices"] {
            assert!(message.contains(part), "{line}: {message}");
        }
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
    }
}

#[test]
fn all_problems_of_a_configuration_are_named_at_once() {
    let message = refused("run --seq_lengths 0 512 --num_seeds 0 --batch_size 0");
    assert!(message.contains("3 problem(s)"), "{message}");
}

#[test]
fn flags_of_the_guide_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    printed(
        dir.path(),
        "run --mixed_precision false --gradient_checkpointing true --cpu_offloading --bptt exact --segment_len 1024 --dry_run --device wgpu:99",
    );
    printed(
        dir.path(),
        "run --benchmark quantization --bit_widths 32 16 8 4 2 --dry_run --device wgpu:99",
    );
    printed(
        dir.path(),
        "run --benchmark efficiency --flops_budgets 1e9 2e9 5e9 1e10 --dry_run --device wgpu:99",
    );
}

#[test]
fn flags_of_benchmarks_that_do_not_run_are_refused() {
    for (line, part) in [
        (
            "--benchmark quantization --seq_lengths 512",
            "--seq_lengths: is for the longcontext benchmark",
        ),
        (
            "--benchmark multidataset --seq_lengths 512",
            "--seq_lengths: is for",
        ),
        (
            "--benchmark longcontext --bit_widths 8",
            "--bit_widths: is for the quantization",
        ),
        ("--flops_budgets 1e6", "and this run is of longcontext"),
        ("--datasets c4", "--datasets: is for the multidataset"),
        ("--all --datasets c4 c5", "unknown dataset 'c5'"),
    ] {
        let message = refused(&format!("run {line}"));
        assert!(message.contains(part), "{line}: {message}");
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
    }
    // Of --all and --benchmark the last one counts.
    let dir = tempfile::tempdir().unwrap();
    let smoke = "run --preset smoke --dry_run --data_dir nowhere";
    let all = printed(
        dir.path(),
        &format!(
            "{smoke} --benchmark longcontext --all --seq_lengths 512 --bit_widths 8 --flops_budgets 4e5 --datasets ptb c4"
        ),
    );
    let heads = [
        "longcontext: 9 cells",
        "quantization: 9 cells",
        "efficiency: 9 cells",
        "multidataset: 9 cells",
    ];
    for head in heads {
        assert!(
            all.lines().any(|line| line.starts_with(head)),
            "{head}: {all}"
        );
    }
    assert!(all.contains("(0 of 2 are present)"), "{all}");
    assert!(
        all.contains(
            "warning: c4 is not here: bring it with: bkbench data fetch c4 --data_dir nowhere"
        ),
        "{all}"
    );
    let one = printed(dir.path(), &format!("{smoke} --all --benchmark efficiency"));
    assert!(one.starts_with("efficiency: "), "{one}");
}

#[test]
fn steps_and_epochs_exclude_each_other() {
    refused("run --steps 10 --num_epochs 2");
    // A preset's steps give way to epochs.
    let dir = tempfile::tempdir().unwrap();
    let line = "run --preset smoke --num_epochs 2 --dry_run --json --device wgpu:99";
    let plan: serde_json::Value = serde_json::from_str(&printed(dir.path(), line)).unwrap();
    let budget = serde_json::json!({"num_epochs": 2});
    assert_eq!(plan["config"]["train"]["budget"], budget);
}

#[test]
fn an_unknown_key_is_reported_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("my.toml"), "[train]\nlearning_rat = 0.1\n").unwrap();
    let message = refused_in(dir.path(), "run --config my.toml");
    assert!(
        message.contains("my.toml, line 2: unknown field `learning_rat`"),
        "{message}"
    );
}

#[test]
fn an_existing_or_unwritable_output_is_refused_before_anything_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old.json"), "kept").unwrap();
    let message = refused_in(dir.path(), "run --preset smoke --output old.json");
    assert!(message.contains("never overwritten"), "{message}");
    let message = refused_in(dir.path(), "run --preset smoke --output old.json/new.json");
    assert!(message.contains("cannot be written"), "{message}");
}

#[test]
fn the_grid_is_printed_without_training() {
    let dir = tempfile::tempdir().unwrap();
    let grid = printed(
        dir.path(),
        "run --preset smoke --seq_lengths 1e3 2048 --num-seeds 4 --dry-run --device wgpu:99",
    );
    let expected =
        "longcontext: 24 cells = 3 models (resnetbk, mamba, no-mixer) x 2 lengths x 4 seeds from 42
  N = 1,000: 100 steps, 100,000 training tokens a cell
  N = 2,048: 100 steps, 204,800 training tokens a cell
";
    let (needs, plan): (Vec<&str>, Vec<&str>) = grid.lines().partition(|l| l.contains(" needs "));
    let (warnings, plan): (Vec<&str>, Vec<&str>) =
        plan.into_iter().partition(|l| l.starts_with("warning: "));
    assert_eq!(plan, expected.lines().collect::<Vec<_>>());
    assert!(warnings[0].contains("wgpu:99"), "an absent device: {grid}");
    assert_eq!(needs.len(), 3 * 2, "a line a model and length: {grid}");
    assert!(needs[1].starts_with("    mamba needs ") && needs[1].contains("parameters 319.75 KiB"));
    assert_eq!(contents(dir.path()), []);
    // Flags given twice: the last one wins, so that scripts can hand on what a user adds.
    assert!(
        printed(
            dir.path(),
            "run --preset smoke --preset guide --dry-run --device wgpu:99"
        )
        .contains("1,048,576")
    );
}

#[test]
fn time_is_estimated_on_the_device_and_what_is_absent_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let smoke = "run --preset smoke --seq_lengths 32 64 --steps 10 --dry_run --quiet";
    let plan = printed(dir.path(), &format!("{smoke} --device cpu"));
    assert!(plan.contains("of training in all on"), "{plan}");
    assert!(plan.contains("mamba: steps of up to 64 tokens"), "{plan}");
    assert!(!plan.contains("warning"), "{plan}");

    let line = format!("{smoke} --device cpu --json --text absent.txt");
    let plan: serde_json::Value = serde_json::from_str(&printed(dir.path(), &line)).unwrap();
    let warning = plan["warnings"][0].as_str().unwrap();
    assert!(warning.contains("absent.txt"), "{warning}");
    let models = |setting: usize| &plan["benchmarks"][0]["settings"][setting]["models"];
    let seconds = |setting: usize| models(setting)[1]["seconds"].as_f64().unwrap();
    assert!(0.0 < seconds(0) && seconds(0) <= seconds(1), "{plan}");
    let of_cells: f64 = (0..2)
        .flat_map(|setting| models(setting).as_array().unwrap())
        .map(|model| model["seconds"].as_f64().unwrap())
        .sum();
    let all = plan["seconds"].as_f64().unwrap();
    assert!(
        (all / (3.0 * of_cells) - 1.0).abs() < 1e-9,
        "three seeds: {plan}"
    );
    assert_eq!(contents(dir.path()), []);
}

#[test]
fn commands_and_graphs_that_do_not_exist_are_refused() {
    assert!(refused("train").contains(
        "unknown command 'train'; known: run, resume, replay, stats, report, compare, merge, plot, data, devices"
    ));
    assert!(refused("plot pie --output a.svg").contains("unknown graph 'pie'"));
    refused("run --no_such_flag");
}

#[test]
fn unreadable_results_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text.json"), "not json").unwrap();
    std::fs::write(dir.path().join("other.json"), "{}").unwrap();
    std::fs::write(dir.path().join("future.json"), r#"{"schema_version": 999}"#).unwrap();
    std::fs::write(
        dir.path().join("guide.json"),
        r#"{"seq_len_512": {"mamba": 3}}"#,
    )
    .unwrap();
    for (file, part) in [
        ("absent.json", "cannot be read"),
        ("text.json", "not JSON"),
        ("other.json", "no schema_version"),
        ("future.json", "schema version 999"),
        ("guide.json", "seq_len_512, mamba"),
    ] {
        let message = refused_in(
            dir.path(),
            &format!("plot stability --results_file {file} --output a.svg"),
        );
        assert!(message.contains(part), "{file}: {message}");
        assert_eq!(message.lines().count(), 1, "{file}: {message}");
    }
}

#[test]
fn both_shapes_of_results_are_drawn_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let record = made_up::record(20, true);
    let writer = RunWriter::create(&dir.path().join("results"), &record.config).unwrap();
    writer.save(&record).unwrap();
    let guide = GuideResults::new(&record).to_json().to_string();
    std::fs::write(dir.path().join("guide.json"), guide).unwrap();
    let folder = writer.dir().display().to_string();
    for source in [
        folder.as_str(),
        &format!("{folder}/result.json"),
        "guide.json",
    ] {
        for extension in ["svg", "png", "pdf"] {
            let line = format!(
                "plot stability --results_file {source} --output pictures/a.{extension} --seq_lengths 512 8192 \
                 --annotate_divergence true --show_confidence_intervals false"
            );
            assert_eq!(
                printed(dir.path(), &line),
                format!("drawn: pictures/a.{extension}\n")
            );
            assert!(dir.path().join(format!("pictures/a.{extension}")).exists());
        }
    }
    let line = format!("plot stability --results_file {folder} --output a.gif");
    assert!(refused_in(dir.path(), &line).contains(".svg, .png or .pdf"));
}

/// As in `bkbench data list | head`.
#[test]
#[cfg(unix)]
fn a_reader_that_has_gone_ends_the_process_without_a_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("bkbench"))
        .args(["data", "list"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(141), ""));
}
