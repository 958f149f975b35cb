//! Records: their form, their files, and what is derived from them.

use bkbench::config::Benchmark;
use bkbench::results::{
    Finite, GuideFile, GuideResults, ResultsFile, RunRecord, RunWriter, StepLine,
};
use serde_json::{Value, json};

use crate::made_up;

/// A record with every kind of field, curves cut to a few steps to be readable.
fn small() -> RunRecord {
    let mut record = made_up::record(10, true);
    let cells = std::mem::take(&mut record.cells);
    let kept = cells
        .into_iter()
        .filter(|cell| cell.seq_len == 8192 && cell.model == "mamba" && cell.seed < 44);
    kept.for_each(|cell| record.push(cell));
    record
}

#[test]
fn the_form_of_a_record_is_fixed() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&small()).unwrap());
}

#[test]
fn the_form_of_the_guides_file_is_fixed() {
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&GuideResults::new(&small()).to_json()).unwrap()
    );
}

#[test]
fn the_guides_file_has_the_guides_keys() {
    let json = GuideResults::new(&made_up::record(20, false)).to_json();
    let lengths: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(lengths, ["seq_len_512", "seq_len_2048", "seq_len_8192"]);
    for models in json.as_object().unwrap().values() {
        let models = models.as_object().unwrap();
        assert_eq!(
            models.keys().collect::<Vec<_>>(),
            ["resnetbk", "mamba", "no-mixer"]
        );
        for entry in models.values() {
            for key in ["final_loss", "gradient_norm_mean", "gradient_norm_std"] {
                assert!(entry[key].is_f64(), "{key}: {entry}");
            }
            assert_eq!(
                (&entry["nan_count"], &entry["diverged"]),
                (&json!(0), &json!(false))
            );
        }
    }
}

#[test]
fn values_over_seeds_are_null_exactly_where_no_seed_completed() {
    let mut record = small();
    let entry =
        |record: &RunRecord| GuideResults::new(record).to_json()["seq_len_8192"]["mamba"].clone();
    // One completed, one diverged: a mean, no interval, and the divergence is told.
    assert!(entry(&record)["final_loss"].is_f64());
    assert_eq!(entry(&record)["ci95"], Value::Null);
    assert_eq!(entry(&record)["diverged"], true);
    assert_eq!(entry(&record)["nan_count"], 5);
    assert_eq!(
        entry(&record)["outcomes"],
        json!({"completed": 1, "diverged": 1})
    );

    let cells = std::mem::take(&mut record.cells);
    cells
        .into_iter()
        .filter(|cell| cell.seed == 43)
        .for_each(|cell| record.push(cell));
    for key in [
        "final_loss",
        "gradient_norm_mean",
        "gradient_norm_std",
        "token_perplexity",
        "ci95",
    ] {
        assert_eq!(entry(&record)[key], Value::Null, "{key}");
    }
    assert_eq!(entry(&record)["n_seeds"], 0);
}

#[test]
fn a_table_has_a_row_a_length_and_model() {
    let table = bkbench::report::table::table(&made_up::record(20, true));
    let lines: Vec<&str> = table.lines().collect();
    // Heads and nine rows, the unigram line, an empty one, heads and three models.
    assert_eq!(lines.len(), 1 + 9 + 1 + 1 + 1 + 3, "{table}");
    let mamba = lines
        .iter()
        .find(|line| line.starts_with("8,192") && line.contains("mamba"));
    assert!(mamba.unwrap().contains("2 of 3, 1 diverged"), "{table}");
    assert!(lines[10].ends_with("3.050."), "{table}");
    assert!(
        lines[13..].iter().all(|line| line.contains("no claim")),
        "20 steps are too few: {table}"
    );
}

#[test]
fn a_table_tells_of_loss_scale_overflows_where_there_are_any() {
    let table = |record| bkbench::report::table::table(&record);
    let record = made_up::record(20, false);
    assert!(!table(record.clone()).contains("overflow"));
    let record = made_up::changed(&record, |cell| {
        if cell.model == "mamba" && cell.seq_len == 8192 {
            cell.metrics.as_mut().unwrap().loss_scale_overflows = 2;
        }
        true
    });
    let table = table(record);
    let lines: Vec<&str> = table
        .lines()
        .filter(|line| line.contains("overflow"))
        .collect();
    assert_eq!(lines.len(), 1, "{table}");
    // Three seeds.
    assert!(
        lines[0].starts_with("mamba at N = 8,192: 6 loss-scale"),
        "{table}"
    );
}

