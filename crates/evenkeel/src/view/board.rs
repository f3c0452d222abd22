//! What the driver notes for those who look: subchannels, connections, the resolver's reports. The
//! driver writes O(1) per event; only it and snapshots take the lock, calls never do.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use evenkeel_core::{Address, ConnectivityState, Endpoint, Status, SubchannelId};
use tokio::time::Instant;

use super::{
    CallCounts, ConnectionSnapshot, ErrorSnapshot, ResolverSnapshot, StreamCounts,
    SubchannelSnapshot, WaitingSnapshot, next_id,
};
use crate::{
    channel::Shared,
    transport::{ConnectionEvent, EventKind, Seen},
};

/// Connections that ended while calls had yet to read what came, of which the counts are still
/// watched; the oldest is given up for one more.
const ENDED_MAX: usize = 1024;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Board(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    policy: Option<String>,
    updates: u64,
    errors: u64,
    last_update: Option<Instant>,
    last_error: Option<(Status, Instant)>,
    config_from_resolver: bool,
    endpoints: Vec<Endpoint>,
    subchannels: BTreeMap<SubchannelId, SubchannelNotes>,
    /// By the driver's number.
    connections: BTreeMap<u64, ConnectionNotes>,
    /// Numbers of connections that ended with calls on them.
    ended: VecDeque<u64>,
    /// Streams of connections that are gone.
    gone: StreamCounts,
    /// The most that was shown: a counter must not go back.
    calls_shown: CallCounts,
    quiet_since: Option<Instant>,
}

struct SubchannelNotes {
    id: u64,
    address: Address,
    state: ConnectivityState,
    since: Instant,
    last_error: Option<(Status, Instant)>,
    /// Streams of its connections that are gone.
    gone: StreamCounts,
}

struct ConnectionNotes {
    id: u64,
    subchannel: SubchannelId,
    address: Address,
    ready_at: Instant,
    draining: bool,
    ended: bool,
    seen: Arc<Seen>,
    failed_shown: u64,
}

/// What [`Board::read`] knows of a channel.
pub(super) struct Noted {
    pub(super) policy: Option<String>,
    pub(super) resolver: ResolverSnapshot,
    pub(super) config_from_resolver: bool,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) subchannels: Vec<SubchannelSnapshot>,
    pub(super) draining: Vec<ConnectionSnapshot>,
    pub(super) waiting: WaitingSnapshot,
    pub(super) calls: CallCounts,
    pub(super) quiet_s: Option<f64>,
}

impl Board {
    pub(crate) fn policy(&self, name: Option<&str>) {
        let mut notes = self.lock();
        if notes.policy.as_deref() != name {
            notes.policy = name.map(str::to_owned);
        }
    }

    pub(crate) fn quiet_since(&self, since: Instant) {
        self.lock().quiet_since = Some(since);
    }

    pub(crate) fn resolver_update(&self, endpoints: Vec<Endpoint>, has_config: bool) {
        let mut notes = self.lock();
        notes.updates += 1;
        notes.last_update = Some(Instant::now());
        notes.last_error = None;
        notes.config_from_resolver = has_config;
        notes.endpoints = endpoints;
    }

    pub(crate) fn resolver_error(&self, status: &Status) {
        let mut notes = self.lock();
        notes.errors += 1;
        notes.last_error = Some((status.clone(), Instant::now()));
    }

    pub(crate) fn subchannel(
        &self,
        id: SubchannelId,
        address: &Address,
        state: ConnectivityState,
        error: Option<&Status>,
    ) {
        let mut notes = self.lock();
        if state == ConnectivityState::Shutdown {
            notes.subchannels.remove(&id);
            return;
        }
        let now = Instant::now();
        let subchannel = notes.subchannels.entry(id).or_insert_with(|| SubchannelNotes {
            id: next_id(),
            address: address.clone(),
            state,
            since: now,
            last_error: None,
            gone: StreamCounts::default(),
        });
        if subchannel.state != state {
            (subchannel.state, subchannel.since) = (state, now);
        }
        match (error, state) {
            (Some(error), _) => subchannel.last_error = Some((error.clone(), now)),
            (None, ConnectivityState::Ready) => subchannel.last_error = None,
            (None, _) => {}
        }
    }

