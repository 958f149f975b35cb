//! All integration tests in one binary: one link of the whole tree.

mod architecture;
mod causal_conv;
mod cli;
mod compare;
mod data;
mod hardware;
mod made_up;
mod plain;
mod plots;
mod results;
mod shaders;
mod support;
