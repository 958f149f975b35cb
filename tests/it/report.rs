//! Reports of made-up records: what they say, and that nothing in a record becomes markup.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bkbench::config::Config;
use bkbench::quant::BitWidth;
use bkbench::report::document::{Block, Cell, Column, Document, Kind, Table};
use bkbench::report::{csv, statistics};
use bkbench::results::{
    AtWidth, AuditReport, AuditedWeights, Claim, DivergenceCause, Finding, Finite, Leak,
    LeakSearch, ModelSize, OnDataset, Outcome, QuantizationMetrics, RunRecord, RunWriter,
    SCHEMA_VERSION, Sensitivity, Warning, comparisons,
};
use bkbench::units::Bytes;

use crate::cli::refused_in;
use crate::made_up;

fn longcontext(n_seeds: u64) -> RunRecord {
    let mut config = Config::resolve(Some("smoke"), None, toml::Table::new()).unwrap();
    config.longcontext.seq_lengths = vec![512, 8192];
    config.seeds.count = n_seeds;
    made_up::of_config(config, 40, false)
}

pub(crate) fn quantization() -> RunRecord {
    let flags = "benchmarks = [\"quantization\"]\n[seeds]\ncount = 2\n";
    let config = Config::resolve(None, None, flags.parse().unwrap()).unwrap();
    let record = made_up::of_config(config, 20, false);
    let mut record = made_up::changed(&record, |cell| {
        let evaluation = cell.metrics.as_ref().unwrap().evaluation.clone();
        let widths = BitWidth::ALL.map(|width| AtWidth {
            width,
            evaluation: evaluation.clone(),
            size: ModelSize {
                codes_bytes: Bytes(1000),
                scales_bytes: Bytes(100),
                rest_bytes: Bytes(10),
                embedding_bytes: Bytes(500),
                file_header_bytes: Bytes(1),
            },
            prefill_tokens_per_second: Finite::new(1000.0),
            decode_tokens_per_second: None,
        });
        cell.quantization = Some(QuantizationMetrics {
            widths: widths.into(),
            sensitivity: vec![Sensitivity {
                family: "out_proj".into(),
                width: BitWidth::Int4,
                nll_difference_nats: Finite::new(0.125),
            }],
        });
        true
    });
    record.derive();
    record
}

fn document(records: &[&RunRecord]) -> Document {
    let name = |i: usize, record: &&RunRecord| (format!("run-{i}"), (*record).clone());
    let runs = records
        .iter()
        .enumerate()
        .map(|(i, record)| name(i, record));
    let runs: Vec<(String, RunRecord)> = runs.collect();
    Document::of(&runs, &[], &Claim::of_the_guide().unwrap())
}

fn html(record: &RunRecord) -> String {
    document(&[record]).html()
}

// ---- reading HTML ----

/// A start tag.
#[derive(Debug)]
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        let is_it = |(known, _): &&(String, String)| known == name;
        self.attributes
            .iter()
            .find(is_it)
            .map(|(_, value)| value.as_str())
    }
}