    pub(crate) fn connection(&self, event: &ConnectionEvent) {
        let mut notes = self.lock();
        match &event.kind {
            EventKind::Ready(transport) => {
                let connection = ConnectionNotes {
                    id: next_id(),
                    subchannel: event.id,
                    address: transport.address.clone(),
                    ready_at: Instant::now(),
                    draining: false,
                    ended: false,
                    seen: transport.seen.clone(),
                    failed_shown: 0,
                };
                notes.connections.insert(event.number, connection);
            }
            EventKind::Failed(_) | EventKind::TooManyPings => {}
            EventKind::Draining { .. } => notes.drains(event.number),
            EventKind::Closed { .. } => notes.ended(event.number),
        }
    }

    /// The connection of this number takes no new streams.
    pub(crate) fn drains(&self, number: u64) {
        self.lock().drains(number);
    }

    /// The driver ends, and notes nothing any more.
    pub(crate) fn close(&self) {
        let mut notes = self.lock();
        notes.subchannels.clear();
        notes.connections.values_mut().for_each(|connection| connection.draining = true);
    }

    pub(super) fn read(&self, now: Instant, shared: &Shared) -> Noted {
        let mut notes = self.lock();
        let (calls, subchannels, draining) = notes.connections(now, shared);
        let waiting = notes.waiting(shared);
        let open = |c: &ConnectionNotes| c.seen.calls_open() > 0;
        let is_busy = waiting.calls > 0 || notes.connections.values().any(open);
        Noted {
            policy: notes.policy.clone(),
            resolver: ResolverSnapshot {
                scheme: shared.scheme.clone(),
                updates: notes.updates,
                errors: notes.errors,
                last_update_age_s: notes.last_update.map(|at| age_s(now, at)),
                last_error: error(now, notes.last_error.as_ref()),
            },
            config_from_resolver: notes.config_from_resolver,
            endpoints: notes.endpoints.clone(),
            subchannels,
            draining,
            waiting,
            calls,
            quiet_s: notes.quiet_since.map(|at| if is_busy { 0.0 } else { age_s(now, at) }),
        }
    }

    /// The subchannel with this id.
    pub(super) fn find_subchannel(&self, id: u64, now: Instant) -> Option<SubchannelSnapshot> {
        let mut notes = self.lock();
        let Notes { subchannels, connections, .. } = &mut *notes;
        let (key, subchannel) = subchannels.iter().find(|(_, s)| s.id == id)?;
        let mut found = subchannel.show(now);
        for connection in connections.values_mut().filter(|c| c.subchannel == *key) {
            found.streams.add(connection.counts());
            found.connections.extend(connection.show(now));
        }
        Some(found)
    }

    /// The connection with this id.
    pub(super) fn find_connection(&self, id: u64, now: Instant) -> Option<ConnectionSnapshot> {
        self.lock().connections.values_mut().find(|c| c.id == id)?.show(now)
    }

