//! `docs/configuration.md` against what a configuration reads.

use std::collections::BTreeMap;

use bkbench::config::{Config, from_toml};
use toml::{Table, Value};

/// The default of every key that the page names, as it stands there.
fn page() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/configuration.md"
    ));
    let page = page.unwrap();
    let row = |line: &str| {
        let (key, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (default, _) = rest.split_once(" | ")?;
        Some((key.to_owned(), default.trim_matches('`').to_owned()))
    };
    let rows: Vec<_> = page.lines().filter_map(row).collect();
    let n_rows = rows.len();
    let named = BTreeMap::from_iter(rows);
    assert_eq!(named.len(), n_rows, "a key is named twice");
    named
}

/// The keys of a section, or of the whole for an empty name, as the error about an unknown one lists them; none where the
/// key holds a value.
fn keys_of(section: &str) -> Vec<String> {
    let text = match section {
        "" => "probe = 1".to_owned(),
        _ => format!("[{section}]\nprobe = 1"),
    };
    let error = from_toml::<Config>(&text, "").unwrap_err().to_string();
    let Some((_, known)) = error.split_once("unknown field `probe`, expected") else {
        return Vec::new();
    };
    let words = known.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

#[test]
fn the_page_names_every_key_and_no_other() {
    let mut keys = Vec::new();
    for top in keys_of("") {
        let within = keys_of(&top);
        if within.is_empty() {
            keys.push(top);
            continue;
        }
        for key in within {
            let path = format!("{top}.{key}");
            assert_eq!(keys_of(&path), [""; 0], "{path} has keys of its own");
            keys.push(path);
        }
    }
    keys.sort();
    let named: Vec<String> = page().into_keys().collect();
    assert_eq!(named, keys);
}

#[test]
fn the_page_has_the_defaults() {
    let defaults = Table::try_from(Config::default()).unwrap();
    for (key, default) in page() {
        let found = match key.split_once('.') {
            None => defaults.get(&key),
            Some((section, key)) => defaults[section].get(key),
        };
        if default == "-" {
            assert_eq!(found, None, "{key}");
            continue;
        }
        let mut named: Table = toml::from_str(&format!("value = {default}")).unwrap();
        let named: Option<Value> = named.remove("value");
        assert_eq!(named.as_ref(), found, "{key}");
    }
}
