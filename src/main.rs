//! The `bkbench` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    bkbench::cli::main()
}
