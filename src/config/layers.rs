//! Overrides: presets, files and flags are TOML tables laid upon each other.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::Config;
use crate::{Error, Result};

/// Names and texts of the presets, smallest first.
pub const PRESETS: [(&str, &str); 4] = [
    ("smoke", include_str!("../../configs/smoke.toml")),
    ("laptop", include_str!("../../configs/laptop.toml")),
    ("t4", include_str!("../../configs/t4.toml")),
    ("guide", include_str!("../../configs/guide.toml")),
];

/// The table of a preset.
pub(super) fn preset(name: &str) -> Result<Table> {
    let (_, text) = PRESETS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| Error::UnknownName {
            kind: "preset",
            name: name.into(),
            known: PRESETS.iter().map(|(known, _)| (*known).into()).collect(),
        })?;
    parse(text, &format!("preset {name}"))
}

/// The table of a file.
pub(super) fn read(path: &Path) -> Result<Table> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::bad_input(&name, error.to_string(), "give a readable TOML file"))?;
    parse(&text, &name)
}

/// Parses a partial configuration. Every section has defaults, so a partial text also deserialises by
/// itself: done here, because only here an unknown key still has a line number.
fn parse(text: &str, name: &str) -> Result<Table> {
    from_toml::<Config>(text, name)?;
    from_toml(text, name)
}

/// Reads a TOML text; `name` is what errors call it.
///
/// # Errors
/// [`Error::BadInput`] with the line of the first key that does not fit.
pub fn from_toml<T: DeserializeOwned>(text: &str, name: &str) -> Result<T> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Error::bad_input(
            format!("{name}, line {line}"),
            error.message().replace('\n', " "),
            "correct or remove that key",
        )
    })
}

/// Lays `over` upon `base`: tables merge key by key, anything else is replaced.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            // A budget is one value, either steps or epochs: a new one replaces the old one whole.
            (Some(Value::Table(old)), Value::Table(new)) if key != "budget" => merge(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Budget;

    #[test]
    fn later_layers_win_key_by_key() {
        let mut base: Table =
            toml::from_str("[train]\nbatch_size = 1\nbudget = {steps = 5}").unwrap();
        merge(
            &mut base,
            toml::from_str("[train]\nbudget = {num_epochs = 2}\n[seeds]\ncount = 3").unwrap(),
        );
        let config: Config = base.try_into().unwrap();
        assert_eq!(config.train.batch_size, 1);
        assert_eq!(config.train.budget, Budget::NumEpochs(2));
        assert_eq!(config.seeds.count, 3);
        assert_eq!(config.seeds.first, 42);
    }

    #[test]
    fn every_preset_is_valid_and_has_its_own_hash() {
        let mut hashes: Vec<String> = PRESETS
            .iter()
            .map(|(name, _)| {
                Config::resolve(Some(name), None, Table::new())
                    .unwrap()
                    .sha256()
                    .unwrap()
            })
            .collect();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), PRESETS.len());
    }

    #[test]
    fn a_misspelt_key_is_reported_with_its_line() {
        let error = parse("[train]\n\nlearning_rat = 1.0\n", "my.toml").unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("my.toml, line 3: unknown field `learning_rat`"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
        assert_eq!(error.exit_code(), 2);
    }
}
