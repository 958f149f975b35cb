//! Translation to the languages of the graphics APIs, by the same naga that wgpu uses: a kernel that
//! passes here compiles up to the driver on Vulkan, DX12, Metal and OpenGL.

use naga::ShaderStage::Compute;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;

use super::validate::Validated;
use crate::{Error, Result};

/// A language a kernel is translated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// SPIR-V 1.0, for Vulkan.
    Spirv,
    /// HLSL of shader model 5.1, for DX12.
    Hlsl,
    /// Metal Shading Language 2.0.
    Msl,
    /// GLSL ES 3.1, for OpenGL.
    Glsl,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Spirv, Self::Hlsl, Self::Msl, Self::Glsl];
}

/// Translates the entry point `main`; the result is the text, or SPIR-V's words as bytes.
///
/// # Errors
/// [`Error::Shader`] when the language cannot say what the kernel does.
pub fn translate(kernel: &str, validated: &Validated, to: Language) -> Result<Vec<u8>> {
    let Validated { module, info } = validated;
    let entry = || (Compute, "main".to_owned());
    let mut text = String::new();
    let outcome = match to {
        Language::Spirv => {
            let (shader_stage, entry_point) = entry();
            let pipeline = spv::PipelineOptions {
                shader_stage,
                entry_point,
            };
            return spv::write_vec(module, info, &spv::Options::default(), Some(&pipeline))
                .map(|words| words.into_iter().flat_map(u32::to_le_bytes).collect())
                .map_err(|error| fail(kernel, to, &error.to_string()));
        }
        Language::Hlsl => {
            let options = hlsl::Options::default();
            let pipeline = hlsl::PipelineOptions {
                entry_point: Some(entry()),
            };
            hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(module, info, None)
                .map(|_| ())
                .map_err(|error| error.to_string())
        }
        Language::Msl => {
            let options = msl::Options {
                lang_version: (2, 0),
                ..Default::default()
            };
            let pipeline = msl::PipelineOptions {
                entry_point: Some(entry()),
                ..Default::default()
            };
            msl::write_string(module, info, &options, &pipeline)
                .map(|(written, _)| text = written)
                .map_err(|error| error.to_string())
        }
        Language::Glsl => {
            let options = glsl::Options::default();
            let (shader_stage, entry_point) = entry();
            let pipeline = glsl::PipelineOptions {
                shader_stage,
                entry_point,
                multiview: None,
            };
            let policies = BoundsCheckPolicies::default();
            glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
                .and_then(|mut writer| writer.write())
                .map(|_| ())
                .map_err(|error| error.to_string())
        }
    };
    outcome
        .map(|()| text.into_bytes())
        .map_err(|reason| fail(kernel, to, &reason))
}

fn fail(kernel: &str, to: Language, reason: &str) -> Error {
    Error::Shader {
        kernel: kernel.to_owned(),
        reason: format!("no {to:?}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate::validate;
    use super::*;

    #[test]
    fn a_kernel_becomes_each_language() {
        let text = "
            @group(0) @binding(0) var<storage, read_write> x: array<f32>;
            @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { x[i] = 2.0; }";
        let validated = validate("k", text).unwrap();
        let magic = [
            &[3, 2, 0x23, 7],
            "numthreads(64".as_bytes(),
            b"kernel void",
            b"local_size_x = 64",
        ];
        for (language, sign) in Language::ALL.into_iter().zip(magic) {
            let output = translate("k", &validated, language).unwrap();
            let found = output.windows(sign.len()).any(|window| window == sign);
            assert!(found, "{language:?}: {}", String::from_utf8_lossy(&output));
        }
    }

    #[test]
    fn a_module_without_main_becomes_none() {
        let validated = validate("k", "@compute @workgroup_size(1) fn other() {}").unwrap();
        for language in Language::ALL {
            let report = translate("k", &validated, language)
                .unwrap_err()
                .to_string();
            assert!(report.contains(&format!("{language:?}")), "{report}");
        }
    }
}
