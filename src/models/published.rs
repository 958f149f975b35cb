//! The layout of the official Mamba code (state-spaces/mamba): `config.json`, and the names and axes of its
//! `state_dict`. Linear weights are `[d_output, d_input]` there, the convolution's is `[channels, 1, d_conv]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::registry::{Architecture, ModelShape};
use super::safetensors::Safetensors;
use super::stored::Stored;
use crate::{Error, Result};

const EMBEDDING: &str = "backbone.embedding.weight";
const HEAD: &str = "lm_head.weight";
/// Fields of `config.json` that say how the official code computes, not what: here everything is `f32`.
const OF_NO_ACCOUNT: [&str; 3] = ["residual_in_fp32", "fused_add_norm", "attn_cfg"];
/// Fields of `ssm_cfg` that say how weights are drawn, or how the official code computes.
const OF_NO_ACCOUNT_IN_SSM: [&str; 6] = [
    "dt_min",
    "dt_max",
    "dt_init",
    "dt_scale",
    "dt_init_floor",
    "use_fast_path",
];

/// What `config.json` states; the rest are the official defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    d_model: Option<usize>,
    n_layer: Option<usize>,
    vocab_size: Option<usize>,
    ssm_cfg: SsmConfig,
    rms_norm: bool,
    pad_vocab_size_multiple: usize,
    tie_embeddings: bool,
    d_intermediate: usize,
    attn_layer_idx: Vec<usize>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            d_model: None,
            n_layer: None,
            vocab_size: None,
            ssm_cfg: SsmConfig::default(),
            rms_norm: true,
            pad_vocab_size_multiple: 8,
            tie_embeddings: true,
            d_intermediate: 0,
            attn_layer_idx: Vec::new(),
            others: BTreeMap::new(),
        }
    }
}

/// The sizes of a block as the official code states them, in `ssm_cfg`.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct SsmConfig {
    layer: String,
    d_state: usize,
    d_conv: usize,
    expand: usize,
    dt_rank: DtRank,
    conv_bias: bool,
    bias: bool,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DtRank {
    Rank(usize),
    /// The word `auto`: a sixteenth of `d_model`, rounded up.
    Word(String),
}

impl Default for SsmConfig {
    fn default() -> Self {
        Self {
            layer: "Mamba1".into(),
            d_state: 16,
            d_conv: 4,
            expand: 2,
            dt_rank: DtRank::Word("auto".into()),
            conv_bias: true,
            bias: false,
            others: BTreeMap::new(),
        }
    }
}

impl SsmConfig {
    /// The shape of a language model of such blocks.
    ///
    /// # Errors
    /// Everything in it that no model here can be, in words.
    pub fn shape(
        &self,
        d_model: usize,
        n_layers: usize,
        vocab_size: usize,
        tied_head: bool,
    ) -> Result<ModelShape, Vec<String>> {
        let mut problems = Vec::new();
        if self.layer != "Mamba1" {
            problems.push(format!("ssm_cfg.layer is {}, not Mamba1", self.layer));
        }
        if !self.conv_bias {
            problems.push("ssm_cfg.conv_bias is false".into());
        }
        let dt_rank = match &self.dt_rank {
            DtRank::Rank(rank) => *rank,
            DtRank::Word(word) => {
                if word != "auto" {
                    problems.push(format!("ssm_cfg.dt_rank is '{word}'"));
                }
                d_model.div_ceil(16)
            }
        };
        problems.extend(unknown("ssm_cfg.", &self.others, &OF_NO_ACCOUNT_IN_SSM));
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(ModelShape {
            architecture: Architecture::Mamba,
            vocab_size,
            d_model,
            n_layers,
            tied_head,
            d_state: self.d_state,
            d_conv: self.d_conv,
            expand: self.expand,
            dt_rank,
            projection_bias: self.bias,
            n_experts: 0,
            top_k: 0,
            expert_hidden: 0,
        })
    }
}

/// The shape that `config.json` describes; `name` is what errors call it. Rows that pad the vocabulary count: the
/// official head scores them too.
///
/// # Errors
/// [`Error::BadInput`] that names every field that is missing, not known, or means a model that is not here.
pub fn shape(name: &str, json: &[u8]) -> Result<ModelShape> {
    let bad = |problem: String| {
        let advice = "give the config.json of a Mamba-1 model in the official layout";
        Error::bad_input(name, problem, advice)
    };
    let config: Config = serde_json::from_slice(json)
        .map_err(|error| bad(format!("is no configuration: {error}")))?;
    let mut problems = Vec::new();
    let mut required = |field: &str, value: Option<usize>| {
        if value.is_none() {
            problems.push(format!("{field} is missing"));
        }
        value.unwrap_or_default()
    };
    let d_model = required("d_model", config.d_model);
    let n_layers = required("n_layer", config.n_layer);
    let vocab_size = required("vocab_size", config.vocab_size);
    if !config.rms_norm {
        problems.push("rms_norm is false".into());
    }
    if config.d_intermediate != 0 {
        problems.push(format!("d_intermediate is {}", config.d_intermediate));
    }
    if !config.attn_layer_idx.is_empty() {
        problems.push(format!("attn_layer_idx is {:?}", config.attn_layer_idx));
    }
    problems.extend(unknown("", &config.others, &OF_NO_ACCOUNT));
    let padded = vocab_size.checked_next_multiple_of(config.pad_vocab_size_multiple);
    if padded.is_none() {
        problems.push(format!(
            "pad_vocab_size_multiple is {}",
            config.pad_vocab_size_multiple
        ));
    }
    let shape = config.ssm_cfg.shape(
        d_model,
        n_layers,
        padded.unwrap_or_default(),
        config.tie_embeddings,
    );
    match shape {
        Ok(shape) if problems.is_empty() => Ok(shape),
        shape => {
            problems.extend(shape.err().into_iter().flatten());
            Err(bad(format!(
                "describes no model that is here: {}",
                problems.join("; ")
            )))
        }
    }
}

