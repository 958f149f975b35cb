//! Datasets, tokenizers, token cache, windows and seeded batches.
