//! Files of every format, read document by document.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bkbench::config::DataConfig;
use bkbench::data::registry::Split;
use bkbench::data::{Corpus, Documents, Form, Tokenizer};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::datasets::{load, text_config};

// ---- files ----

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Json lines with the keys of C4 and the Pile.
pub(crate) fn json_lines<T: AsRef<str>>(texts: &[T]) -> Vec<u8> {
    let record = |(i, text): (usize, &T)| {
        let text = text.as_ref();
        let record = if i % 2 == 0 {
            json!({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.example"})
        } else {
            json!({"meta": {"pile_set_name": "Pile-CC"}, "text": text})
        };
        record.to_string() + "\n"
    };
    texts
        .iter()
        .enumerate()
        .map(record)
        .collect::<String>()
        .into_bytes()
}

/// A parquet file of one row group for each two rows, the text in its second column.
pub(crate) fn parquet(rows: &[Option<&[u8]>], compression: Compression) -> Vec<u8> {
    let schema = "message schema { required int64 id; optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(2) {
        let mut group = file.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..).take(rows.len()).collect();
        ids.typed::<Int64Type>()
            .write_batch(&numbers, None, None)
            .unwrap();
        ids.close().unwrap();
        let mut texts = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        let values: Vec<ByteArray> = rows
            .iter()
            .flatten()
            .map(|row| ByteArray::from(row.to_vec()))
            .collect();
        texts
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)
            .unwrap();
        texts.close().unwrap();
        group.close().unwrap();
    }
    file.into_inner().unwrap()
}

pub(crate) fn put(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn documents(path: &Path, form: Form) -> Vec<String> {
    Documents::open(path, form)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// Texts of odd sizes, none like another.
pub(crate) fn texts(n: usize) -> Vec<String> {
    let text = |i: usize| {
        let digest = Sha256::digest(i.to_string());
        let words = digest
            .iter()
            .cycle()
            .take(1 + i % 97)
            .map(|byte| format!("w{byte} "));
        format!("Döcument {i}:\n{}", words.collect::<String>())
    };
    (0..n).map(text).collect()
}

// ---- readers ----

#[test]
fn every_format_gives_the_same_documents() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(7);
    let lines = json_lines(&texts);
    let rows: Vec<Option<&[u8]>> = texts.iter().map(|text| Some(text.as_bytes())).collect();
    // Compressed files may be made of several members, as `cat a.gz b.gz` makes them.
    let (head, tail) = lines.split_at(100);
    for (name, bytes) in [
        ("a.jsonl", lines.clone()),
        ("a.json.gz", gz(&lines)),
        ("b.json.gz", [gz(head), gz(tail)].concat()),
        ("a.jsonl.zst", zst(&lines)),
        ("b.jsonl.zst", [zst(head), zst(tail)].concat()),
        ("a.parquet", parquet(&rows, Compression::SNAPPY)),
        (
            "b.parquet",
            parquet(&rows, Compression::ZSTD(ZstdLevel::default())),
        ),
        (
            "c.parquet",
            parquet(&rows, Compression::GZIP(GzipLevel::default())),
        ),
    ] {
        let path = put(dir.path(), name, bytes);
        assert_eq!(documents(&path, Form::Documents), texts, "{name}");
        assert_eq!(
            Corpus::at(&path)
                .unwrap()
                .documents(Split::Train)
                .map(Result::unwrap)
                .collect::<Vec<_>>(),
            texts
        );
    }
    // A document a file, in the order of their names; hidden files are none.
    for (i, text) in texts.iter().enumerate() {
        let bytes = if i == 3 {
            gz(text.as_bytes())
        } else {
            text.clone().into_bytes()
        };
        let extension = if i == 3 { "txt.gz" } else { "txt" };
        put(dir.path(), &format!("folder/{i}.{extension}"), bytes);
    }
    put(dir.path(), "folder/.hidden", "no document");
    let folder = Corpus::at(&dir.path().join("folder")).unwrap();
    let read: Vec<String> = folder.documents(Split::Train).map(Result::unwrap).collect();
    assert_eq!(read, texts);
}

/// The hub's rows give the text as it was first published.
#[test]
fn wikitext_is_the_same_from_text_and_from_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        " \n = One = \n \n A text . \n \n = = Part = = \n \n More . \n \n = Two = \n \n End . \n ";
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let rows: Vec<Option<&[u8]>> = lines
        .iter()
        .map(|line| {
            Some(if *line == " \n" {
                &b""[..]
            } else {
                line.as_bytes()
            })
        })
        .collect();
    let published = put(dir.path(), "wiki.tokens", text);
    let hub = put(
        dir.path(),
        "wiki.parquet",
        parquet(&rows, Compression::SNAPPY),
    );
    let articles = documents(&published, Form::WikiText);
    assert_eq!(articles.concat(), text);
    assert_eq!(articles.len(), 2, "{articles:?}");
    assert_eq!(documents(&hub, Form::WikiText), articles);
    // Articles are encoded one by one, to the ids of the whole.
    let gpt2 = Tokenizer::new("gpt2").unwrap();
    let ids: Vec<u32> = articles
        .iter()
        .flat_map(|text| gpt2.encode(text).unwrap())
        .collect();
    assert_eq!(ids, gpt2.encode(text).unwrap());
}

