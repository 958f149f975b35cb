//! The rules of the source tree, kept by reading it: which module may use which, who may name which
//! dependency, what breaks reproducibility, and how long a file may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules of one level that may use each other, in this direction only.
const PEERS: [(&str, &str); 7] = [
    ("accounting", "models"),
    ("error", "units"),
    ("eval", "train"),
    ("math", "error"),
    ("quant", "error"),
    ("results", "config"),
    ("results", "stats"),
];

/// Dependencies that only some modules may name.
const CRATES: [(&str, &[&str]); 10] = [
    (
        "burn",
        &[
            "hardware",
            "ops",
            "models",
            "accounting",
            "train",
            "eval",
            "speed",
            "verify",
        ],
    ),
    ("burn_flex", &["ops"]),
    ("burn_wgpu", &["ops"]),
    ("cubecl", &["ops"]),
    ("wgpu", &["hardware"]),
    ("pollster", &["hardware"]),
    ("naga", &["shader"]),
    ("statrs", &["stats"]),
    ("plotters", &["report"]),
    ("clap", &["cli"]),
];

/// Methods no product code calls, with the reason, and the files that may all the same.
const METHODS: [(&str, &str, &[&str]); 10] = [
    (
        "into_data",
        "panics on a device failure: use hardware::read",
        &["hardware/read.rs"],
    ),
    (
        "into_scalar",
        "panics on a device failure: use hardware::read",
        &["hardware/read.rs"],
    ),
    (
        "try_into_data",
        "misses panics of the device thread: use hardware::read",
        &["hardware/read.rs"],
    ),
    (
        "try_into_scalar",
        "misses panics of the device thread: use hardware::read",
        &["hardware/read.rs"],
    ),
    (
        "to_data",
        "panics on a device failure: use hardware::read",
        &["hardware/read.rs"],
    ),
    ("scatter", "adds floats in no fixed order", &[]),
    (
        "with_grad_clipping",
        "clips each tensor by itself: clip the global norm",
        &[],
    ),
    ("unwrap", "panics: return an error", &[]),
    ("expect", "panics: return an error", &[]),
    (
        "random_like",
        "burn's generator is one for the process: use math::random",
        &[],
    ),
];

/// Names of burn that no product code uses, with the reason.
const BURN: [(&str, &str); 6] = [
    (
        "random",
        "burn's generator is one for the process: use math::random",
    ),
    (
        "Distribution",
        "burn's generator is one for the process: use math::random",
    ),
    (
        "Dropout",
        "draws from one generator for the process: a recomputed segment gets another mask",
    ),
    (
        "DropoutConfig",
        "draws from one generator for the process: a recomputed segment gets another mask",
    ),
    (
        "GradientClipping",
        "clips each tensor by itself: clip the global norm",
    ),
    (
        "GradientClippingConfig",
        "clips each tensor by itself: clip the global norm",
    ),
];

/// Macros, and the modules that may use them.
const MACROS: [(&str, &[&str]); 8] = [
    ("println", &["cli"]),
    ("print", &["cli"]),
    ("eprintln", &["cli"]),
    ("eprint", &["cli"]),
    ("dbg", &[]),
    ("panic", &[]),
    ("todo", &[]),
    ("unimplemented", &[]),
];

const MAX_LINES: usize = 600;

/// Files that are longer, and why they are better in one piece.
const LONG_FILES: [(&str, &str); 0] = [];

// ---- reading Rust ----

