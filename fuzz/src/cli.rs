//! The command line: which targets, how long, from which seed; or one input again.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, thread, time::Duration};

use clap::Parser;

use crate::{
    TARGETS, Target, corpus, findings,
    runner::{self, Outcome, Settings},
};

/// Gives random bytes to what reads bytes of others, and reports panics and hangs.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Arguments {
    /// Targets; all of them when none is named
    targets: Vec<String>,
    /// Time for each target in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where the random numbers start; another one each time unless it is given
    #[arg(long)]
    seed: Option<u64>,
    /// Targets that run at once; as many as there are processors unless it is given
    #[arg(long)]
    jobs: Option<usize>,
    /// Run this one input and no other
    #[arg(long)]
    replay: Option<PathBuf>,
}

/// Runs the command line. Ends with 0 when nothing was found, 1 when something was, and 64 when the
/// arguments make no sense.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(64)
        }
    }
}

fn run(arguments: Arguments) -> Result<bool, String> {
    let targets = chosen(&arguments.targets)?;
    findings::listen();
    if let Some(path) = &arguments.replay {
        let [target] = targets[..] else {
            return Err("--replay needs the name of one target before it".into());
        };
        let input = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", (target.run)(&input));
        return Ok(true);
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let settings = Settings {
        time: Duration::from_secs(arguments.seconds),
        jobs: arguments.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)),
        seed,
    };
    println!("seed {seed}");
    let mut inputs = Vec::new();
    for target in targets {
        let corpus = corpus(&target).map_err(|e| format!("corpus of {}: {e}", target.name))?;
        inputs.push((target, corpus.into_iter().map(|(_, input)| input).collect()));
    }
    let outcomes = runner::run(inputs, &settings);
    let failed = outcomes.iter().filter(|outcome| outcome.finding.is_some()).count();
    for outcome in &outcomes {
        report(outcome)?;
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

fn chosen(names: &[String]) -> Result<Vec<Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let find = |name: &String| {
        TARGETS.iter().find(|target| target.name == name).copied().ok_or_else(|| {
            let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            format!("no target {name:?}; expected some of: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn report(outcome: &Outcome) -> Result<(), String> {
    let Outcome { target, inputs, kept, finding } = outcome;
    println!("{target}: {inputs} inputs, {kept} of them with a result of their own");
    if let Some(finding) = finding {
        let path = finding.save(target).map_err(|e| format!("a finding can't be saved: {e}"))?;
        let path = path.display();
        println!("× {target}: {}\n  again: fuzz {target} --replay {path}", finding.why);
    }
    Ok(())
}
