//! One typed configuration: presets, TOML and flags are overrides of it.

mod model;
mod train;

pub use model::{MatchBasis, ModelConfig};
pub use train::{Budget, TrainConfig};