/// Identifiers, `::` and single characters; comments, texts, numbers' insides and lifetimes are left out.
fn tokens(source: &str) -> Vec<&str> {
    let bytes = source.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let step = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = text(rest) {
            len
        } else if bytes[at] == b'\'' {
            // A character, or else the quote of a lifetime.
            match rest[1..].chars().next() {
                Some('\\') => 3 + rest[3..].find('\'').unwrap_or(0),
                Some(c) if rest[1 + c.len_utf8()..].starts_with('\'') => 2 + c.len_utf8(),
                _ => 1,
            }
        } else if word(bytes[at]) {
            let len = bytes[at..].iter().take_while(|b| word(**b)).count();
            tokens.push(&rest[..len]);
            len
        } else if rest.starts_with("::") {
            tokens.push("::");
            2
        } else {
            let len = rest.chars().next().map_or(1, char::len_utf8);
            if !rest[..len].trim().is_empty() {
                tokens.push(&rest[..len]);
            }
            len
        };
        at += step;
    }
    tokens
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..(at + 2).min(rest.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the text literal that `rest` starts with.
fn text(rest: &str) -> Option<usize> {
    let prefix = rest
        .bytes()
        .take_while(|b| b"brc".contains(b))
        .count()
        .min(2);
    let body = &rest[prefix..];
    let hashes = body.bytes().take_while(|&b| b == b'#').count();
    let raw = rest[..prefix].contains('r');
    if !body[hashes..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let start = prefix + hashes + 1;
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(start + rest[start..].find(&end)? + end.len());
    }
    let mut escaped = false;
    let close = rest[start..].bytes().position(|b| {
        let closes = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        closes
    })?;
    Some(start + close + 1)
}

/// The tokens without the items under `#[cfg(test)]`.
fn product<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            let (mut depth, mut end) = (0, at + 7);
            while end < tokens.len() {
                match tokens[end] {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                end += 1;
                if depth == 0 && matches!(tokens[end - 1], "}" | ";") {
                    break;
                }
            }
            at = end;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

fn identifier(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Every path, groups of imports taken apart, turbofishes left out.
fn paths<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if identifier(tokens[at]) {
            path(tokens, at, &[], &mut found)
        } else {
            at + 1
        };
    }
    found
}

/// Reads the path at `at` behind `prefix`; returns where the reading goes on.
fn path<'a>(
    tokens: &[&'a str],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<Vec<&'a str>>,
) -> usize {
    let mut segments = prefix.to_vec();
    loop {
        segments.push(tokens[at]);
        at += 1;
        if tokens.get(at) == Some(&"::") && tokens.get(at + 1) == Some(&"<") {
            let mut depth = 0;
            at += 1;
            while at < tokens.len() {
                match tokens[at] {
                    "<" => depth += 1,
                    ">" => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
        }
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(&"::"), Some(next)) if identifier(next) => at += 1,
            (Some(&"::"), Some(&"{")) => {
                at += 2;
                while at < tokens.len() && tokens[at] != "}" {
                    at = if identifier(tokens[at]) {
                        path(tokens, at, &segments, found)
                    } else {
                        at + 1
                    };
                }
                return at + 1;
            }
            _ => break,
        }
    }
    found.push(segments);
    at
}

// ---- the rules ----

/// Levels by module, read from the list in the documentation of `lib.rs`.
fn levels(lib: &str) -> BTreeMap<&str, usize> {
    let doc = lib
        .split_once("Modules in the order")
        .map_or("", |(_, rest)| rest);
    let list = doc
        .split_once("keeps that true):")
        .map_or("", |(_, rest)| rest);
    let list = list.split_once(".\n").map_or("", |(list, _)| list);
    let mut levels = BTreeMap::new();
    for (level, group) in list.split('·').enumerate() {
        for name in group.split("[`").skip(1) {
            let name = name.split('`').next().unwrap_or_default();
            levels.insert(name.trim_start_matches("mod@"), level);
        }
    }
    levels
}

/// What `source`, the text of `file` (relative to `src`), breaks.
fn violations(file: &str, source: &str, levels: &BTreeMap<&str, usize>) -> Vec<String> {
    let module = file.split(['/', '.']).next().unwrap_or_default();
    let all = tokens(source);
    let product = product(&all);
    let mut broken = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_LINES && !LONG_FILES.iter().any(|(known, _)| *known == file) {
        broken.push(format!(
            "{lines} lines, more than {MAX_LINES} without a reason in LONG_FILES"
        ));
    }
    for path in paths(&all) {
        broken.extend(layer(module, &path, levels));
        broken.extend(dependency(module, &path));
    }
    for path in paths(&product) {
        broken.extend(
            root_by_super(file, &path, levels)
                .and_then(|used| layer(module, &["crate", used], levels)),
        );
        let last = path.last().copied().unwrap_or_default();
        let of_burn = path[0] == "burn" || path.contains(&"Tensor");
        for (name, reason) in BURN {
            if of_burn && path.contains(&name) {
                broken.push(format!("{}: {reason}", path.join("::")));
            }
        }
        if last.starts_with("float_scatter") {
            broken.push(format!("{last}: adds floats in no fixed order"));
        }
    }
    for window in product.windows(3) {
        for (name, reason, exempt) in METHODS {
            if matches!(window, [".", method, "(" | "::"] if *method == name)
                && !exempt.contains(&file)
            {
                broken.push(format!(".{name}(): {reason}"));
            }
        }
        for (name, allowed) in MACROS {
            if matches!(window, [called, "!", "(" | "[" | "{"] if *called == name)
                && !allowed.contains(&module)
            {
                broken.push(format!("{name}! is not for {module}"));
            }
        }
    }
    broken
}

fn layer(module: &str, path: &[&str], levels: &BTreeMap<&str, usize>) -> Option<String> {
    let [first, used, ..] = path else { return None };
    let (Some(own), Some(other)) = (levels.get(module), levels.get(used)) else {
        return None;
    };
    // Plots and reports are drawn from files alone, on machines without any device.
    let ceiling = if module == "report" { 2 } else { *own };
    let allowed = other < &ceiling || *used == module || PEERS.contains(&(module, used));
    (*first == "crate" && !allowed)
        .then(|| format!("{module} (level {own}) uses {used} (level {other})"))
}

/// The module that a path of `super`s reaches through the root of the crate.
fn root_by_super<'a>(
    file: &str,
    path: &[&'a str],
    levels: &BTreeMap<&str, usize>,
) -> Option<&'a str> {
    let stem = file.trim_end_matches("/mod.rs").trim_end_matches(".rs");
    let ups = path
        .iter()
        .take_while(|segment| **segment == "super")
        .count();
    let used = *path.get(ups)?;
    (ups > 0 && ups == stem.split('/').count() && levels.contains_key(used)).then_some(used)
}

