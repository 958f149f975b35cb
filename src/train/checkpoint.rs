//! Checkpoints: weights, moments and where a training stands, written so that a whole one is always there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::store::burn_pack::Reader;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Bytes as BurnBytes, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LossScale;
use crate::config::canonical_sha256;
use crate::hardware::read::guarded;
use crate::models::checkpoint::{DESCRIPTION, Description, STEP_PREFIX, WEIGHTS, steps};
use crate::models::safetensors::Safetensors;
use crate::models::{LanguageModel, stored};
use crate::results::{Curves, sync_folder};
use crate::units::Bytes;
use crate::{Error, Result};

const MOMENTS: &str = "moments.bpk";
const STATE: &str = "state.json";
/// Folder of a checkpoint that is being written.
const UNFINISHED: &str = "unfinished";
/// Checkpoints that are there while a training goes on: should the newest be damaged, one is left.
const KEPT: usize = 2;

/// Where a training stands, beside its weights and moments.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps taken.
    pub step: u64,
    /// Values of those steps.
    pub curves: Curves,
    /// Steps that changed no weight.
    pub skipped_steps: u64,
    /// That of the next step; absent in f32.
    pub loss_scale: Option<LossScale>,
    /// Wall-clock time of the loop.
    pub seconds: f64,
    /// Time of the steps that count for the speed.
    pub timed_seconds: f64,
    /// Tokens of those steps.
    pub timed_tokens: u64,
    /// The most bytes it held, above those in use at its start; absent before the first step.
    pub peak_memory: Option<Bytes>,
    /// Bytes in use at its start; absent before that.
    pub memory_at_start: Option<Bytes>,
}

/// What `state.json` holds beside its own hash.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    state: TrainState,
    /// Identities under which the moments are kept, in the order of the model's parameters.
    parameter_ids: Vec<u64>,
    /// sha256 of weights and moments.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    /// Of the canonical JSON of the contents.
    sha256: String,
    contents: Contents,
}

/// A checkpoint, read whole and found undamaged.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the training stood.
    pub state: TrainState,
    parameter_ids: Vec<u64>,
    folder: PathBuf,
    weights: Vec<u8>,
    moments: Vec<u8>,
}

/// The folder of one training's checkpoints, `step-<n>` each.
///
/// A new one is written beside the old ones, synced, and only then gets its name; older ones are
/// removed after that. Whenever the process ends, the newest folder with such a name is whole.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    path: PathBuf,
    description: Option<Description>,
}

