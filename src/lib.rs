//! bkbench trains and compares O(N) language models, ResNet-BK against Mamba first, on any adapter
//! that wgpu reaches and on a plain CPU.
//!
//! Hand-written WGSL does the sequence mixing, forward and backward, as custom operations of burn; the
//! same operations run on the CPU backend. Every number a run prints carries its evidence in
//! `result.json`.
//!
//! It does *not* provide pretrained models, distributed training, or numbers measured elsewhere.
//!
//! Modules in the order of their levels (a module uses only lower ones; `tests/it/architecture.rs`
//! keeps that true): [`error`], [`units`], [`math`], [`quant`] · [`stats`], [`config`], [`results`], [`shader`] ·
//! [`hardware`], [`data`] · [`ops`] · [`models`], [`accounting`] · [`train`], [`eval`] · [`verify`], [`mod@bench`], [`speed`] ·
//! [`report`] · [`cli`].

pub mod accounting;
pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod hardware;
pub mod math;
pub mod models;
pub mod ops;
pub mod quant;
pub mod report;
pub mod results;
pub mod shader;
pub mod speed;
pub mod stats;
pub mod train;
pub mod units;
pub mod verify;

pub use error::{Error, Result};