/// All start tags; fails where an element is not closed, an attribute not quoted, or a `<` or `>` stands by itself.
fn elements(html: &str) -> Vec<Tag> {
    const VOID: [&str; 2] = ["meta", "br"];
    let rest = html.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let (before, behind) = rest.split_once("<style>").unwrap();
    let (_, behind) = behind.split_once("</style>").unwrap();
    let text = format!("{before}{behind}");
    let (mut open, mut found, mut rest) = (Vec::new(), Vec::new(), text.as_str());
    while let Some((words, behind)) = rest.split_once('<') {
        assert!(!words.contains('>'), "a lone > in {words}");
        let mut in_quotes = false;
        let end = behind.find(|c| {
            in_quotes ^= c == '"';
            c == '>' && !in_quotes
        });
        let (tag, behind) =
            behind.split_at(end.unwrap_or_else(|| panic!("an open tag {behind:.80}")));
        rest = &behind[1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(
                open.pop().as_deref(),
                Some(name),
                "closed before {rest:.80}"
            );
            continue;
        }
        let is_closed = tag.ends_with('/');
        let tag = tag.trim_end_matches('/').trim();
        let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut parsed = Vec::new();
        while let Some((name, behind)) = attributes.trim_start().split_once("=\"") {
            let (value, behind) = behind.split_once('"').unwrap();
            assert!(
                !name.contains(['"', '\'', '<', ' ']),
                "attribute {name} of {tag}"
            );
            parsed.push((name.to_owned(), value.to_owned()));
            attributes = behind;
        }
        assert_eq!(attributes.trim(), "", "attributes of {tag}");
        if !is_closed && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
        found.push(Tag {
            name: name.to_owned(),
            attributes: parsed,
        });
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}

/// Names of the elements and of their attributes.
fn vocabulary(html: &str) -> BTreeSet<String> {
    let words = elements(html).into_iter().flat_map(|tag| {
        let attributes = tag
            .attributes
            .into_iter()
            .map(|(name, _)| format!("@{name}"));
        std::iter::once(tag.name)
            .chain(attributes)
            .collect::<Vec<_>>()
    });
    words.collect()
}

// ---- the page ----

#[test]
fn a_page_needs_nothing_else_and_is_sound() {
    let page = document(&[&longcontext(5), &quantization()]).html();
    let tags = elements(&page);
    for tag in &tags {
        let name = tag.name.as_str();
        assert!(!["script", "link", "img", "iframe", "object", "use", "image"].contains(&name));
        for (attribute, value) in &tag.attributes {
            assert!(
                !attribute.starts_with("on") && attribute != "src",
                "{tag:?}"
            );
            let is_inside = attribute != "href" || value.starts_with('#');
            assert!(is_inside, "{tag:?}");
        }
    }
    assert!(!page.contains("@import") && !page.contains("url("));
    let foreign = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!foreign.contains("http:") && !foreign.contains("https:"));
    assert!(page.contains("default-src 'none'") && page.contains("prefers-color-scheme: dark"));

    let ids: Vec<&str> = tags.iter().filter_map(|tag| tag.get("id")).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "ids are unique");
    for tag in &tags {
        let labels = tag.get("aria-labelledby").unwrap_or_default();
        let target = tag.get("href").map(|it| &it[1..]).unwrap_or_default();
        for id in labels.split_whitespace().chain(target.split_whitespace()) {
            assert!(unique.contains(id), "nothing has the id {id}");
        }
    }
    let levels = tags
        .iter()
        .filter_map(|tag| tag.name.strip_prefix('h')?.parse::<u8>().ok());
    let mut last = 0;
    for level in levels {
        assert!(level <= last + 1, "h{level} behind h{last}");
        assert!(level > 1 || last == 0, "one h1");
        last = level;
    }
    let count = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
    assert_eq!(count("table"), count("caption"));
    assert!(
        tags.iter()
            .filter(|tag| tag.name == "th")
            .all(|tag| tag.get("scope").is_some())
    );
    assert_eq!(
        count("svg"),
        3,
        "two of the quantization run, one of the other"
    );
    for svg in tags.iter().filter(|tag| tag.name == "svg") {
        assert_eq!(svg.get("role"), Some("img"));
        assert!(svg.get("viewBox").is_some(), "scales");
    }
    assert_eq!(tags[0].get("lang"), Some("en"));
    assert!(page.contains("name=\"viewport\"") && page.contains("class=\"skip\""));
}

