//! The lab as one of its own children. One build runs everything, and the versions of lab, greeter
//! and client can't differ, which separate binaries on PATH could.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Set for children only: the pid of the lab that started them. Its absence means that a person
/// typed `lab greeter …`, and then nothing is tied to the parent's life.
pub(crate) const PARENT_ENV: &str = "EVENKEEL_LAB_PID";

/// The first argument of a child that is to become another program.
pub(crate) const EXEC: &str = "exec";

/// Becomes the child that `arguments` name (`lab greeter …`, `lab client …`, `lab grpclb …`), or
/// returns `None` when they name none.
pub(crate) fn become_child(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.get(1..)?.split_first()?;
    let entry: fn(Vec<OsString>) -> ExitCode = match name.to_str()? {
        "caller" => crate::bench::caller::main_from,
        "greeter" => |args| greeter::main_from(args),
        "client" => |args| client::main_from(args),
        "grpclb" => |args| grpclb::main_from(args),
        // Not a command for people: nothing but the lab sets the variable.
        EXEC if std::env::var_os(PARENT_ENV).is_some() => exec,
        _ => return None,
    };
    if let Err(problem) = die_with_parent() {
        eprintln!("{problem}");
        return Some(ExitCode::FAILURE);
    }
    Some(entry([name.clone()].into_iter().chain(rest.iter().cloned()).collect()))
}

/// Becomes the program that the arguments name, which keeps the tie to the lab's life: the lab
/// can't tie a program that it starts itself without code between fork and exec.
fn exec(args: Vec<OsString>) -> ExitCode {
    let [_, program, rest @ ..] = &args[..] else {
        eprintln!("`lab {EXEC}` needs a program");
        return ExitCode::FAILURE;
    };
    let error = Command::new(program).args(rest).env_remove(PARENT_ENV).exec();
    eprintln!("can't run {}: {error}", program.display());
    ExitCode::FAILURE
}

/// Asks the kernel to kill this process when the lab dies, whatever kills it. The lab ends its
/// children itself in every orderly case; this is for `kill -9` on the lab.
fn die_with_parent() -> Result<(), String> {
    let Ok(parent) = std::env::var(PARENT_ENV) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("can't tie this process to the lab's life: {error}"))?;
    // The lab may have died before the request above: then this process has a new parent already.
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if now.to_string() == parent {
        Ok(())
    } else {
        Err(format!("the lab (pid {parent}) that started this process is gone"))
    }
}
