//! Trained models on disk: those that a run of bkbench keeps, and published Mamba models. Both layouts, file by file:
//! `docs/checkpoints.md`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::registry::{Architecture, ModelShape};
use super::safetensors::Safetensors;
use super::stored::{self, Layout};
use super::{LanguageModel, published, weights};
use crate::data::Tokenizer;
use crate::hardware::adapter_of;
use crate::units::{Bytes, Count};
use crate::{Error, Result};

/// The weights of a model that was trained here.
pub const WEIGHTS: &str = "weights.safetensors";
/// What they are the weights of.
pub const DESCRIPTION: &str = "model.json";
/// A checkpoint's folder is this and the number of steps taken.
pub const STEP_PREFIX: &str = "step-";
/// Version of the description's form; raised by any change that an older reader would misread.
const VERSION: u32 = 1;

const PUBLISHED_CONFIG: &str = "config.json";
const PUBLISHED_WEIGHTS: &str = "model.safetensors";
const PUBLISHED_TOKENIZER: &str = "tokenizer.json";

const WHAT_TO_GIVE: &str = "give a cell's folder that `bkbench run --save_checkpoints` kept, or a Mamba model in the \
    official layout: a folder with config.json and model.safetensors, or a .safetensors file with config.json beside it";

/// What weights need beside them to be a model that reads text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Which model, how large.
    pub shape: ModelShape,
    /// What made the ids it was trained on.
    pub tokenizer: TokenizerHint,
    /// Tokens of a sequence it was trained on.
    pub seq_len: usize,
}

/// The tokenizer that belongs to a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerHint {
    /// `bytes`, `gpt2` or the path of a tokenizer.json.
    pub name: String,
    /// Its sha256 ([`Tokenizer::sha256`]), where it is known.
    pub sha256: Option<String>,
}

/// The file that describes the weights beside it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptionFile {
    version: u32,
    /// Optimiser steps taken.
    step: u64,
    /// sha256 of the file of weights.
    weights_sha256: String,
    model: Description,
}

impl Description {
    /// The description's file for the weights after `step` steps whose file has this sha256.
    ///
    /// # Errors
    /// If it has no JSON form.
    pub fn to_json(&self, step: u64, weights_sha256: String) -> Result<Vec<u8>> {
        let file = DescriptionFile {
            version: VERSION,
            step,
            weights_sha256,
            model: self.clone(),
        };
        serde_json::to_vec_pretty(&file).map_err(|error| {
            Error::CheckFailed(format!("{DESCRIPTION} cannot be written: {error}"))
        })
    }
}

/// Who wrote a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum Origin {
    /// A run of bkbench.
    Bkbench {
        /// Optimiser steps taken.
        step: u64,
    },
    /// The official Mamba code, or somebody who keeps to its layout.
    Published,
}

/// A model from files.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The folder or file it was read from.
    pub path: PathBuf,
    /// Who wrote it.
    pub origin: Origin,
    /// sha256 of its file of weights.
    pub file_sha256: String,
    /// Which model, how large; in the vocabulary the rows that pad it count.
    pub shape: ModelShape,
    /// Its weights, without autodiff.
    pub model: LanguageModel,
    /// The tokenizer that belongs to it, where the files tell.
    pub tokenizer: Option<TokenizerHint>,
    /// Tokens of a sequence it was trained on, where the files tell.
    pub seq_len: Option<usize>,
}

/// The tokenizer that belongs to the model at `path`, without reading its weights.
///
/// # Errors
/// [`Error::BadInput`] where the files do not tell, or are no model's.
pub fn tokenizer_of(path: &Path) -> Result<TokenizerHint> {
    let hint = match Found::at(path)? {
        Found::Ours(folder) => Some(describe(&folder.join(DESCRIPTION))?.model.tokenizer),
        Found::Published { config, .. } => beside(&config),
    };
    hint.ok_or_else(|| no_tokenizer(path))
}

fn no_tokenizer(path: &Path) -> Error {
    Error::bad_input(
        path.display().to_string(),
        "does not tell which tokenizer belongs to it",
        "name it with --tokenizer: bytes, gpt2 or the path of a tokenizer.json",
    )
}

/// Reads the model at `path` onto `device`, which is without autodiff. `path` is the folder of a cell's checkpoints (the
/// newest is taken) or one of them, a folder in the official Mamba layout, or a `.safetensors` file in it.
///
/// # Errors
/// [`Error::BadInput`] for anything that is no such thing, is damaged, or does not fit together: every tensor that is
/// missing, not known or of another shape is named, and so is every one that a kernel of the device's adapter cannot see
/// in one piece.
pub fn load(path: &Path, device: &Device) -> Result<Loaded> {
    let Files {
        path,
        origin,
        shape,
        tokenizer,
        seq_len,
        description,
        layout,
        weights,
        file_sha256,
        tensors,
    } = match Found::at(path)? {
        Found::Ours(folder) => Files::ours(folder),
        Found::Published { config, weights } => Files::published(path, config, weights),
    }?;
    check_sizes(&shape, &tensors, &description)?;
    let model = LanguageModel::blank(&shape, &Device::flex());
    if let Some(adapter) = adapter_of(device) {
        let limit = adapter.limits.binding;
        check_bindings(&weights::shapes(&model), limit, &adapter.to_string(), &path)?;
    }
    let model = stored::load_file(model, layout, &tensors, &weights.display().to_string())?;
    Ok(Loaded {
        path,
        origin,
        file_sha256,
        shape,
        model: model.to_device(device),
        tokenizer,
        seq_len,
    })
}