    /// No code that holds this lock can panic; should it ever, the notes are whole all the same.
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn drains(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.draining = true;
        }
    }

    fn ended(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.ended = true;
        self.ended.push_back(number);
        for _ in 0..self.ended.len() {
            let Some(number) = self.ended.pop_front() else { return };
            let busy = self.connections.get(&number).is_some_and(|c| c.seen.calls_open() > 0);
            if busy && self.ended.len() < ENDED_MAX {
                self.ended.push_back(number);
                continue;
            }
            let Some(mut connection) = self.connections.remove(&number) else { continue };
            let counts = connection.counts();
            self.gone.add(counts);
            if let Some(subchannel) = self.subchannels.get_mut(&connection.subchannel) {
                subchannel.gone.add(counts);
            }
        }
    }

    /// The calls' counts, the subchannels with their connections, and the connections without one.
    fn connections(
        &mut self,
        now: Instant,
        shared: &Shared,
    ) -> (CallCounts, Vec<SubchannelSnapshot>, Vec<ConnectionSnapshot>) {
        let mut places = BTreeMap::new();
        let mut subchannels = Vec::with_capacity(self.subchannels.len());
        for (key, subchannel) in &self.subchannels {
            places.insert(*key, subchannels.len());
            subchannels.push(subchannel.show(now));
        }
        let (mut all, mut open, mut draining) = (self.gone, 0, Vec::new());
        for connection in self.connections.values_mut() {
            open += u64::from(connection.seen.calls_open());
            let counts = connection.counts();
            all.add(counts);
            let shown = connection.show(now);
            match places.get(&connection.subchannel) {
                Some(place) => {
                    subchannels[*place].streams.add(counts);
                    subchannels[*place].connections.extend(shown);
                }
                None => draining.extend(shown),
            }
        }
        let counts = &shared.counts;
        let failed = counts.failed_calls(all.failed);
        let waiting = shared.waiting.load(Ordering::Relaxed) + counts.in_backoff();
        let shown = &mut self.calls_shown;
        let started = all.succeeded + failed + open + waiting as u64;
        *shown = CallCounts {
            started: shown.started.max(started),
            succeeded: all.succeeded,
            failed: shown.failed.max(failed),
            retries: counts.retries(),
            transparent_retries: counts.transparent_retries(),
        };
        (*shown, subchannels, draining)
    }

    fn waiting(&self, shared: &Shared) -> WaitingSnapshot {
        let all = shared.waiting.load(Ordering::Relaxed);
        let for_stream = shared.queue.len().min(all);
        let for_connection = all - for_stream;
        let for_retry = shared.counts.in_backoff();
        WaitingSnapshot {
            calls: all + for_retry,
            for_connection,
            for_connection_because: (for_connection > 0).then(|| self.why_no_connection(shared)),
            for_stream,
            for_retry,
        }
    }

    fn why_no_connection(&self, shared: &Shared) -> String {
        let state = shared.state();
        let failed = self.subchannels.values().filter_map(|s| s.last_error.as_ref());
        let latest = failed.chain(&self.last_error).max_by_key(|(_, at)| *at);
        match latest {
            Some((status, _)) => format!("the channel is {state}; last error: {}", status.message),
            None if self.updates == 0 => {
                format!("the channel is {state}; the resolver has not answered yet")
            }
            None => format!("the channel is {state}"),
        }
    }
}

impl SubchannelNotes {
    fn show(&self, now: Instant) -> SubchannelSnapshot {
        SubchannelSnapshot {
            id: self.id,
            address: self.address.clone(),
            state: self.state,
            state_age_s: age_s(now, self.since),
            last_error: error(now, self.last_error.as_ref()),
            connections: Vec::new(),
            streams: self.gone,
        }
    }
}

impl ConnectionNotes {
    /// Started is read before open, and open before succeeded: a call counts as succeeded before it
    /// is no longer open, so what is left for failed is never too much. It may be too little by
    /// the calls under way, so the most that was shown is kept.
    fn counts(&mut self) -> StreamCounts {
        let started = u64::from(self.seen.calls_sent());
        let open = u64::from(self.seen.calls_open());
        let succeeded = self.seen.succeeded();
        let failed = started.saturating_sub(open + succeeded).max(self.failed_shown);
        self.failed_shown = failed;
        StreamCounts { started, succeeded, failed }
    }

    /// Nothing when the socket is closed, whether or not the driver has heard of it.
    fn show(&mut self, now: Instant) -> Option<ConnectionSnapshot> {
        if self.ended || self.seen.end_reason().is_some() {
            return None;
        }
        Some(ConnectionSnapshot {
            id: self.id,
            address: self.address.clone(),
            age_s: age_s(now, self.ready_at),
            draining: self.draining || !self.seen.is_usable(),
            streams_open: self.seen.open(),
            streams_max: self.seen.max_streams(),
            streams: self.counts(),
        })
    }
}

fn age_s(now: Instant, at: Instant) -> f64 {
    now.saturating_duration_since(at).as_secs_f64()
}

fn error(now: Instant, noted: Option<&(Status, Instant)>) -> Option<ErrorSnapshot> {
    noted.map(|(status, at)| ErrorSnapshot {
        code: status.code.name().to_owned(),
        message: status.message.clone(),
        age_s: age_s(now, *at),
    })
}
