//! Checkpoints: weights, optimiser moments and the curves so far, in one folder that is replaced at once.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::store::burn_pack::Reader;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::models::LanguageModel;
use crate::results::Curves;
use crate::{Error, Result};

const WEIGHTS: &str = "weights.safetensors";
const OPTIMISER: &str = "optimiser.bpk";
const STATE: &str = "state.json";

/// Where a training stands, beside its weights and moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Steps taken.
    pub step: u64,
    /// Values of those steps.
    pub curves: Curves,
}

impl Checkpoint {
    /// Writes the checkpoint as `folder`; an older one there is replaced only when this one is complete.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written; the older checkpoint is then untouched.
    pub fn save(
        &self,
        folder: &Path,
        model: &LanguageModel,
        optimiser: &ModuleOptimizer,
    ) -> Result<()> {
        let parent = folder.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let fresh = tempfile::Builder::new()
            .prefix(".checkpoint-")
            .tempdir_in(parent)
            .map_err(Error::io("create a folder in", parent))?;
        let failed = |name: &str, reason: String| {
            Error::io("write", fresh.path().join(name))(std::io::Error::other(reason))
        };

        let mut store = SafetensorsStore::from_file(fresh.path().join(WEIGHTS))
            .metadata("step", self.step.to_string());
        model
            .valid()
            .save_into(&mut store)
            .map_err(|error| failed(WEIGHTS, format!("{error:?}")))?;
        optimiser
            .save(fresh.path().join(OPTIMISER))
            .map_err(|error| failed(OPTIMISER, format!("{error:?}")))?;
        let state = serde_json::to_vec(self).map_err(|error| failed(STATE, error.to_string()))?;
        fs::write(fresh.path().join(STATE), state)
            .map_err(Error::io("write", fresh.path().join(STATE)))?;

        let complete = fresh.keep();
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::io("replace", folder))?;
        }
        fs::rename(&complete, folder).map_err(Error::io("rename to", folder))
    }

    /// Reads the checkpoint in `folder` into a model and an optimiser of the same shapes.
    ///
    /// # Errors
    /// [`Error::BadInput`] when a file is missing or does not fit.
    pub fn load(
        folder: &Path,
        mut model: LanguageModel,
        optimiser: ModuleOptimizer,
    ) -> Result<(Self, LanguageModel, ModuleOptimizer)> {
        let bad = |name: &str, problem: String| {
            let what = folder.join(name).display().to_string();
            Error::bad_input(what, problem, "train again, or name another checkpoint")
        };
        let state = fs::read(folder.join(STATE)).map_err(|e| bad(STATE, e.to_string()))?;
        let state = serde_json::from_slice(&state).map_err(|e| bad(STATE, e.to_string()))?;
        let mut store = SafetensorsStore::from_file(folder.join(WEIGHTS));
        model
            .load_from(&mut store)
            .map_err(|e| bad(WEIGHTS, format!("{e:?}")))?;
        let optimiser = optimiser
            .load(folder.join(OPTIMISER))
            .map_err(|e| bad(OPTIMISER, format!("{e:?}")))?;
        Ok((state, model, optimiser))
    }

    /// sha256 of the optimiser's moments in `folder`, parameter by parameter in the order of `model`, whose
    /// training wrote them.
    ///
    /// The file itself goes by the parameters' ids, which every process draws anew.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the file is missing, cannot be read, or belongs to another model.
    pub fn moments_sha256(folder: &Path, model: &LanguageModel) -> Result<String> {
        struct Ids(Vec<ParamId>);
        impl ModuleVisitor for Ids {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.push(param.id);
            }
        }
        let path = folder.join(OPTIMISER);
        let bad = |problem: String| {
            let what = path.display().to_string();
            Error::bad_input(what, problem, "train again, or name another checkpoint")
        };
        let reader = Reader::from_file(&path).map_err(|error| bad(format!("{error:?}")))?;
        let mut ids = Ids(Vec::new());
        model.visit(&mut ids);
        let mut hash = Sha256::new();
        let names = reader.tensor_names();
        let mut n_hashed = 0;
        for (index, id) in ids.0.into_iter().enumerate() {
            let prefix = format!("{}.", id.val());
            let moments: Vec<&str> = names
                .iter()
                .filter_map(|name| name.strip_prefix(&prefix))
                .collect();
            // None where no gradient ever reaches the parameter.
            for moment in moments {
                let bytes = reader.tensor_data(&format!("{prefix}{moment}"));
                n_hashed += 1;
                hash.update(format!("{index} {moment}\n"));
                hash.update(bytes.map_err(|error| bad(format!("{error:?}")))?);
            }
        }
        if n_hashed == 0 {
            return Err(bad("has moments of another model alone".into()));
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}