impl Loaded {
    /// The tokenizer called `named`, or else the one that belongs to the model.
    ///
    /// # Errors
    /// [`Error::BadInput`] where neither is there, it is not the one that belongs to the model, or it has ids that the
    /// model does not know.
    pub fn tokenizer(&self, named: Option<&str>) -> Result<Tokenizer> {
        let hint = self.tokenizer.as_ref();
        let name = named.or(hint.map(|hint| hint.name.as_str()));
        let name = name.ok_or_else(|| no_tokenizer(&self.path))?;
        let bad = |problem: String| {
            let advice = "give the tokenizer of this model with --tokenizer";
            Error::bad_input(format!("tokenizer {name}"), problem, advice)
        };
        let tokenizer = Tokenizer::new(name)?;
        let recorded = hint.and_then(|hint| hint.sha256.as_deref());
        if let Some(recorded) = recorded.filter(|&recorded| recorded != tokenizer.sha256()) {
            return Err(bad(format!(
                "is not the one that {} was trained with: its sha256 is {}, not {recorded}",
                self.path.display(),
                tokenizer.sha256()
            )));
        }
        let (n_ids, n_known) = (tokenizer.vocab_size(), self.shape.vocab_size);
        if n_ids > n_known {
            return Err(bad(format!(
                "has {} ids, and the vocabulary of {} has {}",
                Count(n_ids as u64),
                self.path.display(),
                Count(n_known as u64)
            )));
        }
        Ok(tokenizer)
    }
}

