//! What the channel did during the run: counters for the report, and on request a JSON line for
//! each event on stderr. A recorder must not block, and a pipe that nobody reads does: lines go
//! through a bounded queue to a thread of their own, and what does not fit is dropped and counted.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use evenkeel::core::{
    BalancerNews,
    observe::{Event, Recorder},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{status::code_name, tally::SoFar};

/// Lines that wait to be written.
pub const QUEUE_LEN_MAX: usize = 10_000;
/// Addresses whose streams are counted.
pub const ADDRESSES_MAX: usize = 10_000;
/// Tokens of drops that are counted; more than a channel reports to its balancer.
pub const TOKENS_MAX: usize = 2_000;
/// How long the end of the program waits for the lines that are still queued.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Counts events, and writes them when asked to.
pub struct EventLog {
    streams_open: Mutex<BTreeMap<String, u64>>,
    transparent_retries: AtomicU64,
    drops: Mutex<BTreeMap<String, u64>>,
    lines: Option<SyncSender<Entry>>,
    dropped: AtomicU64,
}

enum Entry {
    Line(Value),
    Flush(oneshot::Sender<()>),
}

impl EventLog {
    /// A log that only counts.
    pub fn counting() -> Self {
        Self::with_lines(None)
    }

    /// A log that also writes each event as a JSON line to `out`, on a thread that ends with the
    /// log.
    pub fn writing(out: impl Write + Send + 'static) -> Self {
        let (lines, queue) = sync_channel(QUEUE_LEN_MAX);
        std::thread::spawn(move || write_lines(&queue, out));
        Self::with_lines(Some(lines))
    }

    fn with_lines(lines: Option<SyncSender<Entry>>) -> Self {
        Self {
            streams_open: Mutex::default(),
            transparent_retries: AtomicU64::new(0),
            drops: Mutex::default(),
            lines,
            dropped: AtomicU64::new(0),
        }
    }

    /// Calls that were open on connections when they ended, summed per address.
    pub fn streams_open_at_eof(&self) -> BTreeMap<String, u64> {
        self.streams_open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attempts that the channel sent again because no server had processed them.
    pub fn transparent_retries(&self) -> u64 {
        self.transparent_retries.load(Ordering::Relaxed)
    }

    /// Calls that were dropped, by the balancer's token.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first answer of a backend came.
    pub fn first_call(&self, backend: &str) {
        self.line("first_call", || json!({ "backend": backend }));
    }

    /// What has been answered since the run began, and how fast it was since `before`.
    pub fn answered(&self, so_far: &SoFar, before: &SoFar) {
        self.line("answered", || {
            let latency = so_far.latency.since(&before.latency);
            json!({
                "by_backend": so_far.by_backend,
                "fail": so_far.fail,
                "p50_ms": latency.quantile_ms(0.5),
                "p99_ms": latency.quantile_ms(0.99),
            })
        });
    }

    /// Waits, for 2 s at most, until the lines so far are written, and says on stderr how many were
    /// dropped.
    pub async fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        let written = async {
            let (done, written) = oneshot::channel();
            let mut entry = Entry::Flush(done);
            while let Err(TrySendError::Full(back)) = lines.try_send(entry) {
                entry = back;
                // Full just now; its send would block this thread, and it wakes no task.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // An error means that the writer is gone, and its lines with it.
            let _ = written.await;
        };
        let _ = tokio::time::timeout(FLUSH_WAIT, written).await;
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            eprintln!("client: {dropped} events were not written; stderr was not read fast enough");
        }
    }

