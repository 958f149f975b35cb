//! Datasets made of documents: the registry, and tokens read only as far as asked.

use std::fs;
use std::path::{Path, PathBuf};

use bkbench::config::DataConfig;
use bkbench::data::registry::{ENTRIES, Split};
use bkbench::data::{Corpus, Dataset, Form, HeldOut, Tokenizer, load_held_out, load_with_cache};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::documents::{documents, gz, json_lines, put, texts, zst};

// ---- tokens ----

pub(crate) fn text_config(path: &Path, tokenizer: &str) -> DataConfig {
    DataConfig {
        text: Some(path.to_owned()),
        tokenizer: tokenizer.into(),
        ..DataConfig::default()
    }
}

pub(crate) fn named_config(name: &str, dir: &Path) -> DataConfig {
    DataConfig {
        dataset: name.into(),
        dir: Some(dir.to_owned()),
        tokenizer: "bytes".into(),
        ..DataConfig::default()
    }
}

pub(crate) fn load(config: &DataConfig, cache: &Path) -> (bkbench::Result<Dataset>, Vec<String>) {
    let mut notes = Vec::new();
    let dataset = load_with_cache(config, cache, &mut |note| notes.push(note.to_owned()));
    (dataset, notes)
}

/// sha256 mod 20, digit by digit of its hexadecimal.
fn is_held_out(text: &str) -> bool {
    let hex = format!("{:x}", Sha256::digest(text));
    hex.chars().fold(0, |rest, digit| {
        (rest * 16 + digit.to_digit(16).unwrap()) % 20
    }) == 0
}

#[test]
fn documents_are_separated_and_one_in_twenty_is_held_out() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(300);
    let path = put(dir.path(), "a.jsonl.zst", zst(&json_lines(&texts)));
    for name in ["gpt2", "bytes"] {
        let dataset = load(&text_config(&path, name), &dir.path().join("cache"))
            .0
            .unwrap();
        let tokenizer = Tokenizer::new(name).unwrap();
        let separator: Vec<u32> = tokenizer.separator().into_iter().collect();
        let manifest = &dataset.manifest;
        for (tokens, split, held_out) in [
            (&dataset.train, &manifest.train, false),
            (&dataset.eval, &manifest.eval, true),
        ] {
            let part: Vec<&String> = texts
                .iter()
                .filter(|text| is_held_out(text) == held_out)
                .collect();
            let ids: Vec<Vec<u32>> = part
                .iter()
                .map(|text| tokenizer.encode(text).unwrap())
                .collect();
            assert_eq!(
                tokens.get(0..tokens.len()),
                ids.join(&separator[..]),
                "{name}"
            );
            let read = split.provenance.as_ref().unwrap();
            assert_eq!(read.n_documents, part.len() as u64);
            assert!(read.complete);
            assert_eq!(read.files[0].n_bytes, fs::metadata(&path).unwrap().len());
            assert_eq!(
                split.n_bytes,
                part.iter().map(|text| text.len()).sum::<usize>()
            );
            assert_eq!(split.ids_sha256, tokens.sha256());
        }
        assert!(manifest.held_out_rule.contains("mod 20"));
    }
}

#[test]
fn files_are_read_only_as_far_as_the_budget_asks() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(30_000);
    let whole = gz(&json_lines(&texts));
    let path = put(dir.path(), "c4/en/c4-train.00000-of-01024.json.gz", &whole);
    let cache = dir.path().join("cache");
    let config = DataConfig {
        train_tokens: Some(5000),
        eval_tokens: Some(1000),
        ..named_config("c4", dir.path())
    };
    let dataset = load(&config, &cache).0.unwrap();
    let kept: Vec<&String> = texts.iter().filter(|text| !is_held_out(text)).collect();
    // Whole documents, the last of which reaches the budget.
    let mut expected = String::new();
    for text in kept {
        if expected.len() >= 5000 {
            break;
        }
        expected += text;
    }
    let train: Vec<u8> = dataset.train.iter().map(|id| id as u8).collect();
    assert_eq!(String::from_utf8(train).unwrap(), expected);
    assert_eq!(dataset.eval.len(), 1000);
    let read = dataset.manifest.train.provenance.clone().unwrap();
    assert!(!read.complete);
    let source = &read.files[0];
    assert_eq!(source.file, "c4/en/c4-train.00000-of-01024.json.gz");
    assert!(
        source.n_bytes < whole.len() as u64 / 2,
        "{} of {}",
        source.n_bytes,
        whole.len()
    );
    let prefix = &whole[..source.n_bytes as usize];
    assert_eq!(source.sha256, format!("{:x}", Sha256::digest(prefix)));

    // What lies behind is not looked at, and the held-out text does not depend on the training budget.
    let half = whole.len() / 2;
    fs::write(&path, &whole[..half]).unwrap();
    let again = load(&config, &cache).0.unwrap();
    assert_eq!(
        again.manifest.train.ids_sha256,
        dataset.manifest.train.ids_sha256
    );
    let more = DataConfig {
        train_tokens: Some(9000),
        ..config
    };
    let more = load(&more, &cache).0.unwrap();
    assert_eq!(more.manifest.eval, again.manifest.eval);
    assert!(more.train.len() >= 9000);
}

