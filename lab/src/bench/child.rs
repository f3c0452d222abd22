//! A caller as the lab sees it: a child that is asked by lines and answers by lines.

use std::{fs::File, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{ChildStdin, ChildStdout},
    time::timeout,
};

use super::caller::{READY, Seen, Work};
use crate::{
    error::LabError,
    process::{Process, Spawned},
    run::{Run, tail},
};

/// A caller gives up connecting after 20 s.
const READY_LIMIT_S: u64 = 25;
/// Beyond the time that the work itself takes: calls in flight have a deadline of 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A caller that is connected; dropping it kills it.
pub(super) struct Child {
    name: String,
    process: Process,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Child {
    /// Starts a caller and waits until it is connected.
    ///
    /// # Errors
    ///
    /// When it can't be started, ends, or is not connected within 25 s.
    pub(super) async fn start(run: &Run, name: &str, flags: &[String]) -> Result<Self, LabError> {
        let log = run.path(&format!("{name}.log"));
        let said =
            File::create(&log).map_err(LabError::io(format!("can't create {}", log.display())))?;
        let mut command = run.command("caller");
        command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let spawned = run.nursery().spawn(name, &mut command);
        let what = || format!("can't start the caller {name}");
        let Spawned { process, stdin, stdout, .. } = spawned.map_err(LabError::io(what()))?;
        let (Some(input), Some(output)) = (stdin, stdout) else {
            return Err(LabError::io(what())(std::io::Error::other("it has no pipes")));
        };
        let answers = BufReader::new(output).lines();
        let mut child = Self { name: name.to_owned(), process, input, answers, log };
        let limit = Duration::from_secs(READY_LIMIT_S);
        match child.line(limit).await? {
            Some(line) if line == READY => Ok(child),
            _ => Err(LabError::NotReady {
                name: child.name,
                limit_s: READY_LIMIT_S,
                log: tail(&child.log),
            }),
        }
    }

    /// Lets it do `work`, which takes about `length`.
    ///
    /// # Errors
    ///
    /// When it ends, or does not answer in time, or with something else.
    pub(super) async fn work(&mut self, work: Work, length: Duration) -> Result<Seen, LabError> {
        let line = format!("{}\n", serde_json::json!(work));
        let told = self.input.write_all(line.as_bytes()).await;
        told.map_err(LabError::io(format!("can't ask the caller {}", self.name)))?;
        let limit = length + ANSWER_LIMIT;
        let Some(answer) = self.line(limit).await? else {
            let (name, log) = (self.name.clone(), tail(&self.log));
            return Err(LabError::Lingers {
                name,
                limit_s: limit.as_secs(),
                signal: "being asked",
                log,
            });
        };
        let what = format!("the answer {answer:?} of the caller {}", self.name);
        serde_json::from_str(&answer).map_err(|error| LabError::io(what)(error.into()))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its next line, or `None` after `limit`.
    async fn line(&mut self, limit: Duration) -> Result<Option<String>, LabError> {
        match timeout(limit, self.answers.next_line()).await {
            Err(_) => Ok(None),
            Ok(Ok(Some(line))) => Ok(Some(line)),
            Ok(_) => {
                // Its output closes a moment before it can be reaped.
                let status = self.process.exited(Duration::from_secs(1)).await;
                let status = status.map_or("no status".to_owned(), |status| status.to_string());
                Err(LabError::Ended { name: self.name.clone(), status, log: tail(&self.log) })
            }
        }
    }
}
