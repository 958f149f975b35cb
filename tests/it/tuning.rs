//! Equal tuning: the text that learning rates are chosen on, the choice, and runs from the command line to their files.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bkbench::config::{Benchmark, Fairness};
use bkbench::results::{
    Cell, GRID, Outcome, RunRecord, RunWriter, TUNING_SEED, Tuning, Warning, problems, trial_steps,
};

use serde_json::json;

use crate::datasets::{load, named_config, text_config};
use crate::documents::{json_lines, put, texts, zst};
use crate::made_up::{self, evaluation, finite, longcontext};

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

// ---- what is said ----

#[test]
fn every_text_that_rates_were_chosen_by_is_named() {
    let mut record = longcontext(&[512], 2, 20);
    let text = |name: &str, rule: &str| json!({"name": name, "held_out_rule": rule});
    let said = |record: &mut RunRecord, texts: Vec<serde_json::Value>| {
        record.tuning = Tuning::new(texts);
        bkbench::report::tuning::table(record).unwrap()
    };
    let one = said(&mut record, vec![text("a", "the end of it")]);
    assert!(
        one.contains("the lowest loss of the end of it decided"),
        "{one}"
    );
    let texts = [("a", "the end of it"), ("b", "a split"), ("c", "a split")];
    let texts = texts.map(|(name, rule)| text(name, rule));
    let several = said(&mut record, texts.into());
    assert!(
        several.contains("the lowest loss of the end of it (a) or a split (b, c) decided"),
        "{several}"
    );
    assert_eq!(Tuning::new(Vec::new()), None);
}

// ---- the text ----

#[test]
fn the_official_validation_split_is_chosen_by_where_another_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(90);
    let folder = "pile-uncopyrighted";
    for (file, part) in [("train/00", 0), ("val", 1), ("test", 2)] {
        let lines = json_lines(&texts[30 * part..30 * (part + 1)]);
        put(
            dir.path(),
            &format!("{folder}/{file}.jsonl.zst"),
            zst(&lines),
        );
    }
    let (config, cache) = (named_config(folder, dir.path()), dir.path().join("cache"));
    let reported = load(&config, &cache).0.unwrap();
    let tuned = reported.for_tuning(&config, &cache, &mut |_| ()).unwrap();
    let bytes: Vec<u8> = tuned.eval.iter().map(|id| id as u8).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), texts[30..60].concat());
    assert_eq!(
        tuned.manifest.held_out_rule,
        "the official validation split"
    );
    assert_eq!(tuned.manifest.train, reported.manifest.train);
    assert_ne!(
        tuned.manifest.eval.ids_sha256,
        reported.manifest.eval.ids_sha256
    );

    // Without a test split the validation split is what is reported, and not to be chosen by.
    std::fs::remove_file(dir.path().join(folder).join("test.jsonl.zst")).unwrap();
    let reported = load(&config, &cache).0.unwrap();
    assert_eq!(
        reported.manifest.held_out_rule,
        "the official validation split"
    );
    let tuned = reported.for_tuning(&config, &cache, &mut |_| ()).unwrap();
    assert!(tuned.manifest.held_out_rule.contains("last twentieth"));
    assert_ne!(
        tuned.manifest.eval.ids_sha256,
        reported.manifest.eval.ids_sha256
    );
}

#[test]
fn elsewhere_the_end_of_the_training_text_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = text_config(Path::new(TEXT), "bytes");
    let reported = load(&config, dir.path()).0.unwrap();
    let tuned = reported
        .for_tuning(&config, dir.path(), &mut |_| ())
        .unwrap();
    let n = reported.train.len();
    assert_eq!(tuned.eval.len(), n / 20);
    assert_eq!(tuned.train.len(), n - n / 20);
    let joined: Vec<u32> = tuned.train.iter().chain(tuned.eval.iter()).collect();
    assert_eq!(joined, reported.train.get(0..n), "apart, and nothing lost");
    let manifest = &tuned.manifest;
    assert_eq!(manifest.train.ids_sha256, tuned.train.sha256());
    assert_eq!(
        manifest.train.n_bytes + manifest.eval.n_bytes,
        reported.manifest.train.n_bytes
    );
    config.eval_tokens = Some(100);
    let shorter = reported
        .for_tuning(&config, dir.path(), &mut |_| ())
        .unwrap();
    assert_eq!(shorter.eval.len(), 100);
}

// ---- the choice ----

const SETTING: &str = "seq_len_512";

fn tuned(nats: impl Fn(&str, f64) -> f64) -> Tuning {
    made_up::trials(&longcontext(&[512], 1, 200), nats)
}

fn best_at(rate: f64, best: f64) -> f64 {
    2.0 + (rate / best).ln().abs()
}

