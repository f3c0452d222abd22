//! The `fuzz` binary; all of it is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fuzz::cli::main_from(std::env::args_os())
}
