//! One typed configuration: presets, TOML and flags are overrides of it.

mod data;
mod model;
mod train;

pub use data::DataConfig;
pub use model::{MatchBasis, ModelConfig};
pub use train::{Budget, TrainConfig};