#[test]
fn verdicts_stand_first_and_every_part_is_there() {
    let page = document(&[&longcontext(5), &quantization()]).html();
    let mut at = page.find("<main").unwrap();
    for part in [
        ">In short<",
        ">Verdicts on the claims<",
        "ResNet-BK: stable at all sequence lengths",
        ">longcontext of 2000-01-01T00:00:00Z, 5 seeds<",
        "<svg",
        "Means over completed seeds",
        ">Comparison<",
        ">What was compared, and how fairly<",
        ">Hardware<",
        ">Warnings<",
        "too few for a claim",
        ">Checklist<",
        ">Replay<",
        "bkbench replay run-0",
        ">Provenance<",
        ">quantization of 2000-01-01T00:00:00Z, 2 seeds<",
        "out_proj",
    ] {
        let behind = page[at..].find(part);
        at += behind.unwrap_or_else(|| panic!("{part} is missing behind byte {at}"));
    }
    assert!(page.contains("No model was audited"));
    assert!(page.contains("40,001"), "parameters of the second model");
}

#[test]
fn hostile_strings_stay_texts() {
    const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> ]]> --> </style></svg>&lt;\n# x\n| \u{202e}{}\\|$%_^~#*`";
    let mut record = longcontext(2);
    for name in [
        &mut record.config.models.a,
        &mut record.config.data.tokenizer,
        &mut record.provenance.bkbench_version,
        &mut record.provenance.started_utc,
        &mut record.provenance.platform,
        &mut record.provenance.argv[0],
        &mut record.config_sha256,
    ] {
        *name = HOSTILE.into();
    }
    record.config.data.text = Some(HOSTILE.into());
    record.hardware = serde_json::json!({ "adapter": HOSTILE, HOSTILE: [HOSTILE] });
    record.data = serde_json::json!({ "name": HOSTILE, HOSTILE: { HOSTILE: HOSTILE } });
    let note = || Warning::DeviceNote {
        note: HOSTILE.into(),
    };
    record.warnings.push(note());
    record.audits.push(AuditReport {
        model: HOSTILE.into(),
        weights: AuditedWeights::Initial,
        seed: 42,
        checks: vec![
            Finding::EqualData {
                ids_sha256: "00".into(),
                tokenizer_sha256: "00".into(),
                data_order_sha256: "00".into(),
                difference: Some(HOSTILE.into()),
            }
            .into(),
        ],
    });
    let record = made_up::changed(&record, |cell| {
        if cell.model == "resnetbk" {
            cell.model = HOSTILE.into();
        }
        cell.id = HOSTILE.into();
        cell.warnings.push(note());
        if cell.seed == 43 {
            cell.outcome = Outcome::Skipped {
                reason: HOSTILE.into(),
                needs: HOSTILE.into(),
                have: HOSTILE.into(),
            };
        }
        true
    });
    let mut claims = Claim::of_the_guide().unwrap();
    claims[0].text = HOSTILE.into();
    claims[0].model = HOSTILE.into();
    let runs = [(HOSTILE.to_owned(), record)];
    let document = Document::of(&runs, &[], &claims);

    let page = document.html();
    let known = vocabulary(&html(&longcontext(2)));
    let new: Vec<String> = vocabulary(&page).difference(&known).cloned().collect();
    assert_eq!(
        new, [""; 0],
        "elements and attributes that a record brought in"
    );
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains('\u{202e}'), "text is not turned around");

    let markdown = document.markdown();
    let heads = markdown.lines().filter(|line| line.starts_with('#'));
    let n_sections = page.matches("<section").count();
    assert_eq!(
        heads.count(),
        1 + n_sections,
        "no heading of a record's own"
    );
    // Code stands indented, where nothing is markup.
    for line in markdown.lines().filter(|line| !line.starts_with("    ")) {
        assert!(!line.replace("<br>", "").contains('<'), "{line}");
    }
    let bars = |line: &str| {
        line.replace("\\\\", "")
            .replace("\\|", "")
            .matches('|')
            .count()
    };
    let lines: Vec<&str> = markdown.lines().collect();
    for pair in lines
        .windows(2)
        .filter(|pair| pair.iter().all(|line| line.starts_with('|')))
    {
        assert_eq!(bars(pair[0]), bars(pair[1]), "columns of {}", pair[1]);
    }
    let latex = document.latex();
    for line in latex
        .lines()
        .filter(|line| line.contains("alert") && !line.starts_with('%'))
    {
        let line = line
            .replace("\\textbackslash{}", "")
            .replace("\\textasciitilde{}", "");
        let line = line
            .replace("\\textasciicircum{}", "")
            .replace("\\linewidth", "");
        let bare =
            |at: usize, c: char| "%$#_".contains(c) && !line[..at].ends_with('\\') && c != '$';
        assert!(!line.char_indices().any(|(at, c)| bare(at, c)), "{line}");
        let braces = |c| {
            line.replace("\\{", "")
                .replace("\\}", "")
                .matches(c)
                .count()
        };
        assert_eq!(braces('{'), braces('}'), "{line}");
    }
}

