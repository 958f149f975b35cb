//! All integration tests in one binary: one link of the whole tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stdout,
    reason = "seeds and measurements are for the reader of the log"
)]
#![allow(clippy::float_cmp, reason = "equal bits are what is asked for")]
#![allow(clippy::match_bool, reason = "two cases side by side")]
#![allow(clippy::single_range_in_vec_init, reason = "a sequence in one segment")]
#![allow(clippy::type_complexity, reason = "tables of field accessors")]

mod across;
mod adamw;
mod architecture;
mod attention;
mod audit;
mod bad_results;
mod causal_conv;
mod checklist;
mod checkpoints;
mod claims;
mod cli;
mod compare;
mod comparisons;
mod configuration;
mod data;
mod datasets;
mod dispatches;
mod doctor;
mod documents;
mod efficiency;
mod embedding;
mod evaluation;
mod fetch;
mod flops;
mod generation;
mod guide;
mod hardware;
mod kernel_error;
mod limits;
mod linear_cross_entropy;
mod made_up;
mod memory;
mod merge;
mod mixed_precision;
mod model_flops;
mod models;
mod multidataset;
mod ngram;
mod non_finite;
mod packed_matmul;
mod plain;
mod plots;
mod published;
mod quantization;
mod rates;
mod recall;
mod recovery;
mod report;
mod resnetbk_variants;
mod resolvent_diag;
mod resolvent_diag_bidirectional;
mod results;
mod rms_norm;
mod run;
#[cfg(unix)]
mod scripts;
mod segments;
mod selective_scan;
mod several;
mod shaders;
mod skip_gate;
mod speed;
mod squared_norm;
mod statistics;
mod support;
mod trained;
mod training;
mod tuning;
mod verify;
