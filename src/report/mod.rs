//! Plots and reports from result files alone.

pub mod compare;
mod contents;
pub mod csv;
pub mod document;
pub mod efficiency;
pub mod kernels;
pub mod multidataset;
pub mod plot;
pub mod quantization;
pub mod recall;
pub mod statistics;
pub mod table;
pub mod tuning;
