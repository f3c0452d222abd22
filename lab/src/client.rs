//! The client as a child process: its flags, its events while it runs, its report at the end.
//!
//! Everything that a check judges comes from here, so the report is read strictly: a key that is
//! missing is an error with the key's name, never a zero.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::ChildStderr,
    sync::{broadcast, watch},
};

use crate::{
    costs::{Cost, Costs},
    error::LabError,
    process::Process,
    run::{Run, tail},
};

/// Later events are counted in no list; a run of the lab has some hundreds.
const EVENTS_MAX: usize = 100_000;
/// Events that a slow reader of the feed may be behind; it misses older ones.
const FEED_LEN_MAX: usize = 256;
/// From SIGTERM to the report: the calls in flight have at most their deadline of 5 s.
const STOP_LIMIT_S: u64 = 10;

/// The client's JSON report (services/client/README.md).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Report {
    pub(crate) started_unix_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    pub(crate) fail: u64,
    pub(crate) shed: u64,
    pub(crate) rate: f64,
    pub(crate) by_backend: BTreeMap<String, BackendFigures>,
    pub(crate) by_code: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latency,
    pub(crate) streams_open_at_eof: BTreeMap<String, u64>,
    pub(crate) transparent_retries: u64,
    /// With `grpclb` only.
    #[serde(default)]
    pub(crate) attempts: Option<Attempts>,
    pub(crate) failures: Vec<Failure>,
    #[serde(default)]
    pub(crate) failures_omitted: u64,
    /// The length of a slot, when there are any.
    #[serde(default)]
    pub(crate) slot_s: Option<f64>,
    #[serde(default)]
    pub(crate) slots: Vec<Slot>,
    pub(crate) cpu_s: f64,
    pub(crate) rss_max_kib: Option<u64>,
    /// What the processes of its phase cost while it ran, by role; the lab adds it.
    #[serde(skip)]
    pub(crate) costs: BTreeMap<&'static str, Cost>,
}

impl Report {
    /// From `since` to the end of the last call that failed; 0 when none failed after it.
    pub(crate) fn failed_until_s(&self, since: f64) -> f64 {
        let ends = self.failures.iter().map(|failure| failure.end_unix_s - since);
        ends.fold(0.0, f64::max)
    }
}

impl Report {
    /// Adds what another client counted in the same time. Latencies are of one client: `None`.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.calls == 0 {
            self.started_unix_s = other.started_unix_s;
        }
        self.wall_s = self.wall_s.max(other.wall_s);
        self.calls += other.calls;
        self.ok += other.ok;
        self.fail += other.fail;
        self.shed += other.shed;
        self.rate += other.rate;
        self.cpu_s += other.cpu_s;
        self.transparent_retries += other.transparent_retries;
        self.failures.extend_from_slice(&other.failures);
        self.failures_omitted += other.failures_omitted;
        for (code, count) in &other.by_code {
            *self.by_code.entry(code.clone()).or_default() += count;
        }
        for (backend, figures) in &other.by_backend {
            self.by_backend.entry(backend.clone()).or_default().calls += figures.calls;
        }
        for figures in self.by_backend.values_mut() {
            figures.share = figures.calls as f64 / self.ok.max(1) as f64;
        }
    }
}

/// What the balancer's sums have to be.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Attempts {
    pub(crate) started: u64,
    pub(crate) finished: u64,
    pub(crate) failed_to_send: u64,
    pub(crate) known_received: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

/// What one backend answered; latencies are from the intended start.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct BackendFigures {
    pub(crate) calls: u64,
    pub(crate) share: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
    pub(crate) last_unix_s: f64,
}

/// Latency of the calls that were answered, from their intended start; `None` without any.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Latency {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) mean: Option<f64>,
}

/// One call that failed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Failure {
    pub(crate) start_unix_s: f64,
    pub(crate) end_unix_s: f64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Answers within one slot of time that starts at `unix_s`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Slot {
    pub(crate) unix_s: f64,
    pub(crate) by_backend: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) fail: u64,
}

/// One line of `client --events`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) unix_s: f64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// The events that the lab looks at.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    ResolverUpdate {
        addresses: Vec<String>,
    },
    Subchannel {
        address: String,
        state: String,
    },
    Draining {
        address: String,
    },
    Disconnected {
        address: String,
        reason: String,
    },
    FirstCall {
        backend: String,
    },
    /// One of these happened.
    Balancer {
        connected: Option<String>,
        lost: Option<String>,
        list: Option<List>,
        fallback: Option<String>,
    },
    /// What `--live` asks for.
    Answered(Answered),
    #[serde(other)]
    Other,
}

