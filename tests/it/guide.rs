//! docs/guide-map.md: every command line of the benchmarking guide runs dry and resolves to what its flags say, and
//! every place that a row names is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use bkbench::results::{CHECKLIST, EfficiencyGuide, GuideResults, QuantizationGuide, RunRecord};
use serde_json::Value;

use crate::{efficiency, made_up, report};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SCRIPT: &str = "scripts/mamba_vs_bk_benchmark.py";

fn page() -> String {
    std::fs::read_to_string(format!("{ROOT}/docs/guide-map.md")).unwrap()
}

/// A row of a table of the page.
struct Row {
    section: String,
    /// What the guide calls it, without backticks.
    guide: String,
    /// Kind of place and what to look for there.
    places: Vec<(String, String)>,
}

/// All rows; a row without a place maps nothing.
fn rows(page: &str) -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|l| l.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<&str> = cells.split(" | ").map(str::trim).collect();
        if cells[0] == "guide" {
            continue;
        }
        assert_eq!(cells.len(), 3, "{line}");
        let places = cells[2].split('`').skip(1).step_by(2);
        let places: Vec<(String, String)> = places
            .map(|place| {
                let (kind, at) = place.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                (kind.to_owned(), at.to_owned())
            })
            .collect();
        assert!(!places.is_empty(), "no place: {line}");
        rows.push(Row {
            section: section.clone(),
            guide: cells[0].replace('`', ""),
            places,
        });
    }
    rows
}

/// The guide's command lines, without the interpreter.
fn command_lines(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter_map(|l| l.strip_prefix("python "));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    lines.map(words).collect()
}

/// Flags with their values.
fn flags(words: &[String]) -> Vec<(String, Vec<String>)> {
    let mut flags: Vec<(String, Vec<String>)> = Vec::new();
    for word in words {
        if word.starts_with("--") {
            flags.push((word.clone(), Vec::new()));
        } else {
            flags.last_mut().unwrap().1.push(word.clone());
        }
    }
    flags
}

fn bkbench(dir: &Path, words: &[String]) -> Output {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command.current_dir(dir).args(words).output().unwrap()
}

/// Whether the program took `given` for what stands at a place.
fn agrees(flag: &str, given: &[String], found: &Value) -> bool {
    let is = |given: &String, found: &Value| match found {
        Value::Number(found) => given.parse::<f64>().ok() == found.as_f64(),
        Value::Bool(found) => given.parse() == Ok(*found),
        Value::String(found) if flag == "--mixed_precision" => {
            (given.as_str(), found.as_str()) == ("true", "mixed")
        }
        // Paths are made absolute.
        Value::String(found) => Path::new(found).ends_with(given),
        _ => false,
    };
    match found {
        Value::Array(found) if flag == "--all" => found.len() == 4,
        Value::Array(found) => {
            found.len() == given.len() && given.iter().zip(found).all(|(g, f)| is(g, f))
        }
        _ => given.len() == 1 && is(&given[0], found),
    }
}

#[test]
fn every_command_line_of_the_guide_resolves_to_what_its_flags_say() {
    let page = page();
    let rows: Vec<Row> = rows(&page);
    let rows = || rows.iter().filter(|row| row.section == "Flags");
    let mut seen = BTreeSet::new();
    for mut words in command_lines(&page) {
        assert_eq!(words[0], SCRIPT);
        // An absent device: what is timed on one is no affair of this test.
        if !words.contains(&"--device".to_owned()) {
            words.extend(["--device", "wgpu:99"].map(str::to_owned));
        }
        let dir = tempfile::tempdir().unwrap();
        let run = ["run".to_owned()].into_iter().chain(words[1..].to_vec());
        let run: Vec<String> = run
            .chain(["--dry-run", "--json"].map(str::to_owned))
            .collect();
        let output = bkbench(dir.path(), &run);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        for (flag, given) in flags(&words[1..]) {
            let row = rows().find(|row| row.guide == flag);
            let row = row.unwrap_or_else(|| panic!("{flag} has no row"));
            let [(kind, path)] = &row.places[..] else {
                panic!("{flag} has one place");
            };
            let found = plan.pointer(&format!("/{kind}/{}", path.replace('.', "/")));
            let found = found.unwrap_or_else(|| panic!("{flag}: no {kind} {path} in {plan}"));
            assert!(
                agrees(&flag, &given, found),
                "{flag} {given:?} became {found}"
            );
            seen.insert(flag);
        }
    }
    for row in rows() {
        assert!(
            seen.contains(&row.guide),
            "no command line has {}",
            row.guide
        );
    }
}