#[test]
fn summaries_are_recomputed_from_the_cells() {
    let record = made_up::record(50, true);
    let mut again = RunRecord {
        cells: Vec::new(),
        summaries: Vec::new(),
        limits: Vec::new(),
        ..record.clone()
    };
    record
        .cells
        .iter()
        .for_each(|cell| again.push(cell.clone()));
    assert_eq!(again.summaries, record.summaries);
    assert_eq!(again.limits, record.limits);

    // By hand, for one of them.
    let losses: Vec<f64> = record
        .cells
        .iter()
        .filter(|cell| cell.model == "mamba" && cell.seq_len == 512)
        .map(|cell| {
            let curve = &cell.metrics.as_ref().unwrap().curves.loss_nats;
            curve[45..]
                .iter()
                .map(|loss| loss.unwrap().get())
                .sum::<f64>()
                / 5.0
        })
        .collect();
    let mean = losses.iter().sum::<f64>() / 3.0;
    let sd = (losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let summary = record
        .summaries
        .iter()
        .find(|s| s.model == "mamba" && s.seq_len == 512)
        .unwrap();
    let estimate = summary.final_loss_nats.unwrap();
    assert!((estimate.mean - mean).abs() < 1e-12 && (estimate.sd.unwrap() - sd).abs() < 1e-12);
    // t of 2 degrees of freedom at 97.5 %: 4.303 (table).
    let margin = 4.303 * sd / 3.0_f64.sqrt();
    assert!((estimate.interval.unwrap().high - mean - margin).abs() < 1e-3 * margin);
}

#[test]
fn a_record_survives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let record = made_up::record(30, true);
    let writer = RunWriter::create(dir.path(), &record.config).unwrap();
    writer.save(&small()).unwrap();
    writer.save(&record).unwrap();
    let loaded = RunRecord::load(writer.dir()).unwrap();
    assert_eq!(loaded, record, "to the last bit");
    let file = writer.dir().join("result.json");
    assert_eq!(
        ResultsFile::load(&file).unwrap(),
        ResultsFile::Record(Box::new(loaded))
    );
    let mut names: Vec<_> = std::fs::read_dir(writer.dir())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let expected = [".lock", "metrics.jsonl", "result.json"];
    assert_eq!(names, expected, "no temporary file stays behind");
}

#[test]
fn a_record_of_another_schema_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    let mut json = serde_json::to_value(small()).unwrap();
    json["schema_version"] = json!(1);
    std::fs::write(&path, json.to_string()).unwrap();
    let error = RunRecord::load(&path).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("schema version 1"), "{error}");
}

#[test]
fn runs_within_one_second_get_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = made_up::record(10, false).config;
    let folders: Vec<_> = (0..3)
        .map(|_| RunWriter::create(dir.path(), &config).unwrap())
        .collect();
    assert_ne!(folders[0].dir(), folders[1].dir());
    assert_ne!(folders[1].dir(), folders[2].dir());
    let name = folders[0]
        .dir()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert!(name.contains("Z-longcontext-"), "{name}");
}

#[test]
fn a_results_folder_that_cannot_be_made_is_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("results"), "a file is in the way").unwrap();
    let config = made_up::record(10, false).config;
    let error = RunWriter::create(&dir.path().join("results"), &config).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn step_lines_say_when_a_value_was_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(dir.path(), &made_up::record(10, false).config).unwrap();
    for (step, loss) in [2.5, f64::NAN].into_iter().enumerate() {
        let line = StepLine {
            cell: "ab",
            step: step as u64,
            loss_nats: Finite::new(loss),
            gradient_norm: Finite::new(1.0),
            learning_rate: Finite::new(1e-3).unwrap(),
        };
        writer.step(&line).unwrap();
    }
    let text = std::fs::read_to_string(writer.dir().join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[0],
        json!({"cell": "ab", "step": 0, "loss_nats": 2.5, "gradient_norm": 1.0, "learning_rate": 1e-3})
    );
    assert_eq!(lines[1]["loss_nats"], Value::Null);
}

#[test]
fn the_guides_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/out.json");
    let record = small();
    let (first, second) = (
        GuideFile::reserve(&path, &[Benchmark::Longcontext]).unwrap(),
        GuideFile::reserve(&path, &[Benchmark::Longcontext]).unwrap(),
    );
    assert!(
        !path.parent().unwrap().exists(),
        "nothing is made before the end"
    );
    first.write(&record).unwrap();
    assert_eq!(second.write(&record).unwrap_err().exit_code(), 2);
    assert_eq!(
        GuideFile::reserve(&path, &[Benchmark::Longcontext])
            .unwrap_err()
            .exit_code(),
        2
    );
    let ResultsFile::Guide(loaded) = ResultsFile::load(&path).unwrap() else {
        panic!("the guide's shape is not recognised");
    };
    assert_eq!(loaded.to_json(), GuideResults::new(&record).to_json());
}

#[test]
fn a_cells_name_changes_with_what_determines_it() {
    let record = made_up::record(10, false);
    let mut ids: Vec<&str> = record.cells.iter().map(|cell| cell.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), record.cells.len());
    assert_ne!(
        made_up::record(11, false).cells[0].id,
        record.cells[0].id,
        "the number of steps counts"
    );
    assert_eq!(made_up::record(10, false).cells[0].id, record.cells[0].id);
    assert_eq!(record.cells[0].id.len(), 16);
}
