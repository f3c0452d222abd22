//! The channel's driver: the one task that owns the engine. It turns what resolvers and
//! connections report into inputs, does what the engine puts out, and publishes one snapshot per
//! turn. Calls never talk to it, except to wake it from IDLE.

mod closing;
mod connections;
mod watches;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_core::{
    Address, Backoff, Balancer, Balancers, ConnectivityState, Engine, EngineOptions, Output,
    Picker, PolicyConfig, ResolverError, ResolverFactory, Status, Target,
    observe::{Event, Recorder},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    call::CallConfig,
    channel::{Shared, Snapshot},
    connector::{Connector, Secure},
    idleness::Idleness,
    resolving::{Answer, Inbox},
    transport::{ConnectionEvent, TransportOptions},
    watching::Watches,
};

use connections::{Link, Useless};
pub(crate) use watches::HealthOptions;

/// Connection events that may wait for the driver; connections wait when there are more.
const EVENTS_MAX: usize = 1024;
/// Commands that may wait for the driver.
const COMMANDS_MAX: usize = 16;

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
    /// The name of the policy in use, kept so that a snapshot costs no copy of it.
    policy: Arc<str>,
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
    let recorder = options.recorder.clone();
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
        inbox: Arc::new(Inbox::new(recorder)),
        resolver_task: JoinSet::new(),
        resolver_answered: false,
        idleness,
        call_config,
        policy: "".into(),
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
        let policy = self.engine.policy_name();
        self.shared.board.policy(policy);
        let policy = policy.unwrap_or_default();
        if *self.policy != *policy {
            self.policy = policy.into();
        }
        let policy = self.policy.clone();
        let before = self.shared.state();
        let (picker, config) = (picker.clone(), self.call_config.clone());
        self.shared.publish(Snapshot { state: *state, picker, policy, config, transports });
        if before != *state {
            self.options.recorder.record(&Event::ChannelState(*state));
        }
    }

    fn exit_idle(&mut self) {
        if self.resolver_task.is_empty() {
            self.inbox.vacate();
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
        let links = || self.links.values().filter_map(|link| Some(&link.transport.as_ref()?.seen));
        let sent = links().map(|seen| u64::from(seen.calls_sent())).sum();
        let is_open = links().any(|seen| seen.calls_open() > 0);
        let busy = is_open || self.shared.waiting.load(Ordering::Relaxed) > 0;
        let idle = self.idleness.look(Instant::now(), sent, busy);
        self.shared.board.quiet_since(self.idleness.quiet_since());
        if idle {
            self.resolver_task.abort_all();
            self.resolver_task = JoinSet::new();
            self.resolver_answered = false;
            drop(self.inbox.take());
            self.inbox.vacate();
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
                let endpoints = &update.endpoints[..];
                let event = Event::ResolverUpdate { addresses: &addresses, endpoints };
                self.options.recorder.record(&event);
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
