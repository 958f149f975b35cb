//! `bkbench run` from the command line to the files it leaves.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bkbench::models::registry::{Architecture, matched_shapes};
use bkbench::results::{
    AuditCheck, AuditReport, AuditedWeights, Cell, Finding, Finite, Outcome, RunRecord, Warning,
};
use sha2::{Digest, Sha256};

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

const TINY: &str = "
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
[train]
batch_size = 2
[longcontext]
recall_probe = false
";

fn bkbench(dir: &Path, line: &str) -> String {
    std::fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the tiny comparison once more; returns the folder it made.
fn run(dir: &Path, flags: &str) -> PathBuf {
    let text = if flags.contains("--text") {
        String::new()
    } else {
        format!("--text {TEXT}")
    };
    let stdout = bkbench(
        dir,
        &format!(
            "run --config tiny.toml {text} --steps 4 --num_seeds 2 --seq_lengths 32 64 \
             --device cpu --quiet {flags}"
        ),
    );
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "))
        .unwrap_or_else(|| panic!("no folder named in {stdout}"));
    dir.join(folder)
}

fn of<'a>(record: &'a RunRecord, model: &str, seq_len: usize, seed: u64) -> &'a Cell {
    let is_it = |cell: &&Cell| cell.model == model && cell.seq_len == seq_len && cell.seed == seed;
    record.cells.iter().find(is_it).unwrap()
}

#[test]
fn a_run_records_every_cell_and_a_rerun_gives_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = run(dir.path(), "--output guide.json");
    let first = RunRecord::load(&folder).unwrap();
    assert_eq!(first.cells.len(), 2 * 2 * 2, "models x lengths x seeds");
    let machine = first.machine.as_ref().unwrap();
    assert!(machine.rates.is_some() && machine.cpu["os_build"].is_string());
    for cell in &first.cells {
        assert_eq!(cell.outcome, Outcome::Completed, "{cell:?}");
        let metrics = cell.metrics.as_ref().unwrap();
        assert_eq!(metrics.curves.loss_nats.len(), 4, "one loss a step");
        let evaluation = metrics.evaluation.as_ref().unwrap();
        assert_eq!(evaluation.window, cell.seq_len);
        // every token of the held-out text but the first
        let n_eval = first.data["eval"]["n_tokens"].as_u64().unwrap();
        assert_eq!(evaluation.n_tokens, n_eval - 1);
        let by_position = metrics.nll_by_position.iter();
        assert_eq!(by_position.map(|it| it.n_tokens).sum::<u64>(), n_eval - 1);
    }
    let order = |cell: &Cell| cell.metrics.as_ref().unwrap().data_order_sha256.clone();
    let resnetbk = of(&first, "resnetbk", 64, 42);
    assert_eq!(
        order(resnetbk),
        order(of(&first, "mamba", 64, 42)),
        "both models see the same batches"
    );
    assert_ne!(order(resnetbk), order(of(&first, "resnetbk", 64, 43)));

    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 8 * 4, "one line a step");
    assert!(folder.join("stability.png").exists());
    assert!(
        !folder.join("checkpoints").exists(),
        "checkpoints are kept only when asked for"
    );
    let guide = std::fs::read_to_string(dir.path().join("guide.json")).unwrap();
    let guide: serde_json::Value = serde_json::from_str(&guide).unwrap();
    for model in ["resnetbk", "mamba"] {
        assert_eq!(guide["seq_len_32"][model]["diverged"], false);
        assert_eq!(guide["seq_len_64"][model]["n_seeds"], 2);
    }

    let before = std::fs::read(folder.join("result.json")).unwrap();
    let again = run(dir.path(), "--save_checkpoints true --checkpoint_dir kept");
    assert_ne!(folder, again, "a run never writes into another's folder");
    assert_eq!(std::fs::read(folder.join("result.json")).unwrap(), before);
    let second = RunRecord::load(&again).unwrap();
    for (a, b) in first.cells.iter().zip(&second.cells) {
        assert_eq!(a.id, b.id, "a cell's name comes from what determines it");
        let (a, b) = (a.metrics.as_ref().unwrap(), b.metrics.as_ref().unwrap());
        assert_eq!(a.curves, b.curves);
        assert_eq!(a.weights_sha256, b.weights_sha256);
        assert_eq!(a.evaluation, b.evaluation);
    }
    let kept = dir.path().join("kept").join(again.file_name().unwrap());
    let kept = std::fs::read_dir(kept).unwrap().count();
    assert_eq!(kept, 8, "one checkpoint a cell");
}