fn unknown(prefix: &str, fields: &BTreeMap<String, Value>, known: &[&str]) -> Vec<String> {
    let names = fields.keys().filter(|name| !known.contains(&name.as_str()));
    names
        .map(|name| format!("{prefix}{name} is not known"))
        .collect()
}

/// Forgets the head in the file of a model whose head is its embedding, where it is written out a second time; `what`
/// is what errors call the file.
///
/// # Errors
/// [`Error::BadInput`] when the head is another matrix.
pub fn forget_tied_head(file: &mut Safetensors, what: &str) -> Result<()> {
    let (Some(embedding), Some(head)) = (file.get(EMBEDDING), file.get(HEAD)) else {
        return Ok(());
    };
    if embedding != head {
        return Err(Error::bad_input(
            what,
            format!("{HEAD} differs from {EMBEDDING}, and config.json ties them"),
            "set tie_embeddings to false in config.json",
        ));
    }
    file.remove(HEAD);
    Ok(())
}

/// How the official code holds the parameters of a Mamba block.
pub fn block(path: &str, shape: &[usize]) -> Option<Stored> {
    Some(match path {
        "a_log" => Stored::equal("A_log", shape),
        "d_skip" => Stored::equal("D", shape),
        "conv_weight" => Stored::with_middle_axis("conv1d.weight", shape),
        "conv_bias" => Stored::equal("conv1d.bias", shape),
        _ if path.ends_with("_proj.weight") => Stored::transposed(path, shape),
        _ if path.ends_with("_proj.bias") => Stored::equal(path, shape),
        _ => return None,
    })
}

/// How the official code holds the parameters of a language model of Mamba blocks.
pub fn model(path: &str, shape: &[usize]) -> Option<Stored> {
    Some(match path {
        "embedding" => Stored::equal(EMBEDDING, shape),
        "norm.gamma" => Stored::equal("backbone.norm_f.weight", shape),
        "head" => Stored::equal(HEAD, shape),
        _ => {
            let (layer, path) = path.strip_prefix("layers.")?.split_once('.')?;
            let mut stored = match path.strip_prefix("block.Mamba.") {
                Some(path) => {
                    let mut stored = block(path, shape)?;
                    stored.name.insert_str(0, "mixer.");
                    stored
                }
                None if path == "norm.gamma" => Stored::equal("norm.weight", shape),
                None => return None,
            };
            stored.name = format!("backbone.layers.{layer}.{}", stored.name);
            stored
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_configuration_of_the_130m_model_is_read() {
        let json = br#"{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true,
            "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8}"#;
        let shape = shape("config.json", json).unwrap();
        // 24 layers of 3,771,648 (norm included), the embedding of 50,280 rows, and the last norm.
        assert_eq!((shape.vocab_size, shape.dt_rank), (50_280, 48));
        assert_eq!(shape.parameters().total, 129_135_360);
    }

    #[test]
    fn every_problem_of_a_configuration_is_named_at_once() {
        let json = br#"{"d_model": 8, "hidden_size": 8, "rms_norm": false, "attn_layer_idx": [1], "d_intermediate": 3,
            "ssm_cfg": {"layer": "Mamba2", "dt_rank": "half", "headdim": 4, "conv_bias": false, "dt_min": 1},
            "pad_vocab_size_multiple": 0}"#;
        let error = shape("config.json", json).unwrap_err().to_string();
        for part in [
            "n_layer is missing",
            "vocab_size is missing",
            "hidden_size is not known",
            "rms_norm is false",
            "attn_layer_idx is [1]",
            "d_intermediate is 3",
            "ssm_cfg.layer is Mamba2",
            "ssm_cfg.dt_rank is 'half'",
            "ssm_cfg.headdim is not known",
            "ssm_cfg.conv_bias is false",
            "pad_vocab_size_multiple is 0",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(
            !error.contains("dt_min") && !error.contains("d_model"),
            "{error}"
        );
        for json in ["[]", "{", r#"{"d_model": "wide"}"#] {
            let error = shape("config.json", json.as_bytes()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
