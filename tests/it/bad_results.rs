//! Results that are not what they should be, before every command that reads them: each gets its own message, or a report
//! that says so; nothing panics, and no number is made up.

use std::path::Path;

use assert_cmd::Command;
use bkbench::config::Config;
use bkbench::report::document::{Document, visible};
use bkbench::report::{compare, statistics, table};
use bkbench::results::{
    Claim, ResultsFile, RunRecord, RunWriter, Warning, across_adapters, checklist, comparisons,
    incomparable, judge, merge, problems,
};
use serde_json::{Value, json};

use crate::made_up::{changed, diverged, of_config};
use crate::support::sealed;

/// Two models, three seeds, one short length: small enough to be changed in every value.
fn sound(n_seeds: u64) -> RunRecord {
    let file = "[model]\nd_model = 16\nn_layers = 1\n[data]\ntokenizer = \"bytes\"\n[longcontext]\nseq_lengths = [32]\n\
                [device]\nname = \"cpu\"";
    let mut config = Config::resolve(None, None, file.parse().unwrap()).unwrap();
    config.seeds.count = n_seeds;
    let mut record = of_config(config, 12, false);
    if n_seeds < 5 {
        record.warnings.push(Warning::FewSeeds { count: n_seeds });
    }
    record
}

/// What a command makes of a record.
struct Expected {
    code: i32,
    /// A part of what it prints, on either stream; of `report`, of the page.
    part: &'static str,
}

const fn fails(code: i32, part: &'static str) -> Expected {
    Expected { code, part }
}

const fn says(part: &'static str) -> Expected {
    Expected { code: 0, part }
}

/// The commands, with `BAD` for the record in question and `GOOD` for a sound one.
const COMMANDS: [&str; 7] = [
    "report BAD --output page.html",
    "stats BAD",
    "plot stability --results_file BAD --output plot.svg",
    "compare GOOD BAD",
    "merge GOOD BAD",
    "replay BAD",
    "resume BAD --quiet",
];

// What is said.
const EDITED: &str = "edited after it was written";
const UNSEALED: &str = "has no content_sha256";
const PROTOCOL: &str = "recorded by protocol 1, and this program's is 3";
const UNFINISHED: &str = "the run is not finished: 3 of 6 cells have run";
const DATA: &str = "cannot be resumed here";

