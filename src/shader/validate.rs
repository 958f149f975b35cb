//! Parsing and validation of WGSL by naga, as wgpu does it.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, front::wgsl};

use crate::{Error, Result};

/// A module that parsed and validated.
#[derive(Debug)]
pub struct Validated {
    /// The module.
    pub module: Module,
    /// What validation found out about it.
    pub info: ModuleInfo,
}

/// Parses and validates `text` with every check and no optional capability (no 64-bit numbers, no
/// 16-bit floats, no subgroups, no float atomics). naga does not look for barriers that only some
/// invocations reach: that rests on review and on the software driver's tests.
///
/// # Errors
/// [`Error::Shader`] with naga's report, which shows the place in the text.
pub fn validate(kernel: &str, text: &str) -> Result<Validated> {
    let fail = |reason| Error::Shader {
        kernel: kernel.to_owned(),
        reason,
    };
    let module = wgsl::parse_str(text).map_err(|error| fail(error.emit_to_string(text)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| fail(error.emit_to_string(text)))?;
    Ok(Validated { module, info })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> String {
        validate("k", text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_kernel_passes() {
        validate("k", "@compute @workgroup_size(1) fn main() {}").unwrap();
    }

    #[test]
    fn what_no_portable_adapter_offers_is_refused() {
        assert!(report("fn f() -> f32 { return g(); }").contains("no definition in scope"));
        assert!(report("@compute @workgroup_size(1) fn main() { var x = 1.0lf; }").contains("f64"));
        assert!(
            report("enable f16; @compute @workgroup_size(1) fn main() { var x = 1.0h; }")
                .contains("16")
        );
        report(
            "var<workgroup> a: atomic<f32>; @compute @workgroup_size(1) fn main() { atomicStore(&a, 1.0); }",
        );
        report("@compute @workgroup_size(1) fn main() { let a = subgroupAdd(1.0); }");
    }
}
