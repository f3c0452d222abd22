//! The channel's driver: the one task that owns the engine. It turns what resolvers and
//! connections report into inputs, does what the engine puts out, and publishes one snapshot per
//! turn. Calls never talk to it, except to wake it from IDLE.

mod closing;
mod watches;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_core::{
    Address, Backoff, Balancer, Balancers, ConnectivityState, Engine, EngineOptions, Output,
    Picker, PolicyConfig, ResolverError, ResolverFactory, Status, SubchannelId, Target,
    observe::{Event, Recorder},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    call::CallConfig,
    channel::{Shared, Snapshot},
    connector::{Connector, Secure},
    idleness::Idleness,
    resolving::{Answer, Inbox},
    transport::{Connection, ConnectionEvent, End, EventKind, Transport, TransportOptions},
    watching::Watches,
};

use closing::record_end;
pub(crate) use watches::HealthOptions;

/// Connection events that may wait for the driver; connections wait when there are more.
const EVENTS_MAX: usize = 1024;
/// Commands that may wait for the driver.
const COMMANDS_MAX: usize = 16;
/// The longest keepalive time that `too_many_pings` leads to.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// Useless connections in a row after which a subchannel has to back off. The first is forgiven: a
/// server that restarts may hang up once, and is there again at once.
const USELESS_MAX: u32 = 2;

/// What the builder knows and only the driver needs.
pub(crate) struct DriverOptions {
    pub(crate) target: Target,
    /// What balancers are asked for.
    pub(crate) service_name: String,
    /// Balancers given by hand; they go before the resolver's.
    pub(crate) balancers: Arc<[Balancer]>,
    pub(crate) resolver: Arc<dyn ResolverFactory>,
    pub(crate) seed: u64,
    pub(crate) default_policy: PolicyConfig,
    /// Settings per method while the resolver brings none.
    pub(crate) call_config: Arc<CallConfig>,
    pub(crate) health: HealthOptions,
    pub(crate) backoff: Backoff,
    pub(crate) transport: TransportOptions,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) secure: Option<Arc<dyn Secure>>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) runtime: Handle,
}

impl DriverOptions {
    fn balancers(&self, found: &Balancers) -> Balancers {
        match self.balancers.is_empty() {
            true => found.clone(),
            false => Balancers::Found(self.balancers.clone()),
        }
    }
}

/// What a [`crate::Channel`] asks of its driver.
pub(crate) enum Command {
    ExitIdle,
    Shutdown { grace: Duration, done: oneshot::Sender<()> },
}

/// The connection of one subchannel, as the driver keeps it.
struct Link {
    number: u64,
    generation: u32,
    task: AbortHandle,
    transport: Option<Arc<Transport>>,
}

/// Connections of one subchannel, the latest ones in a row, that were of no use.
struct Useless {
    generation: u32,
    count: u32,
    ended_at_ns: u64,
    /// Why the latest one ended, until the subchannel has backed off for it.
    owed: Option<String>,
}

struct Driver {
    engine: Engine,
    shared: Arc<Shared>,
    options: DriverOptions,
    events: mpsc::Sender<ConnectionEvent>,
    connections: JoinSet<()>,
    /// By subchannel index.
    links: BTreeMap<u32, Link>,
    useless: BTreeMap<u32, Useless>,
    /// By connection number, for as long as the connection lives: it may outlive its subchannel.
    addresses: BTreeMap<u64, Address>,
    next_number: u64,
    watches: Watches,
    cut: watch::Sender<bool>,
    inbox: Arc<Inbox>,
    resolver_task: JoinSet<()>,
    resolver_answered: bool,
    idleness: Idleness,
    call_config: Arc<CallConfig>,
    published: Option<(ConnectivityState, Arc<dyn Picker>)>,
    /// The published snapshot has connections that are gone, or lacks one that is there.
    links_changed: bool,
}

