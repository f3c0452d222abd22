//! What a balancer sends, up to the policy that lives by it: decoding, lists, reports, fallback.
//! The translation between wire and core is private in evenkeel, so its file is compiled here a
//! second time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use evenkeel_core::{
    Address, Backoff, Balancer, Balancers, CallOutcome, ClientStats, Code, Endpoint, Engine,
    EngineOptions, MILLISECOND_NS, Nanos, Output, PickArgs, PickResult, Picker, PolicyRegistry,
    ServiceConfig, Status, SubchannelId, WatchEvent, WatchId, WatchMessage,
};
use evenkeel_proto::grpc::lb::v1::LoadBalanceResponse;
use http::HeaderMap;
use prost::Message as _;

use super::gist;
use crate::Target;

#[path = "../../../crates/evenkeel/src/watching/lb_messages.rs"]
#[allow(dead_code, unreachable_pub, reason = "the target calls a part of it")]
mod lb_messages;

/// Steps of one input; more are ignored.
const STEPS_MAX: usize = 64;
/// Outputs and timers that one step may cause, whatever the list: an endless loop is a finding.
const CONSEQUENCES_MAX: usize = 2_000_000;
/// Picks after each step.
const PICKS: u64 = 6;

pub(crate) const TARGET: Target = Target {
    name: "grpclb-client",
    run,
    words: &[
        b"\x00\x02\x00\x0a",
        b"\x0a\x00",
        b"\x0a\x04\x12\x02\x08\x01",
        b"\x0a\x07\x12\x05\x10\x80\x84\xaf\x5f",
        b"\x12\x00",
        b"\x1a\x00",
        b"\x12\x0c\x0a\x0a\x0a\x04\x0a\x00\x00\x01\x10\x50",
        b"\x0a\x0a\x0a\x04\x0a\x00\x00\x02\x10\x51",
        b"\x0a\x02\x20\x01",
        b"\x0a\x05\x1a\x01a\x20\x01",
        b"\x10\xff\xff\x03",
        b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01",
        b"\x00\x01\x01",
        b"\x00\x02\x03\x40",
    ],
    frames_from: None,
};

/// The channel around the policy, and what it should have counted.
struct Stage {
    engine: Engine,
    now: Nanos,
    connected: BTreeMap<SubchannelId, Address>,
    down: BTreeSet<Address>,
    stream: Option<WatchId>,
    picker: Option<Arc<dyn Picker>>,
    want: ClientStats,
    got: ClientStats,
    news: BTreeSet<String>,
    consequences: usize,
}

fn balancer() -> Address {
    SocketAddr::from(([127, 0, 0, 100], 9_000)).into()
}

