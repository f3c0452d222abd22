//! What the programs of the services do alike, from the command line to the exit code. One piece,
//! so that a flag or an exit code means the same in each of them.

pub mod duration;
mod listen;
pub mod tls;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use evenkeel_telemetry::{
    MetricsSettings, SettingsError, Telemetry,
    log::{FORMAT_VARIABLE, LogFormat, WithTraceIds},
};
use tracing_subscriber::EnvFilter;

pub use listen::{ListenError, announce, listen};

/// The exit code for bad configuration, EX_USAGE of sysexits.
pub const EXIT_CONFIG: u8 = 64;
/// The exit code for a failure to start or to go on.
pub const EXIT_FAILURE: u8 = 1;
/// How long a program that ends waits for a collector to take its last spans. With a drain's delay
/// and grace it stays below the 30 s that Kubernetes gives a pod.
pub const SPANS_WAIT: Duration = Duration::from_secs(3);

/// Reads the command line, the first of which is the program's name, and the environment.
///
/// # Errors
///
/// The exit code, after the message was printed: [`EXIT_CONFIG`], or 0 for `--help`.
pub fn arguments<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, ExitCode> {
    A::try_parse_from(args).map_err(|error| {
        // Nobody is left to tell when even this can't be written.
        let _ = error.print();
        if error.use_stderr() { EXIT_CONFIG.into() } else { ExitCode::SUCCESS }
    })
}

/// Logs to standard error what `RUST_LOG` asks for, or `level` and worse, in the form that
/// `LOG_FORMAT` asks for.
///
/// # Errors
///
/// [`EXIT_CONFIG`], after the message was printed: there is no such form.
pub fn start_log(level: &str) -> Result<(), ExitCode> {
    let format = std::env::var(FORMAT_VARIABLE).ok();
    let format = LogFormat::parse(format.as_deref()).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(EXIT_CONFIG)
    })?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Colours are for people: in a file, or behind `kubectl logs`, they are noise in every line.
    let ansi = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(ansi).event_format(WithTraceIds::new(format, ansi));
    // Already set when another entry point of the same process was here first; then that one stays.
    let _ = log.try_init();
    Ok(())
}

/// Who wants metrics beside OpenTelemetry's variables.
#[derive(Clone, Copy, Debug)]
pub enum Counting {
    /// Nobody.
    AsAsked,
    /// A page for Prometheus there, by a flag.
    Page(SocketAddr),
    /// A page of the program's own.
    Kept,
}

/// Spans and metrics as OpenTelemetry's variables ask for them, and as the program does.
///
/// # Errors
///
/// A variable that can't be meant.
pub fn telemetry(service: &str, counting: Counting) -> Result<Telemetry, SettingsError> {
    let metrics = match counting {
        Counting::AsAsked => return Telemetry::from_env(service),
        Counting::Page(address) => MetricsSettings::kept(service)?.page(address),
        Counting::Kept => MetricsSettings::kept(service)?,
    };
    Telemetry::spans_from_env(service)?.with_metrics(&metrics)
}

/// [`Counting`] for an optional flag.
impl From<Option<SocketAddr>> for Counting {
    fn from(page: Option<SocketAddr>) -> Self {
        page.map_or(Self::AsAsked, Self::Page)
    }
}

/// Runs `main` on a runtime of its own, and leaves what it has spawned behind.
///
/// # Errors
///
/// The runtime can't be started.
pub fn block_on<F: Future>(main: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let output = runtime.block_on(main);
    // Waits for nothing: after a second signal nothing may hold the process.
    runtime.shutdown_background();
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[arg(long)]
        number: u8,
    }

    fn read(args: &[&str]) -> Result<Args, ExitCode> {
        arguments(args.iter().map(OsString::from))
    }

    #[test]
    fn help_is_a_success_and_bad_usage_is_64() {
        assert_eq!(read(&["x", "--number", "3"]).expect("good").number, 3);
        assert_eq!(read(&["x", "--help"]).expect_err("no run"), ExitCode::SUCCESS);
        assert_eq!(read(&["x", "--number", "many"]).expect_err("bad"), ExitCode::from(64));
    }

    #[test]
    fn what_main_returns_comes_back() {
        assert_eq!(block_on(async { 7 }).expect("a runtime"), 7);
    }
}
