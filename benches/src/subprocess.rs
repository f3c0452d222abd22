//! A process of this program's own that does part of the work: asked by lines, answering by lines,
//! ended by the end of its input, killed when it is dropped.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Limit of a process's first line and of its end.
const START_LIMIT: Duration = Duration::from_secs(40);

/// A running one.
pub struct Subprocess {
    name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// The first line that it wrote.
    pub greeting: String,
}

impl Subprocess {
    /// Starts this program again with `arguments` and waits for its first line.
    ///
    /// # Errors
    ///
    /// It can't be started or says nothing.
    pub async fn start(
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Not the addresses, which may be a thousand.
        let words = command.as_std().get_args().take(2).map(|word| word.to_string_lossy());
        let name = words.collect::<Vec<_>>().join(" ");
        let mut child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        let input = child.stdin.take().ok_or_else(|| format!("{name}: no input"))?;
        let output = child.stdout.take().ok_or_else(|| format!("{name}: no output"))?;
        let output = BufReader::new(output).lines();
        let mut process = Self { name, child, input, output, greeting: String::new() };
        process.greeting = process.line(START_LIMIT).await?;
        Ok(process)
    }

    /// Writes a line and reads the answer.
    ///
    /// # Errors
    ///
    /// No answer within `limit`, or not one that can be read.
    pub async fn ask<T: DeserializeOwned>(
        &mut self,
        line: &str,
        limit: Duration,
    ) -> Result<T, String> {
        let text = |e: &dyn std::fmt::Display| format!("{line:?} to {}: {e}", self.name);
        self.input.write_all(format!("{line}\n").as_bytes()).await.map_err(|e| text(&e))?;
        let answer = self.line(limit).await?;
        serde_json::from_str(&answer).map_err(|e| format!("{}: {answer:?}: {e}", self.name))
    }

    async fn line(&mut self, limit: Duration) -> Result<String, String> {
        match timeout(limit, self.output.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(format!("{} ended; what it said is above", self.name)),
            Ok(Err(e)) => Err(format!("{}: {e}", self.name)),
            Err(_) => Err(format!("{} said nothing for {limit:?}", self.name)),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// It does not end, or not well.
    pub async fn end(self) -> Result<(), String> {
        let Self { name, mut child, input, .. } = self;
        drop(input);
        match timeout(START_LIMIT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            other => Err(format!("{name}: expected it to end with its input, got {other:?}")),
        }
    }
}