    fn line(&self, event: &str, fields: impl FnOnce() -> Value) {
        let Some(lines) = &self.lines else { return };
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = json!({ "unix_s": micros(unix.as_secs_f64()), "event": event });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields()) {
            line.extend(fields);
        }
        if lines.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recorder for EventLog {
    fn record(&self, event: &Event<'_>) {
        match event {
            Event::ChannelState(state) => {
                self.line("channel_state", || json!({ "state": state.to_string() }));
            }
            Event::ResolverUpdate { addresses, .. } => self.line("resolver_update", || {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                json!({ "addresses": addresses })
            }),
            Event::ResolverError(status) => {
                self.line("resolver_error", || json!({ "message": status_text(status) }));
            }
            Event::ResolverRenewal(error) => self.line("resolver_renewal", || match error {
                Some(status) => json!({ "error": status_text(status) }),
                None => json!({}),
            }),
            Event::SubchannelState { address, state, error } => self.line("subchannel", || {
                let mut fields =
                    json!({ "address": address.to_string(), "state": state.to_string() });
                if let Some(error) = error {
                    fields["error"] = status_text(error).into();
                }
                fields
            }),
            Event::Draining { address } => {
                self.line("draining", || json!({ "address": address.to_string() }));
            }
            Event::Disconnected { address, reason, streams_open } => {
                let address = address.to_string();
                self.line("disconnected", || {
                    json!({ "address": address, "reason": reason, "streams_open": streams_open })
                });
                count(&self.streams_open, ADDRESSES_MAX, &address, *streams_open);
            }
            Event::TransparentRetry { address } => {
                self.transparent_retries.fetch_add(1, Ordering::Relaxed);
                self.line("transparent_retry", || json!({ "address": address.to_string() }));
            }
            Event::Retry { address, attempt } => {
                self.line("retry", || json!({ "address": address.to_string(), "attempt": attempt }))
            }
            Event::Dropped { category } => {
                count(&self.drops, TOKENS_MAX, category, 1);
                self.line("dropped", || json!({ "token": category }));
            }
            Event::Balancer(news) => self.line("balancer", || balancer(news)),
            // The enum may grow; an event that is not known here needs no line.
            _ => {}
        }
    }
}

/// Adds to a sum of which there are at most `len_max`.
fn count(sums: &Mutex<BTreeMap<String, u64>>, len_max: usize, key: &str, more: u64) {
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sum) = sums.get_mut(key) {
        *sum += more;
    } else if sums.len() < len_max {
        sums.insert(key.to_owned(), more);
    }
}

fn balancer(news: &BalancerNews) -> Value {
    match news {
        BalancerNews::Connected(address) => json!({ "connected": address.to_string() }),
        BalancerNews::Lost(status) => json!({ "lost": status_text(status) }),
        BalancerNews::List { servers, drops, ignored } => {
            json!({ "list": { "servers": servers, "drops": drops, "ignored": ignored.total() } })
        }
        BalancerNews::Fallback(why) => json!({ "fallback": why }),
        BalancerNews::FallbackOver => json!({ "fallback_over": true }),
        // The enum may grow.
        other => json!({ "news": format!("{other:?}") }),
    }
}

fn status_text(status: &evenkeel::core::Status) -> String {
    let code = code_name(tonic::Code::from_i32(status.code as i32));
    format!("{code}: {}", status.message)
}

