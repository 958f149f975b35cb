//! What differs between two documents.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// A value that two documents do not share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its keys, joined by dots.
    pub key: String,
    /// It in both documents; `null` where it is absent.
    pub values: [Value; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.values;
        write!(f, "{}: {a} against {b}", self.key)
    }
}

impl Difference {
    /// Every value in which two documents differ. `name` stands before all keys, where it is not empty.
    pub fn between(name: &str, a: &Value, b: &Value) -> Vec<Self> {
        let mut found = Vec::new();
        collect(name, a, b, &mut found);
        found
    }
}

fn collect(name: &str, a: &Value, b: &Value, found: &mut Vec<Difference>) {
    match (a, b) {
        (Value::Object(of_a), Value::Object(of_b)) => {
            let added = of_b.keys().filter(|key| !of_a.contains_key(*key));
            for key in of_a.keys().chain(added) {
                let name = [name, key].join(if name.is_empty() { "" } else { "." });
                let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
                collect(&name, &value(of_a), &value(of_b), found);
            }
        }
        (Value::Array(of_a), Value::Array(of_b)) if of_a.len() == of_b.len() => {
            for (i, (a, b)) in of_a.iter().zip(of_b).enumerate() {
                collect(&format!("{name}.{i}"), a, b, found);
            }
        }
        _ if a != b => found.push(Difference {
            key: name.to_owned(),
            values: [a.clone(), b.clone()],
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_difference_is_named_with_both_values() {
        let a = json!({"a": 1, "b": {"c": "x", "d": null}, "gone": 2});
        let b = json!({"b": {"c": "y", "d": null}, "a": 1, "new": 3});
        let found = Difference::between("data", &a, &b);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "data.b.c: \"x\" against \"y\"",
                "data.gone: 2 against null",
                "data.new: null against 3"
            ]
        );
    }
}
