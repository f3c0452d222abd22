//! A fleet with balancers: what tests of `grpclb` play on.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use http::HeaderMap;

use super::super::*;
use crate::{
    Balancer, CallOutcome, CallSink, ClientStats, EngineOptions, PickArgs, PickResult, ServerEntry,
    Watch, WatchEvent, WatchId,
    testing::{Backend, Fleet, backoff_without_jitter, endpoints, policy, v4},
};

/// Balancers have these numbers, so that they are told from servers.
pub(super) const LB: u16 = 900;
/// The resolver's own backend.
pub(super) const OWN: u16 = 800;

/// What a call met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Met {
    /// The address and the token.
    Server(String, String),
    Drop(String),
    Queue,
    Fail(String),
}

pub(super) fn server(n: u16, token: &str) -> ServerEntry {
    let Address::Tcp(address) = v4(n) else { panic!("v4 is TCP") };
    let IpAddr::V4(ip) = address.ip() else { panic!("v4 is IPv4") };
    let (address, port) = (ip.octets().to_vec(), address.port().into());
    ServerEntry { address, port, token: token.into(), drop: false }
}

pub(super) fn drop_entry(token: &str) -> ServerEntry {
    ServerEntry { token: token.into(), drop: true, ..ServerEntry::default() }
}

pub(super) fn list(entries: &[ServerEntry]) -> BalancerMessage {
    BalancerMessage::List(entries.to_vec())
}

pub(super) fn initial(ms: u64) -> BalancerMessage {
    BalancerMessage::Initial { report_interval_ns: (ms > 0).then_some(ms * MILLISECOND_NS) }
}

pub(super) fn met(n: u16, token: &str) -> Met {
    Met::Server(v4(n).to_string(), token.into())
}

/// See the module's head.
pub(super) struct Stage {
    pub(super) fleet: Fleet,
    random: fastrand::Rng,
}

pub(super) type Done = Option<(Arc<dyn CallSink>, u64)>;

impl Stage {
    /// Nothing is up yet.
    pub(super) fn with(config: &str) -> Self {
        let default_policy = policy(config);
        let backoff = backoff_without_jitter();
        let mut fleet = Fleet::with(EngineOptions { seed: 1, backoff, default_policy });
        fleet.engine.set_service_name("greeter.test:80");
        Self { fleet, random: fastrand::Rng::with_seed(7) }
    }

    /// One balancer that is up, servers 1 to 9 and the resolver's own backend, which are up too.
    pub(super) fn new() -> Self {
        let mut stage = Self::with("grpclb");
        stage.all_up();
        stage.update(&[LB]);
        stage
    }

    pub(super) fn all_up(&mut self) {
        self.fleet.all_up((1..=9).chain([LB, LB + 1, OWN]).map(v4));
    }

    pub(super) fn found(balancers: &[u16]) -> Balancers {
        let balancer = |n: &u16| Balancer { address: v4(*n), name: Some("lb.test".into()) };
        Balancers::Found(balancers.iter().map(balancer).collect())
    }

    /// The resolver finds these balancers, and its own backend.
    pub(super) fn update(&mut self, balancers: &[u16]) {
        self.fleet.engine.set_balancers(Self::found(balancers));
        self.fleet.update(&endpoints([OWN]));
        self.fleet.run_ms(10);
    }

    /// The balancer whose stream is open.
    pub(super) fn open(&self) -> Option<(WatchId, Address)> {
        let ids = self.fleet.running().zip(self.fleet.watches());
        let balancers = ids.filter(|(_, (_, watch))| matches!(watch, Watch::Balancer { .. }));
        let mut open: Vec<_> = balancers.map(|(id, (address, _))| (id, address)).collect();
        assert!(open.len() <= 1, "one stream at a time: {open:?}");
        open.pop()
    }

    pub(super) fn event(&mut self, event: &WatchEvent) {
        let (id, _) = self.open().expect("a stream to a balancer is open");
        if let WatchEvent::Ended(_) = event {
            self.fleet.forget_watch(id);
        }
        self.fleet.engine.watch_event(self.fleet.now, id, event);
        self.fleet.drain();
    }

    /// The balancer says something, and the clients of its list connect.
    pub(super) fn say(&mut self, message: BalancerMessage) {
        self.tell(message);
        self.fleet.run_ms(10);
    }

    /// The balancer says something, at this very moment.
    pub(super) fn tell(&mut self, message: BalancerMessage) {
        self.event(&WatchEvent::Balancer(message));
    }

    /// The balancer ends its stream.
    pub(super) fn end(&mut self) {
        self.event(&WatchEvent::Ended(Status::new(crate::Code::Ok, "the server ended the stream")));
    }

    pub(super) fn pick(&mut self) -> (Met, Done) {
        let headers = HeaderMap::new();
        let random = self.random.u64(..);
        let args = PickArgs::new("/service/method", &headers, self.fleet.now, random);
        match self.fleet.picker().pick(&args) {
            PickResult::Complete(pick) => {
                let address = self.fleet.connected.get(&pick.subchannel);
                let address = address.expect("picks are connected").to_string();
                let token = pick.metadata.map(|(name, value)| {
                    assert_eq!(name, LB_TOKEN);
                    value.to_str().unwrap().to_owned()
                });
                (Met::Server(address, token.unwrap_or_default()), pick.on_complete)
            }
            PickResult::Drop(dropped) => (Met::Drop(dropped.category.to_string()), None),
            PickResult::Queue => (Met::Queue, None),
            PickResult::Fail(status) => (Met::Fail(status.message), None),
        }
    }

    /// Calls that succeed at once.
    pub(super) fn calls(&mut self, n: usize) -> BTreeMap<Met, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..n {
            let (met, done) = self.pick();
            if let Some((sink, token)) = done {
                sink.begin(token);
                sink.complete(token, CallOutcome::Finished(Some(0)));
            }
            *shares.entry(met).or_insert(0) += 1;
        }
        shares
    }

    /// What the next calls meet, in order.
    pub(super) fn turns(&mut self, n: usize) -> Vec<Met> {
        (0..n).map(|_| self.pick().0).collect()
    }

    /// The reports since the last call.
    pub(super) fn reports(&mut self) -> Vec<ClientStats> {
        let sent = std::mem::take(&mut self.fleet.sent);
        sent.into_iter().map(|(_, WatchMessage::ClientStats(report))| report).collect()
    }

    pub(super) fn news(&mut self) -> Vec<BalancerNews> {
        std::mem::take(&mut self.fleet.news)
    }

    /// How often the balancers' streams were opened.
    pub(super) fn streams(&self) -> usize {
        self.fleet.streams
    }

    pub(super) fn kill(&mut self, n: u16) {
        self.fleet.kill(&v4(n));
        self.fleet.run_ms(10);
    }

    pub(super) fn up(&mut self, n: u16) {
        self.fleet.set(v4(n), Backend::Up);
    }
}
