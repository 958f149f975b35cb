//! The shape of a model under a budget of FLOPs.

use super::registry::{Architecture, ModelShape, matched_shapes};
use crate::Result;
use crate::config::ModelConfig;

/// Depths that a model may have.
const DEPTHS: [usize; 9] = [2, 4, 6, 8, 12, 16, 24, 32, 48];
/// The guide's shape: widths a layer are within a factor [`SLENDER`] of its own, and free widths keep their share of it.
const D_MODEL: usize = 256;
const N_LAYERS: usize = 6;
const SLENDER: f64 = 2.0;
/// Widths are multiples of this.
const WIDTH_STEP: usize = 4;
/// A shape uses at least this much of its budget.
const LEAST_USED: f64 = 0.95;

/// The legal shape nearest to a budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// That shape.
    pub shape: ModelShape,
    /// Whether it is within the budget, and at most 5 % below it.
    pub is_within: bool,
}

/// Looks for the shape of `model` whose `cost` comes nearest under `budget`, among a few depths and all widths in
/// proportion to them; where none is within 5 % under it, the one whose cost is nearest in ratio. The sizes in `config`
/// other than width and depth are kept.
///
/// # Errors
/// A model that cannot be matched at the guide's shape.
pub fn fit(
    model: Architecture,
    config: &ModelConfig,
    vocab_size: usize,
    budget: f64,
    cost: impl Fn(&ModelShape) -> f64,
) -> Result<Fit> {
    let guide = ModelConfig {
        d_model: D_MODEL,
        n_layers: N_LAYERS,
        ..config.clone()
    };
    let free_width = matched_shapes(&[model], &guide, vocab_size)?[0].expert_hidden;
    let shape = |n_layers: usize, d_model: usize| {
        let config = ModelConfig {
            d_model,
            n_layers,
            ..config.clone()
        };
        let hidden = (free_width * d_model + D_MODEL / 2) / D_MODEL;
        ModelShape::new(model, &config, vocab_size, hidden)
    };
    let widths = |n_layers: usize| {
        let middle = n_layers as f64 * D_MODEL as f64 / N_LAYERS as f64;
        let first = (middle / SLENDER / WIDTH_STEP as f64).ceil() as usize;
        let last = (middle * SLENDER / WIDTH_STEP as f64).floor() as usize;
        (first..=last).map(|n| n * WIDTH_STEP)
    };
    let shapes = DEPTHS
        .into_iter()
        .flat_map(|depth| widths(depth).map(move |width| (depth, width)))
        .map(|(depth, width)| shape(depth, width));
    let used = |shape: &ModelShape| cost(shape) / budget;
    let is_within = |used: f64| (LEAST_USED..=1.0).contains(&used);
    // Those within the budget before all others; of either, the nearest.
    let rank = |used: f64| (!is_within(used), used.ln().abs());
    let mut best = shape(N_LAYERS, D_MODEL);
    let mut best_used = used(&best);
    for shape in shapes {
        let used = used(&shape);
        if rank(used) < rank(best_used) {
            (best, best_used) = (shape, used);
        }
    }
    Ok(Fit {
        shape: best,
        is_within: is_within(best_used),
    })
}
