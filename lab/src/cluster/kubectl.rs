//! `kubectl` as a child process: found once, always with the context that the user named, bounded
//! in time and in what it may print.
//!
//! A client library would have to know each authentication plug-in, proxy and certificate that a
//! kubeconfig can name; our own client of the API server reads EndpointSlices and nothing else
//! (ADR 0018). So the lab says what the user could have typed, and repeats it when it fails.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// For requests that only read.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(20);
/// All pods of a namespace with thousands of them fit.
const STDOUT_BYTES_MAX: u64 = 64 << 20;
/// More than this of what is wrong nobody reads.
const STDERR_BYTES_MAX: u64 = 64 << 10;
/// Lines of what it says is wrong that an error repeats.
const STDERR_LINES_MAX: usize = 5;

/// Why `kubectl` gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubectlError {
    #[error("kubectl is not on PATH; install it, or name it with --kubectl FILE")]
    Missing,
    #[error("can't run {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("`{command}` did not end within {limit_s} s; is the API server reachable from here?")]
    TimedOut { command: String, limit_s: u64 },
    #[error("`{command}` failed: {stderr}")]
    Failed { command: String, stderr: String },
    #[error("`{command}` printed more than {} MiB", STDOUT_BYTES_MAX >> 20)]
    TooMuch { command: String },
    #[error("`{command}` did not print the JSON that was expected: {source}")]
    Json { command: String, source: serde_json::Error },
}

impl KubectlError {
    /// Whether the API server refused: the user's rights do not go so far.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Failed { stderr, .. } if stderr.contains("(Forbidden)")
            || stderr.contains("forbidden:"))
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// One context of the user's kubeconfig.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    context: String,
}