/// One row a kind of damage, one column a command.
fn cases() -> Vec<(&'static str, String, [Expected; 7])> {
    let whole = sealed(json!(sound(3)));
    let changed_json = |change: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_str(&whole).unwrap();
        change(&mut json);
        json
    };
    let everywhere = |part: &'static str| [(); 7].map(|()| fails(2, part));
    let cut = whole[..whole.len() / 2].to_owned();
    let newer = changed_json(&|it| it["schema_version"] = json!(99));
    let edited = changed_json(&|it| {
        it["cells"][0]["metrics"]["evaluation"]["nll_nats"] = json!(0.5);
    });
    let unsealed = changed_json(&|it| {
        it.as_object_mut().unwrap().remove("content_sha256");
    });
    let other_protocol = changed_json(&|it| it["protocol_version"] = json!(1));
    let one_model = changed(&sound(3), |cell| cell.model == "resnetbk");
    let all_diverged = changed(&sound(3), |cell| {
        cell.outcome = diverged(7);
        cell.metrics.as_mut().unwrap().evaluation = None;
        true
    });
    let no_cell = changed(&sound(3), |_| false);
    vec![
        ("cut off", cut, everywhere("cut off: EOF")),
        ("empty", String::new(), everywhere("cut off: EOF")),
        (
            "of a newer schema",
            newer.to_string(),
            everywhere("it was written by a newer bkbench"),
        ),
        (
            "of another kind",
            "{\"seq_len_32\": {\"mamba\": {}}}".into(),
            [
                fails(2, "not the record of a run"),
                fails(2, "not the record of a run"),
                fails(2, "missing field"),
                fails(2, "not the record of a run"),
                fails(2, "not the record of a run"),
                fails(2, "not the record of a run"),
                fails(2, "not the record of a run"),
            ],
        ),
        (
            "edited",
            edited.to_string(),
            [
                says(EDITED),
                says(EDITED),
                says(EDITED),
                says(EDITED),
                fails(2, EDITED),
                fails(1, "DIFFERS       content_sha256"),
                fails(2, EDITED),
            ],
        ),
        (
            "without its hash",
            unsealed.to_string(),
            [
                says(UNSEALED),
                says(UNSEALED),
                says(UNSEALED),
                says(UNSEALED),
                fails(2, UNSEALED),
                fails(1, "DIFFERS       content_sha256"),
                fails(2, UNSEALED),
            ],
        ),
        (
            "of another protocol",
            sealed(other_protocol),
            [
                says(PROTOCOL),
                says(PROTOCOL),
                says(PROTOCOL),
                fails(3, "protocol_version: 3 against 1"),
                fails(3, "protocol_version: 3 against 1"),
                fails(2, PROTOCOL),
                says(PROTOCOL),
            ],
        ),
        (
            "of one model only",
            sealed(json!(one_model)),
            [
                says("3 of 3 seeds have no value"),
                says("3 of 3 seeds have no value"),
                says(UNFINISHED),
                says(UNFINISHED),
                says("3 of 3"),
                fails(1, "data"),
                fails(2, DATA),
            ],
        ),
        (
            "of one seed only",
            sealed(json!(sound(1))),
            [
                says("1 seed(s), and a claim needs 5"),
                says("1 seed(s), and a claim needs 5"),
                says("drawn"),
                says("1 seed(s) say little about the spread"),
                says("3 of 3"),
                fails(1, "data"),
                says("1 of 1"),
            ],
        ),
        (
            "with all seeds diverged",
            sealed(json!(all_diverged)),
            [
                says("0 of 3, 3 diverged"),
                says("3 of 3 seeds have no value"),
                says("drawn"),
                says("has other numbers in bad"),
                fails(3, "outcome.kind: \"completed\" against \"diverged\""),
                fails(1, "data"),
                says("0 of 3, 3 diverged"),
            ],
        ),
        (
            "without any cell",
            sealed(json!(no_cell)),
            [
                says("no cell has run yet"),
                says("0 of 6 cells have run"),
                fails(2, "no cell of these lengths"),
                says("0 of 6 cells have run"),
                says("3 of 3"),
                fails(1, "data"),
                fails(2, DATA),
            ],
        ),
    ]
}

#[test]
fn every_command_says_what_is_wrong_with_a_record() {
    for (case, text, expected) in cases() {
        for (command, Expected { code, part }) in COMMANDS.iter().zip(expected) {
            let dir = tempfile::tempdir().unwrap();
            let good = saved(dir.path(), &sound(3));
            let bad = dir.path().join("bad");
            std::fs::create_dir(&bad).unwrap();
            std::fs::write(bad.join("result.json"), &text).unwrap();
            let line = command.replace("GOOD", &good).replace("BAD", "bad");
            let output = Command::cargo_bin("bkbench")
                .unwrap()
                .current_dir(dir.path())
                .env("BKBENCH_CACHE", dir.path().join("cache"))
                .args(line.split_whitespace())
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let mut said = String::from_utf8(output.stdout).unwrap() + &stderr;
            assert_eq!(output.status.code(), Some(code), "{case}: {line}: {said}");
            if code == 2 || code == 3 {
                let errors = stderr.lines().filter(|it| it.starts_with("error: "));
                assert_eq!(errors.count(), 1, "{case}: {line}: {stderr}");
            }
            if let Ok(page) = std::fs::read_to_string(dir.path().join("page.html")) {
                said = page;
            }
            let said = said.replace("&#39;", "'").replace("&quot;", "\"");
            assert!(
                said.contains(part),
                "{case}: {line}: {part} is not in {said}"
            );
            for number in ["NaN", " inf", "panicked"] {
                assert!(!said.contains(number), "{case}: {line}: {said}");
            }
            println!(
                "{case:<24}  {:<8}  exit {code}  {part}",
                line.split(' ').next().unwrap()
            );
        }
    }
}

fn saved(dir: &Path, record: &RunRecord) -> String {
    let writer = RunWriter::create(&dir.join("runs"), &record.config).unwrap();
    writer.save(record).unwrap();
    writer.dir().display().to_string()
}

