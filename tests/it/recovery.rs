//! Runs that are killed, interrupted or out of room, and what `bkbench resume` makes of them: to the bit what a run
//! gives that nobody disturbed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bkbench::math::random::{Coordinate, Purpose, words};
use bkbench::results::{Cell, Replay, RunRecord};

use crate::support::sealed;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

/// 2 models, 2 lengths, 2 seeds, 8 steps each: 64 steps, a checkpoint after every one.
const SETTINGS: &str = "
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
eval_tokens = 2048
[train]
batch_size = 2
checkpoint_every_seconds = 0.0
budget = { steps = 8 }
[longcontext]
seq_lengths = [32, 64]
[seeds]
count = 2
[device]
name = \"cpu\"
";

/// A folder to run in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("settings.toml"), SETTINGS).unwrap();
        fs::copy(TEXT, dir.path().join("text.txt")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("bkbench"));
        command
            .current_dir(self.0.path())
            .env("BKBENCH_CACHE", self.path("cache"))
            .args(line.split_whitespace());
        command
    }

    /// The command line of the run all tests are about.
    fn run_line(flags: &str) -> String {
        format!("run --config settings.toml --text text.txt {flags}")
    }

    fn output(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn succeeds(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, line: &str, code: i32) -> String {
        let output = self.output(line);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}: {}",
            stderr(&output)
        );
        stderr(&output)
    }

    fn start(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The folder of the one run, once its record is there.
    fn run(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.path("results")).ok()?;
        entries
            .map(|entry| entry.unwrap().path())
            .find(|path| path.join("result.json").exists())
    }

    fn record(&self) -> RunRecord {
        RunRecord::load(&self.run().expect("a run")).unwrap()
    }

    fn finished(&self) -> BTreeSet<String> {
        match self.run() {
            Some(_) => self
                .record()
                .cells
                .into_iter()
                .map(|cell| cell.id)
                .collect(),
            None => BTreeSet::new(),
        }
    }

    fn resume_line(&self) -> String {
        format!("resume {}", self.run().expect("a run").display())
    }

    /// Waits until the run has logged `n_lines` steps.
    fn wait_for_steps(&self, n_lines: usize) {
        loop {
            let log = self.run().map(|run| run.join("metrics.jsonl"));
            let text = log.and_then(|log| fs::read_to_string(log).ok());
            if text.is_some_and(|text| text.lines().count() >= n_lines) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Compares the run with one that nobody disturbed.
    fn assert_undisturbed(&self, because: &str) {
        let (cells, log) = numbers(self);
        let expected = &undisturbed().numbers;
        assert_eq!(cells.len(), expected.0.len(), "{because}");
        for (cell, expected) in cells.iter().zip(&expected.0) {
            assert_eq!(cell, expected, "{because}");
        }
        assert_eq!(log, expected.1, "{because}: metrics.jsonl");
        let run = self.run().unwrap();
        assert!(
            !run.join("checkpoints").exists(),
            "{because}: checkpoints are swept up"
        );
        assert!(run.join("stability.svg").exists(), "{because}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The cells and the log of a run without what depends on the clock or the machine's memory.
fn numbers(place: &Place) -> (Vec<Cell>, String) {
    let mut record = place.record();
    for metrics in record
        .cells
        .iter_mut()
        .filter_map(|cell| cell.metrics.as_mut())
    {
        metrics.train_seconds = bkbench::results::Finite::default();
        metrics.tokens_per_second = None;
        metrics.memory.peak_memory_bytes = bkbench::units::Bytes(0);
        metrics.memory.at_start_bytes = bkbench::units::Bytes(0);
    }
    let log = fs::read_to_string(place.run().unwrap().join("metrics.jsonl")).unwrap();
    (record.cells, log)
}

struct Undisturbed {
    numbers: (Vec<Cell>, String),
    took: Duration,
}

fn undisturbed() -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let place = Place::new();
        // The tokens are cached, as they are for a run that is resumed.
        place.succeeds("data inspect text.txt --tokenizer bytes");
        let began = Instant::now();
        place.succeeds(&Place::run_line("--quiet"));
        let numbers = numbers(&place);
        assert_eq!(numbers.1.lines().count(), 64);
        Undisturbed {
            numbers,
            took: began.elapsed(),
        }
    })
}

/// Kills runs, and what resumes them, at moments that are uniform over the time a whole run takes.
fn kill_and_resume(n_kills: usize, seed: u64) {
    let whole = undisturbed().took;
    println!("seed {seed}; an undisturbed run takes {whole:?}");
    let mut n_draws = 0;
    let mut moment = || {
        n_draws += 1;
        let [draw, ..] = words(seed, Coordinate::new(Purpose::Test).at(n_draws));
        whole.mul_f64(f64::from(draw) / 2_f64.powi(32))
    };
    let mut killed = 0;
    while killed < n_kills {
        let place = Place::new();
        let mut line = Place::run_line("--quiet");
        let mut finished = BTreeSet::new();
        let mut complete = false;
        while !complete && killed < n_kills {
            let mut child = place.start(&line);
            let at = moment();
            std::thread::sleep(at);
            let before = place.finished();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            complete = output.status.success();
            assert!(
                complete || output.status.code().is_none(),
                "ended by itself: {}",
                stderr(&output)
            );
            killed += usize::from(!complete);
            let after = place.finished();
            println!(
                "{line}: killed after {at:?}, {} of 8 cells finished",
                after.len()
            );
            assert!(after.is_superset(&finished) && after.is_superset(&before));
            finished = after;
            if place.run().is_none() {
                // Killed before there was a record: nothing was trained, and there is nothing to resume.
                break;
            }
            line = format!("{} --quiet", place.resume_line());
        }
        if place.run().is_some() {
            place.succeeds(&line);
            place.assert_undisturbed(&format!("seed {seed}, {killed} kills"));
        }
    }
    println!("{killed} kills survived");
}

#[test]
fn three_kills_lose_nothing() {
    kill_and_resume(3, 1);
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn twenty_kills_lose_nothing() {
    kill_and_resume(20, 2);
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill.arg(name).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_to_go_on_and_goes_on_there() {
    for (name, n_lines) in [("-INT", 3), ("-TERM", 20)] {
        let place = Place::new();
        let child = place.start(&Place::run_line(
            "--output guide.json --save_checkpoints false",
        ));
        place.wait_for_steps(n_lines);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let said = stderr(&output);
        let run = place.run().unwrap();
        let advice = format!(
            "bkbench resume results/{}",
            run.file_name().unwrap().display()
        );
        assert!(said.contains(&format!("go on with: {advice}")), "{said}");

        let before = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        place.succeeds(&advice["bkbench ".len()..]);
        place.assert_undisturbed(name);
        let after = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert!(
            after.starts_with(&before),
            "{name}: every step taken was kept"
        );
        assert!(
            place.path("guide.json").exists(),
            "{name}: --output is remembered"
        );
        assert_eq!(place.record().provenance.resumptions.len(), 1);
    }
}

#[test]
fn one_process_at_a_time_works_on_a_run() {
    let place = Place::new();
    let mut child = place.start(&Place::run_line("--steps 100000 --quiet"));
    place.wait_for_steps(1);
    let said = place.fails(&place.resume_line(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains("another process works on this run"), "{said}");
}

#[test]
fn a_complete_run_is_left_as_it_is() {
    let place = Place::new();
    place.succeeds(&Place::run_line("--quiet"));
    let run = place.run().unwrap();
    let record = fs::read(run.join("result.json")).unwrap();
    fs::remove_file(run.join("stability.svg")).unwrap();
    let resume = place.resume_line();
    let output = place.output(&format!("{resume} --output late.json"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("8 of 8 cells are finished; the run is complete"));
    assert_eq!(fs::read(run.join("result.json")).unwrap(), record);
    assert!(run.join("stability.svg").exists(), "drawn again");
    assert!(place.path("late.json").exists());
    let said = place.fails(&format!("{resume} --output late.json"), 2);
    assert!(said.contains("never overwritten"), "{said}");
}

/// A run that stopped after two cells, with a line of the third cut off.
fn stopped() -> Place {
    let place = Place::new();
    let mut child = place.start(&Place::run_line("--quiet"));
    place.wait_for_steps(18);
    child.kill().unwrap();
    child.wait().unwrap();
    let log = place.run().unwrap().join("metrics.jsonl");
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("{\"cell\": \"torn");
    fs::write(log, text).unwrap();
    place
}

#[test]
fn what_differs_from_the_record_is_named_and_refused() {
    let place = stopped();
    let (run, resume) = (place.run().unwrap(), place.resume_line());
    let file = run.join("result.json");
    let original = fs::read_to_string(&file).unwrap();
    for (path, value) in [
        ("/protocol_version", serde_json::json!(999)),
        ("/provenance/bkbench_version", "0.0.0".into()),
        ("/config/train/learning_rate", 0.5.into()),
        ("/hardware/adapter", "another device".into()),
        ("/data/tokenizer_sha256", "another tokenizer".into()),
    ] {
        let mut record: serde_json::Value = serde_json::from_str(&original).unwrap();
        *record.pointer_mut(path).unwrap() = value;
        fs::write(&file, record.to_string()).unwrap();
        let said = place.fails(&resume, 2);
        assert!(
            said.contains("edited after it was written"),
            "{path}: {said}"
        );
        fs::write(&file, sealed(record)).unwrap();
        let said = place.fails(&resume, 2);
        let name = match path {
            "/config/train/learning_rate" => "config_sha256",
            _ => path.rsplit('/').next().unwrap(),
        };
        assert!(said.contains(&format!("{name} was ")), "{path}: {said}");
        assert!(said.contains("begin a new run"), "{path}: {said}");
    }
    fs::write(&file, &original).unwrap();

    let text = fs::read_to_string(place.path("text.txt")).unwrap();
    fs::write(place.path("text.txt"), text.replacen('e', "E", 1)).unwrap();
    let said = place.fails(&resume, 2);
    assert!(said.contains("data.text_sha256 was "), "{said}");
    fs::write(place.path("text.txt"), text).unwrap();

    place.succeeds(&resume);
    place.assert_undisturbed("after all the refusals");
    let said = place.fails("resume settings.toml", 2);
    assert!(said.contains("folder of a run"), "{said}");
}

#[test]
fn checkpoints_are_kept_where_the_run_was_told_to() {
    let place = Place::new();
    let line = Place::run_line("--quiet --save_checkpoints true --checkpoint_dir kept");
    let mut child = place.start(&line);
    place.wait_for_steps(18);
    child.kill().unwrap();
    child.wait().unwrap();
    place.succeeds(&place.resume_line());
    let run = place.run().unwrap();
    assert!(!run.join("checkpoints").exists());
    let kept = place.path("kept").join(run.file_name().unwrap());
    let cells: Vec<PathBuf> = fs::read_dir(kept)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(cells.len(), 8);
    for cell in cells {
        let names: Vec<_> = fs::read_dir(&cell)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["step-8"], "{}", cell.display());
    }
}

/// Runs a command with a limit on the size of any file it writes, which ends writes as a full disk does. The shell
/// gives blocks of 512 bytes.
#[cfg(unix)]
fn with_limit(place: &Place, blocks: u64, line: &str) -> Output {
    let binary = assert_cmd::cargo::cargo_bin("bkbench");
    let script = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec '{}' {line}",
        binary.display()
    );
    Command::new("sh")
        .args(["-c", &script])
        .current_dir(place.0.path())
        .env("BKBENCH_CACHE", place.path("cache"))
        .output()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    // Runs whose largest file is a checkpoint, the log, and the record.
    let many_steps = "--checkpoint_every 1000 --steps 100";
    let many_cells = "--checkpoint_every 1000 --steps 1 --num_seeds 40 --seq_lengths 32";
    let [plain, log, record] = ["", many_steps, many_cells].map(|flags| {
        let place = Place::new();
        place.succeeds(&Place::run_line(&format!(
            "--quiet --save_checkpoints true {flags}"
        )));
        place
    });
    let size = |place: &Place, file: &str| {
        let largest = contents(&place.run().unwrap())
            .into_iter()
            .filter(|(path, _)| path.ends_with(file))
            .map(|(_, bytes)| bytes.len() as u64)
            .max();
        largest.unwrap_or_else(|| panic!("no {file}"))
    };
    let (weights, moments) = (
        size(&plain, "weights.safetensors"),
        size(&plain, "moments.bpk"),
    );
    for (whole, flags, file, limit) in [
        // The record of a run that begins is the smaller file.
        (&plain, "", "weights.safetensors", weights / 8 * 7),
        (&plain, "", "moments.bpk", weights.midpoint(moments)),
        (&log, many_steps, "metrics.jsonl", moments + 1024),
        (&record, many_cells, "result.json", moments + 1024),
    ] {
        assert!(size(whole, file) > limit, "{file} would fit");
        let place = Place::new();
        place.succeeds("data inspect text.txt --tokenizer bytes");
        let line = Place::run_line(&format!("--quiet {flags}"));
        let output = with_limit(&place, limit / 512, &line);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{limit} bytes: {said}");
        let run = place.run().unwrap();
        let advice = format!(
            "free some space, then go on with: bkbench resume results/{}",
            run.file_name().unwrap().display()
        );
        let named = said.starts_with("error: cannot write results/") && said.contains(file);
        assert!(named && said.contains(&advice), "{file}: {said}");
        let finished = place.finished();
        place.succeeds(&place.resume_line());
        assert!(place.finished().is_superset(&finished));
        assert!(
            numbers(&place) == numbers(whole),
            "{file}: the numbers differ"
        );
    }
}

/// Names and bytes of everything in a folder.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Whether a replay says that something is not as recorded.
fn differs(printed: &str, what: &str) -> bool {
    printed.lines().any(|line| {
        let rest = line.strip_prefix("DIFFERS");
        rest.is_some_and(|rest| rest.trim_start().starts_with(what))
    })
}

#[test]
fn a_replay_agrees_to_the_bit_and_catches_what_was_changed() {
    let place = Place::new();
    place.succeeds(&Place::run_line("--quiet --save_checkpoints true"));
    let run = place.run().unwrap();
    let replay = format!("replay {} --quiet", run.display());
    let before = contents(&run);
    let printed = place.succeeds(&replay);
    let kept = Replay::beside(&run).unwrap().unwrap();
    assert_eq!(kept.counts(), [52, 0, 0]);
    assert_eq!(kept.record_sha256, place.record().content_sha256().unwrap());
    fs::remove_file(run.join("replay.json")).unwrap();
    assert!(contents(&run) == before, "a replay writes nothing else");
    // 4 of the run; id, training, derived values, first steps, last weights, evaluation of each cell.
    assert!(
        printed.ends_with("52 same, 0 differ, 0 not compared\n"),
        "{printed}"
    );

    let cell = place.record().cells[3].id.clone();
    let printed = place.succeeds(&format!("{replay} --cell {cell}"));
    assert!(
        printed.ends_with("10 same, 0 differ, 0 not compared\n"),
        "{printed}"
    );
    assert!(
        place
            .fails(&format!("{replay} --cell none"), 2)
            .contains("unknown cell")
    );

    let file = run.join("result.json");
    let original = fs::read_to_string(&file).unwrap();
    for (path, what) in [
        ("/config_sha256", "config_sha256"),
        ("/summaries/0/final_loss_nats/mean", "summaries"),
        ("/data/text_sha256", "data"),
        ("/cells/3/id", "id"),
        ("/cells/3/training", "training"),
        ("/cells/3/metrics/gradient_norm_max", "derived values"),
        ("/cells/3/metrics/curves/loss_nats/4", "first steps"),
        ("/cells/3/metrics/curves/gradient_norm/0", "first steps"),
        ("/cells/3/metrics/weights_sha256", "last weights"),
        ("/cells/3/metrics/evaluation/nll_sum_nats", "evaluation"),
    ] {
        let mut record: serde_json::Value = serde_json::from_str(&original).unwrap();
        let value = record.pointer_mut(path).unwrap();
        *value = match value.as_f64() {
            // The next number that there is.
            Some(x) => f64::from_bits(x.to_bits() + 1).into(),
            None => "0000000000000000".into(),
        };
        fs::write(&file, sealed(record)).unwrap();
        let output = place.output(&replay);
        assert_eq!(output.status.code(), Some(1), "{path}: {}", stderr(&output));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(differs(&printed, what), "{path}: {printed}");
        assert!(!differs(&printed, "content_sha256"), "{path}: {printed}");
        let [_, n_differ, _] = Replay::beside(&run).unwrap().unwrap().counts();
        assert!(n_differ > 0, "{path}");
    }
    let edited = original.replacen("\"n_tokens\": ", "\"n_tokens\": 1", 1);
    fs::write(&file, edited).unwrap();
    let output = place.output(&replay);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(differs(&printed, "content_sha256"), "{printed}");
    fs::write(&file, &original).unwrap();

    // A training that ends before the steps that were recorded shows nothing of them.
    let mut record: RunRecord = RunRecord::load(&run).unwrap();
    record.config.train.max_cell_seconds = Some(1e-9);
    record.config_sha256 = record.config.sha256().unwrap();
    fs::write(&file, sealed(serde_json::to_value(&record).unwrap())).unwrap();
    let printed = String::from_utf8(place.output(&replay).stdout).unwrap();
    let told = "the training ended as timed_out after 1 of 5 steps";
    assert_eq!(printed.matches(told).count(), 8, "{printed}");
    fs::write(&file, &original).unwrap();

    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let printed = place.succeeds(&replay);
    assert!(
        printed.ends_with("36 same, 0 differ, 8 not compared\n"),
        "{printed}"
    );
}
