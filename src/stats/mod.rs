//! Intervals and tests (statrs inside).