impl CheckpointFolder {
    /// The checkpoints in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            path: folder.into(),
            description: None,
        }
    }

    /// The same folder, with `description` beside the weights of each checkpoint to come: whoever finds them there
    /// ([`load`](crate::models::checkpoint::load)) knows of what model they are.
    #[must_use]
    pub fn describing(self, description: Description) -> Self {
        Self {
            description: Some(description),
            ..self
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint. The newest one so far stays, older ones go.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written, [`Error::Device`] when the device fails; the older
    /// checkpoints are then untouched.
    pub fn save(
        &self,
        state: &TrainState,
        model: &LanguageModel,
        optimiser: &ModuleOptimizer,
    ) -> Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        remove(&unfinished)?;
        fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;

        let weights = guarded("reading weights for a checkpoint", || {
            let mut store =
                SafetensorsStore::from_bytes(None).metadata("step", state.step.to_string());
            model
                .valid()
                .save_into(&mut store)
                .map_err(|e| format!("{e:?}"))?;
            store.get_bytes().map_err(|e| format!("{e:?}"))
        })?;
        let moments = guarded("reading moments for a checkpoint", || {
            optimiser.into_bytes().map_err(|e| format!("{e:?}"))
        })?;
        let weights_sha256 = sha256(&weights);
        let description = self
            .description
            .as_ref()
            .map(|model| model.to_json(state.step, weights_sha256.clone()))
            .transpose()?;
        let files = [
            (WEIGHTS, weights.as_slice(), weights_sha256),
            (MOMENTS, &moments, sha256(&moments)),
        ];
        let contents = Contents {
            state: state.clone(),
            parameter_ids: parameter_ids(model),
            files: files
                .iter()
                .map(|(name, _, sha256)| ((*name).to_owned(), sha256.clone()))
                .collect(),
        };
        let state_file = StateFile {
            sha256: canonical_sha256(&contents)?,
            contents,
        };
        let path = unfinished.join(STATE);
        let text = serde_json::to_vec(&state_file)
            .map_err(|error| Error::io("write", path)(error.into()))?;
        let files = files.map(|(name, bytes, _)| (name, bytes));
        let description = description.as_deref().map(|text| (DESCRIPTION, text));
        for (name, bytes) in files
            .into_iter()
            .chain(description)
            .chain([(STATE, text.as_slice())])
        {
            write_synced(&unfinished.join(name), bytes)?;
        }
        sync_folder(&unfinished)?;

        let folder = self.path.join(format!("{STEP_PREFIX}{}", state.step));
        // There only where it was found damaged: the training would have gone on from it.
        remove(&folder)?;
        fs::rename(&unfinished, &folder).map_err(Error::io("rename to", &folder))?;
        sync_folder(&self.path)?;
        self.keep(KEPT)
    }

    /// The newest undamaged checkpoint, if there is one, and what is wrong with newer ones.
    pub fn newest(&self) -> (Option<Checkpoint>, Vec<String>) {
        let mut damaged = Vec::new();
        for (_, folder) in steps(&self.path) {
            match Checkpoint::read(&folder) {
                Ok(checkpoint) => return (Some(checkpoint), damaged),
                Err(problem) => damaged.push(format!(
                    "the checkpoint {} is damaged ({problem})",
                    folder.display()
                )),
            }
        }
        (None, damaged)
    }

    /// Removes all but the newest `count`; with 0 the folder itself, and the one around it once that is empty.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be removed.
    pub fn keep(&self, count: usize) -> Result<()> {
        if count > 0 {
            return steps(&self.path)
                .into_iter()
                .skip(count)
                .try_for_each(|(_, folder)| remove(&folder));
        }
        remove(&self.path)?;
        if let Some(parent) = self.path.parent() {
            // Fails, and may, while other trainings have theirs in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Reads and checks everything in `folder`; says in words what is wrong with it.
    fn read(folder: &Path) -> Result<Self, String> {
        let bytes =
            |name: &str| fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"));
        let file: StateFile =
            serde_json::from_slice(&bytes(STATE)?).map_err(|error| format!("{STATE}: {error}"))?;
        let of_contents = canonical_sha256(&file.contents).map_err(|error| error.to_string())?;
        if of_contents != file.sha256 {
            return Err(format!("{STATE}: its sha256 is not the recorded one"));
        }
        let checked = |name: &str| {
            let bytes = bytes(name)?;
            if file.contents.files.get(name) == Some(&sha256(&bytes)) {
                Ok(bytes)
            } else {
                Err(format!("{name}: its sha256 is not the recorded one"))
            }
        };
        Ok(Self {
            weights: checked(WEIGHTS)?,
            moments: checked(MOMENTS)?,
            folder: folder.to_owned(),
            parameter_ids: file.contents.parameter_ids,
            state: file.contents.state,
        })
    }

    /// `model` with the checkpoint's weights, and with the identities under which the moments are kept.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the model has another shape.
    pub fn weights(&self, model: LanguageModel) -> Result<LanguageModel> {
        let what = self.folder.join(WEIGHTS).display().to_string();
        let file = Safetensors::parse(&what, self.weights.clone())?;
        let model = stored::load_file(model, stored::ours, &file, &what)?;
        let n_parameters = parameter_ids(&model).len();
        if n_parameters != self.parameter_ids.len() {
            let problem = format!(
                "of {} parameters, and the model has {n_parameters}",
                self.parameter_ids.len()
            );
            return Err(self.unfit(STATE, problem));
        }
        Ok(model.map(&mut Renamed(self.parameter_ids.iter())))
    }

    /// `optimiser` with the checkpoint's moments; it belongs to a model from [`Checkpoint::weights`].
    ///
    /// # Errors
    /// [`Error::BadInput`] when the moments are of another version of burn.
    pub fn moments(&self, optimiser: ModuleOptimizer) -> Result<ModuleOptimizer> {
        optimiser
            .from_bytes(BurnBytes::from_bytes_vec(self.moments.clone()))
            .map_err(|e| self.unfit(MOMENTS, format!("{e:?}")))
    }

    fn unfit(&self, name: &str, problem: String) -> Error {
        Error::bad_input(
            self.folder.join(name).display().to_string(),
            problem,
            "remove that checkpoint, or name another",
        )
    }
}

/// sha256 of the moments of `optimiser`, parameter by parameter in the order of `model`. Their own names are the
/// parameters' identities, which every process draws anew.
///
/// # Errors
/// A device that fails.
pub fn moments_sha256(model: &LanguageModel, optimiser: &ModuleOptimizer) -> Result<String> {
    guarded("reading moments", || {
        let failed = |error| format!("{error:?}");
        let reader = Reader::from_bytes(optimiser.into_bytes().map_err(|e| format!("{e:?}"))?)
            .map_err(failed)?;
        let names = reader.tensor_names();
        let mut hash = Sha256::new();
        for (index, id) in parameter_ids(model).into_iter().enumerate() {
            // None where no gradient ever reached the parameter.
            let prefix = format!("{id}.");
            for name in names.iter().filter(|name| name.starts_with(&prefix)) {
                hash.update(format!("{index} {}\n", &name[prefix.len()..]));
                hash.update(reader.tensor_data(name).map_err(failed)?);
            }
        }
        Ok(format!("{:x}", hash.finalize()))
    })
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn parameter_ids(model: &LanguageModel) -> Vec<u64> {
    #[derive(Default)]
    struct Ids(Vec<u64>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id.val());
        }
    }
    let mut ids = Ids::default();
    model.visit(&mut ids);
    ids.0
}

/// Gives parameters other identities: a process draws them at random, and burn keeps moments under them.
struct Renamed<'a>(std::slice::Iter<'a, u64>);

impl ModuleMapper for Renamed<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (old, value, mapper) = param.consume();
        let id = self.0.next().map_or(old, |&id| ParamId::from(id));
        Param::from_mapped_value(id, value, mapper)
    }
}
