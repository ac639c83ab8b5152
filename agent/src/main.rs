//! The agent as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmkit_agent::cli::run(std::env::args_os().skip(1))
}
