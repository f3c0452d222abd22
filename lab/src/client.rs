//! The client as a child process: it is started with its flags, its events are waited for while it
//! runs, and its report is read at the end. What it says is in `said`.

mod said;

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::ChildStderr,
    sync::{broadcast, watch},
};

use crate::{
    costs::Costs,
    error::LabError,
    process::Process,
    run::{Run, tail},
    spans::{self, Spans},
};

#[cfg(test)]
pub(crate) use said::Attempts;
pub(crate) use said::{
    Answered, BackendFigures, Event, Failure, Latency, Report, Slot, SpanCounts, What, all_ready,
    first, is_ready,
};

/// Later events are counted in no list; a run of the lab has some hundreds.
const EVENTS_MAX: usize = 100_000;
/// Events that a slow reader of the feed may be behind; it misses older ones.
const FEED_LEN_MAX: usize = 256;
/// From SIGTERM to the report: the calls in flight have at most their deadline of 5 s.
const STOP_LIMIT_S: u64 = 10;

/// A client that runs; dropping it kills it.
pub(crate) struct Client {
    name: String,
    process: Process,
    events: Arc<Events>,
    report: PathBuf,
    log: PathBuf,
    /// Where its spans go.
    spans: Option<Arc<Spans>>,
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
        spans: Option<&Arc<Spans>>,
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
        command.envs(spans.into_iter().flat_map(|spans| spans.env(spans::CLIENT, name)));
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let costs =
            Costs::begin(run.nursery(), name.rfind("client").map_or(name, |at| &name[..at]));
        let spawned = run
            .nursery()
            .spawn(name, &mut command)
            .map_err(LabError::io(format!("can't start the client {name}")))?;
        let events = Arc::new(Events::default());
        if let Some(stderr) = spawned.stderr {
            tokio::spawn(read_events(stderr, tee, Arc::clone(&events)));
        }
        let (name, process, spans) = (name.to_owned(), spawned.process, spans.cloned());
        Ok(Self { name, process, events, report, log, spans, costs })
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
        let Self { name, process, events, report, log, spans, costs } = self;
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
        let read: Report = match serde_json::from_slice(&text) {
            Ok(read) => read,
            Err(source) => {
                let (path, log) = (report, tail(&log));
                return Err(LabError::Report { name, path, source, log });
            }
        };
        if let Some(spans) = spans {
            spans.told(&name, &read).await;
        }
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
