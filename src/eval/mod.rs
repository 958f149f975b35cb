//! Held-out evaluation.

mod perplexity;

pub use perplexity::evaluate;
