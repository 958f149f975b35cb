//! Tokenizers against golden ids, datasets, the token cache and bad input.

use std::fs;
use std::path::{Path, PathBuf};

use bkbench::config::DataConfig;
use bkbench::data::{Batches, Dataset, EMBEDDED, Tokenizer, Tokens, load_with_cache, read_utf8};
use serde_json::Value;

const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);
const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/gpt2_tokenization.json"
);

fn config(text: impl AsRef<Path>, tokenizer: &str) -> DataConfig {
    let text = Some(text.as_ref().to_owned());
    DataConfig {
        text,
        tokenizer: tokenizer.into(),
        ..DataConfig::default()
    }
}

/// The dataset of `config` with the token files in `cache`, and what was said on the way.
fn load(config: &DataConfig, cache: &Path) -> (bkbench::Result<Dataset>, Vec<String>) {
    let mut notes = Vec::new();
    let dataset = load_with_cache(config, cache, &mut |note| notes.push(note.to_owned()));
    (dataset, notes)
}

#[test]
fn gpt2_ids_are_the_golden_ones() {
    let golden: Value = serde_json::from_str(&fs::read_to_string(GOLDEN).unwrap()).unwrap();
    let gpt2 = Tokenizer::new("gpt2").unwrap();
    let mut checked = 0;
    for case in golden["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        if text == "<|endoftext|>" {
            // the golden file takes it as the special token, we as text
            assert_eq!(ids, [gpt2.separator().unwrap()]);
            continue;
        }
        assert_eq!(gpt2.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(gpt2.decode(&ids).unwrap(), text);
        checked += 1;
    }
    assert_eq!(checked, 40);
}

#[test]
fn a_tokenizer_file_gives_the_same_ids_as_the_built_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    let json =
        zstd::decode_all(&include_bytes!("../../assets/gpt2/tokenizer.json.zst")[..]).unwrap();
    fs::write(&file, json).unwrap();
    let text = read_utf8(Path::new(TEXT)).unwrap();
    let [built_in, from_file] =
        ["gpt2", file.to_str().unwrap()].map(|name| Tokenizer::new(name).unwrap());
    assert_eq!(from_file.sha256(), built_in.sha256());
    assert_eq!(
        from_file.encode(&text).unwrap(),
        built_in.encode(&text).unwrap()
    );
}

#[test]
fn a_text_file_becomes_a_dataset() {
    let cache = tempfile::tempdir().unwrap();
    let text = read_utf8(Path::new(TEXT)).unwrap();
    let dataset = load(&config(TEXT, "bytes"), cache.path()).0.unwrap();
    let manifest = &dataset.manifest;
    assert_eq!(dataset.name, "text:pride_and_prejudice.txt");
    assert_eq!(manifest.train.n_bytes + manifest.eval.n_bytes, text.len());
    assert_eq!(manifest.train.n_tokens, dataset.train.len());
    assert_eq!(manifest.eval.n_bytes, dataset.eval.len());
    assert_eq!(manifest.eval.ids_sha256, dataset.eval.sha256());
    // better than 8 bits, worse than what a model with context can reach
    assert!(
        (2.0..256_f64.ln()).contains(&manifest.unigram_ce_nats),
        "{}",
        manifest.unigram_ce_nats
    );
    for part in [&dataset.train, &dataset.eval] {
        let part = dataset.tokenizer.decode(&part.get(0..part.len())).unwrap();
        assert!(
            text.contains(&part),
            "each part is one passage of this short text"
        );
    }
    let shorter = DataConfig {
        eval_tokens: Some(100),
        ..config(TEXT, "gpt2")
    };
    let shorter = load(&shorter, cache.path()).0.unwrap();
    assert_eq!(
        (shorter.eval.len(), shorter.manifest.eval.n_tokens),
        (100, 100)
    );
    let start = shorter.tokenizer.decode(&shorter.eval.get(0..100)).unwrap();
    assert!(text.contains(&start));
    assert_eq!(shorter.manifest.eval.n_bytes, start.len());
}

