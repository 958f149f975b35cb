//! Cases of whole models: logits, loss, gradients, and two short trainings.

use burn::module::Module;
use burn::optim::{ModuleOptimizer, SgdConfig};
use serde::Deserialize;

use super::case::Case;
use super::weights;
use crate::Result;
use crate::config::{ModelConfig, TrainConfig};
use crate::hardware::read;
use crate::models::published::{self, SsmConfig};
use crate::models::{BatchShape, LanguageModel};
use crate::train::optimiser::{Decay, adamw};
use crate::train::{Objective, Sequences};

/// Several chunks even at the few tokens of a case.
const LOSS_CHUNK_TOKENS: usize = 16;

#[derive(Deserialize)]
struct Parameters {
    d_model: usize,
    n_layer: usize,
    vocab: usize,
    tie_embeddings: bool,
    ssm_cfg: SsmConfig,
}

/// A batch and how a step looks at it.
struct Batch {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    shape: BatchShape,
    objective: Objective,
}

/// Logits, loss and gradients of the given weights, and the losses of eight steps each of SGD at 0.1 and of
/// `AdamW` at 1e-2 with decay on all parameters.
pub(super) fn mamba(case: &mut Case<'_>) -> Result<()> {
    let sizes: Parameters = case.parameters()?;
    let shape = sizes
        .ssm_cfg
        .shape(
            sizes.d_model,
            sizes.n_layer,
            sizes.vocab,
            sizes.tie_embeddings,
        )
        .map_err(|problems| case.bad(problems.join("; ")))?;
    let model = LanguageModel::new(&shape, 0, case.device());
    let model = weights::load(case, model, published::model)?;
    let batch = Batch::read(case)?;
    let [n_sequences, seq_len] = [batch.shape.batch, batch.shape.seq_len];

    let plain = model.valid();
    let states = plain.initial_states(n_sequences);
    let hidden = plain.infer(&batch.inputs, batch.shape, states)?;
    let logits = plain.logits(hidden.x.clone())?;
    let logits = logits.reshape([n_sequences, seq_len, sizes.vocab]);
    case.check("logits", logits, "logits_rel_max")?;
    let nll = plain.nll(hidden.x, &batch.targets, LOSS_CHUNK_TOKENS)?;
    let nll = read::doubles(nll, "reading the loss")?;
    let mean = nll.iter().sum::<f64>() / nll.len() as f64;
    case.check_host("loss", &[1], &[mean], "loss_rel")?;

    let gradient = batch.gradient(&model)?;
    case.check_host("loss (train)", &[1], &[gradient.loss_nats], "loss_rel")?;
    let gradients = &gradient.gradients;
    weights::check_gradients(case, &model, gradients, published::model, "grad_rel_max")?;

    let losses = batch.losses(model.clone(), SgdConfig::new().init(), 0.1)?;
    case.check_host("traj_sgd", &[losses.len()], &losses, "traj_sgd_abs")?;
    let config = TrainConfig {
        betas: [0.9, 0.95],
        epsilon: 1e-8,
        weight_decay: 0.1,
        ..TrainConfig::default()
    };
    let optimiser = adamw(&model, &config, Decay::All);
    let losses = batch.losses(model, optimiser, 1e-2)?;
    case.check_host("traj_adamw", &[losses.len()], &losses, "traj_adamw_abs")
}

impl Batch {
    fn read(case: &mut Case<'_>) -> Result<Self> {
        let (inputs, targets) = (case.host("input_ids")?, case.host("targets")?);
        let [batch, seq_len] = inputs.shape[..] else {
            return Err(case.bad(format!("has input_ids of shape {:?}", inputs.shape)));
        };
        let train = TrainConfig {
            loss_chunk_tokens: LOSS_CHUNK_TOKENS,
            ..TrainConfig::default()
        };
        let ids = |values: &[f64]| values.iter().map(|&id| id as u32).collect();
        Ok(Self {
            inputs: ids(&inputs.values),
            targets: ids(&targets.values),
            shape: BatchShape { batch, seq_len },
            objective: Objective::new(&ModelConfig::default(), &train, 0, 0),
        })
    }

    fn gradient(&self, model: &LanguageModel) -> Result<crate::train::Gradient> {
        let sequences = Sequences {
            inputs: &self.inputs,
            targets: &self.targets,
            shape: self.shape,
        };
        let whole = 0..self.shape.seq_len;
        self.objective.gradient(model, &sequences, &[whole], None)
    }

    /// The losses before each of eight steps on this batch.
    fn losses(
        &self,
        mut model: LanguageModel,
        mut optimiser: ModuleOptimizer,
        learning_rate: f64,
    ) -> Result<Vec<f64>> {
        let mut losses = Vec::new();
        for _ in 0..8 {
            let gradient = self.gradient(&model)?;
            losses.push(gradient.loss_nats);
            model = optimiser.step(learning_rate, model, gradient.gradients);
        }
        Ok(losses)
    }
}
