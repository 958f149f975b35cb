//! One forward and backward pass, and the two scalars that the host looks at.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::optimiser::{scale, squared_norm};
use crate::hardware::read;
use crate::models::{BatchShape, Dropout, LanguageModel};
use crate::{Error, Result};

/// What is minimised: mean cross-entropy plus the weighted load balance.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// Weight of the sum of the layers' load-balance terms.
    pub load_balance_weight: f64,
    /// Mask of this step.
    pub dropout: Dropout,
    /// Rows of logits that exist at once.
    pub loss_chunk_tokens: usize,
}

/// Gradient of an objective at one batch.
#[derive(Debug)]
pub struct Gradient {
    /// Mean cross-entropy alone, nats per token.
    pub loss_nats: f64,
    /// Norm over all parameters.
    pub norm: f64,
    /// By parameter.
    pub gradients: GradientsParams,
}

impl Objective {
    /// The gradient for whole sequences.
    ///
    /// # Errors
    /// Tokens outside the vocabulary, or a device that fails.
    pub fn gradient(
        &self,
        model: &LanguageModel,
        inputs: &[u32],
        targets: &[u32],
        shape: BatchShape,
    ) -> Result<Gradient> {
        let zeros = model.initial_states(shape.batch);
        let hidden = model.train(inputs, shape, zeros.clone(), &zeros, self.dropout)?;
        let mean = 1.0 / shape.n_tokens() as f32;
        let loss = model.scaled_loss(hidden.x, targets, self.loss_chunk_tokens, mean)?;
        let objective = match hidden.load_balance {
            Some(term) => loss.clone() + term.mul_scalar(self.load_balance_weight),
            None => loss.clone(),
        };
        let gradients = GradientsParams::from_grads(objective.backward(), model);
        let squared = squared_norm(model, &gradients)
            .ok_or_else(|| Error::CheckFailed("no parameter has a gradient".into()))?;
        let pair = Tensor::cat(vec![loss.inner(), squared], 0);
        let pair = read::doubles(pair, "reading loss and gradient norm")?;
        Ok(Gradient {
            loss_nats: pair[0],
            norm: pair[1].sqrt(),
            gradients,
        })
    }
}

impl Gradient {
    /// The gradients, scaled down to `max_norm` where they exceed it.
    pub fn clipped<M: Module>(self, module: &M, max_norm: f64) -> GradientsParams {
        if self.norm > max_norm {
            scale(module, self.gradients, max_norm / self.norm)
        } else {
            self.gradients
        }
    }
}
