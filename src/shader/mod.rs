//! The WGSL kernels as a library that needs no adapter: the catalog, and the specialisation of a file
//! into the text that is compiled.
//!
//! A kernel file is valid WGSL as it lies on disk. Two things are done to its text: a line
//! `const NAME: u32 = 64u; // @spec` takes its value from a [`Spec`], and a line `// #import name` is
//! replaced by `shaders/shared/name.wgsl`. An unknown name in either is an error, never a warning.

pub mod budget;
pub mod catalog;
pub mod lint;
pub mod reflect;
pub mod translate;
pub mod validate;

use crate::{Error, Result};

/// A kernel of the catalog: one file with one entry point `main`.
#[derive(Debug)]
pub struct Kernel {
    /// File name without `.wgsl`: `<op>_<fwd|bwd>[_<stage>]`.
    pub name: &'static str,
    /// Text of the file.
    pub source: &'static str,
    /// How many storage buffers, in binding order, are only read; the rest are written.
    pub n_inputs: usize,
    /// How many storage buffers are written. The uniform `params` is the binding after them.
    pub n_outputs: usize,
}

/// Values for the `@spec` constants of a kernel. Part of the pipeline's cache key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spec(Vec<(&'static str, Value)>);

/// Value of a specialised constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// A `u32` constant.
    U32(u32),
    /// A `bool` constant.
    Bool(bool),
}

impl Spec {
    /// No constant specialised: the values in the file stand.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a `u32` constant.
    #[must_use]
    pub fn u32(mut self, name: &'static str, value: u32) -> Self {
        self.0.push((name, Value::U32(value)));
        self
    }

    /// Sets a `bool` constant.
    #[must_use]
    pub fn bool(mut self, name: &'static str, value: bool) -> Self {
        self.0.push((name, Value::Bool(value)));
        self
    }
}

impl Kernel {
    /// The constants that a [`Spec`] may set, with their values in the file.
    pub fn constants(&self) -> Vec<(&'static str, Value)> {
        self.source.lines().filter_map(spec_value).collect()
    }

    /// The text that is compiled: imports resolved, `@spec` constants replaced.
    ///
    /// # Errors
    /// [`Error::Shader`] for an import or a constant that the file does not have.
    pub fn specialise(&self, spec: &Spec) -> Result<String> {
        let fail = |reason: String| Error::Shader {
            kernel: self.name.into(),
            reason,
        };
        let mut text = String::with_capacity(self.source.len() * 2);
        let mut replaced = 0;
        for line in self.source.lines() {
            if let Some(name) = line.strip_prefix("// #import ") {
                let (_, shared) = catalog::SHARED
                    .iter()
                    .find(|(known, _)| *known == name.trim())
                    .ok_or_else(|| fail(format!("unknown import '{name}'")))?;
                text.push_str(shared);
            } else if let Some((declared, value)) =
                spec_line(line).and_then(|name| spec.0.iter().find(|(known, _)| *known == name))
            {
                replaced += 1;
                let (kind, value) = match value {
                    Value::U32(v) => ("u32", format!("{v}u")),
                    Value::Bool(v) => ("bool", v.to_string()),
                };
                text.extend(["const ", declared, ": ", kind, " = ", &value, ";"]);
            } else {
                text.push_str(line);
            }
            text.push('\n');
        }
        if replaced == spec.0.len() {
            Ok(text)
        } else {
            Err(fail(format!(
                "{spec:?} names a constant without a '// @spec' line"
            )))
        }
    }
}

/// The constant's name when `line` declares one for specialisation.
fn spec_line(line: &str) -> Option<&str> {
    let declaration = line.trim_end().strip_suffix("// @spec")?;
    Some(
        declaration
            .strip_prefix("const ")?
            .split_once(':')?
            .0
            .trim(),
    )
}

/// The constant's name and its value in the file, when `line` declares one for specialisation.
fn spec_value(line: &str) -> Option<(&str, Value)> {
    let name = spec_line(line)?;
    let (_, value) = line.split_once('=')?;
    let value = match value.split_once(';')?.0.trim() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        number => Value::U32(number.strip_suffix('u')?.parse().ok()?),
    };
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel {
        name: "k",
        source: "const N: u32 = 64u; // @spec\nconst ON: bool = true; // @spec\nconst M: u32 = 1u;\n",
        n_inputs: 0,
        n_outputs: 0,
    };

    #[test]
    fn specialisation_replaces_tagged_constants_only() {
        assert_eq!(
            KERNEL.constants(),
            [("N", Value::U32(64)), ("ON", Value::Bool(true))]
        );
        let text = KERNEL
            .specialise(&Spec::new().u32("N", 8).bool("ON", false))
            .unwrap();
        assert_eq!(
            text,
            "const N: u32 = 8u;\nconst ON: bool = false;\nconst M: u32 = 1u;\n"
        );
        for unknown in ["M", "X"] {
            assert!(KERNEL.specialise(&Spec::new().u32(unknown, 8)).is_err());
        }
    }

    #[test]
    fn an_unknown_import_is_an_error() {
        let kernel = Kernel {
            source: "// #import nothing\n",
            ..KERNEL
        };
        let report = kernel.specialise(&Spec::new()).unwrap_err().to_string();
        assert!(report.contains("nothing"));
    }
}
