//! The command `lab bench`.
//!
//! Exit codes: 0 every call was answered, 1 one was not, 2 something could not be measured. No time
//! decides: another machine, or a busy one, has other figures, and the aim stands beside them.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;

use super::{Amount, BenchReport, measure, print};
use crate::{
    cli::{COULD_NOT_RUN, FAILED, Output, could_not_run, emit, interrupted, pick},
    envoy::{self, Found},
    error::LabError,
    progress::Progress,
    report::json,
    run::{Run, Settings},
};

/// What can be said on the command line.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    amount: Amount,
    /// The Envoy to measure, instead of $ENVOY, one on $PATH, or the pinned wheel
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Keep the run's folder (the children's logs) and print its path
    #[arg(long)]
    keep: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Measures and prints.
pub(crate) async fn execute(arguments: BenchArgs) -> ExitCode {
    let outcome = tokio::select! {
        found = look(&arguments) => Ok(found),
        signal = interrupted() => Err(LabError::Interrupted(signal)),
    };
    let (envoy, no_envoy) = match outcome {
        Ok(found) => found,
        Err(error) => return could_not_run(&error.to_string()),
    };
    let version = envoy.as_ref().map(|found| found.version.clone());
    let settings =
        Settings { keep: arguments.keep, envoy, envoy_concurrency: 1, ..Settings::default() };
    let run = match Run::new(settings) {
        Ok(run) => Arc::new(run),
        Err(error) => return could_not_run(&error.to_string()),
    };
    let outcome = tokio::select! {
        outcome = measure(&run, &arguments.amount, version, &no_envoy) => outcome,
        signal = interrupted() => Err(LabError::Interrupted(signal)),
    };
    // Everything that was started is dropped by now, and with it every child was sent SIGKILL.
    run.childless().await;
    if arguments.keep {
        run.progress().say("lab", &format!("kept {}", run.folder().display()));
    }
    match outcome {
        Ok(report) => {
            let printed = pick(arguments.output, || print(&report), || json::print(&report));
            let code = verdict(&report);
            emit(&printed).map_or_else(|error| could_not_run(&error), |()| code.into())
        }
        Err(error) => could_not_run(&error.to_string()),
    }
}

/// The Envoy that is to be measured, or why there is none.
async fn look(arguments: &BenchArgs) -> (Option<Found>, String) {
    if !arguments.amount.needs_envoy() {
        return (None, String::new());
    }
    match envoy::find(arguments.envoy.as_deref(), &Progress::start()).await {
        Ok(found) => (Some(found), String::new()),
        Err(missing) => (None, missing.to_string()),
    }
}

fn verdict(report: &BenchReport) -> u8 {
    match (report.holds, report.not_run.is_empty()) {
        (false, _) => FAILED,
        (true, false) => COULD_NOT_RUN,
        (true, true) => 0,
    }
}
