//! All integration tests in one binary: one link of the whole tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod architecture;
mod audit;
mod causal_conv;
mod checkpoints;
mod cli;
mod compare;
mod data;
mod dispatches;
mod embedding;
mod evaluation;
mod hardware;
mod limits;
mod linear_cross_entropy;
mod made_up;
mod memory;
mod models;
mod non_finite;
mod plain;
mod plots;
mod recall;
mod recovery;
mod resnetbk_variants;
mod resolvent_diag;
mod resolvent_diag_bidirectional;
mod results;
mod run;
mod segments;
mod selective_scan;
mod shaders;
mod support;
mod training;
mod verify;
