//! The `conformance-xds` binary; all of it is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::control_plane::main_from(std::env::args_os())
}