#[test]
fn a_model_against_itself_starts_from_other_weights_and_reads_the_same_text() {
    let dir = tempfile::tempdir().unwrap();
    let folder = run(
        dir.path(),
        "--model_a mamba --model_b mamba --control mamba --output guide.json",
    );
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(
        record.cells.len(),
        2 * 2 * 2,
        "two models x lengths x seeds"
    );
    assert_eq!(
        record
            .audits
            .iter()
            .filter(|it| it.weights == AuditedWeights::Initial)
            .count(),
        1
    );
    for (seq_len, seed) in [(32, 42), (32, 43), (64, 42), (64, 43)] {
        let [a, b] = ["mamba", "mamba (b)"].map(|model| of(&record, model, seq_len, seed));
        assert_ne!(a.id, b.id);
        assert_ne!(a.training, b.training);
        let [a, b] = [a, b].map(|cell| cell.metrics.as_ref().unwrap());
        assert_eq!(a.data_order_sha256, b.data_order_sha256);
        assert_ne!(
            a.curves.loss_nats[0], b.curves.loss_nats[0],
            "before any step"
        );
        assert_ne!(a.weights_sha256, b.weights_sha256);
    }
    // The first of the two is the model as it is in any other run.
    let other = RunRecord::load(&run(dir.path(), "")).unwrap();
    assert_eq!(
        of(&other, "mamba", 64, 43).id,
        of(&record, "mamba", 64, 43).id
    );

    let guide = std::fs::read_to_string(dir.path().join("guide.json")).unwrap();
    let guide: serde_json::Value = serde_json::from_str(&guide).unwrap();
    assert_eq!(guide["seq_len_32"]["mamba (b)"]["n_seeds"], 2);
    let name = folder.display();
    let stats: serde_json::Value =
        serde_json::from_str(&bkbench(dir.path(), &format!("stats {name} --json"))).unwrap();
    for comparison in stats["runs"][0]["comparisons"].as_array().unwrap() {
        assert_eq!(comparison["verdict"], "inconclusive");
        assert_eq!(comparison["b"], "mamba (b)");
        assert!(
            comparison["paired_t"]["p"].is_number(),
            "tested all the same"
        );
    }
    let claims = stats["claims"].as_array().unwrap();
    assert!(
        claims
            .iter()
            .all(|claim| claim["verdict"] == "not_testable"),
        "{claims:?}"
    );
    let plot = std::fs::read_to_string(folder.join("stability.svg")).unwrap();
    assert!(plot.contains("mamba (n = 2)") && plot.contains("mamba (b) (n = 2)"));
    let replay = bkbench(dir.path(), &format!("replay {name}"));
    assert!(replay.contains("mamba (b) seq_len_32 seed 42"), "{replay}");
    assert!(replay.contains(" 0 differ,"), "{replay}");
    let resumed = bkbench(dir.path(), &format!("resume {name}"));
    assert!(resumed.contains("results: "), "{resumed}");
}

#[test]
fn flops_that_were_not_matched_stand_in_audits_and_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let record = RunRecord::load(&run(dir.path(), "")).unwrap();
    let models = [Architecture::ResNetBk, Architecture::Mamba];
    let shapes = matched_shapes(&models, &record.config.model, 256).unwrap();
    let [a, b] = [0, 1].map(|i| shapes[i].matched_flops_per_token() as f64);
    let ratio = Finite::new(a.max(b) / a.min(b)).unwrap();
    assert!(ratio.get() > 2.0, "{a} and {b}");
    let basis = "flops".to_owned();
    let warning = Warning::UnequalSize { basis, ratio };
    assert!(record.warnings.contains(&warning), "{:?}", record.warnings);
    let mut checks = record.audits.iter().flat_map(|audit| &audit.checks);
    let matching = |check: &AuditCheck| match check.finding {
        Finding::Matching { flops_ratio, .. } => flops_ratio,
        _ => None,
    };
    assert_eq!(checks.find_map(matching), Some(ratio));
}

#[test]
fn a_cell_that_reads_its_text_more_than_once_says_so_itself() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read(TEXT).unwrap();
    std::fs::write(dir.path().join("short.txt"), &text[..450]).unwrap();
    let folder = run(dir.path(), "--text short.txt");
    let record = RunRecord::load(&folder).unwrap();
    let n_train = record.data["train"]["n_tokens"].as_f64().unwrap();
    // 4 steps of 2 sequences.
    let repeated = |seq_len: usize| {
        let epochs = 8.0 * seq_len as f64 / n_train;
        let warning = Warning::RepeatedData {
            epochs: Finite::new(epochs).unwrap(),
        };
        (epochs > 1.0).then_some(warning)
    };
    assert!(
        repeated(32).is_none() && repeated(64).is_some(),
        "{n_train}"
    );
    for cell in &record.cells {
        assert_eq!(cell.warnings, Vec::from_iter(repeated(cell.seq_len)));
    }
    assert!(
        record.warnings.contains(&repeated(64).unwrap()),
        "the run names its longest length"
    );
}

