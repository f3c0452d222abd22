//! The balancer's own process. All of it is in the library, so that the lab's one binary can be a
//! balancer.

fn main() -> std::process::ExitCode {
    grpclb::main_from(std::env::args_os())
}
