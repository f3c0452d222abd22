//! Children that end with us, whatever way we end: return, error, panic or Ctrl-C.
//!
//! Each child leads a process group of its own, because `reference.py` starts servers that only it
//! knows. It is asked first (it ends its own children on SIGINT), and only a group that is still
//! there ten seconds later is killed. A drop guard does it, since a future that Ctrl-C drops
//! cannot await.

use super::error::Error;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// How long a child has between being asked and being killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Most bytes that are kept of what a tool prints.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// A running child with its group.
pub(crate) struct Started {
    child: Child,
    pid: Pid,
    ask: Signal,
    program: String,
    ended: bool,
}

/// What a tool that ran to its end left.
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Started {
    /// Starts `command` without input and with its output piped. `ask` is the signal that makes
    /// it end in good order.
    pub(crate) fn spawn(command: &mut Command, ask: Signal) -> Result<Self, Error> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("start {program}")))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .expect("a child that nobody waited for has a pid");
        Ok(Self { child, pid, ask, program, ended: false })
    }

    /// The lines of its standard output; `None` after the first time.
    pub(crate) fn lines(&mut self) -> Option<Lines<BufReader<ChildStdout>>> {
        Some(BufReader::new(self.child.stdout.take()?).lines())
    }

    /// The lines of its standard error, if that is piped and was not taken before.
    pub(crate) fn error_lines(&mut self) -> Option<Lines<BufReader<ChildStderr>>> {
        Some(BufReader::new(self.child.stderr.take()?).lines())
    }

    /// All of its standard error, if that is piped and was not taken before.
    pub(crate) fn stderr(&mut self) -> impl Future<Output = String> + use<> {
        read(self.child.stderr.take())
    }

    /// Asks it to end; it is waited for apart.
    pub(crate) fn ask(&self) {
        // The child is ours and not yet reaped, so its pid cannot be another's.
        let _ = kill_process(self.pid, self.ask);
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }

    /// Waits for its own end.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, Error> {
        let status =
            self.child.wait().await.map_err(Error::io(format!("wait for {}", self.program)))?;
        self.sweep();
        Ok(status)
    }

    fn end(&mut self) {
        if self.ended {
            return;
        }
        if self.runs() {
            self.ask();
            let limit = Instant::now() + END_LIMIT;
            while self.runs() && Instant::now() < limit {
                pause();
            }
            if self.runs() {
                let _ = kill_process_group(self.pid, Signal::KILL);
                while self.runs() {
                    pause();
                }
            }
        }
        self.sweep();
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What is left of the group after its leader: a group's id is taken while it has members.
    fn sweep(&mut self) {
        if !self.ended && test_kill_process_group(self.pid).is_ok() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        self.ended = true;
    }
}

/// Between two looks at a child that has been asked to end.
#[expect(clippy::disallowed_methods, reason = "a drop guard cannot await, and the run is over")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

impl Drop for Started {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `command` to its end, at most `limit` long.
pub(crate) async fn run(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    let mut started = Started::spawn(command.stderr(Stdio::piped()), Signal::TERM)?;
    let stdout = read(started.child.stdout.take());
    let stderr = started.stderr();
    let work = async {
        let (stdout, stderr) = tokio::join!(stdout, stderr);
        Ok(Finished { status: started.wait().await?, stdout, stderr })
    };
    match tokio::time::timeout(limit, work).await {
        Ok(finished) => finished,
        Err(_) => Err(Error::Process(format!(
            "expected {} to end within {} s, it still runs",
            started.program,
            limit.as_secs()
        ))),
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A pipe that breaks ends the text; the exit status tells the rest.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn keeps_what_a_tool_prints() {
        let finished = run(&mut shell("echo out; echo err >&2; exit 3"), END_LIMIT).await.unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    }

    #[tokio::test]
    async fn ends_a_child_that_takes_too_long() {
        let began = Instant::now();
        let error = run(&mut shell("exec sleep 60"), Duration::from_millis(50)).await.err();
        assert!(error.unwrap().to_string().contains("still runs"));
        assert!(began.elapsed() < END_LIMIT);
    }

    #[tokio::test]
    async fn ends_grandchildren_that_their_parent_leaves() {
        let mut child =
            Started::spawn(&mut shell("sleep 60 & echo $!; wait"), Signal::TERM).unwrap();
        let mut lines = child.lines().unwrap();
        let line = tokio::time::timeout(END_LIMIT, lines.next_line()).await.unwrap().unwrap();
        let grandchild = Pid::from_raw(line.unwrap().parse().unwrap()).unwrap();
        assert!(test_kill_process(grandchild).is_ok());
        drop(child);
        // Both ends of the pipe were the group's: its end of file comes when the last one died.
        let end = tokio::time::timeout(END_LIMIT, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(end, None);
    }
}