fn rates(tuning: &Tuning) -> Vec<f64> {
    tuning.rates(
        Benchmark::Longcontext,
        SETTING,
        &["resnetbk", "mamba", "no-mixer"],
    )
}

fn chosen(tuning: &Tuning, model: &str) -> (f64, bool) {
    let chosen = tuning
        .chosen(Benchmark::Longcontext, SETTING, model)
        .unwrap();
    (chosen.learning_rate.unwrap().get(), chosen.at_edge)
}

/// The trials of every model at one rate more.
fn tried_at(tuning: &mut Tuning, rate: f64, nats: impl Fn(&str) -> f64) {
    let at_first: Vec<Cell> = tuning
        .trials
        .iter()
        .filter(|trial| trial.learning_rate == finite(GRID[0]))
        .cloned()
        .collect();
    for mut trial in at_first {
        trial.learning_rate = finite(rate);
        trial.metrics.as_mut().unwrap().evaluation = evaluation(nats(&trial.model));
        tuning.push(trial);
    }
}

#[test]
fn each_model_takes_the_best_rate_of_its_own() {
    let tuning = tuned(|model, rate| best_at(rate, if model == "mamba" { 3e-3 } else { 1e-3 }));
    assert_eq!(rates(&tuning), GRID, "none is best at an edge");
    assert_eq!(chosen(&tuning, "mamba"), (3e-3, false));
    assert_eq!(chosen(&tuning, "resnetbk"), (1e-3, false));
    let flat = tuned(|_, _| 2.0);
    assert_eq!(
        chosen(&flat, "mamba").0,
        GRID[0],
        "of equal ones the lowest"
    );
}

#[test]
fn a_best_rate_at_the_edge_extends_the_grid_once_and_for_all_models() {
    // One wants a low rate, one a rate of the middle.
    let best = |model: &str| if model == "mamba" { 1e-5 } else { 1e-3 };
    let mut tuning = tuned(|model, rate| best_at(rate, best(model)));
    let extended = [1e-4, GRID[0], GRID[1], GRID[2], GRID[3]];
    assert_eq!(rates(&tuning), extended);
    assert!(!tuning.has_tried(Benchmark::Longcontext, SETTING, "resnetbk", 1e-4));
    tried_at(&mut tuning, 1e-4, |model| best_at(1e-4, best(model)));
    assert_eq!(rates(&tuning), extended, "once");
    assert_eq!(chosen(&tuning, "mamba"), (1e-4, true), "still at the edge");
    assert_eq!(chosen(&tuning, "resnetbk"), (1e-3, false));
    // At both ends.
    let ends = tuned(|model, rate| best_at(rate, if model == "mamba" { 1e-5 } else { 1.0 }));
    let both = [1e-4, GRID[0], GRID[1], GRID[2], GRID[3], 3e-2];
    assert_eq!(rates(&ends), both);
}

#[test]
fn a_trial_that_did_not_complete_is_never_chosen() {
    let mut tuning = tuned(|_, rate| best_at(rate, 3e-3));
    for trial in &mut tuning.trials {
        if trial.model == "mamba" && trial.learning_rate == finite(3e-3) {
            trial.outcome = made_up::diverged(3);
        }
        if trial.model == "no-mixer" {
            trial.outcome = made_up::out_of_memory();
        }
    }
    tuning.derive();
    assert_eq!(chosen(&tuning, "resnetbk").0, 3e-3);
    assert_eq!(chosen(&tuning, "mamba").0, 1e-3);
    let none = tuning
        .chosen(Benchmark::Longcontext, SETTING, "no-mixer")
        .unwrap();
    assert_eq!((none.learning_rate, none.at_edge), (None, false));
    assert_eq!(rates(&tuning), GRID);
}

