//! Models that a run trained and kept: `eval` finds the record's loss again, and `generate` writes from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use bkbench::data::{TextStream, Tokenizer, load_with_cache};
use bkbench::models::BatchShape;
use bkbench::models::checkpoint::{Origin, load};
use bkbench::results::{Cell, Evaluation, RunRecord};
use bkbench::train::CheckpointFolder;
use serde_json::Value;

use crate::cli::refused_in;
use crate::support;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

const SETTINGS: &str = "
[models]
control = \"resnetbk-published\"
[model]
d_model = 16
n_layers = 2
[data]
tokenizer = \"bytes\"
[train]
batch_size = 2
budget = { steps = 40 }
learning_rate = 1e-2
[longcontext]
seq_lengths = [48]
[seeds]
count = 1
[device]
name = \"cpu\"
";

/// What happens to a file.
type Change = fn(&mut Vec<u8>);

/// A run of three models whose checkpoints were kept, and the text it held out.
struct Trained {
    dir: tempfile::TempDir,
    run: PathBuf,
    record: RunRecord,
}

impl Trained {
    fn once() -> &'static Self {
        static ONCE: OnceLock<Trained> = OnceLock::new();
        ONCE.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("settings.toml"), SETTINGS).unwrap();
            let line =
                format!("run --config settings.toml --text {TEXT} --save_checkpoints --quiet");
            let output = bkbench(dir.path(), &line);
            assert!(output.status.success(), "{}", stderr(&output));
            let stdout = String::from_utf8(output.stdout).unwrap();
            let folder = stdout.lines().find_map(|l| l.strip_prefix("results: "));
            let run = dir.path().join(folder.unwrap());
            let record = RunRecord::load(&run).unwrap();
            let cache = dir.path().join("cache");
            let dataset = load_with_cache(&record.config.data, &cache, &mut |_| {}).unwrap();
            let eval: Vec<u32> = dataset.eval.iter().collect();
            let text = dataset.tokenizer.decode(&eval).unwrap();
            fs::write(dir.path().join("held_out.txt"), text).unwrap();
            Self { dir, run, record }
        })
    }

    fn cell(&self, model: &str) -> &Cell {
        let cells = self.record.cells.iter();
        cells.into_iter().find(|cell| cell.model == model).unwrap()
    }

    fn checkpoint(&self, model: &str) -> PathBuf {
        self.run
            .join("checkpoints")
            .join(&self.cell(model).training)
    }

    fn succeeds(&self, line: &str) -> String {
        let output = bkbench(self.dir.path(), line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        // The text is UTF-8 whatever bytes the model chose.
        String::from_utf8(output.stdout).unwrap()
    }

    /// A copy of a model's last checkpoint that may be damaged.
    fn copy(&self, model: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let step = dir.path().join("cell/step-40");
        fs::create_dir_all(&step).unwrap();
        for entry in fs::read_dir(self.checkpoint(model).join("step-40")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), step.join(entry.file_name())).unwrap();
        }
        fs::write(dir.path().join("text.txt"), "It is a truth").unwrap();
        (dir, step)
    }
}

