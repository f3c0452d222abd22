//! `cargo xtask COMMAND`; everything is in the library, so that the tests reach it.

fn main() -> std::process::ExitCode {
    xtask::main_from(std::env::args().skip(1))
}