/// What the client has got so far; its latencies are those since it was told before.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct Answered {
    pub(crate) by_backend: BTreeMap<String, u64>,
    pub(crate) fail: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// A balancer's list.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) servers: usize,
    pub(crate) drops: usize,
}

/// A client that runs; dropping it kills it.
pub(crate) struct Client {
    name: String,
    process: Process,
    events: Arc<Events>,
    report: PathBuf,
    log: PathBuf,
    costs: Costs,
}

/// A client that has ended.
pub(crate) struct Finished {
    pub(crate) report: Report,
    pub(crate) events: Vec<Event>,
}

/// Its events as they come; those of `--live` only here.
pub(crate) type Feed = broadcast::Receiver<Event>;

#[derive(Debug)]
struct Events {
    seen: Mutex<Vec<Event>>,
    count: watch::Sender<usize>,
    feed: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        let (seen, count) = (Mutex::default(), watch::Sender::default());
        Self { seen, count, feed: broadcast::Sender::new(FEED_LEN_MAX) }
    }
}

impl Client {
    /// Starts `lab client` with `--output json`, `--events`, `flags` and `env`.
    ///
    /// # Errors
    ///
    /// When the process or its files can't be made.
    pub(crate) async fn start(
        run: &Run,
        name: &str,
        flags: &[String],
        env: &[(&'static str, String)],
    ) -> Result<Self, LabError> {
        let report = run.path(&format!("{name}.json"));
        let log = run.path(&format!("{name}.log"));
        let stdout = std::fs::File::create(&report)
            .map_err(LabError::io(format!("can't create {}", report.display())))?;
        let tee = File::create(&log)
            .await
            .map_err(LabError::io(format!("can't create {}", log.display())))?;
        let mut command = run.command("client");
        command.args(["--output", "json", "--quiet", "--events"]).args(flags);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let costs = Costs::begin(run.nursery(), name.strip_suffix("client").unwrap_or(name));
        let spawned = run
            .nursery()
            .spawn(name, &mut command)
            .map_err(LabError::io(format!("can't start the client {name}")))?;
        let events = Arc::new(Events::default());
        if let Some(stderr) = spawned.stderr {
            tokio::spawn(read_events(stderr, tee, Arc::clone(&events)));
        }
        Ok(Self { name: name.to_owned(), process: spawned.process, events, report, log, costs })
    }

    /// Runs a client that prints text to its end and returns its lines.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`, or not with success.
    pub(crate) async fn lines(
        run: &Run,
        name: &str,
        flags: &[String],
        env: &[(&'static str, String)],
        limit: Duration,
    ) -> Result<Vec<String>, LabError> {
        let (out, log) = (run.path(&format!("{name}.txt")), run.path(&format!("{name}.log")));
        let create = |path: &PathBuf| {
            std::fs::File::create(path)
                .map_err(LabError::io(format!("can't create {}", path.display())))
        };
        let mut command = run.command("client");
        command.args(flags).stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&log)?);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let spawned = run
            .nursery()
            .spawn(name, &mut command)
            .map_err(LabError::io(format!("can't start the client {name}")))?;
        match spawned.process.exited(limit).await {
            Some(status) if status.success() => {}
            Some(status) => {
                let (name, status) = (name.to_owned(), status.to_string());
                return Err(LabError::Ended { name, status, log: tail(&log) });
            }
            None => {
                let (name, limit_s) = (name.to_owned(), limit.as_secs());
                let signal = "its last call";
                return Err(LabError::Lingers { name, limit_s, signal, log: tail(&log) });
            }
        }
        let text = std::fs::read_to_string(&out)
            .map_err(LabError::io(format!("can't read {}", out.display())))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits until `wanted` holds for the events so far. `Ok(false)` after `limit`.
    ///
    /// # Errors
    ///
    /// When the client ends before that.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        wanted: impl Fn(&[Event]) -> bool,
    ) -> Result<bool, LabError> {
        let mut count = self.events.count.subscribe();
        let seen = async {
            loop {
                if wanted(&self.events.lock()) {
                    return true;
                }
                if count.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::select! {
            seen = seen => Ok(seen),
            status = self.process.exited(limit) => match status {
                Some(status) => Err(LabError::Ended {
                    name: self.name.clone(),
                    status: status.to_string(),
                    log: tail(&self.log),
                }),
                None => Ok(false),
            },
        }
    }

    /// What it tells from now on.
    pub(crate) fn feed(&self) -> Feed {
        self.events.feed.subscribe()
    }

    /// What it has told so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// Asks the client to end early and reads its report.
    ///
    /// # Errors
    ///
    /// When it is gone already, does not end, or its report can't be read.
    pub(crate) async fn stop(self) -> Result<Finished, LabError> {
        if !self.process.signal(Signal::TERM) {
            return Err(LabError::Gone { name: self.name, signal: "SIGTERM" });
        }
        self.finish(Duration::from_secs(STOP_LIMIT_S), "SIGTERM").await
    }

    /// Waits for the client's own end and reads its report.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`, or its report can't be read.
    pub(crate) async fn wait(self, limit: Duration) -> Result<Finished, LabError> {
        self.finish(limit, "its last call").await
    }

    async fn finish(self, limit: Duration, signal: &'static str) -> Result<Finished, LabError> {
        let Self { name, process, events, report, log, costs } = self;
        let Some(status) = process.exited(limit).await else {
            let (limit_s, log) = (limit.as_secs(), tail(&log));
            return Err(LabError::Lingers { name, limit_s, signal, log });
        };
        if !status.success() {
            let (status, log) = (status.to_string(), tail(&log));
            return Err(LabError::Ended { name, status, log });
        }
        let costs = costs.end();
        let text = std::fs::read(&report)
            .map_err(LabError::io(format!("can't read {}", report.display())))?;
        let read: Report = serde_json::from_slice(&text).map_err(|source| LabError::Report {
            name,
            path: report,
            source,
            log: tail(&log),
        })?;
        let events = events.lock().clone();
        Ok(Finished { report: Report { costs, ..read }, events })
    }
}

impl Events {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        // Nobody may be reading.
        self.feed.send(event.clone()).ok();
        if matches!(event.what, What::Answered(_)) {
            return;
        }
        let mut seen = self.lock();
        if seen.len() < EVENTS_MAX {
            seen.push(event);
        }
        let count = seen.len();
        drop(seen);
        self.count.send_replace(count);
    }
}

/// Reads the client's stderr: events into `events`, and every line into the log.
async fn read_events(stderr: ChildStderr, mut tee: File, events: Arc<Events>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(event) = serde_json::from_str(&line) {
            events.push(event);
        }
        // A full disk must not stop the run: the log is for people, the events are in memory.
        tee.write_all(format!("{line}\n").as_bytes()).await.ok();
    }
    tee.flush().await.ok();
}

/// Whether each of `addresses` has become READY in `events`.
pub(crate) fn all_ready(events: &[Event], addresses: &[String]) -> bool {
    addresses.iter().all(|address| first(events, 0.0, |what| is_ready(what, address)).is_some())
}

/// Whether `what` says that the subchannel of `address` is READY.
pub(crate) fn is_ready(what: &What, address: &str) -> bool {
    matches!(what, What::Subchannel { address: at, state } if at == address && state == "READY")
}

/// When the first event at or after `since` that `wanted` accepts happened.
pub(crate) fn first(events: &[Event], since: f64, wanted: impl Fn(&What) -> bool) -> Option<f64> {
    events
        .iter()
        .find(|event| event.unix_s >= since && wanted(&event.what))
        .map(|event| event.unix_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_events_and_ignores_those_it_does_not_know() {
        let lines = [
            r#"{"unix_s":1.5,"event":"resolver_update","addresses":["127.0.0.2:8000"]}"#,
            r#"{"unix_s":2.5,"event":"subchannel","address":"127.0.0.2:8000","state":"READY"}"#,
            r#"{"unix_s":3.5,"event":"first_call","backend":"127.0.0.2"}"#,
            r#"{"unix_s":3.6,"event":"disconnected","address":"127.0.0.2:8000","reason":"EOF",
               "streams_open":4}"#,
            r#"{"unix_s":4.5,"event":"some_future_event","colour":"green"}"#,
        ];
        let events: Vec<Event> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(all_ready(&events, &["127.0.0.2:8000".to_owned()]));
        assert!(!all_ready(&events, &["127.0.0.3:8000".to_owned()]));
        assert_eq!(first(&events, 0.0, |what| matches!(what, What::FirstCall { .. })), Some(3.5));
        assert_eq!(first(&events, 3.6, |what| matches!(what, What::FirstCall { .. })), None);
        assert_eq!(events[4].what, What::Other);
    }

    #[test]
    fn a_report_without_its_counters_is_an_error_that_names_the_key() {
        let error = serde_json::from_str::<Report>(r#"{"calls": 3}"#).expect_err("incomplete");
        assert!(error.to_string().contains("missing field"), "{error}");
    }
}
