//! However the lab ends, no process and no folder of it stays behind.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio, time::Duration};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(10);
/// The phase starts 3 greeters and a client, and says so when the client is connected; with debug
/// builds on a busy machine that takes a while.
const START_LIMIT: Duration = Duration::from_secs(40);
const CHILDREN: usize = 4;

/// A running lab whose folder lies in `temporary`.
struct Running {
    lab: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    temporary: std::path::PathBuf,
}

impl Running {
    /// Starts the lab with its longest phase and waits until its children run.
    async fn start(name: &str) -> Self {
        let temporary =
            std::env::temp_dir().join(format!("lab-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&temporary).unwrap();
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["run", "round-robin", "--phase", "rolling", "--output", "json"])
            .env("TMPDIR", &temporary)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(lab.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let ready = async {
            while let Some(line) = stderr.next_line().await.unwrap() {
                if line.contains("READY") {
                    return true;
                }
                said.push(line);
            }
            false
        };
        let ready = timeout(START_LIMIT, ready).await;
        assert_eq!(ready, Ok(true), "the phase runs; the lab said: {said:#?}");
        Self { lab, stderr, temporary }
    }

    fn pid(&self) -> Pid {
        let pid = self.lab.id().expect("it runs").try_into().expect("a pid fits");
        Pid::from_raw(pid).expect("a pid is not 0")
    }

    /// Pid and start time of each child: a pid alone may be given to somebody else later.
    fn children(&self) -> BTreeMap<i32, String> {
        let lab = self.pid().as_raw_nonzero().to_string();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        });
        pids.filter_map(|pid| {
            let (parent, started) = stat(pid)?;
            (parent == lab).then_some((pid, started))
        })
        .collect()
    }

    async fn rest_of_stderr(&mut self) -> String {
        let mut rest = String::new();
        while let Some(line) = timeout(LIMIT, self.stderr.next_line()).await.unwrap().unwrap() {
            rest += &line;
            rest += "\n";
        }
        rest
    }
}

/// The parent and the start time of `pid`, if it exists and is no zombie.
fn stat(pid: i32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything; fields are counted after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields[0] != "Z").then(|| (fields[1].to_owned(), fields[19].to_owned()))
}

fn alive(children: &BTreeMap<i32, String>) -> Vec<i32> {
    let lives = |(pid, started): (&i32, &String)| {
        stat(*pid).is_some_and(|(_, since)| since == *started).then_some(*pid)
    };
    children.iter().filter_map(lives).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

async fn leaves_nothing_after(sent: Signal, name: &str) {
    let mut running = Running::start(name).await;
    let children = running.children();
    assert_eq!(children.len(), CHILDREN, "{children:?}");
    assert!(!is_empty(&running.temporary), "the run has a folder");

    kill_process(running.pid(), sent).unwrap();
    let status = timeout(LIMIT, running.lab.wait()).await.expect("the lab ends").unwrap();

    assert_eq!(alive(&children), [] as [i32; 0]);
    assert!(is_empty(&running.temporary));
    let said = running.rest_of_stderr().await;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("interrupted by {name}")), "{said}");
    fs::remove_dir_all(&running.temporary).unwrap();
}

#[tokio::test]
async fn a_program_that_the_lab_becomes_dies_with_its_parent_too() {
    set_child_subreaper(Some(getpid())).unwrap();
    let mut child_ended = signal(SignalKind::child()).unwrap();
    let script = "EVENKEEL_LAB_PID=$$ \"$0\" exec sleep 60 & echo $!; wait";
    let mut parent = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_lab")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = timeout(LIMIT, stdout.next_line()).await.unwrap().unwrap().expect("a pid");
    let pid: i32 = pid.parse().unwrap();
    let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let became = async {
        while comm() != "sleep\n" {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, became).await.expect("it becomes the program");
    parent.kill().await.unwrap();
    let pid = Pid::from_raw(pid).expect("a pid is not 0");
    let status = loop {
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).unwrap_or(None) {
            break status;
        }
        timeout(LIMIT, child_ended.recv()).await.expect("the kernel kills it");
    };
    assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
}

#[tokio::test]
async fn ctrl_c_leaves_no_process_and_no_folder() {
    leaves_nothing_after(Signal::INT, "SIGINT").await;
}

#[tokio::test]
async fn sigterm_leaves_no_process_and_no_folder() {
    leaves_nothing_after(Signal::TERM, "SIGTERM").await;
}

#[tokio::test]
async fn even_kill_9_of_the_lab_leaves_no_process() {
    let mut running = Running::start("SIGKILL").await;
    let children = running.children();
    assert_eq!(children.len(), CHILDREN, "{children:?}");
    // Orphans become children of the nearest subreaper, which may wait for them.
    set_child_subreaper(Some(getpid())).unwrap();
    let mut child_ended = signal(SignalKind::child()).unwrap();
    kill_process(running.pid(), Signal::KILL).unwrap();
    timeout(LIMIT, running.lab.wait()).await.expect("the lab ends").unwrap();
    for pid in children.keys() {
        let pid = Pid::from_raw(*pid).expect("a pid is not 0");
        let status = loop {
            if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).unwrap_or(None) {
                break status;
            }
            timeout(LIMIT, child_ended.recv()).await.expect("the kernel kills the children");
        };
        assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
    }
    assert_eq!(alive(&children), [] as [i32; 0]);
    // A killed lab can't remove its folder.
    fs::remove_dir_all(&running.temporary).unwrap();
}