// ---- runs of which there is little to say ----

#[test]
fn a_report_says_what_a_run_lacks() {
    let says = |record: &RunRecord, text: &str| {
        let page = html(record);
        elements(&page);
        assert!(page.contains(text), "{text}");
        page
    };
    let empty = made_up::changed(&longcontext(2), |_| false);
    says(&empty, "No cell has run yet");
    says(&empty, "the run is not finished: 0 of 12 cells have run");

    let mut alone = longcontext(5);
    alone.config.models.b = Some("resnetbk".into());
    let alone = made_up::changed(&alone, |cell| cell.model == "resnetbk");
    let page = says(&alone, "a model against itself: any difference is chance");
    assert!(page.contains("a model against itself"), "claims say so too");

    let stats = |record: &RunRecord| statistics::comparisons(record, &comparisons(record));
    assert_eq!(stats(&empty), "no comparison: no cell has run yet\n");
    let mut single = longcontext(5);
    single.config.models.b = None;
    let single = made_up::changed(&single, |cell| cell.model == "resnetbk");
    let why = "o comparison: resnetbk is the only model";
    assert_eq!(stats(&single), format!("n{why}\n"));
    says(&single, &format!("N{why}."));
    let mut leaking = longcontext(5);
    made_up::leak(&mut leaking, "mamba");
    let why = "no comparison: mamba sees the tokens it predicts\n";
    assert_eq!(stats(&leaking), why);
    assert!(stats(&longcontext(5)).contains("resnetbk (a) against mamba (b)"));

    let page = says(&longcontext(1), "1 seed(s), and a claim needs 5");
    let (_, results) = page.split_once("Means over completed seeds").unwrap();
    let (means, _) = results.split_once("</table>").unwrap();
    assert!(!means.contains('\u{b1}'), "one seed has no interval");
}

#[test]
fn seeds_that_diverged_or_leak_are_named() {
    let diverged = made_up::changed(&longcontext(5), |cell| {
        cell.outcome = Outcome::Diverged {
            step: 7,
            cause: DivergenceCause::BlowUp,
        };
        cell.metrics.as_mut().unwrap().evaluation = None;
        true
    });
    let page = html(&diverged);
    elements(&page);
    assert!(page.contains("0 of 5, 5 diverged") && page.contains("5 of 5 seeds have no value"));
    assert!(page.contains("Steps to divergence at seq_len_512"));
    assert!(!page.contains("NaN") && !page.contains("inf<"));

    let mut leaking = longcontext(5);
    leaking.audits.push(AuditReport {
        model: "mamba".into(),
        weights: AuditedWeights::Initial,
        seed: 42,
        checks: vec![
            Finding::Causality(LeakSearch {
                n_tokens: 8,
                cuts: vec![4],
                largest_change: Finite::new(0.5),
                leak: Some(Leak {
                    first_offset: -1,
                    cut: 4,
                }),
                n_flips: 0,
            })
            .into(),
        ],
    });
    let page = html(&leaking);
    assert!(page.contains("no comparison: mamba sees the tokens it predicts"));
    assert!(page.contains("not causal: these models see the tokens they predict"));
}

