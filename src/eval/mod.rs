//! Held-out evaluation, and the checks that a model must pass before its numbers mean anything.

pub mod audit;
mod perplexity;

pub use perplexity::evaluate;