#[test]
fn a_run_stopped_in_its_trials_is_not_complete_whatever_the_best_so_far() {
    let both = made_up::in_both_ways(&longcontext(&[512], 1, 200));
    assert_eq!(both.n_missing(), 0);
    let common = finite(both.config.train.learning_rate);
    let tried = |record: &RunRecord, keep: &dyn Fn(&Cell) -> bool| {
        let mut record = record.clone();
        record.tuning.as_mut().unwrap().trials.retain(|it| keep(it));
        record.derive();
        record
    };
    // Every cell of the first way has the rate that is the best so far.
    let half = tried(&both, &|trial| trial.learning_rate.get() <= common.get());
    let chosen = &half.tuning.as_ref().unwrap().chosen;
    assert!(chosen.iter().all(|it| it.learning_rate == Some(common)));
    assert_eq!(half.n_missing(), 3);
    assert!(problems(&half)[0].contains("not finished: 3 of 6 cells"));
    assert!(half.ways()[1].cells.is_empty(), "nothing is decided yet");
    let last = both.tuning.as_ref().unwrap().trials.last().unwrap();
    assert_eq!(tried(&both, &|trial| trial != last).n_missing(), 3);

    // All of the grid, and the best of one model at its end: the rate beyond is missing.
    let mut edge = both.clone();
    edge.config.train.learning_rate = GRID[3];
    for cell in &mut edge.cells {
        cell.learning_rate = finite(GRID[3]);
    }
    edge.tuning = Some(made_up::trials(&edge, |_, rate| best_at(rate, GRID[3])));
    assert_eq!(edge.n_missing(), 3);
    tried_at(edge.tuning.as_mut().unwrap(), 3e-2, |_| {
        best_at(3e-2, GRID[3])
    });
    assert_eq!(edge.n_missing(), 0);

    // The first trials of all models failed, which gives none of them up.
    let mut failed = tried(&both, &|trial| trial.learning_rate == finite(GRID[0]));
    for trial in &mut failed.tuning.as_mut().unwrap().trials {
        trial.outcome = made_up::out_of_memory();
    }
    failed.derive();
    assert_eq!(failed.n_missing(), 3);
}

#[test]
fn trials_take_a_quarter_of_the_steps() {
    assert_eq!([1, 4, 5, 200].map(trial_steps), [1, 1, 2, 50]);
}

// ---- from the command line ----

const TINY: &str = "
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

fn printed(dir: &Path, line: &str) -> String {
    let output = bkbench(dir, line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn line(flags: &str) -> String {
    format!(
        "run --config tiny.toml --text {TEXT} --steps 8 --num_seeds 2 --seq_lengths 32 --device cpu --quiet {flags}"
    )
}

fn folder(dir: &Path, stdout: &str) -> PathBuf {
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "));
    dir.join(folder.unwrap())
}

/// What does not depend on the clock.
fn timeless(cell: &Cell) -> Cell {
    let mut cell = cell.clone();
    if let Some(metrics) = &mut cell.metrics {
        metrics.train_seconds = finite(0.0);
        metrics.tokens_per_second = None;
        metrics.memory.peak_memory_bytes.0 = 0;
        metrics.memory.at_start_bytes.0 = 0;
    }
    cell
}

fn without_times(cells: &[Cell]) -> Vec<Cell> {
    cells.iter().map(timeless).collect()
}

#[test]
fn a_run_in_both_ways_tries_chooses_and_reports_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let loud = line("--fairness identical equal_tuning").replace(" --quiet", "");
    let output = bkbench(dir.path(), &loud);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // 8 steps of 2 x 32 tokens, 2 models and seeds, in 2 ways; trials of 2 steps, 4 rates and 2 models.
    let said = "4 cells in each of two ways, about 5,120 training tokens in all with the trials of learning rates";
    assert!(stderr.contains(said), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.contains("Learning rates, chosen for each model by the same trials"),
        "{stdout}"
    );
    let run = folder(dir.path(), &stdout);
    let record = RunRecord::load(&run).unwrap();
    assert_eq!(record.n_missing(), 0);
    let tuning = record.tuning.as_ref().unwrap();
    assert!(tuning.trials.len() >= 2 * GRID.len());
    let (validation, reported) = (
        &tuning.data["eval"]["ids_sha256"],
        &record.data["eval"]["ids_sha256"],
    );
    assert_ne!(
        validation, reported,
        "nothing is chosen by what is reported"
    );
    for trial in &tuning.trials {
        assert_eq!((trial.seed, trial.n_steps), (TUNING_SEED, 2));
        assert_eq!(trial.outcome, Outcome::Completed);
        let metrics = trial.metrics.as_ref().unwrap();
        assert_eq!(metrics.curves.loss_nats.len(), 2);
        let n_tokens = metrics.evaluation.as_ref().unwrap().n_tokens;
        assert_eq!(
            n_tokens,
            tuning.data["eval"]["n_tokens"].as_u64().unwrap() - 1
        );
        assert!(!record.config.seeds.iter().any(|seed| seed == trial.seed));
    }
    let mut ids: Vec<&str> = tuning
        .trials
        .iter()
        .map(|trial| trial.id.as_str())
        .collect();
    ids.extend(record.cells.iter().map(|cell| cell.id.as_str()));
    let n = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), n, "every one has a name of its own");

    for chosen in &tuning.chosen {
        let tried = tuning
            .trials
            .iter()
            .filter(|trial| trial.model == chosen.model);
        let losses = tried.map(|trial| trial.evaluation().unwrap().nll_nats.get());
        let least = losses.fold(f64::INFINITY, f64::min);
        assert_eq!(chosen.validation_nats, Some(finite(least)));
        let rate = chosen.learning_rate.unwrap();
        let reported = record
            .cells
            .iter()
            .filter(|cell| cell.model == chosen.model && cell.learning_rate == rate);
        assert_eq!(reported.count(), 2, "both seeds at its own rate");
        let edge = Warning::EdgeOfGrid {
            model: chosen.model.clone(),
            setting: chosen.setting.clone(),
            learning_rate: rate,
        };
        assert_eq!(record.warnings.contains(&edge), chosen.at_edge);
    }
    assert!(run.join("stability.svg").exists() && run.join("stability-tuned.svg").exists());
    let three_gram = |cell: &Cell| cell.metrics.as_ref().unwrap().three_gram_ce_nats;
    let first = three_gram(&record.cells[0]);
    assert!(first.is_some() && record.cells.iter().all(|cell| three_gram(cell) == first));

    let name = run.display();
    let report = printed(
        dir.path(),
        &format!("report {name} --format markdown --output report.md"),
    );
    assert!(report.contains("report.md"), "{report}");
    let report = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
    for part in [
        "How learning rates were chosen",
        "learning rates tuned equally for each model",
        "which is not the text that results are reported on",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    let csv = printed(dir.path(), &format!("report {name} --output both.csv"));
    assert!(csv.contains("both.csv"), "{csv}");
    let csv = std::fs::read_to_string(dir.path().join("both.csv")).unwrap();
    assert_eq!(
        csv.lines()
            .filter(|line| line.contains(",equal_tuning,seq_len_32,"))
            .count(),
        2
    );
    let replay = printed(dir.path(), &format!("replay {name}"));
    assert!(replay.contains(" 0 differ,"), "{replay}");

    // Stopped in its trials, it comes to the same.
    let mut stopped = record.clone();
    let common = finite(record.config.train.learning_rate);
    stopped.cells.retain(|cell| cell.learning_rate == common);
    stopped.tuning.as_mut().unwrap().trials.truncate(3);
    stopped
        .warnings
        .retain(|it| !matches!(it, Warning::EdgeOfGrid { .. }));
    stopped.derive();
    assert!(stopped.n_missing() > 0);
    RunWriter::open(&run).unwrap().save(&stopped).unwrap();
    printed(dir.path(), &format!("resume {name} --quiet"));
    let resumed = RunRecord::load(&run).unwrap();
    assert_eq!(without_times(&resumed.cells), without_times(&record.cells));
    let trials = |record: &RunRecord| without_times(&record.tuning.as_ref().unwrap().trials);
    assert_eq!(trials(&resumed), trials(&record));
    assert_eq!(resumed.tuning.unwrap().chosen, tuning.chosen);
    let edges = |record: &RunRecord| {
        let warnings = record.warnings.iter();
        warnings
            .filter(|it| matches!(it, Warning::EdgeOfGrid { .. }))
            .count()
    };
    assert_eq!(edges(&RunRecord::load(&run).unwrap()), edges(&record));
}

