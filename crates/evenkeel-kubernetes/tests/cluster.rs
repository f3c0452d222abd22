//! The watch against a real kube-apiserver, as far as the double can't show it: what one change
//! costs among 1,000 endpoints, and what 1,000 watchers do when the API server restarts. It needs
//! a cluster (`KUBECONFIG`, `kubectl`) and, for the restart, a shell command that kills the API
//! server (`EVENKEEL_KILL_APISERVER`), so `cargo test` alone leaves it out, and `.ci/run cluster`
//! runs it. A program of its own, without the test harness, because it is its own 10 processes
//! of watchers, too.

use std::{
    env,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use evenkeel_kubernetes::{Cluster, Port, Selection, ServiceKey, Slices, State, Watch};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout},
    time::{sleep, timeout},
};

/// Nothing here may take longer: a cluster on two cores is slow.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";
const PROCESSES: usize = 10;
const WATCHES: usize = 100;
/// Makes this program one of the processes.
const WATCHERS_ARGUMENT: &str = "watchers";
/// Connections that may begin within 100 ms, of 1,000 watchers that lost theirs at one moment.
const BURST_MAX: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    if env::args().nth(1).is_some_and(|argument| argument == WATCHERS_ARGUMENT) {
        return runtime.block_on(a_process_of_watchers());
    }
    // A panic ends the program with another code than 0.
    runtime.block_on(one_change_among_a_thousand_endpoints_is_less_than_a_millisecond_of_work());
    runtime.block_on(a_thousand_watchers_survive_a_restart_of_the_api_server_without_a_stampede());
    println!("test result: ok. 2 passed; 0 failed");
}

/// Runs kubectl with this standard input; returns what it prints.
fn kubectl(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("kubectl is on PATH");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "kubectl {arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Not managed by the controller, which would delete it; all addresses but `off` are ready.
fn slice(service: &str, number: usize, endpoints: usize, off: Option<usize>) -> String {
    let list: Vec<String> = (0..endpoints)
        .map(|n| {
            let ready = off != Some(n);
            format!(
                r#"{{"addresses":["10.7.{number}.{n}"],"conditions":{{"ready":{ready}}},
                "nodeName":"node-1","zone":"zone-a","targetRef":{{"kind":"Pod",
                "namespace":"default","name":"{service}-{number}-{n}"}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{
        "name":"{service}-{number}","labels":{{"kubernetes.io/service-name":"{service}",
        "endpointslice.kubernetes.io/managed-by":"evenkeel-test"}}}},"addressType":"IPv4",
        "ports":[{{"name":"grpc","port":8000,"protocol":"TCP"}}],"endpoints":[{}]}}"#,
        list.join(",")
    )
}

fn list(items: &[String]) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(","))
}

fn selected(slices: &Slices) -> usize {
    slices.select(&Selection::new(Port::Number(8000))).map_or(0, |endpoints| endpoints.len())
}

async fn until_selected(watch: &mut Watch, count: usize) -> Arc<Slices> {
    timeout(PATIENCE, async {
        loop {
            if let State::Good { slices, .. } = watch.changed().await
                && selected(&slices) == count
            {
                return slices;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not {count} endpoints: {:?}", watch.state()))
}

async fn one_change_among_a_thousand_endpoints_is_less_than_a_millisecond_of_work() {
    const SLICES: usize = 12;
    const EACH: usize = 84;
    const CHANGES: usize = 20;
    let all: Vec<String> = (0..SLICES).map(|n| slice("thousand", n, EACH, None)).collect();
    kubectl(&["apply", "--server-side", "-f", "-"], &list(&all));
    let cluster = Cluster::infer().unwrap();
    let mut watch = cluster.watch(ServiceKey::new(NAMESPACE, "thousand").unwrap());
    until_selected(&mut watch, SLICES * EACH).await;
    let mut work = Vec::new();
    for change in 0..CHANGES {
        let off = change.is_multiple_of(2).then_some(change);
        kubectl(&["apply", "--server-side", "-f", "-"], &slice("thousand", 3, EACH, off));
        let count = SLICES * EACH - usize::from(off.is_some());
        let slices = until_selected(&mut watch, count).await;
        let began = Instant::now();
        let endpoints = selected(&slices);
        work.push(slices.applied_in() + began.elapsed());
        assert_eq!(endpoints, count);
    }
    kubectl(&["delete", "endpointslice", "-l", "kubernetes.io/service-name=thousand"], "");
    work.sort_unstable();
    let (median, most) = (work[CHANGES / 2], work[CHANGES - 1]);
    println!("one change of {SLICES} x {EACH} endpoints: median {median:?}, most {most:?} of work");
    assert!(median < Duration::from_millis(1), "{work:?}");
}

/// Passes connections on to the API server, and remembers when each began.
struct Counting {
    address: SocketAddr,
    began: Arc<Mutex<Vec<Instant>>>,
}

impl Counting {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let began = Arc::new(Mutex::new(Vec::new()));
        let seen = began.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                seen.lock().unwrap().push(Instant::now());
                let server = server.clone();
                tokio::spawn(async move {
                    // A server that is away closes the connection, as its own address would.
                    if let Ok(mut behind) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut socket, &mut behind).await;
                    }
                });
            }
        });
        Self { address, began }
    }

    /// Connections since then, by slots of this length.
    fn since(&self, moment: Instant, slot: Duration) -> Vec<usize> {
        let began = self.began.lock().unwrap();
        let mut slots = Vec::new();
        for at in began.iter().filter_map(|at| at.checked_duration_since(moment)) {
            let index = (at.as_millis() / slot.as_millis()) as usize;
            slots.resize(slots.len().max(index + 1), 0);
            slots[index] += 1;
        }
        slots
    }
}