/// Everything that the reading commands derive from a record.
fn read_by_all(record: &RunRecord, good: &RunRecord, claims: &[Claim]) -> String {
    let found = comparisons(record);
    let runs = [
        ("good".to_owned(), good.clone()),
        ("bad".to_owned(), record.clone()),
    ];
    let mut text = problems(record).join("\n");
    text += &statistics::claims(&judge(claims, &runs[1..]));
    text += &statistics::comparisons(record, &found);
    text += &statistics::checklist(&checklist(record, &found));
    text += &table::table(record);
    incomparable(good, record).unwrap();
    text += &compare::text(&across_adapters(&runs, true).unwrap());
    let _ = merge(&runs);
    visible(&text)
}

/// Pointers to every value of a document that holds no others.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
        // The first of many is like the others.
        Value::Array(items) => {
            let first = items.iter().take(1);
            first.map(|it| ("0".to_owned(), it)).collect()
        }
        _ => return found.push(at.to_owned()),
    };
    for (key, child) in children {
        leaves(child, &format!("{at}/{key}"), found);
    }
}

#[test]
fn no_value_of_a_record_makes_a_reader_panic_or_invent_a_number() {
    let good = sound(2);
    let claims = Claim::of_the_guide().unwrap();
    let whole = json!(good);
    let mut places = Vec::new();
    leaves(&whole, "", &mut places);
    assert!(places.len() > 100, "{}", places.len());
    let hostile = [
        json!(0),
        json!(u64::MAX),
        json!(-1e308),
        json!([]),
        json!("\u{1b}[2J<script>alert(1)</script>"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result.json");
    let mut n_read = 0;
    for place in places {
        for value in &hostile {
            let mut json = whole.clone();
            *json.pointer_mut(&place).unwrap() = value.clone();
            std::fs::write(&file, sealed(json)).unwrap();
            let Ok(record) = RunRecord::load(&file) else {
                continue;
            };
            n_read += 1;
            let text = read_by_all(&record, &good, &claims);
            for bad in ["NaN", " inf", "\u{1b}"] {
                assert!(!text.contains(bad), "{place} = {value}: {text}");
            }
        }
    }
    assert!(n_read > 100, "{n_read} records were read at all");
}

#[test]
fn hostile_names_are_no_markup_and_steer_no_terminal() {
    let hostile = "<img src=x onerror=alert(1)>\u{1b}[2J\u{202e}";
    let mut record = sound(2);
    record.config.models.a = hostile.into();
    record.hardware = json!({"adapter": hostile, "api": hostile});
    record.warnings.push(Warning::DeviceNote {
        note: hostile.into(),
    });
    let record = changed(&record, |cell| {
        if cell.model == "resnetbk" {
            cell.model = hostile.into();
        }
        true
    });
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (saved(dir.path(), &record), saved(dir.path(), &record));
    for command in COMMANDS {
        if command.starts_with("replay") {
            continue;
        }
        let line = command.replace("GOOD", &good).replace("BAD", &bad);
        let mut command = Command::cargo_bin("bkbench").unwrap();
        command
            .current_dir(dir.path())
            .args(line.split_whitespace());
        let output = command.output().unwrap();
        assert_ne!(output.status.code(), Some(101), "{line} panicked");
        for stream in [output.stdout, output.stderr] {
            let said = String::from_utf8(stream).unwrap();
            assert!(!said.contains(['\u{1b}', '\u{202e}']), "{line}: {said}");
        }
    }
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(!page.contains("<img") && page.contains("&lt;img"));
    let plot = std::fs::read_to_string(dir.path().join("plot.svg")).unwrap();
    assert!(!plot.contains("<img"));
}

#[test]
fn an_edited_record_carries_that_into_its_picture_and_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result.json");
    let mut json: Value = serde_json::from_str(&sealed(json!(sound(2)))).unwrap();
    json["provenance"]["argv"] = json!(["nothing", "that", "is", "derived"]);
    std::fs::write(&file, json.to_string()).unwrap();
    let record = RunRecord::load(&file).unwrap();
    assert_eq!(problems(&record).len(), 1);
    let page = Document::of(
        &[("it".into(), record.clone())],
        &[],
        &Claim::of_the_guide().unwrap(),
    );
    assert!(page.html().contains("edited after it was written"));
    let options = bkbench::report::plot::stability::Options {
        seq_lengths: Vec::new(),
        annotate_divergence: true,
        show_confidence_intervals: true,
    };
    let results = ResultsFile::Record(Box::new(record));
    let drawing = bkbench::report::plot::stability::draw(&results, &options).unwrap();
    assert!(drawing.svg.contains("edited after it was written"));
}