fn bkbench(dir: &Path, line: &str) -> Output {
    assert_cmd::Command::cargo_bin("bkbench")
        .unwrap()
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_kept_checkpoint_has_the_loss_that_the_record_says_to_the_bit() {
    let trained = Trained::once();
    for model in ["resnetbk", "mamba", "resnetbk-published"] {
        let metrics = trained.cell(model).metrics.as_ref().unwrap();
        let checkpoint = trained.checkpoint(model);
        for path in [checkpoint.clone(), checkpoint.join("step-40")] {
            let line = format!(
                "eval --checkpoint {} --text held_out.txt --device cpu --json --quiet",
                path.display()
            );
            let document: Value = serde_json::from_str(&trained.succeeds(&line)).unwrap();
            let evaluation: Evaluation =
                serde_json::from_value(document["evaluation"].clone()).unwrap();
            assert_eq!(Some(&evaluation), metrics.evaluation.as_ref(), "{model}");
            let checkpoint = &document["checkpoint"];
            assert_eq!(checkpoint["weights_sha256"], metrics.weights_sha256);
            assert_eq!(checkpoint["origin"]["step"], 40);
        }
    }
}

#[test]
fn a_kept_checkpoint_is_quantised_as_its_run_would_have() {
    let trained = Trained::once();
    fs::write(
        trained.dir.path().join("windows.toml"),
        "[quantization]\nseq_len = 48\n",
    )
    .unwrap();
    let line = format!(
        "run --benchmark quantization --config windows.toml --text {TEXT} --bit_widths 4 --device cpu --quiet --checkpoint {}",
        trained.checkpoint("mamba").display()
    );
    let stdout = trained.succeeds(&line);
    let folder = stdout.lines().find_map(|l| l.strip_prefix("results: "));
    let record = RunRecord::load(&trained.dir.path().join(folder.unwrap())).unwrap();
    let cell = &record.cells[0];
    let given = cell.given.as_ref().unwrap();
    assert_eq!((given.layout.as_str(), given.steps), ("bkbench", Some(40)));
    // The tokenizer of the checkpoint, and the loss that its own record says.
    assert_eq!(record.config.data.tokenizer, "bytes");
    let metrics = trained.cell("mamba").metrics.as_ref().unwrap();
    let widths = &cell.quantization.as_ref().unwrap().widths;
    assert_eq!(widths[0].evaluation, metrics.evaluation);
    assert_eq!(widths.len(), 2);
}

#[test]
fn the_state_is_reset_at_windows_and_carried_within() {
    let trained = Trained::once();
    let nats = |window: &str| {
        let line = format!(
            "eval --checkpoint {} --text held_out.txt --device cpu --json --quiet {window}",
            trained.checkpoint("mamba").display()
        );
        let document: Value = serde_json::from_str(&trained.succeeds(&line)).unwrap();
        assert_eq!(document["carry"], true);
        document["evaluation"]["nll_sum_nats"].as_f64().unwrap()
    };
    assert_eq!(nats(""), nats("--window 48"), "trained at 48 tokens");
    assert!(nats("--window 1") > nats("--window 48"), "context helps");
    // One window as long as the text: the state is carried to its end.
    assert_ne!(nats("--window 1000000"), nats("--window 48"));
}

#[test]
fn a_checkpoint_that_describes_itself_is_gone_on_from_as_before() {
    let trained = Trained::once();
    let folder = CheckpointFolder::new(trained.checkpoint("mamba"));
    let (checkpoint, damaged) = folder.newest();
    assert_eq!((damaged.len(), checkpoint.unwrap().state.step), (0, 40));
    let loaded = load(folder.path(), &support::cpu()).unwrap();
    assert_eq!(loaded.origin, Origin::Bkbench { step: 40 });
    assert_eq!(loaded.seq_len, Some(48));
    assert_eq!(loaded.tokenizer.as_ref().unwrap().name, "bytes");
    let n_parameters = trained.cell("mamba").parameters.total;
    assert_eq!(loaded.shape.parameters().total as u64, n_parameters);
}

#[test]
fn a_damaged_checkpoint_or_another_tokenizer_is_refused() {
    let trained = Trained::once();
    let edit: [(&str, Change, &str); 8] = [
        (
            "weights.safetensors",
            |b| b.truncate(b.len() / 2),
            "damaged",
        ),
        (
            "weights.safetensors",
            |b| {
                let at = b.len() - 5;
                b[at] ^= 1;
            },
            "its sha256 is not the one in model.json",
        ),
        ("model.json", |b| b.truncate(b.len() / 2), "is no JSON"),
        ("model.json", |b| *b = b"{}".to_vec(), "version null"),
        (
            "model.json",
            |b| replace(b, "\"version\": 1", "\"version\": 9"),
            "has version 9, and this program reads 1",
        ),
        (
            "model.json",
            |b| replace(b, "\"n_layers\": 2", "\"n_layers\": 3"),
            "layers.2.norm.gamma is missing",
        ),
        (
            "model.json",
            |b| replace(b, "\"d_model\": 16", "\"d_model\": 99999"),
            "d_model is 99999",
        ),
        (
            "model.json",
            |b| replace(b, "\"seq_len\"", "\"length\""),
            "is damaged",
        ),
    ];
    for (file, change, part) in edit {
        let (dir, step) = trained.copy("mamba");
        let mut bytes = fs::read(step.join(file)).unwrap();
        change(&mut bytes);
        fs::write(step.join(file), bytes).unwrap();
        for line in [
            "eval --text text.txt",
            "generate --prompt It",
            "run --benchmark quantization --text text.txt",
        ] {
            let line = format!("{line} --checkpoint cell --device cpu");
            let message = refused_in(dir.path(), &line);
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let (dir, step) = trained.copy("mamba");
    let line = "eval --text text.txt --checkpoint cell --device cpu --tokenizer gpt2";
    let message = refused_in(dir.path(), line);
    assert!(
        message.contains("is not the one that cell/step-40 was trained with"),
        "{message}"
    );
    // As an older version left it.
    fs::remove_file(step.join("model.json")).unwrap();
    let message = refused_in(dir.path(), line);
    assert!(message.contains("an older bkbench wrote them"), "{message}");
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    *bytes = text.replace(from, to).into_bytes();
}

#[test]
fn text_is_seeded_starts_with_its_prompt_and_is_what_the_model_scores_highest() {
    let trained = Trained::once();
    for model in ["resnetbk", "mamba"] {
        let checkpoint = trained.checkpoint(model);
        let line = format!(
            "generate --checkpoint {} --prompt Elizabeth --n_tokens 40 --device cpu --quiet",
            checkpoint.display()
        );
        let text = |flags: &str| trained.succeeds(&format!("{line} {flags}"));
        let drawn = text("--seed 1");
        assert!(drawn.starts_with("Elizabeth"), "{drawn}");
        assert_eq!(text("--seed 1"), drawn, "{model}");
        assert_ne!(text("--seed 2"), drawn, "{model}");
        let document: Value = serde_json::from_str(&text("--seed 1 --json")).unwrap();
        let told = format!("Elizabeth{}\n", document["text"].as_str().unwrap());
        assert_eq!(told, drawn, "as it comes and at once");
        assert_eq!(document["n_tokens"], 40);
        assert_eq!(document["end"], "n_tokens");

        let greedy = text("--temperature 0");
        assert_eq!(text("--top_k 1 --seed 3"), greedy, "{model}");
        // The whole text anew for every token, as a model without a state would need it.
        let loaded = load(&checkpoint, &support::cpu()).unwrap();
        let bytes = Tokenizer::bytes();
        let mut ids = bytes.encode("Elizabeth").unwrap();
        let mut stream = TextStream::after(&bytes, &ids);
        let mut expected = "Elizabeth".to_owned();
        for _ in 0..40 {
            let shape = BatchShape {
                batch: 1,
                seq_len: ids.len(),
            };
            let states = loaded.model.initial_states(1);
            let hidden = loaded.model.infer(&ids, shape, states).unwrap();
            let scores = support::values(loaded.model.logits(hidden.x).unwrap());
            let last = &scores[scores.len() - 256..];
            let best = (0..256).reduce(|a, b| if last[b] > last[a] { b } else { a });
            ids.push(best.unwrap() as u32);
            expected += &stream.push(best.unwrap() as u32).unwrap();
        }
        expected += &stream.finish().unwrap();
        assert_eq!(greedy, expected + "\n", "{model}");
    }
}

#[test]
fn a_model_that_sees_what_it_predicts_writes_no_text() {
    let trained = Trained::once();
    let line = format!(
        "generate --checkpoint {} --prompt It --device cpu",
        trained.checkpoint("resnetbk-published").display()
    );
    let dir = tempfile::tempdir().unwrap();
    let message = refused_in(dir.path(), &line);
    assert!(message.contains("carries no state"), "{message}");
}
