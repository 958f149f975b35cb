//! The counters under the names that the benchmarking guide gives them. With everything counted, as by default,
//! two models are compared fairly; each flag leaves something out.

#![expect(clippy::struct_excessive_bools, reason = "the guide's arguments")]

use super::{Tensors, Workload, estimate};
use crate::models::registry::ModelShape;
use crate::models::{BatchShape, LanguageModel};
use crate::ops::ledger::Ledger;
use crate::results::{FlopsBreakdown, FlopsCategory, MemoryLedger};
use crate::shader::budget::BINDING_BYTES;
use crate::units::Bytes;
use crate::{Error, Result};

/// Counts the operations of a forward pass where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FairFLOPsCounter {
    /// Nonlinearities, those inside of convolution and scan too.
    pub count_activations: bool,
    /// Normalisations.
    pub count_normalization: bool,
    /// Router, choice and weighting of experts.
    pub count_routing: bool,
    /// Recurrences along the sequence: selective scans and resolvents alike.
    pub count_state_updates: bool,
}

impl Default for FairFLOPsCounter {
    fn default() -> Self {
        Self {
            count_activations: true,
            count_normalization: true,
            count_routing: true,
            count_state_updates: true,
        }
    }
}

impl FairFLOPsCounter {
    /// FLOPs of a forward pass over `input_ids`, row-major `[batch, seq_len]`, logits and their cross-entropy
    /// included, as the algorithm has them. `model` is without autodiff.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, or a device that fails.
    pub fn count(
        &self,
        model: &LanguageModel,
        input_ids: &[u32],
        shape: BatchShape,
    ) -> Result<u64> {
        let breakdown = self.count_detailed(model, input_ids, shape)?;
        Ok(breakdown.total().algorithmic)
    }

    /// As [`FairFLOPsCounter::count`], one row an operation and size.
    ///
    /// # Errors
    /// As [`FairFLOPsCounter::count`].
    pub fn count_detailed(
        &self,
        model: &LanguageModel,
        input_ids: &[u32],
        shape: BatchShape,
    ) -> Result<FlopsBreakdown> {
        let ledger = Ledger::default();
        ledger.watch(|| {
            let states = model.initial_states(shape.batch);
            let hidden = model.infer(input_ids, shape, states)?;
            let chunk = BINDING_BYTES / (4 * model.vocab_size() as u64);
            // What the targets are costs nothing.
            model.nll(hidden.x, input_ids, (chunk as usize).min(input_ids.len()))?;
            Ok::<_, Error>(())
        })?;
        let mut breakdown = ledger.breakdown(shape.batch, shape.n_tokens());
        breakdown.rows.retain(|row| self.counts(row.category));
        Ok(breakdown)
    }

    /// Whether a category is counted.
    pub fn counts(&self, category: FlopsCategory) -> bool {
        match category {
            FlopsCategory::Activations => self.count_activations,
            FlopsCategory::Normalization => self.count_normalization,
            FlopsCategory::Routing => self.count_routing,
            FlopsCategory::StateUpdates => self.count_state_updates,
            _ => true,
        }
    }
}

/// What a training needs, by category. Parameters always count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FairMemoryMeasurement {
    /// What is kept for the backward pass, and states between segments.
    pub include_activations: bool,
    /// Gradients.
    pub include_gradients: bool,
    /// The optimiser's moments.
    pub include_optimizer_states: bool,
    /// What lives shortly.
    pub include_buffers: bool,
}

impl Default for FairMemoryMeasurement {
    fn default() -> Self {
        Self {
            include_activations: true,
            include_gradients: true,
            include_optimizer_states: true,
            include_buffers: true,
        }
    }
}

impl FairMemoryMeasurement {
    /// The ledger of an optimiser step of `shape`, what is left out at 0. How far it is from the measured peak
    /// stands in every record ([`Memory`](crate::results::Memory)).
    pub fn measure(&self, shape: &ModelShape, work: Workload, tensors: Tensors) -> MemoryLedger {
        let if_included = |included: bool, bytes: Bytes| if included { bytes } else { Bytes(0) };
        let MemoryLedger {
            parameters,
            gradients,
            optimizer_states,
            activations_saved,
            activations_boundary,
            buffers,
        } = estimate(shape, work, tensors);
        MemoryLedger {
            parameters,
            gradients: if_included(self.include_gradients, gradients),
            optimizer_states: if_included(self.include_optimizer_states, optimizer_states),
            activations_saved: if_included(self.include_activations, activations_saved),
            activations_boundary: if_included(self.include_activations, activations_boundary),
            buffers: if_included(self.include_buffers, buffers),
        }
    }
}
