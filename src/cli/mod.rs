//! Command line: clap types, progress, exit codes.

pub mod data;
pub mod devices;

use std::process::ExitCode;

/// Parses the command line, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
