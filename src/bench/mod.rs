//! The benchmarks: each returns cells of `results` and prints nothing.