/// Starts the driver's task. It ends with the last sender of commands.
pub(crate) fn spawn(shared: Arc<Shared>, options: DriverOptions) -> mpsc::Sender<Command> {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (events, event_receiver) = mpsc::channel(EVENTS_MAX);
    let mut engine = Engine::new(EngineOptions {
        seed: options.seed,
        backoff: options.backoff,
        default_policy: options.default_policy.clone(),
    });
    engine.set_service_name(options.service_name.as_str());
    let runtime = options.runtime.clone();
    let call_config = options.call_config.clone();
    let idleness = Idleness::new(options.idle_timeout);
    let driver = Driver {
        engine,
        shared,
        options,
        events,
        connections: JoinSet::new(),
        links: BTreeMap::new(),
        useless: BTreeMap::new(),
        addresses: BTreeMap::new(),
        next_number: 0,
        watches: Watches::default(),
        cut: watch::Sender::new(false),
        inbox: Arc::new(Inbox::default()),
        resolver_task: JoinSet::new(),
        resolver_answered: false,
        idleness,
        call_config,
        published: None,
        links_changed: false,
    };
    runtime.spawn(driver.run(receiver, event_receiver));
    commands
}

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<ConnectionEvent>,
    ) {
        let inbox = self.inbox.clone();
        let mut done = None;
        loop {
            let timeout = self.engine.poll_timeout().map(|ns| self.instant(ns));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::ExitIdle) => self.exit_idle(),
                    Some(Command::Shutdown { grace, done: tell }) => {
                        done = Some((grace, tell));
                        break;
                    }
                    None => break,
                },
                Some(event) = events.recv() => {
                    self.connection_event(event);
                    // All that is there now belongs to one turn and one snapshot.
                    while let Ok(event) = events.try_recv() {
                        self.connection_event(event);
                    }
                }
                answer = inbox.answer() => self.answered(answer),
                (id, event) = self.watches.next() => self.watch_events(id, &event),
                Some(ended) = self.resolver_task.join_next(), if !self.resolver_task.is_empty() =>
                    self.resolver_ended(ended),
                () = at(timeout) => self.engine.handle_timeout(self.shared.now_ns()),
                () = at(self.idleness.look_at()) => self.look_for_idleness(),
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() =>
                    continue, // its last event says all
            }
            self.turn();
        }
        self.close(done, events).await;
    }

    /// Does what the engine puts out.
    fn turn(&mut self) {
        let mut publish = false;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Connect { id, address } => self.connect(id, address),
                Output::Disconnect { id } => self.disconnect(id),
                Output::Watch { id, subchannel, watch } => self.watch(id, subchannel, watch),
                Output::WatchSend { id, message } => self.watches.send(id, message),
                Output::Unwatch { id } => self.watches.stop(id),
                Output::Balancer(news) => self.balancer_news(&news),
                Output::RequestResolution => self.inbox.request(),
                Output::SubchannelState { id, address, state, error } => {
                    self.shared.board.subchannel(id, &address, state, error.as_ref());
                    let event =
                        Event::SubchannelState { address: &address, state, error: error.as_ref() };
                    self.options.recorder.record(&event);
                }
                Output::SubchannelHealth { address, state, error } => {
                    let error = error.as_ref();
                    let event = Event::SubchannelHealth { address: &address, state, error };
                    self.options.recorder.record(&event);
                }
                Output::Publish { state, picker } => {
                    self.published = Some((state, picker));
                    publish = true;
                }
                _ => {}
            }
        }
        // A snapshot keeps connections open, so one that is out of date is replaced even if the
        // policy has nothing new to say.
        if publish || std::mem::take(&mut self.links_changed) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let Some((state, picker)) = &self.published else { return };
        self.links_changed = false;
        let len = self.links.last_key_value().map_or(0, |(&index, _)| index as usize + 1);
        let mut transports = vec![None; len];
        for (&index, link) in &self.links {
            let ready = link.transport.as_ref().map(|t| (link.generation, t.clone()));
            transports[index as usize] = ready;
        }
        self.shared.board.policy(self.engine.policy_name());
        let before = self.shared.state();
        let (picker, config) = (picker.clone(), self.call_config.clone());
        self.shared.publish(Snapshot { state: *state, picker, config, transports });
        if before != *state {
            self.options.recorder.record(&Event::ChannelState(*state));
        }
    }

    fn exit_idle(&mut self) {
        if self.resolver_task.is_empty() {
            match self.options.resolver.start(&self.options.target, self.inbox.clone()) {
                Ok(task) => {
                    self.resolver_task.spawn_on(task, &self.options.runtime);
                }
                Err(e) => {
                    let status = Status::unavailable(e.to_string());
                    self.answered(Answer::Error(ResolverError { status, expired: false }));
                }
            }
        }
        if self.idleness.look_at().is_none() {
            self.idleness.begin(Instant::now());
            self.shared.board.quiet_since(self.idleness.quiet_since());
        }
        self.engine.exit_idle(self.shared.now_ns());
    }

    /// gRFC A9: without a call for a while the channel lets go of connections and resolver. A call
    /// that comes at this very moment is sent on a connection that drains, or wakes the channel.
    fn look_for_idleness(&mut self) {
        let transports = self.links.values().filter_map(|link| link.transport.as_ref());
        let (mut sent, mut open) = (0, 0);
        for transport in transports {
            sent += u64::from(transport.seen.calls_sent());
            open += transport.seen.calls_open();
        }
        let busy = open > 0 || self.shared.waiting.load(Ordering::Relaxed) > 0;
        let idle = self.idleness.look(Instant::now(), (self.next_number, sent), busy);
        self.shared.board.quiet_since(self.idleness.quiet_since());
        if idle {
            self.resolver_task.abort_all();
            self.resolver_task = JoinSet::new();
            self.resolver_answered = false;
            drop(self.inbox.take());
            self.engine.enter_idle(self.shared.now_ns());
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = self.shared.now_ns();
        match answer {
            Answer::Update(update) => {
                self.resolver_answered = true;
                let addresses: Vec<Address> =
                    update.endpoints.iter().map(|e| e.addresses()[0].clone()).collect();
                self.options.recorder.record(&Event::ResolverUpdate { addresses: &addresses });
                self.call_config = match &update.service_config {
                    Some(config) => Arc::new(CallConfig::new(config)),
                    None => self.options.call_config.clone(),
                };
                let config = update.service_config.as_deref();
                self.engine.set_health_service(now, self.options.health.service(config));
                let policy = config.and_then(|c| c.policy.as_ref());
                self.engine.set_balancers(self.options.balancers(&update.balancers));
                self.engine.resolver_update(now, &update.endpoints, policy);
                self.shared.board.resolver_update(update.endpoints, config.is_some());
            }
            Answer::Error(error) => {
                self.resolver_answered = true;
                tracing::debug!(target = %self.options.target, %error.status, "resolver error");
                self.options.recorder.record(&Event::ResolverError(&error.status));
                self.shared.board.resolver_error(&error.status);
                self.engine.resolver_error(now, &error);
            }
        }
    }

    /// A resolver may end when it has nothing more to find; but calls must not wait for an answer
    /// that nobody will give.
    fn resolver_ended(&mut self, ended: Result<(), JoinError>) {
        // What it left in the mailbox comes first.
        if let Some(answer) = self.inbox.take() {
            self.answered(answer);
        }
        let why = match ended {
            Ok(()) if self.resolver_answered => return,
            Ok(()) => "the resolver ended without an answer",
            Err(_) => "the resolver panicked; its last answer stays in use",
        };
        let status = Status::unavailable(why);
        self.answered(Answer::Error(ResolverError { status, expired: false }));
    }

    fn connect(&mut self, id: SubchannelId, address: Address) {
        if let Some(status) = self.back_off(id, &address) {
            return self.engine.connect_failed(self.shared.now_ns(), id, status);
        }
        let secure = match self.secure_for(id) {
            Ok(secure) => secure,
            Err(reason) => {
                let status = Status::unavailable(format!("cannot connect to {address}: {reason}"));
                return self.engine.connect_failed(self.shared.now_ns(), id, status);
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        self.addresses.insert(number, address.clone());
        let connection = Connection {
            id,
            number,
            address,
            options: self.options.transport,
            connector: self.options.connector.clone(),
            secure,
            queue: self.shared.queue.clone(),
            events: self.events.clone(),
            cut: self.cut.subscribe(),
        };
        let task = self.connections.spawn_on(connection.run(), &self.options.runtime);
        let link = Link { number, generation: id.generation, task, transport: None };
        self.links.insert(id.index, link);
    }

    /// What secures a subchannel's connection: for a balancer, under its own name.
    fn secure_for(&mut self, id: SubchannelId) -> Result<Option<Arc<dyn Secure>>, String> {
        let Some(secure) = &self.options.secure else { return Ok(None) };
        match self.engine.server_name(id) {
            Some(name) => secure.named(&name).map(Some),
            None => Ok(Some(secure.clone())),
        }
    }

    fn disconnect(&mut self, id: SubchannelId) {
        self.useless.remove(&id.index);
        let Some(link) = self.links.remove(&id.index) else { return };
        if link.transport.is_some() {
            // It drains: the connection ends when no snapshot and no call has it any more.
            self.links_changed = true;
            self.shared.board.drains(link.number);
        } else {
            self.addresses.remove(&link.number);
            link.task.abort();
        }
    }

    fn connection_event(&mut self, event: ConnectionEvent) {
        let ConnectionEvent { id, number, .. } = event;
        record_end(&self.options, &self.addresses, &event);
        self.shared.board.connection(&event);
        if matches!(event.kind, EventKind::Failed(_) | EventKind::Closed { .. }) {
            self.addresses.remove(&number);
        }
        if let EventKind::TooManyPings = event.kind {
            self.slow_down_keepalive();
        }
        let now = self.shared.now_ns();
        let Some(link) = self.links.get_mut(&id.index).filter(|link| link.number == number) else {
            return; // an older connection of this subchannel, or of one that is gone
        };
        match event.kind {
            EventKind::Ready(transport) => {
                link.transport = Some(transport);
                self.links_changed = true;
                self.engine.connected(now, id);
            }
            EventKind::Failed(status) => {
                self.links.remove(&id.index);
                self.engine.connect_failed(now, id, status);
            }
            EventKind::Draining { end } | EventKind::Closed { end, .. } => {
                self.links.remove(&id.index);
                self.links_changed = true;
                self.note_use(id, end);
                self.engine.disconnected(now, id);
            }
            // Said above, whichever connection is the subchannel's now.
            EventKind::TooManyPings => {}
        }
    }

    /// Why the next attempt has to wait although the last one made a READY connection. The engine's
    /// backoff starts anew with each of those, so a server that greets and hangs up would be
    /// connected to as fast as the network allows.
    fn back_off(&mut self, id: SubchannelId, address: &Address) -> Option<Status> {
        let now = self.shared.now_ns();
        let useless = self.useless.get_mut(&id.index)?;
        let recent = now.saturating_sub(useless.ended_at_ns) < self.options.backoff.initial_ns;
        if useless.generation != id.generation || useless.count < USELESS_MAX || !recent {
            return None;
        }
        let (count, reason) = (useless.count, useless.owed.take()?);
        Some(Status::unavailable(format!(
            "{address} hung up {count} times in a row before it answered a call: {reason}"
        )))
    }

    fn note_use(&mut self, id: SubchannelId, end: End) {
        if !end.useless {
            self.useless.remove(&id.index);
            return;
        }
        let generation = id.generation;
        let before = self.useless.remove(&id.index).filter(|u| u.generation == generation);
        let count = before.map_or(1, |u| u.count.saturating_add(1));
        let (ended_at_ns, owed) = (self.shared.now_ns(), Some(end.reason));
        self.useless.insert(id.index, Useless { generation, count, ended_at_ns, owed });
    }

    /// gRFC A8: a server that says `too_many_pings` gets half as many.
    fn slow_down_keepalive(&mut self) {
        if let Some(keepalive) = &mut self.options.transport.keepalive {
            keepalive.time = (keepalive.time * 2).min(KEEPALIVE_TIME_MAX);
            tracing::warn!(
                target = %self.options.target, time = ?keepalive.time,
                "the server says too_many_pings; the keepalive time is doubled"
            );
        }
    }

    fn instant(&self, ns: u64) -> Instant {
        self.shared.epoch + Duration::from_nanos(ns)
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