impl Kubectl {
    /// `program`, or the first `kubectl` on PATH; each command goes to `context`.
    ///
    /// # Errors
    ///
    /// When there is none on PATH.
    pub(crate) fn find(program: Option<&Path>, context: &str) -> Result<Self, KubectlError> {
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|of| of.join("kubectl")).find(|at| at.is_file())
        };
        let program = program.map(Path::to_owned).or_else(on_path).ok_or(KubectlError::Missing)?;
        Ok(Self { program, context: context.to_owned() })
    }

    /// The name of the context.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// A command as the user would type it, for messages and cures.
    pub(crate) fn shown<S: AsRef<str>>(&self, args: &[S]) -> String {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        format!("kubectl --context {} {}", self.context, args.join(" "))
    }

    /// A command that nobody has started yet, for children that live longer than one answer.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--context").arg(&self.context).args(args).kill_on_drop(true);
        command
    }

    /// Runs a command to its end, with `stdin` if there is one; success or not is the caller's to
    /// judge.
    ///
    /// # Errors
    ///
    /// When it can't be started, does not end within `limit`, or prints too much.
    pub(crate) async fn answer(
        &self,
        args: &[&str],
        stdin: Option<&str>,
        limit: Duration,
    ) -> Result<Answer, KubectlError> {
        let command = self.shown(args);
        let ran = tokio::time::timeout(limit, self.run(args, stdin)).await;
        let limit_s = limit.as_secs();
        let ran = ran.map_err(|_| KubectlError::TimedOut { command: command.clone(), limit_s })?;
        let program = self.program.display().to_string();
        let answer = ran.map_err(|source| KubectlError::Start { program, source })?;
        if answer.stdout.len() as u64 > STDOUT_BYTES_MAX {
            return Err(KubectlError::TooMuch { command });
        }
        Ok(answer)
    }

    async fn run(&self, args: &[&str], stdin: Option<&str>) -> io::Result<Answer> {
        let mut command = self.command(args);
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take();
        let feed = async {
            if let (Some(input), Some(text)) = (input.as_mut(), stdin) {
                // It may have refused before it has read all; what it says is the better message.
                input.write_all(text.as_bytes()).await.ok();
            }
            drop(input);
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ((), stdout, stderr) =
            tokio::join!(feed, read(stdout, STDOUT_BYTES_MAX + 1), read(stderr, STDERR_BYTES_MAX));
        let (stdout, stderr) = (stdout?, stderr?);
        if stdout.len() as u64 > STDOUT_BYTES_MAX {
            child.start_kill().ok();
        }
        let status = child.wait().await?;
        Ok(Answer { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }

    /// Runs a command that must succeed and returns what it printed.
    ///
    /// # Errors
    ///
    /// As [`Kubectl::answer`], and when it fails, with what it said.
    pub(crate) async fn text(
        &self,
        args: &[&str],
        stdin: Option<&str>,
        limit: Duration,
    ) -> Result<String, KubectlError> {
        let answer = self.answer(args, stdin, limit).await?;
        if answer.status.success() {
            return Ok(String::from_utf8_lossy(&answer.stdout).into_owned());
        }
        let lines: Vec<&str> = answer.stderr.lines().take(STDERR_LINES_MAX).collect();
        let stderr = match lines.as_slice() {
            [] => answer.status.to_string(),
            lines => lines.join(" "),
        };
        Err(KubectlError::Failed { command: self.shown(args), stderr })
    }

    /// Runs `kubectl get … -o json`; `None` when it printed nothing, as `--ignore-not-found` does.
    ///
    /// # Errors
    ///
    /// As [`Kubectl::text`], and when what it printed is something else.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        args: &[&str],
    ) -> Result<Option<T>, KubectlError> {
        let args: Vec<&str> = ["get"].iter().chain(args).chain(&["-o", "json"]).copied().collect();
        let text = self.text(&args, None, READ_LIMIT).await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let command = self.shown(&args);
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|source| KubectlError::Json { command, source })
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A program that stands in for kubectl, in a folder of its own.
    struct Script(PathBuf);

    impl Script {
        fn new(text: &str) -> Self {
            use std::os::unix::fs::PermissionsExt as _;
            let name = format!("lab-kubectl-{}-{:08x}", std::process::id(), fastrand::u32(..));
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir(&folder).expect("a new folder");
            let file = folder.join("kubectl");
            std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("a new file");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&file, mode).expect("its owner may");
            Self(folder)
        }

        fn kubectl(&self) -> Kubectl {
            Kubectl::find(Some(&self.0.join("kubectl")), "here").expect("it was named")
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[tokio::test]
    async fn every_command_goes_to_the_context_that_was_named() {
        let script = Script::new(r#"printf '["%s"]' "$*""#);
        let seen: Option<Vec<String>> = script.kubectl().get(&["pods"]).await.expect("it prints");
        assert_eq!(seen, Some(vec!["--context here get pods -o json".to_owned()]));
    }

    #[tokio::test]
    async fn nothing_printed_is_nothing_found_and_other_text_is_an_error_with_the_command() {
        let script = Script::new("true");
        assert_eq!(script.kubectl().get::<Vec<String>>(&["pods"]).await.expect("no answer"), None);
        let script = Script::new("echo No resources found");
        let error = script.kubectl().get::<Vec<String>>(&["pods"]).await.expect_err("no JSON");
        assert!(error.to_string().starts_with("`kubectl --context here get pods -o json`"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_other_failures() {
        let script = Script::new("echo 'Error from server (Forbidden): no' >&2; exit 1");
        let error = script.kubectl().text(&["get", "x"], None, LIMIT).await.expect_err("refused");
        assert!(error.is_forbidden(), "{error}");
        let script = Script::new("echo 'error: context \"here\" does not exist' >&2; exit 1");
        let error = script.kubectl().text(&["get", "x"], None, LIMIT).await.expect_err("unknown");
        assert!(!error.is_forbidden(), "{error}");
        assert!(error.to_string().contains("does not exist"), "{error}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_at_its_limit() {
        let script = Script::new("exec sleep 600");
        let hung = script.kubectl().text(&["get", "x"], None, Duration::from_millis(50)).await;
        assert!(matches!(hung, Err(KubectlError::TimedOut { .. })), "{hung:?}");
    }

    #[tokio::test]
    async fn what_is_applied_goes_through_standard_input() {
        let script = Script::new("cat");
        let text = script.kubectl().text(&["apply", "-f", "-"], Some("kind: Pod"), LIMIT).await;
        assert_eq!(text.expect("it reads"), "kind: Pod");
    }
}