#[test]
fn what_a_run_will_try_is_printed_before_and_bad_ways_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = printed(dir.path(), &line("--dry_run --fairness equal_tuning"));
    assert!(
        plan.contains("equal tuning: 8 trials of a quarter of the steps"),
        "{plan}"
    );
    assert!(!printed(dir.path(), &line("--dry_run")).contains("equal tuning"));
    let refused = bkbench(dir.path(), &line("--fairness fair"));
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("unknown variant `fair`"), "{message}");
    // A window that fits the training text, and not what is left of it to tune on.
    let text = std::fs::read(TEXT).unwrap();
    let short = put(dir.path(), "short.txt", &text[..2000]);
    let config = text_config(&short, "bytes");
    let n_train = load(&config, dir.path()).0.unwrap().train.len();
    let short = format!(
        "run --config tiny.toml --text short.txt --steps 1 --num_seeds 1 --device cpu --quiet --seq_lengths {} \
         --fairness equal_tuning",
        n_train - n_train / 20
    );
    let refused = bkbench(dir.path(), &short);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(
        message.contains("without what learning rates are chosen by"),
        "{message}"
    );
    assert!(!dir.path().join("results").exists());
}

#[test]
fn a_report_says_which_way_is_missing() {
    let runs = [(
        "made up".to_owned(),
        longcontext(&made_up::GUIDE_LENGTHS, 2, 20),
    )];
    let claims = bkbench::results::Claim::of_the_guide().unwrap();
    let page = bkbench::report::document::Document::of(&runs, &[], &claims).markdown();
    assert!(
        page.contains("for every model, tuned for none. A claim also needs the other way"),
        "{page}"
    );
    assert!(
        page.contains("one_mode") || page.contains("one\\_mode"),
        "{page}"
    );
    assert_eq!(runs[0].1.config.fairness, [Fairness::Identical]);
}
