//! All integration tests in one binary: one link of the whole tree.

mod architecture;
mod causal_conv;
mod compare;
mod data;
mod hardware;
mod plain;
mod shaders;
mod support;
