//! `bkbench data fetch` from a server on loopback that does all sorts of things wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use sha2::{Digest, Sha256};

use crate::datasets::{load, named_config};
use crate::documents::{json_lines, put, texts, zst};

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Closes the first transfer of each file half-way.
    Cut,
    /// Sends other bytes than it names.
    OtherBytes,
    /// Sends the whole where a part was asked for, after a cut.
    IgnoresRange,
    /// Names files so that they would lie elsewhere.
    Climbs,
    /// Has nothing.
    Absent,
}

/// A hub on loopback with the files of `pile-uncopyrighted`.
struct Hub {
    endpoint: String,
    /// Path and first byte of each transfer.
    transfers: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Hub {
    fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let transfers = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&transfers);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is none of the server's business.
                let _ = stream.and_then(|stream| answer(stream, fault, &log));
            }
        });
        Self {
            endpoint,
            transfers,
        }
    }

    fn transfers(&self) -> Vec<(String, usize)> {
        self.transfers.lock().unwrap().clone()
    }
}

const FILES: [&str; 3] = ["train/00.jsonl.zst", "val.jsonl.zst", "test.jsonl.zst"];

fn hub_file(path: &str) -> Vec<u8> {
    let n = 300 + 10 * FILES.iter().position(|file| *file == path).unwrap();
    zst(&json_lines(&texts(n)))
}

fn answer(
    mut stream: TcpStream,
    fault: Fault,
    log: &Mutex<Vec<(String, usize)>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    let url = request.split(' ').nth(1).unwrap();
    let path = url.strip_prefix("/datasets/monology/pile-uncopyrighted/resolve/main/");
    let Some(path) = path.filter(|path| FILES.contains(path) && fault != Fault::Absent) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    assert!(!request.contains("authorization"), "no token is sent");
    let range = request.split("range: bytes=").nth(1).unwrap();
    let (start, rest) = range.split_once('-').unwrap();
    let mut start: usize = start.parse().unwrap();
    let asks = rest.starts_with('0');
    let mut bytes = hub_file(path);
    let n_bytes = bytes.len();
    let etag = match fault {
        Fault::Climbs => "../../../evil".to_owned(),
        _ => format!("{:x}", Sha256::digest(&bytes)),
    };
    let mut end = if asks { 1 } else { n_bytes };
    let mut sent = end;
    if !asks {
        let mut log = log.lock().unwrap();
        let is_first = !log.iter().any(|(known, _)| known == path);
        log.push((path.to_owned(), start));
        if is_first && matches!(fault, Fault::Cut | Fault::IgnoresRange) {
            sent = n_bytes / 2;
        } else if fault == Fault::IgnoresRange {
            start = 0;
        }
        if fault == Fault::OtherBytes {
            bytes[n_bytes / 2] ^= 1;
        }
    }
    end = end.max(start);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {}\r\nContent-Length: {}\r\n\
         Content-Range: bytes {start}-{}/{n_bytes}\r\nConnection: close\r\n\r\n",
        "0".repeat(40),
        end - start,
        end.saturating_sub(1),
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&bytes[start..sent])
}

fn fetch(endpoint: &str, dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("bkbench").unwrap();
    for proxy in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(proxy);
    }
    command
        .env("HF_ENDPOINT", endpoint)
        .args(["data", "fetch"])
        .args(line.split(' '));
    let output = command.arg("--data_dir").arg(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Files under the data folder but those of unfinished downloads.
fn in_place(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".downloads") {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_dataset_is_fetched_checked_and_used() {
    let hub = Hub::start(Fault::None);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, stdout, stderr) = fetch(&hub.endpoint, &data, "pile-uncopyrighted");
    assert_eq!(code, Some(0), "{stderr}");
    for file in FILES {
        let bytes = fs::read(data.join("pile-uncopyrighted").join(file)).unwrap();
        assert_eq!(bytes, hub_file(file));
        assert!(
            stdout.contains(&format!("{:x}", Sha256::digest(&bytes))),
            "{stdout}"
        );
    }
    assert_eq!(in_place(dir.path()).len(), 3);
    assert!(!data.join(".downloads").exists());
    let dataset = load(
        &named_config("pile-uncopyrighted", &data),
        &dir.path().join("cache"),
    )
    .0;
    let manifest = dataset.unwrap().manifest;
    assert_eq!(manifest.train.provenance.unwrap().n_documents, 300);
    assert_eq!(manifest.eval.provenance.unwrap().n_documents, 320);

    // What is there already is not downloaded again; what is there and other is not overwritten.
    let transfers = hub.transfers();
    assert_eq!(fetch(&hub.endpoint, &data, "pile-uncopyrighted").0, Some(0));
    assert_eq!(hub.transfers(), transfers);
    let other = put(&data, "pile-uncopyrighted/val.jsonl.zst", "mine");
    let (code, _, stderr) = fetch(&hub.endpoint, &data, "pile-uncopyrighted");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("another file than the hub's"), "{stderr}");
    assert_eq!(fs::read(other).unwrap(), b"mine");
}