/// Whether a key is there, in any element of the lists on its way.
fn has(value: &Value, path: &str) -> bool {
    if let Value::Array(elements) = value {
        return elements.iter().any(|element| has(element, path));
    }
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    match value.get(key) {
        Some(below) => rest.is_empty() || has(below, rest),
        None => false,
    }
}

#[test]
fn every_place_that_a_row_names_is_there() {
    let efficiency = efficiency::under([1e9, 2e9, 5e9], 1.5);
    let records: [RunRecord; 3] = [
        made_up::record(20, true),
        report::quantization(),
        efficiency,
    ];
    let outputs = [
        GuideResults::new(&records[0]).to_json(),
        QuantizationGuide::new(&records[1]).to_json(),
        EfficiencyGuide::new(&records[2]).to_json(),
    ];
    let records = records.map(|record| serde_json::to_value(record).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let help = |command: &str| {
        let words = format!("{command} --help");
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let help = String::from_utf8(bkbench(dir.path(), &words).stdout).unwrap();
        help.replace('-', "_")
    };
    let is_there = |kind: &str, at: &str| match kind {
        "config" => has(&records[0]["config"], at),
        "record" => records.iter().any(|record| has(record, at)),
        "output" => outputs.iter().any(|output| has(output, at)),
        "files" => {
            let files = serde_json::to_value(bkbench::results::Files::default()).unwrap();
            has(&files, at)
        }
        "run" => help("run").contains(&at.replace('-', "_")),
        "plot" => {
            let (graph, flag) = at.split_once(' ').unwrap();
            help(&format!("plot {graph}")).contains(&flag.replace('-', "_"))
        }
        "src" => {
            let (file, name) = at.split_once(' ').unwrap();
            let text = std::fs::read_to_string(format!("{ROOT}/src/{file}"));
            text.is_ok_and(|text| text.contains(name))
        }
        "page" => Path::new(ROOT).join("docs").join(at).exists(),
        _ => panic!("{kind} is no kind of place"),
    };
    for row in rows(&page()) {
        for (kind, at) in &row.places {
            // An epoch is one of two kinds of budget, and the records here have the other.
            let optional = at.starts_with("train.budget.");
            assert!(
                optional || is_there(kind, at),
                "{}: no {kind} {at}",
                row.guide
            );
        }
    }
}

#[test]
fn every_item_of_the_checklist_has_its_row() {
    let page = page();
    let rows = rows(&page);
    let items = rows.iter().filter(|row| row.section == "Checklist");
    let items: Vec<&str> = items.map(|row| row.guide.as_str()).collect();
    assert_eq!(items, CHECKLIST);
}

/// The scripts under the guide's names hand everything on.
#[test]
fn the_scripts_take_the_guides_arguments() {
    let program = assert_cmd::cargo::cargo_bin("bkbench");
    let python = |arguments: &[&str], dir: &Path| {
        let mut python = Command::new("python3");
        let python = python
            .args(arguments)
            .current_dir(dir)
            .env("BKBENCH", &program);
        python
            .env("PYTHONPATH", ROOT)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
    };
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{ROOT}/{SCRIPT}");
    let dry = "--all --preset smoke --dry-run --device wgpu:99";
    let dry: Vec<&str> = std::iter::once(script.as_str())
        .chain(dry.split_whitespace())
        .collect();
    let Ok(dry) = python(&dry, dir.path()) else {
        println!("NOT RUN: there is no python3");
        return;
    };
    assert!(
        dry.status.success(),
        "{}",
        String::from_utf8_lossy(&dry.stderr)
    );
    let refused = python(&[&script, "--seq_lengths", "0"], dir.path()).unwrap();
    assert_eq!(refused.status.code(), Some(2));

    let efficiency = efficiency::under([1e9, 2e9, 5e9], 1.5);
    std::fs::create_dir(dir.path().join("results")).unwrap();
    for (name, json) in [
        (
            "longcontext",
            GuideResults::new(&made_up::longcontext(&made_up::GUIDE_LENGTHS, 5, 300)).to_json(),
        ),
        (
            "quantization",
            QuantizationGuide::new(&report::quantization()).to_json(),
        ),
        ("efficiency", EfficiencyGuide::new(&efficiency).to_json()),
    ] {
        let file = dir.path().join(format!("results/{name}_results.json"));
        std::fs::write(file, json.to_string()).unwrap();
    }
    let page = page();
    let (_, graphs) = page.split_once("```python\n").unwrap();
    let (graphs, _) = graphs.split_once("```").unwrap();
    let drawn = python(&["-c", graphs], dir.path()).unwrap();
    assert!(
        drawn.status.success(),
        "{}",
        String::from_utf8_lossy(&drawn.stderr)
    );
    for graph in ["stability", "quantization", "efficiency"] {
        let pdf = std::fs::read(dir.path().join(format!("results/{graph}_graph.pdf"))).unwrap();
        assert!(pdf.starts_with(b"%PDF"));
    }
}

/// Everything that the guide names has a row.
#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds guide/"]
fn the_page_leaves_nothing_of_the_guide_out() {
    let data = std::env::var("BKBENCH_DATA").expect("BKBENCH_DATA names the data folder");
    let guide = std::fs::read_to_string(format!("{data}/guide/benchmarking-guide.md")).unwrap();
    let page = page();
    let named: Vec<String> = rows(&page).into_iter().map(|row| row.guide).collect();
    let mut items = BTreeSet::new();
    let (mut fence, mut is_yaml, mut is_metrics) = (String::new(), false, false);
    for line in guide.lines() {
        let text = line.trim();
        if let Some(language) = text.strip_prefix("```") {
            language.clone_into(&mut fence);
            is_yaml = fence == "yaml";
            continue;
        }
        is_metrics = text == "**Metrics**:" || is_metrics && !text.is_empty();
        items.extend(
            text.split_whitespace()
                .filter(|w| w.starts_with("--") && w.len() > 3)
                .map(|w| w.trim_matches('`').to_owned()),
        );
        let bullet = text.strip_prefix("- ");
        items.extend(text.strip_prefix("- [ ] ").map(str::to_owned));
        items.extend(text.strip_prefix("### Issue: ").map(str::to_owned));
        items.extend(bullet.filter(|_| is_metrics).map(str::to_owned));
        match fence.as_str() {
            "json" => items.extend(text.split('"').skip(1).step_by(2).map(str::to_owned)),
            "python" => items.extend(
                text.split_once('=')
                    .filter(|(name, _)| text.ends_with(',') && !name.contains([' ', '(']))
                    .map(|(name, _)| name.to_owned()),
            ),
            _ if is_yaml => items.extend(text.split_once(':').map(|(key, _)| key.to_owned())),
            _ => {}
        }
    }
    assert!(items.len() > 60, "{items:?}");
    // Shown elsewhere on the page: what a row covers for all of its kind.
    let missing: Vec<&String> = items
        .iter()
        .filter(|item| {
            !named
                .iter()
                .any(|row| row.contains(item.as_str()) || item.starts_with("seq_len_"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