#[test]
fn tokens_are_mapped_the_second_time_unless_something_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let texts = texts(200);
    let path = put(
        dir.path(),
        "pile/train/00.jsonl.zst",
        zst(&json_lines(&texts)),
    );
    put(
        dir.path(),
        "pile/test.jsonl.zst",
        zst(&json_lines(&texts[..20])),
    );
    put(
        dir.path(),
        "pile/val.jsonl.zst",
        zst(&json_lines(&texts[..30])),
    );
    let config = named_config("pile", dir.path());
    let (first, notes) = load(&config, &cache);
    let first = first.unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    let manifest = first.manifest;
    assert_eq!(manifest.held_out_rule, "the official test split");
    assert_eq!(manifest.eval.provenance.as_ref().unwrap().n_documents, 20);
    assert_eq!(manifest.train.provenance.as_ref().unwrap().n_documents, 200);
    let (second, notes) = load(&config, &cache);
    assert_eq!(
        (second.unwrap().manifest, notes.len()),
        (manifest.clone(), 0)
    );

    // Two splits, each its ids and what they are.
    let mut files: Vec<PathBuf> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in &files {
        let good = fs::read(file).unwrap();
        let mut flipped = good.clone();
        let at = good.len() / 2;
        flipped[at] ^= 1;
        for damaged in [&good[..good.len() - 1], b"", &flipped] {
            fs::remove_file(file).unwrap();
            fs::write(file, damaged).unwrap();
            let (again, notes) = load(&config, &cache);
            assert_eq!(again.unwrap().manifest, manifest, "{}", file.display());
            assert_eq!(fs::read(file).unwrap().len(), good.len());
            assert!(
                notes.iter().any(|note| note.starts_with("tokenizing")),
                "{notes:?}"
            );
        }
    }
    // Ids without what they are count for nothing: so they are left by a process that was killed.
    for file in files
        .iter()
        .filter(|file| file.extension().unwrap() == "json")
    {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(load(&config, &cache).1.len(), 2);
    // Other bytes of the same length.
    let mut other = fs::read(&path).unwrap();
    let frame = zst(&json_lines(&texts[1..2]));
    other = [&other[..], &frame].concat();
    fs::write(&path, &other).unwrap();
    let longer = load(&config, &cache).0.unwrap().manifest;
    let swapped = [&frame[..], &other[..other.len() - frame.len()]].concat();
    assert_eq!(swapped.len(), other.len());
    fs::write(&path, swapped).unwrap();
    let (swapped, notes) = load(&config, &cache);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_ne!(
        swapped.unwrap().manifest.train.ids_sha256,
        longer.train.ids_sha256
    );
}

#[test]
fn an_unusable_cache_costs_a_note_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "a.jsonl", json_lines(&texts(100)));
    let cache = put(dir.path(), "a file, no folder", "");
    let (dataset, notes) = load(&text_config(&path, "bytes"), &cache);
    assert!(!dataset.unwrap().train.is_empty());
    assert!(
        notes.iter().any(|note| note.contains("BKBENCH_CACHE")),
        "{notes:?}"
    );
}

// ---- the registry ----

#[test]
fn what_is_absent_is_said_with_what_brings_it() {
    let dir = tempfile::tempdir().unwrap();
    for entry in ENTRIES {
        let error = load(&named_config(entry.name, dir.path()), dir.path())
            .0
            .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        let expected = match entry.name {
            "ptb" => "put ptb/ptb.train.txt, ptb/ptb.valid.txt and ptb/ptb.test.txt into".into(),
            "pile" => "put pile/train/00.jsonl.zst".into(),
            name => format!(
                "bkbench data fetch {name} --data_dir {}",
                dir.path().display()
            ),
        };
        assert!(message.contains(&expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dataset_without_a_training_split_is_evaluated_alone() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(40);
    put(dir.path(), "pile/val.jsonl.zst", zst(&json_lines(&texts)));
    let config = named_config("pile", dir.path());
    let message = load(&config, dir.path()).0.unwrap_err().to_string();
    assert!(message.contains("no training split"), "{message}");
    assert!(message.contains("trained on another dataset"), "{message}");
    let corpus = Corpus::named("pile", dir.path()).unwrap();
    assert_eq!(corpus.splits().collect::<Vec<_>>(), [Split::Validation]);
    let HeldOut { tokens, manifest } =
        load_held_out(&config, &dir.path().join("cache"), &mut |_| ()).unwrap();
    let bytes: Vec<u8> = tokens.iter().map(|id| id as u8).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), texts.concat());
    assert_eq!(manifest.held_out_rule, "the official validation split");
}

#[test]
fn another_text_under_an_official_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let text = " \n = Title = \n \n Words and words . \n";
    for split in ["train", "valid", "test"] {
        put(dir.path(), &format!("wikitext-2/wiki.{split}.tokens"), text);
        put(
            dir.path(),
            &format!("ptb/ptb.{split}.txt"),
            " a b c \n d e \n",
        );
    }
    for (name, expected) in [
        ("wikitext-2-unk", "not the official text: its sha256 is"),
        ("ptb", "has 7 words and ends of sentences, not 929,589"),
    ] {
        let error = load(&named_config(name, dir.path()), &cache).0.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "nothing is kept");
    }
}