/// Rounds seconds to a microsecond; a double can't hold more of a Unix time.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn write_lines(queue: &Receiver<Entry>, mut out: impl Write) {
    while let Ok(entry) = queue.recv() {
        match entry {
            // A reader that has gone away is no reason to end a run that others watch.
            Entry::Line(line) => drop(writeln!(out, "{line}")),
            Entry::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use evenkeel::core::{Address, ConnectivityState, Status, policies::grpclb::Ignored};

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn address(text: &str) -> Address {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[tokio::test]
    async fn each_event_is_one_json_line_with_its_fields() {
        let out = Out::default();
        let log = EventLog::writing(out.clone());
        let a = address("127.0.0.2:8000");
        let gone = Status::unavailable("gone");
        for event in [
            Event::ChannelState(ConnectivityState::Ready),
            Event::ResolverUpdate { addresses: std::slice::from_ref(&a), endpoints: &[] },
            Event::ResolverError(&gone),
            Event::SubchannelState { address: &a, state: ConnectivityState::Idle, error: None },
            Event::SubchannelState {
                address: &a,
                state: ConnectivityState::TransientFailure,
                error: Some(&gone),
            },
            Event::Draining { address: &a },
            Event::Disconnected { address: &a, reason: "reset", streams_open: 3 },
            Event::TransparentRetry { address: &a },
            Event::Retry { address: &a, attempt: 2 },
            Event::Dropped { category: "lb" },
            Event::Balancer(&BalancerNews::Connected(a.clone())),
            Event::Balancer(&BalancerNews::Lost(gone.clone())),
            Event::Balancer(&BalancerNews::List {
                servers: 2,
                drops: 1,
                ignored: Ignored::default(),
            }),
            Event::Balancer(&BalancerNews::Fallback("the balancer says so")),
            Event::Balancer(&BalancerNews::FallbackOver),
        ] {
            log.record(&event);
        }
        log.first_call("127.0.0.2");
        log.flush().await;
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let unix_s = line.as_object_mut().unwrap().remove("unix_s").unwrap();
                assert!(unix_s.as_f64().unwrap() > 1.7e9, "{unix_s}");
                line
            })
            .collect();
        let a = "127.0.0.2:8000";
        let tf = "TRANSIENT_FAILURE";
        assert_eq!(
            lines,
            [
                json!({ "event": "channel_state", "state": "READY" }),
                json!({ "event": "resolver_update", "addresses": [a] }),
                json!({ "event": "resolver_error", "message": "UNAVAILABLE: gone" }),
                json!({ "event": "subchannel", "address": a, "state": "IDLE" }),
                json!({ "event": "subchannel", "address": a, "state": tf,
                        "error": "UNAVAILABLE: gone" }),
                json!({ "event": "draining", "address": a }),
                json!({ "event": "disconnected", "address": a, "reason": "reset",
                        "streams_open": 3 }),
                json!({ "event": "transparent_retry", "address": a }),
                json!({ "event": "retry", "address": a, "attempt": 2 }),
                json!({ "event": "dropped", "token": "lb" }),
                json!({ "event": "balancer", "connected": a }),
                json!({ "event": "balancer", "lost": "UNAVAILABLE: gone" }),
                json!({ "event": "balancer", "list": { "servers": 2, "drops": 1, "ignored": 0 } }),
                json!({ "event": "balancer", "fallback": "the balancer says so" }),
                json!({ "event": "balancer", "fallback_over": true }),
                json!({ "event": "first_call", "backend": "127.0.0.2" }),
            ]
        );
    }

    #[test]
    fn sums_the_streams_that_each_address_left_open() {
        let log = EventLog::counting();
        for (text, streams_open) in [("127.0.0.2:1", 3), ("127.0.0.3:1", 0), ("127.0.0.2:1", 4)] {
            let address = address(text);
            log.record(&Event::Disconnected { address: &address, reason: "EOF", streams_open });
        }
        log.record(&Event::TransparentRetry { address: &address("127.0.0.2:1") });
        let want = BTreeMap::from([("127.0.0.2:1".into(), 7), ("127.0.0.3:1".into(), 0)]);
        assert_eq!((log.streams_open_at_eof(), log.transparent_retries()), (want, 1));
    }

    #[tokio::test]
    async fn a_reader_that_stalls_costs_lines_but_never_blocks() {
        struct Stalled(Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                // Ends when the test drops its side.
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (resume, stalled) = sync_channel(0);
        let log = EventLog::writing(Stalled(stalled));
        for _ in 0..QUEUE_LEN_MAX + 100 {
            log.first_call("127.0.0.2");
        }
        assert!(log.dropped.load(Ordering::Relaxed) >= 90);
        drop(resume);
        log.flush().await;
    }
}
