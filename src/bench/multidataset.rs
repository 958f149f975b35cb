//! A model on a dataset: what is measured beside the held-out loss in windows.

use crate::Result;
use crate::data::Dataset;
use crate::eval::Evaluator;
use crate::models::registry::Carry;
use crate::results::{Evaluation, OnDataset};

/// What is known of a cell on `dataset` before anything is measured.
pub(super) fn on_dataset(dataset: &Dataset) -> OnDataset {
    let manifest = &dataset.manifest;
    let read = manifest.eval.provenance.as_ref();
    OnDataset {
        dataset: manifest.name.clone(),
        trained_on: manifest
            .trained_on
            .as_ref()
            .unwrap_or(&manifest.name)
            .clone(),
        n_words: read.and_then(|read| read.n_words),
        carry: None,
    }
}

/// The held-out text with the state carried through every document; `None` for a model that carries none, and where the
/// loss is not finite.
///
/// # Errors
/// A device that fails.
pub(super) fn carried(
    evaluator: Evaluator<'_>,
    carry: Carry,
    dataset: &Dataset,
) -> Result<Option<Evaluation>> {
    if carry == Carry::None {
        return Ok(None);
    }
    let n_bytes = dataset.manifest.eval.n_bytes as u64;
    evaluator.evaluate_documents(&dataset.eval, n_bytes)
}