#[test]
fn an_interrupted_download_goes_on_and_is_never_taken_for_whole() {
    let hub = Hub::start(Fault::Cut);
    let dir = tempfile::tempdir().unwrap();
    for n_here in 0..3 {
        let (code, _, stderr) = fetch(&hub.endpoint, dir.path(), "pile-uncopyrighted");
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("the same command goes on"), "{stderr}");
        assert_eq!(in_place(dir.path()).len(), n_here);
    }
    let (code, _, stderr) = fetch(&hub.endpoint, dir.path(), "pile-uncopyrighted");
    assert_eq!(code, Some(0), "{stderr}");
    let mut expected = Vec::new();
    for file in FILES {
        let bytes = hub_file(file);
        assert_eq!(
            fs::read(dir.path().join("pile-uncopyrighted").join(file)).unwrap(),
            bytes
        );
        expected.extend([(file.to_owned(), 0), (file.to_owned(), bytes.len() / 2)]);
    }
    assert_eq!(
        hub.transfers(),
        expected,
        "the second half alone was asked for"
    );
}

#[test]
fn wrong_bytes_are_thrown_away() {
    for (fault, n_failures) in [(Fault::OtherBytes, 1), (Fault::IgnoresRange, 2)] {
        let hub = Hub::start(fault);
        let dir = tempfile::tempdir().unwrap();
        for i in 1..=n_failures {
            let (code, _, stderr) = fetch(&hub.endpoint, dir.path(), "pile-uncopyrighted");
            assert_eq!(code, Some(1), "{stderr}");
            assert_eq!(
                stderr.contains("not what the hub names"),
                i == n_failures,
                "{stderr}"
            );
        }
        assert_eq!(in_place(dir.path()), [] as [PathBuf; 0]);
        let downloads = dir.path().join(".downloads");
        let left = downloads.join("datasets--monology--pile-uncopyrighted/blobs");
        let left: Vec<_> = fs::read_dir(left)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            left.iter()
                .all(|name| name.to_string_lossy().ends_with(".lock")),
            "{left:?}"
        );
    }
}

#[test]
fn what_cannot_be_fetched_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/data");
    let climbing = Hub::start(Fault::Climbs).endpoint;
    let absent = Hub::start(Fault::Absent).endpoint;
    for (endpoint, name, code, expected) in [
        (
            climbing.as_str(),
            "pile-uncopyrighted",
            2,
            "leads out of the data folder",
        ),
        (absent.as_str(), "c4", 1, "404"),
        (absent.as_str(), "ptb", 2, "Linguistic Data Consortium"),
        (absent.as_str(), "pile", 2, "no longer distributed"),
        (
            absent.as_str(),
            "../c4",
            2,
            "unknown dataset '../c4'; known:",
        ),
        ("http://hub.example", "c4", 2, "https://"),
        ("http://127.0.0.1:1", "c4", 1, "cannot download"),
    ] {
        let (exit, stdout, stderr) = fetch(endpoint, &data, name);
        assert_eq!(
            (exit, stdout.as_str()),
            (Some(code), ""),
            "{name}: {stderr}"
        );
        assert!(stderr.contains(expected), "{name}: {stderr}");
        assert_eq!(in_place(dir.path()), [] as [PathBuf; 0], "{name}");
    }
}
