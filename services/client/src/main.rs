//! The program `client`; everything is in the library, so that the lab can be it too.

fn main() -> std::process::ExitCode {
    client::main_from(std::env::args_os())
}