/// Targets in a batch are the successors of the inputs in the file, byte by byte.
#[test]
fn targets_are_the_next_bytes_of_the_file() {
    let cache = tempfile::tempdir().unwrap();
    let text = read_utf8(Path::new(TEXT)).unwrap();
    let dataset = load(&config(TEXT, "bytes"), cache.path()).0.unwrap();
    let batches = Batches::new(dataset.train, 127, 3, 42).unwrap();
    for step in 0..50 {
        let batch = batches.batch(step);
        for (inputs, targets) in batch.inputs.chunks(127).zip(batch.targets.chunks(127)) {
            assert_eq!(inputs[1..], targets[..126]);
            let window: Vec<u8> = inputs
                .iter()
                .chain(targets.last())
                .map(|&id| id as u8)
                .collect();
            assert!(text.contains(std::str::from_utf8(&window).unwrap()));
        }
    }
}

/// One document of the corpus's bytes is split otherwise than its documents are.
#[test]
fn the_embedded_corpus_as_a_file_takes_no_tokens_of_the_embedded_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    let corpus = include_bytes!("../../assets/corpus/kjv+austen.txt.zst");
    fs::write(&file, zstd::decode_all(&corpus[..]).unwrap()).unwrap();
    let (shared, own) = (folder.path().join("shared"), folder.path().join("own"));
    let embedded = DataConfig {
        tokenizer: "bytes".into(),
        ..DataConfig::default()
    };
    load(&embedded, &shared).0.unwrap();
    let alone = load(&config(&file, "bytes"), &own).0.unwrap();
    let beside = load(&config(&file, "bytes"), &shared).0.unwrap();
    assert_eq!(beside.manifest, alone.manifest);
    let manifest = &beside.manifest;
    assert_eq!(manifest.train.n_tokens, manifest.train.n_bytes);
}

#[test]
fn the_embedded_corpus_trains_a_window_of_2_to_the_20() {
    let cache = tempfile::tempdir().unwrap();
    let (dataset, notes) = load(&DataConfig::default(), cache.path());
    let dataset = dataset.unwrap();
    assert_eq!(
        (dataset.name.as_str(), notes.len()),
        (EMBEDDED, 1),
        "{notes:?}"
    );
    assert!(dataset.train.len() > 1 << 20, "{}", dataset.train.len());
    let share = dataset.eval.len() as f64 / (dataset.train.len() + dataset.eval.len()) as f64;
    // 5 % expected; about 450 blocks, so a standard deviation of 1 %
    assert!((0.02..0.08).contains(&share), "{share}");
    let separator = dataset.tokenizer.separator().unwrap();
    assert!(
        dataset.train.iter().filter(|&id| id == separator).count() >= 71,
        "one between documents"
    );
    assert!(dataset.manifest.unigram_ce_nats < 50_257_f64.ln());
    insta::assert_snapshot!(serde_json::to_string_pretty(&dataset.manifest).unwrap());
}