fn dependency(module: &str, path: &[&str]) -> Option<String> {
    let named = |krate: &str| match krate {
        // burn re-exports it.
        "cubecl" => path.len() > 1 && path[..2].contains(&"cubecl"),
        _ => path.len() > 1 && path[0] == krate,
    };
    let (krate, allowed) = CRATES
        .iter()
        .find(|(krate, allowed)| named(krate) && !allowed.contains(&module))?;
    Some(format!(
        "{module} names {krate}, which is for {}",
        allowed.join(", ")
    ))
}

// ---- the tree ----

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file under `src`, by its path relative to it, with `/` between folders.
fn files() -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![src()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path
                    .strip_prefix(src())
                    .expect("a path in src")
                    .to_string_lossy()
                    .replace('\\', "/");
                files.push((relative, std::fs::read_to_string(path).expect("a text")));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_source_tree_keeps_the_rules() {
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let levels = levels(&lib);
    let broken: Vec<String> = files()
        .iter()
        .flat_map(|(file, source)| {
            let broken = violations(file, source, &levels);
            broken
                .into_iter()
                .map(move |line| format!("src/{file}: {line}"))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_has_a_level_in_the_documentation_of_the_library() {
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let declared = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let levels = levels(&lib);
    let declared: Vec<&str> = declared.collect();
    assert_eq!(declared, levels.keys().copied().collect::<Vec<_>>());
    assert_eq!(
        (
            levels["error"],
            levels["hardware"],
            levels["verify"],
            levels["cli"]
        ),
        (0, 2, 6, 8)
    );
}

#[test]
fn every_long_file_listed_is_there_and_long() {
    for (file, reason) in LONG_FILES {
        let lines = std::fs::read_to_string(src().join(file))
            .unwrap()
            .lines()
            .count();
        assert!(
            lines > MAX_LINES && !reason.is_empty(),
            "{file} has {lines} lines: take it off the list"
        );
    }
}

// ---- each rule can fail ----

fn broken(file: &str, source: &str) -> Vec<String> {
    let lib = "Modules in the order x keeps that true): [`error`], [`units`], [`math`] · [`stats`], [`config`],
        [`results`] · [`hardware`] · [`ops`] · [`models`] · [`train`] · [`bench`] · [`report`] · [`cli`].\n";
    violations(file, source, &levels(lib))
}

fn breaks(file: &str, source: &str, expected: &str) {
    let broken = broken(file, source);
    assert!(
        broken.iter().any(|line| line.contains(expected)),
        "{file}: {source}\n{broken:?}"
    );
}

fn keeps(file: &str, source: &str) {
    assert_eq!(
        broken(file, source),
        Vec::<String>::new(),
        "{file}: {source}"
    );
}

#[test]
fn a_use_of_a_higher_module_is_seen_in_every_spelling() {
    breaks(
        "math/mod.rs",
        "use crate::ops::flex;",
        "math (level 0) uses ops (level 3)",
    );
    breaks(
        "math/mod.rs",
        "use crate::{Error, units::{Bytes, Seconds}, ops};",
        "uses ops",
    );
    breaks("math/mod.rs", "fn f() { crate::ops::flex(); }", "uses ops");
    breaks("math/random.rs", "use super::super::ops;", "uses ops");
    breaks("units.rs", "use super::ops::flex;", "uses ops");
    breaks(
        "stats/mod.rs",
        "use crate::config::Config;",
        "stats (level 1) uses config (level 1)",
    );
    breaks(
        "report/mod.rs",
        "use crate::models::Model;",
        "report (level 7) uses models",
    );
    keeps(
        "ops/a/b.rs",
        "use crate::{Error, math::random, hardware::{open, read}}; use super::super::flex;",
    );
    keeps("results/mod.rs", "use crate::config::Config;");
    keeps("report/mod.rs", "use crate::{results::Record, stats};");
    keeps("config/layers.rs", "use super::ops; use crate::config::x;");
}

#[test]
fn a_dependency_named_in_the_wrong_module_is_seen() {
    breaks(
        "config/mod.rs",
        "use burn::tensor::Tensor;",
        "config names burn",
    );
    breaks(
        "ops/launch.rs",
        "fn f(x: &wgpu::Device) {}",
        "ops names wgpu",
    );
    breaks(
        "models/mod.rs",
        "use burn::cubecl::prelude::*;",
        "models names cubecl",
    );
    breaks(
        "bench/mod.rs",
        "use plotters::prelude::*;",
        "bench names plotters",
    );
    keeps(
        "ops/launch.rs",
        "use burn::backend::wgpu::CubeTensor; use burn::cubecl::CubeDim;",
    );
}

#[test]
fn what_breaks_reproducibility_is_seen() {
    breaks(
        "ops/a.rs",
        "let x = Tensor::<2>::random([1, 2], d, &device);",
        "math::random",
    );
    breaks(
        "ops/a.rs",
        "let x = Tensor::random([1, 2], d, &device);",
        "math::random",
    );
    breaks(
        "models/a.rs",
        "use burn::nn::{Dropout, Linear};",
        "another mask",
    );
    breaks(
        "models/a.rs",
        "use burn::nn::DropoutConfig;",
        "another mask",
    );
    breaks(
        "train/a.rs",
        "use burn::grad_clipping::GradientClippingConfig;",
        "global norm",
    );
    breaks("train/a.rs", "c.with_grad_clipping(x);", "global norm");
    breaks("train/a.rs", "x.random_like(d);", "math::random");
    breaks("ops/a.rs", "x.scatter(0, i, v, u);", "no fixed order");
    breaks(
        "ops/a.rs",
        "Self::float_scatter_add(0, x, i, v);",
        "no fixed order",
    );
    keeps(
        "models/a.rs",
        "use super::layers::Dropout; let x = crate::math::random::uniform(1);",
    );
}

#[test]
fn reading_outside_the_one_reader_is_seen() {
    for method in [
        "into_data",
        "into_scalar",
        "try_into_data",
        "try_into_scalar::<f32>",
        "to_data",
    ] {
        breaks("train/a.rs", &format!("x.{method}()"), "hardware::read");
        keeps("hardware/read.rs", &format!("x.{method}()"));
    }
}

#[test]
fn printing_and_panicking_are_seen() {
    breaks(
        "bench/a.rs",
        "println!(\"x\");",
        "println! is not for bench",
    );
    breaks(
        "bench/a.rs",
        "eprint! { \"x\" }",
        "eprint! is not for bench",
    );
    keeps("cli/a.rs", "println!(\"x\"); eprintln!(\"x\");");
    for source in [
        "x.unwrap();",
        "x.expect(\"y\");",
        "panic!(\"x\");",
        "todo!()",
        "dbg!(x);",
    ] {
        breaks("cli/a.rs", source, "");
    }
    keeps("ops/a.rs", "x.unwrap_or(1); x.expected();");
}

#[test]
fn comments_texts_and_tests_are_not_code() {
    keeps(
        "ops/a.rs",
        "// x.unwrap()\n/* println!() /* nested */ panic!() */ let s = \"x.unwrap()\\\" panic!()\";",
    );
    keeps(
        "ops/a.rs",
        "let s = r#\"panic!(\"x\")\"#; let c = '\"'; let d: &'static str = b\"panic!()\";",
    );
    let tested = "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); panic!(\"\"); } }\n";
    keeps("ops/a.rs", tested);
    breaks(
        "ops/a.rs",
        &format!("{tested} fn g() {{ x.unwrap(); }}"),
        "unwrap",
    );
    breaks(
        "ops/a.rs",
        "#[cfg(test)] use a::b; fn g() { x.unwrap(); }",
        "unwrap",
    );
    breaks("ops/a.rs", "let c = '\\''; x.unwrap();", "unwrap");
    breaks("ops/a.rs", "fn f<'a>(x: &'a str) { x.unwrap(); }", "unwrap");
}

#[test]
fn a_long_file_is_seen() {
    breaks("ops/a.rs", &"\n".repeat(MAX_LINES + 1), "601 lines");
    keeps("ops/a.rs", &"\n".repeat(MAX_LINES));
}
