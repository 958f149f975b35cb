//! The quantization benchmark from the command line to the files it leaves.

use std::path::Path;

use assert_cmd::Command;
use bkbench::config::Benchmark;
use bkbench::quant::BitWidth;
use bkbench::results::{Outcome, ResultsFile, RunRecord};

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

const TINY: &str = "
[models]
control = \"no-mixer\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
eval_tokens = 512
[quantization]
seq_len = 64
";

fn bkbench(dir: &Path, line: &str) -> std::process::Output {
    std::fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    command.output().unwrap()
}

fn run(dir: &Path, flags: &str) -> std::process::Output {
    bkbench(
        dir,
        &format!(
            "run --benchmark quantization --config tiny.toml --text {TEXT} --steps 3 --num_seeds 2 \
             --device cpu --quiet {flags}"
        ),
    )
}

#[test]
fn every_width_is_measured_and_the_sizes_are_those_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "--output guide.json");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "))
        .unwrap();
    let folder = dir.path().join(folder);
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.cells.len(), 3 * 2, "models x seeds");
    let alone = record.config.only(Benchmark::Quantization);
    assert_eq!(alone.train.batch_size, 8, "the benchmark's own");
    assert!(
        record.limits.is_empty(),
        "one length says nothing of lengths"
    );
    for cell in &record.cells {
        assert_eq!(cell.outcome, Outcome::Completed);
        let metrics = cell.quantization.as_ref().unwrap();
        let widths: Vec<BitWidth> = metrics.widths.iter().map(|at| at.width).collect();
        assert_eq!(widths, BitWidth::ALL);
        let whole = &metrics.widths[0];
        let trained = cell.metrics.as_ref().unwrap();
        assert_eq!(
            whole.evaluation, trained.evaluation,
            "fp32 is the model as it is"
        );
        assert_eq!(whole.size.total().0, 4 * cell.parameters.total);
        assert_eq!(whole.size.codes_bytes.0, 0);
        for pair in metrics.widths.windows(2) {
            assert!(pair[1].size.total().0 < pair[0].size.total().0);
            assert_eq!(
                pair[1].decode_tokens_per_second.is_some(),
                pair[1].prefill_tokens_per_second.is_some()
            );
        }
        // The embedding of 256 tokens of 16 codes at four bits: two words and a scale a row, two scales a word.
        assert_eq!(metrics.widths[3].size.embedding_bytes.0, 256 * 8 + 128 * 4);
        let families: Vec<&str> = metrics
            .sensitivity
            .iter()
            .map(|it| it.family.as_str())
            .collect();
        assert!(families.contains(&"embedding"));
        assert_eq!(families.contains(&"a_log"), cell.model == "mamba");
        assert_eq!(families.len() % 4, 0, "four widths a family");
    }
    let of = |model: &str, width: BitWidth| {
        let mut summaries = record.quantization.iter();
        summaries
            .find(|it| (it.model.as_str(), it.width) == (model, width))
            .unwrap()
    };
    let degradation = |width| of("mamba", width).degradation.unwrap().mean;
    assert_eq!(degradation(BitWidth::Fp32), 0.0);
    assert!(degradation(BitWidth::Int2).abs() > degradation(BitWidth::Int8).abs());

    let guide = std::fs::read_to_string(dir.path().join("guide.json")).unwrap();
    let guide: serde_json::Value = serde_json::from_str(&guide).unwrap();
    let mb = of("resnetbk", BitWidth::Int4).size_mb.unwrap();
    assert_eq!(guide["int4"]["resnetbk"]["size_mb"], mb);
    assert_eq!(guide["fp32"]["mamba"]["n_seeds"], 2);
    assert!(
        guide["fp32"].get("no-mixer").is_none(),
        "the guide has no control"
    );
    assert!(folder.join("quantization.png").exists());
    assert!(
        stdout.contains("Loss added by one family alone"),
        "{stdout}"
    );
    let loaded = ResultsFile::load(&dir.path().join("guide.json")).unwrap();
    assert!(matches!(loaded, ResultsFile::Quantization(guide) if guide.widths.len() == 5));

    let replayed = bkbench(dir.path(), &format!("replay {}", folder.display()));
    let replayed = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(replayed.contains("0 differ"), "{replayed}");
    let plotted = bkbench(
        dir.path(),
        "plot quantization --results_file guide.json --output a.svg --bit_widths 32 4 --annotate_threshold",
    );
    assert!(plotted.status.success());
    let svg = std::fs::read_to_string(dir.path().join("a.svg")).unwrap();
    assert!(svg.contains("perplexity 100") && svg.contains("int4") && !svg.contains("int8"));
}

#[test]
fn the_widths_asked_for_are_measured_beside_fp32_and_others_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(dir.path(), "--bit_widths 8 3");
    assert_eq!(refused.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        stderr.contains("--bit_widths") && stderr.contains("32, 16, 8, 4"),
        "{stderr}"
    );
    assert!(!dir.path().join("results").exists());

    let output = run(dir.path(), "--bit_widths 4 --batch_size 2 --num_seeds 1");
    assert!(output.status.success());
    let runs = std::fs::read_dir(dir.path().join("results")).unwrap();
    let folder = runs.map(|entry| entry.unwrap().path()).next().unwrap();
    let record = RunRecord::load(&folder).unwrap();
    assert_eq!(record.config.quantization.batch_size, 2);
    let metrics = record.cells[0].quantization.as_ref().unwrap();
    let widths: Vec<BitWidth> = metrics.widths.iter().map(|at| at.width).collect();
    assert_eq!(widths, [BitWidth::Fp32, BitWidth::Int4]);
}
