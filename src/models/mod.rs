//! The language models; only the block differs.
