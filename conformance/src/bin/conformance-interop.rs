//! The `conformance-interop` binary; all of it is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::interop::main_from(std::env::args_os())
}