/// One of the processes of watchers.
struct Watchers {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watchers {
    fn start(kubeconfig: &std::path::Path) -> Self {
        let mut command = tokio::process::Command::new(env::current_exe().unwrap());
        command
            .arg(WATCHERS_ARGUMENT)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    async fn says(&mut self, what: &str) {
        let said =
            async { while self.lines.next_line().await.unwrap().expect("it runs") != what {} };
        timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("not {what:?}"));
    }
}

/// What each of the ten processes is: it runs until it is killed.
async fn a_process_of_watchers() {
    let cluster = Cluster::infer().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(WATCHES * 4);
    for number in 0..WATCHES {
        let service = ServiceKey::new(NAMESPACE, format!("crowd-{number}")).unwrap();
        let (mut watch, tell) = (cluster.watch(service), tell.clone());
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let state = watch.changed().await;
                let State::Good { slices, error: None, .. } = state else { continue };
                let now = selected(&slices);
                if last.replace(now) != Some(now) {
                    tell.send(now).await.unwrap();
                }
            }
        });
    }
    let mut counts = [0; 2];
    let mut stdout = tokio::io::stdout();
    while let Some(endpoints) = told.recv().await {
        counts[endpoints.min(1)] += 1;
        if counts[endpoints.min(1)] == WATCHES {
            let line = if endpoints == 0 { "all connected\n" } else { "all see it\n" };
            stdout.write_all(line.as_bytes()).await.unwrap();
            stdout.flush().await.unwrap();
        }
    }
}

async fn a_thousand_watchers_survive_a_restart_of_the_api_server_without_a_stampede() {
    let server = Cluster::infer().unwrap().server();
    let server = server.strip_prefix("https://").expect("a cluster has TLS").to_owned();
    let counting = Counting::start(server.clone()).await;
    let config = std::fs::read_to_string(env::var("KUBECONFIG").unwrap()).unwrap();
    let config = config.replace(&server, &counting.address.to_string());
    let file = env::temp_dir().join(format!("evenkeel-crowd-{}", std::process::id()));
    std::fs::write(&file, config).unwrap();
    let mut crowd: Vec<Watchers> = (0..PROCESSES).map(|_| Watchers::start(&file)).collect();
    for watchers in &mut crowd {
        watchers.says("all connected").await;
    }
    let _ = std::fs::remove_file(&file);
    println!("{} watchers in {PROCESSES} processes are connected", PROCESSES * WATCHES);

    let restarted = Instant::now();
    let kill = env::var("EVENKEEL_KILL_APISERVER").expect("a command that kills the API server");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let ready = timeout(PATIENCE, async {
        loop {
            let probe = Command::new("kubectl").args(["get", "--raw", "/readyz"]).output();
            if probe.unwrap().status.success() {
                return;
            }
            // Nobody tells of it.
            sleep(Duration::from_millis(100)).await;
        }
    });
    ready.await.expect("the API server is back");
    println!("killed; ready again after {:.1} s", restarted.elapsed().as_secs_f64());
    let all: Vec<String> = (0..WATCHES).map(|n| slice(&format!("crowd-{n}"), 0, 1, None)).collect();
    kubectl(&["apply", "--server-side", "-f", "-"], &list(&all));
    for watchers in &mut crowd {
        watchers.says("all see it").await;
    }
    println!("all saw a change {:.1} s after the kill", restarted.elapsed().as_secs_f64());
    let seconds = counting.since(restarted, Duration::from_secs(1));
    let burst = counting.since(restarted, Duration::from_millis(100)).into_iter().max();
    println!("connections by second since: {seconds:?}; at most {burst:?} within 100 ms");
    kubectl(
        &["delete", "endpointslice", "-l", "endpointslice.kubernetes.io/managed-by=evenkeel-test"],
        "",
    );
    let total: usize = seconds.iter().sum();
    assert!(total >= PROCESSES * WATCHES, "{total} connections");
    assert!(burst.is_some_and(|burst| burst <= BURST_MAX), "{burst:?}");
}