/// Steps and folders of the checkpoints in `folder`, newest first.
pub fn steps(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let step = name.to_str()?.strip_prefix(STEP_PREFIX)?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// What lies at a path.
enum Found {
    /// A folder with weights and their description.
    Ours(PathBuf),
    /// Files in the official layout.
    Published { config: PathBuf, weights: PathBuf },
}

impl Found {
    fn at(path: &Path) -> Result<Self> {
        let bad =
            |problem: String| Error::bad_input(path.display().to_string(), problem, WHAT_TO_GIVE);
        let kind = fs::metadata(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        if !kind.is_dir() {
            let config = path.with_file_name(PUBLISHED_CONFIG);
            return if config.exists() {
                let weights = path.to_owned();
                Ok(Self::Published { config, weights })
            } else {
                Err(bad(format!("has no {PUBLISHED_CONFIG} beside it")))
            };
        }
        let newest = steps(path).into_iter().next().map(|(_, folder)| folder);
        for folder in [Some(path), newest.as_deref()].into_iter().flatten() {
            if folder.join(DESCRIPTION).exists() {
                return Ok(Self::Ours(folder.to_owned()));
            }
            if folder.join(WEIGHTS).exists() {
                return Err(bad(format!(
                    "holds weights without {DESCRIPTION}, which says of what model: an older bkbench wrote them"
                )));
            }
        }
        let config = path.join(PUBLISHED_CONFIG);
        if config.exists() {
            let weights = path.join(PUBLISHED_WEIGHTS);
            return Ok(Self::Published { config, weights });
        }
        Err(bad(format!(
            "holds neither checkpoints nor {PUBLISHED_CONFIG}"
        )))
    }
}

/// What lies at a path, read.
struct Files {
    path: PathBuf,
    origin: Origin,
    shape: ModelShape,
    tokenizer: Option<TokenizerHint>,
    seq_len: Option<usize>,
    /// The file that the shape is from.
    description: PathBuf,
    layout: Layout,
    /// The file that the tensors are from.
    weights: PathBuf,
    file_sha256: String,
    tensors: Safetensors,
}

impl Files {
    fn ours(path: PathBuf) -> Result<Self> {
        let (description, weights) = (path.join(DESCRIPTION), path.join(WEIGHTS));
        let DescriptionFile {
            step,
            weights_sha256,
            model,
            ..
        } = describe(&description)?;
        let bytes = read(&weights)?;
        if sha256(&bytes) != weights_sha256 {
            let problem = format!("is damaged: its sha256 is not the one in {DESCRIPTION}");
            return Err(damaged(&weights, problem));
        }
        Ok(Self {
            path,
            origin: Origin::Bkbench { step },
            shape: model.shape,
            tokenizer: Some(model.tokenizer),
            seq_len: Some(model.seq_len),
            description,
            layout: stored::ours,
            file_sha256: weights_sha256,
            tensors: Safetensors::parse(&weights.display().to_string(), bytes)?,
            weights,
        })
    }

    fn published(path: &Path, description: PathBuf, weights: PathBuf) -> Result<Self> {
        let name = description.display().to_string();
        let shape = published::shape(&name, &read(&description)?)?;
        let name = weights.display().to_string();
        let bytes = read(&weights)?;
        let file_sha256 = sha256(&bytes);
        let mut tensors = Safetensors::parse(&name, bytes)?;
        if shape.tied_head {
            published::forget_tied_head(&mut tensors, &name)?;
        }
        Ok(Self {
            path: path.to_owned(),
            origin: Origin::Published,
            shape,
            tokenizer: beside(&description),
            seq_len: None,
            description,
            layout: published::model,
            weights,
            file_sha256,
            tensors,
        })
    }
}

fn damaged(file: &Path, problem: String) -> Error {
    let advice = "give a checkpoint that is whole";
    Error::bad_input(file.display().to_string(), problem, advice)
}

/// The file that describes a model of ours.
fn describe(description: &Path) -> Result<DescriptionFile> {
    let json: Value = serde_json::from_slice(&read(description)?)
        .map_err(|error| damaged(description, format!("is no JSON: {error}")))?;
    let version = &json["version"];
    if version.as_u64() != Some(VERSION.into()) {
        return Err(Error::bad_input(
            description.display().to_string(),
            format!("has version {version}, and this program reads {VERSION}"),
            "read it with the version of bkbench that wrote it",
        ));
    }
    serde_json::from_value(json)
        .map_err(|error| damaged(description, format!("is damaged: {error}")))
}

/// The tokenizer beside the configuration of a published model.
fn beside(config: &Path) -> Option<TokenizerHint> {
    let tokenizer = config.with_file_name(PUBLISHED_TOKENIZER);
    tokenizer.exists().then(|| TokenizerHint {
        name: tokenizer.display().to_string(),
        sha256: None,
    })
}

/// Refuses sizes for which no memory should be asked: those of no model, or of one far larger than its weights.
fn check_sizes(shape: &ModelShape, tensors: &Safetensors, description: &Path) -> Result<()> {
    let bad = |problem: String| {
        let advice = "give weights and description of one model";
        Error::bad_input(description.display().to_string(), problem, advice)
    };
    let of_experts = usize::from(shape.architecture != Architecture::Mamba);
    // Within these bounds the count of parameters below stays within 64 bits.
    let sizes = [
        ("vocab_size", shape.vocab_size, 1, 1 << 24),
        ("d_model", shape.d_model, 1, 1 << 16),
        ("layers", shape.n_layers, 1, u16::MAX.into()),
        ("d_state", shape.d_state, 1, 1 << 16),
        ("d_conv", shape.d_conv, 2, 1 << 8),
        ("expand", shape.expand, 1, 1 << 8),
        ("dt_rank", shape.dt_rank, 1, 1 << 16),
        ("n_experts", shape.n_experts, of_experts, 1 << 8),
        ("top_k", shape.top_k, of_experts, shape.n_experts),
        ("expert_hidden", shape.expert_hidden, of_experts, 1 << 20),
    ];
    let problems: Vec<String> = sizes
        .into_iter()
        .filter(|(_, size, least, most)| !(least..=most).contains(&size))
        .map(|(name, size, least, most)| format!("{name} is {size}, not {least} to {most}"))
        .collect();
    if !problems.is_empty() {
        return Err(bad(problems.join("; ")));
    }
    let n_described = shape.parameters().total;
    let n_values: usize = tensors.iter().map(|(_, tensor)| tensor.n_values()).sum();
    // Tensors that are missing are named one by one, unless they are nearly all.
    if n_described / 64 > n_values {
        return Err(bad(format!(
            "describes {} parameters, and the weights beside it are {} values",
            Count(n_described as u64),
            Count(n_values as u64)
        )));
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// That every parameter of the model at `path` stays within `limit`, which is what kernels of `adapter` see at once.
fn check_bindings(
    shapes: &[(String, Vec<usize>)],
    limit: Bytes,
    adapter: &str,
    path: &Path,
) -> Result<()> {
    let too_large = shapes.iter().filter_map(|(name, shape)| {
        let bytes = Bytes(4 * shape.iter().product::<usize>() as u64);
        (bytes > limit).then(|| format!("{name} takes {bytes}"))
    });
    let too_large: Vec<String> = too_large.collect();
    if too_large.is_empty() {
        return Ok(());
    }
    Err(Error::bad_input(
        path.display().to_string(),
        format!(
            "does not fit {adapter}, whose kernels see {limit} of a tensor: {}",
            too_large.join("; ")
        ),
        "name another device, for example --device cpu",
    ))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        Error::bad_input(
            path.display().to_string(),
            format!("cannot be read: {error}"),
            WHAT_TO_GIVE,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_beyond_the_limit_are_named_with_their_size() {
        let shapes = [("a", vec![3, 5]), ("b", vec![4, 4]), ("c", vec![17])];
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape));
        let check =
            |limit| check_bindings(&shapes, Bytes(limit), "a small GPU", Path::new("model"));
        let error = check(60).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        for part in [
            "model:",
            "a small GPU",
            "60 B of a tensor: b takes 64 B; c takes 68 B;",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("a takes"), "60 bytes fit: {message}");
        check(68).unwrap();
    }
}