#[test]
fn damaged_files_are_named_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let texts = texts(400);
    let lines = json_lines(&texts);
    let rows: Vec<Option<&[u8]>> = texts.iter().map(|text| Some(text.as_bytes())).collect();
    let table = parquet(&rows, Compression::SNAPPY);
    let (gz, zst) = (gz(&lines), zst(&lines));
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = bytes.len() / 2;
        bytes[at..at + 8].fill(0xff);
        bytes
    };
    let invalid: Vec<Option<&[u8]>> = vec![Some(b"good"), None, Some(b"na\xefve")];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "half.json.gz",
            gz[..gz.len() / 2].to_vec(),
            "cut short or damaged after line",
        ),
        (
            "trailer.json.gz",
            gz[..gz.len() - 1].to_vec(),
            "cut short or damaged after line 400",
        ),
        (
            "flipped.json.gz",
            flipped(&gz),
            "half or damaged|damaged|not JSON|not UTF-8",
        ),
        (
            "half.jsonl.zst",
            zst[..zst.len() / 2].to_vec(),
            "cut short or damaged after line",
        ),
        (
            "end.jsonl.zst",
            zst[..zst.len() - 1].to_vec(),
            "cut short or damaged after line",
        ),
        (
            "no.jsonl.zst",
            b"no zstd".to_vec(),
            "cut short or damaged after line 0",
        ),
        (
            "half.parquet",
            table[..table.len() / 2].to_vec(),
            "cut short or damaged",
        ),
        (
            "end.parquet",
            table[..table.len() - 1].to_vec(),
            "cut short or damaged",
        ),
        ("no.parquet", b"".to_vec(), "cut short or damaged"),
        (
            "invalid.parquet",
            parquet(&invalid, Compression::SNAPPY),
            "byte 2 on of the text in row 3",
        ),
        (
            "half.jsonl",
            lines[..lines.len() - 9].to_vec(),
            "line 400: is not JSON",
        ),
        (
            "no.jsonl",
            b"{\"text\": \"a\"}\n\nplain words\n".to_vec(),
            "line 3: is not JSON",
        ),
        (
            "latin1.jsonl",
            b"{\"text\": \"a\"}\n{\"text\": \"na\xefve\"}\n".to_vec(),
            "byte 26 on (line 2)",
        ),
        (
            "latin1.txt",
            b"na\xefve".to_vec(),
            "not UTF-8 from byte 2 on",
        ),
        (
            "latin1.txt.gz",
            self::gz(b"na\xefve"),
            "not UTF-8 from byte 2 on",
        ),
    ];
    for (name, bytes, expected) in cases {
        let path = put(dir.path(), name, bytes);
        let error = match Documents::open(&path, Form::Documents) {
            Ok(mut documents) => {
                let error = documents.find_map(Result::err).expect(name);
                assert!(
                    documents.next().is_none(),
                    "{name}: nothing follows an error"
                );
                error
            }
            Err(error) => error,
        };
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2, "{message}");
        assert!(
            message.contains(name) && !message.contains('\n'),
            "{message}"
        );
        assert!(
            expected.split('|').any(|part| message.contains(part)),
            "{message}"
        );
        // Nothing of it is kept as if it were whole.
        let cache = dir.path().join("cache");
        let config = DataConfig {
            text: Some(path),
            tokenizer: "bytes".into(),
            ..DataConfig::default()
        };
        load(&config, &cache).0.unwrap_err();
        assert_eq!(fs::read_dir(&cache).map_or(0, Iterator::count), 0, "{name}");
    }
}

#[test]
fn records_without_text_are_left_out_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let empty = r#"{"url": "a"}
{"text": ""}
{"text": null}
{"text": 5}
[1, 2]
"#;
    let all = [json_lines(&texts(200)), empty.as_bytes().to_vec()].concat();
    let config = text_config(&put(dir.path(), "some.jsonl", all), "bytes");
    let (dataset, notes) = load(&config, &dir.path().join("cache"));
    let read = dataset.unwrap().manifest.train.provenance.unwrap();
    assert_eq!(read.n_skipped, 5);
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("5 records without text")),
        "{notes:?}"
    );

    let config = text_config(&put(dir.path(), "none.jsonl", empty), "bytes");
    let error = load(&config, &dir.path().join("cache")).0.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");

    let rows: Vec<Option<&[u8]>> = vec![None, Some(b"text"), Some(b""), None, None];
    let path = put(
        dir.path(),
        "some.parquet",
        parquet(&rows, Compression::SNAPPY),
    );
    let mut documents = Documents::open(&path, Form::Documents).unwrap();
    assert_eq!(
        documents.by_ref().map(Result::unwrap).collect::<Vec<_>>(),
        ["text"]
    );
    assert_eq!(documents.n_skipped(), 4);
}
