//! Plots and reports from result files alone.
