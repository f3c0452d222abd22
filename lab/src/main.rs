//! The `lab` binary; everything is in the library, so that tests reach it.

fn main() -> std::process::ExitCode {
    lab::main_from(std::env::args_os())
}