#[test]
fn an_edited_record_is_called_edited() {
    let whole = longcontext(2);
    let edited = |edit: fn(&mut RunRecord)| {
        let mut record = whole.clone();
        edit(&mut record);
        html(&record)
    };
    let hash = "does not have the hash";
    let means = "the means do not follow from the cells";
    let untouched = edited(|record| record.config_sha256 = record.config.sha256().unwrap());
    assert!(!untouched.contains(hash) && !untouched.contains(means));
    assert!(edited(|record| record.config.train.learning_rate *= 2.0).contains(hash));
    assert!(edited(|record| record.summaries[0].n_seeds = 9).contains(means));
    assert!(edited(|record| record.protocol_version = 1).contains("recorded by protocol 1"));
}

// ---- numbers ----

/// Fields of a line without quoted ones.
fn fields(line: &str) -> Vec<&str> {
    line.split(',').collect()
}

#[test]
fn values_keep_all_their_digits() {
    let record = quantization();
    let runs = [("a run".to_owned(), record.clone())];
    let text = csv::cells(&runs);
    let mut lines = text.split_terminator("\r\n");
    let heads = fields(lines.next().unwrap());
    let rows: Vec<Vec<&str>> = lines.map(fields).collect();
    assert_eq!(rows.len(), record.cells.len() * BitWidth::ALL.len());
    let of =
        |row: &[&str], head: &str| row[heads.iter().position(|it| *it == head).unwrap()].to_owned();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row.len(), heads.len());
        let cell = &record.cells[i / BitWidth::ALL.len()];
        let at = &cell.quantization.as_ref().unwrap().widths[i % BitWidth::ALL.len()];
        assert_eq!(of(row, "cell"), cell.id);
        assert_eq!(of(row, "width"), at.width.name());
        let nll: f64 = of(row, "nll_nats").parse().unwrap();
        assert_eq!(nll, at.evaluation.as_ref().unwrap().nll_nats.get());
        assert_eq!(of(row, "decode_tokens_per_second"), "", "absent is empty");
        assert_eq!(of(row, "size_bytes"), "1110");
    }
    let text = csv::summaries(&runs);
    let lines: Vec<Vec<&str>> = text.split_terminator("\r\n").map(fields).collect();
    assert_eq!(
        lines.len(),
        1 + record.summaries.len() + record.quantization.len()
    );
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    let nll = lines[0].iter().position(|it| *it == "nll_nats").unwrap();
    let estimate = record.summaries[0].nll_nats.unwrap();
    assert_eq!(lines[1][nll].parse::<f64>().unwrap(), estimate.mean);
    assert_eq!(
        lines[1][nll + 2].parse::<f64>().unwrap(),
        estimate.interval.unwrap().high
    );
}

#[test]
fn a_field_is_neither_two_fields_nor_a_formula() {
    let runs = [("=1+1,\"x\"".to_owned(), longcontext(2))];
    for text in [csv::summaries(&runs), csv::cells(&runs)] {
        let row = text.lines().nth(1).unwrap();
        assert!(row.starts_with("\"'=1+1,\"\"x\"\"\",longcontext,"), "{row}");
    }
}

/// Fields of a line, quoted ones without their quotes.
fn unquoted(line: &str) -> Vec<String> {
    let (mut fields, mut in_quotes) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => fields.push(String::new()),
            _ => fields.last_mut().unwrap().push(letter),
        }
    }
    fields
}

#[test]
fn a_setting_stands_in_one_column_whatever_its_name() {
    let name = "text:a,b.txt";
    let mut record = made_up::changed(&longcontext(2), |cell| {
        cell.on_dataset = Some(OnDataset {
            dataset: name.into(),
            trained_on: name.into(),
            n_words: None,
            carry: None,
        });
        true
    });
    record.derive();
    let runs = [("run".to_owned(), record)];
    for text in [csv::summaries(&runs), csv::cells(&runs)] {
        let mut lines = text.split_terminator("\r\n").map(unquoted);
        let heads = lines.next().unwrap();
        let at: Vec<usize> = (0..heads.len())
            .filter(|&i| heads[i] == "setting")
            .collect();
        assert_eq!(at.len(), 1, "{heads:?}");
        for row in lines {
            assert_eq!((row.len(), row[at[0]].as_str()), (heads.len(), name));
        }
    }
}

