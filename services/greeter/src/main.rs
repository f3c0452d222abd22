//! The greeter's process. All of it is in the library, so that the lab's one binary can be a
//! greeter.

fn main() -> std::process::ExitCode {
    greeter::main_from(std::env::args_os())
}
