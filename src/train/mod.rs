//! Training loop, optimiser, checkpoints.
