//! The shape that all of the benchmarking guide's files share: setting -> model -> values.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A setting and, by model name, its values, in the order of the file.
pub(super) type Row<S, E> = (S, Vec<(String, E)>);

/// The JSON of `rows`; `key` names a setting.
pub(super) fn to_json<S, E: Serialize>(rows: &[Row<S, E>], key: impl Fn(&S) -> String) -> Value {
    let row = |(setting, models): &Row<S, E>| {
        let models = models.iter();
        let models: Map<String, Value> = models
            .map(|(name, entry)| (name.clone(), serde_json::json!(entry)))
            .collect();
        (key(setting), Value::Object(models))
    };
    Value::Object(rows.iter().map(row).collect())
}

/// Whether a document has a key that names a setting.
pub(super) fn has_key(json: &Value, names: impl Fn(&str) -> bool) -> bool {
    let root = json.as_object();
    root.is_some_and(|root| root.keys().any(|key| names(key)))
}

/// Reads the JSON in the file `path`. `setting` is what a key names; `what` says in the error what a key should name.
pub(super) fn from_json<S, E: DeserializeOwned>(
    json: Value,
    path: &Path,
    what: &str,
    setting: impl Fn(&str) -> Option<S>,
) -> Result<Vec<Row<S, E>>> {
    let bad = |problem: String| {
        Error::bad_input(
            path.display().to_string(),
            problem,
            "give a file that `bkbench run --output` wrote",
        )
    };
    let root: Map<String, Value> =
        serde_json::from_value(json).map_err(|error| bad(error.to_string()))?;
    let row = |(key, models): (String, Value)| {
        let setting = setting(&key).ok_or_else(|| bad(format!("key '{key}' is not {what}")))?;
        let models: Map<String, Value> =
            serde_json::from_value(models).map_err(|error| bad(format!("{key}: {error}")))?;
        let model = |(name, entry): (String, Value)| {
            let entry = serde_json::from_value(entry);
            let entry = entry.map_err(|error| bad(format!("{key}, {name}: {error}")))?;
            Ok((name, entry))
        };
        Ok((
            setting,
            models.into_iter().map(model).collect::<Result<_>>()?,
        ))
    };
    root.into_iter().map(row).collect()
}