impl Stage {
    fn new() -> Self {
        let registry = PolicyRegistry::built_in();
        let config = ServiceConfig::for_policy("grpclb", &registry).expect("it is built in");
        let default_policy = config.policy.expect("it was named");
        let options = EngineOptions { seed: 1, backoff: Backoff::default(), default_policy };
        let mut stage = Self {
            engine: Engine::new(options),
            now: 0,
            connected: BTreeMap::new(),
            down: BTreeSet::new(),
            stream: None,
            picker: None,
            want: ClientStats::default(),
            got: ClientStats::default(),
            news: BTreeSet::new(),
            consequences: 0,
        };
        let found = [Balancer { address: balancer(), name: None }];
        stage.engine.set_balancers(Balancers::Found(found.into()));
        let own = SocketAddr::from(([127, 0, 0, 200], 1));
        stage.engine.resolver_update(0, &[Endpoint::new(own)], None);
        stage.drain();
        stage
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.consequences += 1;
            assert!(self.consequences < CONSEQUENCES_MAX, "it does not settle");
            match output {
                Output::Connect { id, address } if self.down.contains(&address) => {
                    let error = Status::unavailable("down");
                    self.engine.connect_failed(self.now, id, error);
                }
                Output::Connect { id, address } => {
                    self.connected.insert(id, address);
                    self.engine.connected(self.now, id);
                }
                Output::Disconnect { id } => drop(self.connected.remove(&id)),
                Output::Watch { id, .. } => {
                    assert!(self.stream.replace(id).is_none(), "one stream at a time");
                }
                Output::Unwatch { id } if self.stream == Some(id) => self.stream = None,
                Output::WatchSend { message: WatchMessage::ClientStats(report), .. } => {
                    self.got.add(report);
                }
                Output::Balancer(news) => {
                    self.news.insert(gist(&format!("{news:?}")));
                }
                Output::Publish { picker, .. } => self.picker = Some(picker),
                _ => {}
            }
        }
    }

    fn step(&mut self, step: &[u8]) {
        let Some((what, rest)) = step.split_first() else { return };
        match what % 4 {
            0 => {
                let Ok(message) = LoadBalanceResponse::decode(rest) else {
                    return self.event(&WatchEvent::Ended(Status::new(Code::Internal, "garbage")));
                };
                if let Some(event) = lb_messages::event(message) {
                    self.event(&event);
                }
            }
            1 => self.event(&WatchEvent::Ended(Status::new(Code::Ok, "ended"))),
            2 => self.turn(rest.first().copied().unwrap_or(0)),
            _ => {
                let ms = u64::from(rest.first().copied().unwrap_or(1)) * 50;
                self.pass(ms * MILLISECOND_NS);
            }
        }
        self.pass(MILLISECOND_NS);
        self.calls();
    }

    fn event(&mut self, event: &WatchEvent) {
        let Some(id) = self.stream else { return };
        if let WatchEvent::Ended(_) = event {
            self.stream = None;
        }
        self.engine.watch_event(self.now, id, event);
        self.drain();
    }

    /// A server that is connected goes, or one that is away may come back.
    fn turn(&mut self, number: u8) {
        let chosen = self.connected.iter().nth(usize::from(number) % self.connected.len().max(1));
        match chosen.map(|(id, address)| (*id, address.clone())) {
            Some((id, address)) if number.is_multiple_of(2) => {
                self.connected.remove(&id);
                self.down.insert(address);
                self.engine.disconnected(self.now, id);
                self.drain();
            }
            _ => drop(self.down.pop_first()),
        }
    }

    fn pass(&mut self, time: Nanos) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    fn calls(&mut self) {
        let Some(picker) = self.picker.clone() else { return };
        let headers = HeaderMap::new();
        for random in 0..PICKS {
            match picker.pick(&PickArgs::new("/s/m", &headers, self.now, random)) {
                PickResult::Complete(pick) => {
                    assert!(self.connected.contains_key(&pick.subchannel), "picked what is gone");
                    let Some((sink, token)) = pick.on_complete else { continue };
                    if random == 0 {
                        sink.complete(token, CallOutcome::Void);
                        continue;
                    }
                    sink.begin(token);
                    sink.complete(token, CallOutcome::Finished(Some(0)));
                    self.want.started += 1;
                    self.want.finished += 1;
                    self.want.known_received += 1;
                }
                PickResult::Drop(dropped) => {
                    assert!(dropped.status.message.contains("drops this call"));
                    self.want.started += 1;
                    self.want.finished += 1;
                }
                PickResult::Queue | PickResult::Fail(_) => {}
            }
        }
    }

    /// Nothing is counted twice, and all of it is told to a balancer that listens.
    fn end(mut self) -> String {
        let before = self.got.clone();
        self.engine.shutdown(self.now);
        self.drain();
        assert_eq!(self.engine.poll_timeout(), None, "a timer outlives its policy");
        assert!(self.stream.is_none() && self.connected.is_empty(), "something is left");
        let drops: u64 = self.got.drops.values().sum();
        let sums = [self.got.started, self.got.finished, self.got.known_received + drops];
        let wants = [self.want.started, self.want.finished, self.want.finished];
        assert!(sums.iter().zip(&wants).all(|(sum, want)| sum <= want), "{sums:?} of {wants:?}");
        if before != self.got {
            assert_eq!(sums, wants, "the last report closes the sums");
        }
        let reported = self.got.started > 0;
        format!("{:?} {reported} {}", self.news, drops > 0)
    }
}

fn run(input: &[u8]) -> String {
    let (mut stage, mut rest) = (Stage::new(), input);
    for _ in 0..STEPS_MAX {
        let Some((len, after)) = rest.split_first_chunk() else { break };
        let len = usize::from(u16::from_be_bytes(*len));
        let (step, after) = after.split_at(len.min(after.len()));
        stage.step(step);
        rest = after;
    }
    stage.end()
}
