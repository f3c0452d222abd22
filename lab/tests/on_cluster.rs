//! `lab run --on cluster` as far as it goes without one: a program stands in for kubectl, notes
//! what it is asked, and hangs where the test says so. What has to hold is that nothing is changed
//! before a yes, and that whatever was made is deleted, however the run ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command as StdCommand, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "evenkeel-lab-round-robin-";

/// A folder with a program `kubectl`, what it was asked, and the folder kustomize.
struct Double(PathBuf);

impl Double {
    /// `create` and `delete` are what the program does for these; `apply` hangs.
    fn new(name: &str, create: &str, delete: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lab-on-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("kustomize/overlays")).expect("a new folder");
        let script = format!(
            r#"#!/bin/sh
echo "$$ $*" >>{0}/asked
case "$*" in
    *" config view "*) printf https://127.0.0.1:6443;;
    *" create namespace "*) {create};;
    *" delete namespace "*) {delete};;
    *" label namespace "*) ;;
    *" apply -k "*|*"?watch=true"*) exec sleep 600;;
    *) echo "error: not expected: $*" >&2; exit 1;;
esac
"#,
            folder.display()
        );
        let program = folder.join("kubectl");
        fs::write(&program, script).expect("a new file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its owner may");
        Self(folder)
    }

    fn arguments(&self, further: &[&str]) -> Vec<String> {
        let path = |name: &str| self.0.join(name).display().to_string();
        let (kubectl, kustomize) = (path("kubectl"), path("kustomize"));
        let run = ["run", "round-robin", "--on", "cluster", "--context", "here"];
        let at = ["--kubectl", &kubectl, "--kustomize", &kustomize];
        run.iter().chain(&at).chain(further).map(ToString::to_string).collect()
    }

    fn run(&self, further: &[&str]) -> Output {
        let mut command = StdCommand::new(env!("CARGO_BIN_EXE_lab"));
        command.args(self.arguments(further)).stdin(Stdio::null());
        command.output().expect("the lab starts")
    }

    /// The commands with their process ids, in their order.
    fn asked(&self) -> Vec<(i32, String)> {
        let asked = fs::read_to_string(self.0.join("asked")).unwrap_or_default();
        let command = |line: &str| {
            let (pid, command) = line.split_once(' ').expect("a pid before the command");
            (pid.parse().expect("a pid"), command.to_owned())
        };
        asked.lines().map(command).collect()
    }

    /// The namespaces that `verb` was asked for.
    fn namespaces(&self, verb: &str) -> Vec<String> {
        let words = format!("--context here {verb} namespace ");
        let named = |(_, command): (i32, String)| {
            let rest = command.strip_prefix(&words)?;
            Some(rest.split(' ').next().unwrap_or_default().to_owned())
        };
        self.asked().into_iter().filter_map(named).collect()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A lab that has come as far as to apply the overlay, which hangs.
struct Applying {
    lab: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Applying {
    async fn start(double: &Double) -> Self {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(double.arguments(&["--yes"]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the lab starts");
        let mut stderr = BufReader::new(lab.stderr.take().expect("piped")).lines();
        let applies = async {
            while let Some(line) = stderr.next_line().await.expect("readable") {
                if line.contains("kubectl apply -k") {
                    return;
                }
            }
            panic!("the lab ended before it applied anything");
        };
        timeout(LIMIT, applies).await.expect("it applies the overlay");
        // It says so before it does so; the other two are its watches.
        let hang = async {
            while alive(&double.asked()).len() < 3 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, hang).await.expect("three programs hang");
        Self { lab, stderr }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.lab.id().expect("it runs").try_into().expect("a pid fits");
        kill_process(Pid::from_raw(pid).expect("a pid is not 0"), signal).expect("it runs");
    }

    async fn ended(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        while let Some(line) = timeout(LIMIT, self.stderr.next_line()).await.unwrap().unwrap() {
            said += &line;
            said += "\n";
        }
        let status = timeout(LIMIT, self.lab.wait()).await.expect("the lab ends").unwrap();
        (status.code(), said)
    }
}

/// Those of these processes that still run.
fn alive(asked: &[(i32, String)]) -> Vec<&str> {
    let runs = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `sleep` it is by now, or a number that somebody else has got.
        stat.contains("(sleep)") && !stat.contains(") Z ")
    };
    asked.iter().filter(|(pid, _)| runs(*pid)).map(|(_, command)| command.as_str()).collect()
}

#[tokio::test]
async fn an_interrupted_run_deletes_its_namespace_and_leaves_no_process() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let double = Double::new(name, "true", "true");
        let running = Applying::start(&double).await;
        running.signal(signal);
        let (code, said) = running.ended().await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("interrupted by {name}")), "{said}");
        assert!(said.contains(&format!("deleting the namespace {NAMESPACE}")), "{said}");
        let made = double.namespaces("create");
        assert_eq!((made.len(), made.clone()), (1, double.namespaces("delete")), "{said}");
        assert!(made[0].starts_with(NAMESPACE), "{made:?}");
        assert_eq!(alive(&double.asked()), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn a_second_ctrl_c_does_not_keep_the_namespace() {
    let double = Double::new("twice", "true", "touch \"$0.deleting\"; exec sleep 1");
    let running = Applying::start(&double).await;
    running.signal(Signal::INT);
    let deleting = double.0.join("kubectl.deleting");
    timeout(LIMIT, async {
        while !deleting.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it deletes");
    running.signal(Signal::INT);
    let (code, said) = running.ended().await;
    assert_eq!(code, Some(2), "{said}");
    assert!(!said.contains("yourself"), "{said}");
    assert_eq!(double.namespaces("delete"), double.namespaces("create"));
}

#[test]
fn without_a_yes_nothing_is_changed_and_what_would_be_is_said() {
    let double = Double::new("ask", "true", "true");
    let output = double.run(&[]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("expected --yes"), "{said}");
    assert!(said.contains("context here, https://127.0.0.1:6443"), "{said}");
    assert!(said.contains("pods scaled, restarted and deleted in it"), "{said}");
    let asked = double.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].1.starts_with("--context here config view"), "{asked:?}");
}

/// The request may have been carried out and its answer be lost.
#[test]
fn a_namespace_whose_making_failed_is_deleted_all_the_same() {
    let double = Double::new("lost", "echo 'Unable to connect: EOF' >&2; exit 1", "true");
    let output = double.run(&["--yes"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("Unable to connect: EOF"), "{said}");
    assert_eq!(double.namespaces("delete"), double.namespaces("create"));
}

#[test]
fn what_can_not_be_deleted_is_told_by_name() {
    let create = "echo 'error: no' >&2; exit 1";
    let double = Double::new("stays", create, "echo 'error: it is protected' >&2; exit 1");
    let output = double.run(&["--yes"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    let made = double.namespaces("create").remove(0);
    assert!(said.contains(&format!("it is protected; delete {made} yourself")), "{said}");
}