// ---- real files ----

fn real() -> PathBuf {
    let data =
        std::env::var_os("BKBENCH_DATA").expect("BKBENCH_DATA names the folder that holds data/");
    Path::new(&data).join("data")
}

/// Counts and hashes of two other implementations, through the datasets' own readers.
#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn wikitext_has_the_golden_ids_and_the_official_counts() {
    let dir = real();
    let golden = fs::read_to_string(dir.join("gpt2_token_counts.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let gpt2 = Tokenizer::new("gpt2").unwrap();
    for (name, split, file, n_words) in [
        (
            "wikitext-2-unk",
            Split::Train,
            Some("wikitext-2/wiki.train.tokens"),
            2_088_628,
        ),
        (
            "wikitext-2-unk",
            Split::Validation,
            Some("wikitext-2/wiki.valid.tokens"),
            217_646,
        ),
        ("wikitext-2-unk", Split::Test, None, 245_569),
        (
            "wikitext-2",
            Split::Validation,
            Some("wikitext-2-raw/wiki.valid.raw"),
            217_646,
        ),
        ("wikitext-2", Split::Test, None, 245_569),
    ] {
        let corpus = Corpus::named(name, &dir).unwrap();
        let (tokens, manifest) = corpus
            .tokens(split, &gpt2, None, cache.path(), &mut |_| ())
            .unwrap();
        if let Some(file) = file {
            assert_eq!(golden[file]["gpt2_tokens"], tokens.len() as u64);
            assert_eq!(golden[file]["sha256_u16le_ids"], tokens.sha256().as_str());
        }
        let read = manifest.provenance.unwrap();
        assert_eq!(read.n_words, Some(n_words));
        assert!(read.complete && read.n_documents > 50, "{read:?}");
    }
    let raw = Corpus::named("wikitext-2", &dir).unwrap();
    assert!(raw.splits().all(|split| split != Split::Train));
    let test = fs::read_to_string(dir.join("wikitext-2-raw/wiki.test.raw")).unwrap();
    let rows: Vec<&str> = test
        .split_inclusive('\n')
        .map(|line| if line == " \n" { "" } else { line })
        .collect();
    assert_eq!(gpt2.encode(&rows.join("\n\n")).unwrap().len(), 287_644);
}

#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn samples_of_c4_and_the_pile_have_the_counts_of_their_notes() {
    let dir = real();
    let cache = tempfile::tempdir().unwrap();
    let gpt2 = Tokenizer::new("gpt2").unwrap();
    let c4 = Corpus::named("c4", &dir).unwrap();
    let (tokens, manifest) = c4
        .tokens(Split::Train, &gpt2, None, cache.path(), &mut |_| ())
        .unwrap();
    assert_eq!(manifest.provenance.unwrap().n_documents, 1000);
    assert_eq!(
        tokens.len(),
        485_006 + 999,
        "with a separator between documents"
    );
    for (file, n) in [
        ("c4/olmo-c4-sample.01.json.gz", 10),
        ("pile/native/00.jsonl.zst", 1),
        ("pile/native/val.jsonl.zst", 1),
        ("pile/native/test.jsonl.zst", 1),
        ("pile/pile_sample.jsonl.zst", 507),
    ] {
        assert_eq!(
            documents(&dir.join(file), Form::Documents).len(),
            n,
            "{file}"
        );
    }
    for name in ["c4", "pile"] {
        let config = DataConfig {
            tokenizer: "gpt2".into(),
            ..named_config(name, &dir)
        };
        let dataset = load(&config, cache.path()).0.unwrap();
        assert!(dataset.train.len() > dataset.eval.len() && dataset.eval.len() > 1000);
    }
}