#[test]
fn tokens_are_cached_and_a_damaged_file_is_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let (first, notes) = load(&config(TEXT, "gpt2"), cache.path());
    let first = first.unwrap();
    assert!(notes[0].starts_with("tokenizing"), "{notes:?}");
    let (second, notes) = load(&config(TEXT, "gpt2"), cache.path());
    assert_eq!(
        (second.unwrap().manifest, notes.len()),
        (first.manifest.clone(), 0)
    );

    let file: PathBuf = fs::read_dir(cache.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let good = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        ("another length", good[..good.len() - 1].to_vec()),
        ("another length", [&good[..], &[0]].concat()),
        ("too short", good[..50].to_vec()),
        ("too short", Vec::new()),
        ("another header", flipped(0)),
        ("another header", flipped(8)),
        ("another header", flipped(12)),
        ("another header", flipped(20)),
        ("another length", flipped(48)),
        ("another length", flipped(72)),
        ("do not match", flipped(80)),
        ("do not match", flipped(143)),
        ("do not match", flipped(144)),
        ("do not match", flipped(good.len() - 1)),
    ];
    for (problem, bytes) in damaged {
        // replaced as an editor would: the mapped file above stays as it is
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let (again, notes) = load(&config(TEXT, "gpt2"), cache.path());
        assert_eq!(again.unwrap().manifest, first.manifest);
        assert!(
            notes[0].contains(problem) && notes[1].starts_with("tokenizing"),
            "{problem}: {notes:?}"
        );
        assert_eq!(fs::read(&file).unwrap(), good, "{problem}");
    }
    assert_eq!(
        fs::read_dir(cache.path()).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn another_text_or_tokenizer_has_another_token_file() {
    let cache = tempfile::tempdir().unwrap();
    let text = cache.path().join("text.txt");
    let folder = cache.path().join("tokens");
    for (content, tokenizer) in [
        ("one\n\ntwo", "bytes"),
        ("one\n\nten", "bytes"),
        ("one\n\ntwo", "gpt2"),
    ] {
        fs::write(&text, content.repeat(50)).unwrap();
        load(&config(&text, tokenizer), &folder).0.unwrap();
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3);
}

#[test]
fn an_unusable_cache_costs_a_note_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file, no folder");
    fs::write(&file, "").unwrap();
    let (dataset, notes) = load(&config(TEXT, "bytes"), &file);
    assert!(!dataset.unwrap().train.is_empty());
    assert!(notes.last().unwrap().contains("BKBENCH_CACHE"), "{notes:?}");
}

#[test]
fn bad_input_is_named_before_anything_else_happens() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (
            config(folder.path().join("missing"), "bytes"),
            "cannot be read",
        ),
        (config(folder.path(), "bytes"), "not UTF-8 from byte 2 on"),
        (config(file("empty", b""), "bytes"), "is empty"),
        (
            config(file("latin1", b"na\xefve"), "bytes"),
            "not UTF-8 from byte 2 on",
        ),
        (config(file("short", b"ab"), "bytes"), "leaves"),
        (
            config(TEXT, "no/such/tokenizer.json"),
            "no/such/tokenizer.json",
        ),
        (config(TEXT, TEXT), "tokenizer"),
        (
            DataConfig {
                dataset: "wikitext".into(),
                ..DataConfig::default()
            },
            EMBEDDED,
        ),
        (
            DataConfig {
                dataset: "c4".into(),
                dir: Some(folder.path().to_owned()),
                ..DataConfig::default()
            },
            "bring it with: bkbench data fetch c4 --data_dir",
        ),
        (
            DataConfig {
                eval_tokens: Some(1),
                ..config(TEXT, "bytes")
            },
            "eval_tokens",
        ),
    ];
    for (config, expected) in cases {
        let error = load(&config, folder.path()).0.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        let message = error.to_string();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message}"
        );
    }
}

/// Whole files against the counts and hashes of two other implementations.
#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn gpt2_ids_of_large_files() {
    let data =
        std::env::var_os("BKBENCH_DATA").expect("BKBENCH_DATA names the folder that holds data/");
    let data = Path::new(&data).join("data");
    let counts = fs::read_to_string(data.join("gpt2_token_counts.json")).unwrap();
    let counts: serde_json::Map<String, Value> = serde_json::from_str(&counts).unwrap();
    assert_eq!(counts.len(), 5);
    let gpt2 = Tokenizer::new("gpt2").unwrap();
    for (file, expected) in counts {
        let text = read_utf8(&data.join(&file)).unwrap();
        let tokens = Tokens::from_ids(&gpt2.encode(&text).unwrap(), gpt2.vocab_size());
        assert_eq!(tokens.len() as u64, expected["gpt2_tokens"], "{file}");
        assert_eq!(
            tokens.sha256(),
            expected["sha256_u16le_ids"].as_str().unwrap(),
            "{file}"
        );
    }
}
