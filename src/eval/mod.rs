//! Held-out evaluation, probes of a trained model, and the checks that a model must pass before its numbers
//! mean anything.

pub mod audit;
mod kernel_error;
mod ngram;
mod perplexity;
pub mod recall;

pub use kernel_error::kernel_errors;
pub use ngram::{COUNTED_TOKENS, ThreeGram, three_gram_ce};
pub use perplexity::{Evaluator, HeldOut, windows_at_once};