#[test]
fn tokenize_prints_the_count_and_the_hash_of_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("data tokenize {TEXT} --tokenizer bytes --json");
    let printed: serde_json::Value = serde_json::from_str(&bkbench(dir.path(), &line)).unwrap();
    let text = std::fs::read(TEXT).unwrap();
    let ids: Vec<u8> = text.iter().flat_map(|&byte| [byte, 0]).collect();
    assert_eq!(printed["n_tokens"], text.len());
    assert_eq!(printed["ids_sha256"], format!("{:x}", Sha256::digest(ids)));
}

#[test]
fn a_training_that_ends_early_is_an_outcome_and_no_reason_to_refuse_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("early.toml");
    let early = |section: &str, flags: &str| {
        std::fs::write(&config, TINY.replace("[train]", section)).unwrap();
        let line = format!(
            "run --config early.toml --text {TEXT} --steps 30 --num_seeds 1 --seq_lengths 64 --device cpu --quiet {flags}"
        );
        let stdout = bkbench(dir.path(), &line);
        let folder = stdout.lines().find_map(|l| l.strip_prefix("results: "));
        RunRecord::load(&dir.path().join(folder.unwrap())).unwrap()
    };
    let diverging = early("[train]\nlearning_rate = 1e30\nwarmup_steps = 0\n", "");
    for cell in &diverging.cells {
        assert_eq!(cell.outcome.name(), "diverged", "{cell:?}");
    }
    let limited = early("[train]", "--max_cell_seconds 0.001");
    for cell in &limited.cells {
        assert_eq!(cell.outcome.name(), "timed_out", "{cell:?}");
    }
    assert_eq!((diverging.cells.len(), limited.cells.len()), (2, 2));
}

#[test]
fn a_held_out_loss_that_is_not_finite_is_recorded_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // The one step that is taken begins with a finite loss and leaves weights that have none.
    let absurd = TINY.replace(
        "[train]",
        "[train]\nlearning_rate = 1e30\nwarmup_steps = 0\n",
    );
    let benchmarks = "benchmarks = [\"longcontext\", \"quantization\", \"multidataset\"]";
    let config = format!(
        "{benchmarks}{absurd}\n[multidataset]\nseq_len = 64\n[quantization]\nseq_len = 64\n"
    );
    std::fs::write(dir.path().join("absurd.toml"), config).unwrap();
    let line = format!(
        "run --config absurd.toml --text {TEXT} --data_dir none --steps 1 --num_seeds 1 --seq_lengths 64 --device cpu \
         --quiet"
    );
    let stdout = bkbench(dir.path(), &line);
    assert!(
        stdout.contains("is not finite: it has the worst rank"),
        "{stdout}"
    );
    let folder = stdout.lines().find_map(|l| l.strip_prefix("results: "));
    let folder = dir.path().join(folder.unwrap());
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.cells.len(), 3 * 2, "benchmarks x models");
    for cell in &record.cells {
        assert_eq!(cell.outcome, Outcome::Completed);
        assert!(cell.metrics.as_ref().unwrap().final_loss_nats.is_some());
        assert_eq!(cell.evaluation(), None);
        assert_eq!(cell.quantization, None, "nothing is packed");
        assert!(cell.on_dataset.as_ref().is_none_or(|on| on.carry.is_none()));
        let warning = Warning::HeldOutNotFinite {
            model: cell.model.clone(),
            place: cell.place(),
            seed: cell.seed,
        };
        assert!(record.warnings.contains(&warning));
    }
    let is_final = |it: &&AuditReport| it.weights == AuditedWeights::Final;
    assert_eq!(
        record.audits.iter().filter(is_final).count(),
        0,
        "not to be audited"
    );
    let name = folder.display();
    assert!(bkbench(dir.path(), &format!("resume {name}")).contains("results: "));
    assert!(bkbench(dir.path(), &format!("stats {name}")).contains("inconclusive"));
    bkbench(dir.path(), &format!("report {name}"));
    assert!(bkbench(dir.path(), &format!("replay {name}")).contains(" 0 differ,"));
}

#[test]
fn a_picture_of_nothing_is_left_out_and_the_run_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let small = format!(
        "benchmarks = [\"longcontext\", \"quantization\"]{TINY}[device]\nmemory_limit_mib = 1\n"
    );
    std::fs::write(dir.path().join("small.toml"), small).unwrap();
    let line = format!(
        "run --config small.toml --text {TEXT} --steps 1 --num_seeds 1 --seq_lengths 64 --device cpu --quiet"
    );
    let stdout = bkbench(dir.path(), &line);
    assert!(
        stdout.contains("no plot: the results: none of these widths was measured"),
        "{stdout}"
    );
    assert!(
        stdout.contains("stability.svg"),
        "that of the other benchmark: {stdout}"
    );
}