// ---- the command ----

fn saved(dir: &Path, record: &RunRecord) -> PathBuf {
    let writer = RunWriter::create(dir, &record.config).unwrap();
    writer.save(record).unwrap();
    writer.dir().to_owned()
}

fn report(dir: &Path, line: &str) -> String {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .arg("report")
        .args(line.split_whitespace());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_report_lies_in_the_folder_of_its_run_and_replaces_nothing_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let run = saved(dir.path(), &longcontext(2));
    let name = run.display().to_string();
    let printed = report(dir.path(), &name);
    let page = run.join("report.html");
    assert_eq!(printed, format!("report: {}\n", page.display()));
    let first = std::fs::read_to_string(&page).unwrap();
    elements(&first);

    std::fs::write(&page, "mine").unwrap();
    let refused = refused_in(dir.path(), &format!("report {name}"));
    assert!(
        refused.contains("is there already; give --overwrite"),
        "{refused}"
    );
    let result = run.join("result.json");
    report(dir.path(), &format!("{} --overwrite", result.display()));
    let again = std::fs::read_to_string(&page).unwrap();
    assert_eq!(again.replace("/result.json", ""), first);

    let printed = report(dir.path(), &format!("{name} {name} --output both.csv"));
    assert_eq!(printed, "report: both.cells.csv\nreport: both.csv\n");
    report(
        dir.path(),
        &format!("{name} --output new/tables --format latex"),
    );
    let latex = std::fs::read_to_string(dir.path().join("new/tables")).unwrap();
    assert!(latex.contains("\\begin{tabular}"));
    report(dir.path(), &format!("{name} --output it.md"));
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let run = saved(dir.path(), &longcontext(2));
    let name = run.display().to_string();
    let refused = |line: &str| refused_in(dir.path(), line);
    assert!(refused("report").contains("RUN"));
    assert!(refused("report nowhere").contains("cannot be read"));
    assert!(refused(&format!("report {name} {name}")).contains("name a file by --output"));
    assert!(refused(&format!("report {name} --output a.doc")).contains("no known format"));
    assert!(refused(&format!("report {name} --format pdf")).contains("pdf"));
    assert!(refused(&format!("report {name} --claims nowhere.toml")).contains("nowhere.toml"));
    let whole = std::fs::read_to_string(run.join("result.json")).unwrap();
    std::fs::write(run.join("result.json"), &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&format!("report {name}")).contains("cut off"));
    let schema = format!("\"schema_version\": {SCHEMA_VERSION}");
    let newer = whole.replacen(&schema, "\"schema_version\": 99", 1);
    std::fs::write(run.join("result.json"), newer).unwrap();
    assert!(refused(&format!("report {name}")).contains("schema version 99"));
    std::fs::write(dir.path().join("guide.json"), "{\"seq_len_512\": {}}").unwrap();
    assert!(refused("report guide.json").contains("not the record of a run"));
}

#[test]
fn latex_breaks_long_tables_and_spells_letters_that_a_font_may_lack() {
    let rows = (0..100).map(|i| vec![Cell::from(format!("<{i}> \u{e9} \u{65e5}"))]);
    let table = Table {
        caption: "long".into(),
        columns: vec![Column {
            head: "head".into(),
            kind: Kind::Text,
        }],
        rows: rows.collect(),
    };
    let document = Document {
        title: "title".into(),
        blocks: vec![Block::Table(table)],
    };
    let latex = document.latex();
    let count = |part: &str| latex.matches(part).count();
    assert_eq!(count("\\begin{table}"), 3, "{latex}");
    assert_eq!(count("\\caption{long (continued)}"), 2, "{latex}");
    assert_eq!(count("head \\\\"), 3, "{latex}");
    for i in 0..100 {
        assert_eq!(
            count(&format!("$<${i}$>$ \u{e9} U+65E5 \\\\")),
            1,
            "{latex}"
        );
    }
    assert!(latex.contains("\\usepackage{graphicx}"));
}
