//! Sequences that nobody thought of, against what must hold in all of them: no call goes to a
//! server that the last list lacks, each carries a token of its entry, drops are the list's, and
//! every call is reported once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::*, stage::*};
use crate::{CallOutcome, ClientStats, Code, ServerEntry, Status, WatchEvent, testing::v4};

#[derive(Clone, Debug)]
enum Op {
    Initial(u64),
    List(Vec<ServerEntry>),
    Fallback,
    End(Code),
    Balancers(Vec<u16>),
    Kill(u16),
    Up(u16),
    Disconnect(u16),
    Run(u64),
    Calls(usize),
    /// Ends that many of the calls that are open.
    Ends(usize, u8),
    /// Picks that the transport has no stream for.
    Void(usize),
}

fn entry() -> impl Strategy<Value = ServerEntry> {
    let token = prop_oneof![Just("a"), Just("b"), Just(""), Just("bad\n")];
    prop_oneof![
        6 => (1..=6_u16, token.clone()).prop_map(|(n, token)| server(n, token)),
        2 => token.prop_map(drop_entry),
        1 => Just(ServerEntry { port: 70_000, ..server(1, "a") }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let number = || prop_oneof![1..=6_u16, Just(LB), Just(LB + 1), Just(OWN)];
    prop_oneof![
        2 => prop_oneof![Just(0), Just(50), Just(300)].prop_map(Op::Initial),
        5 => prop::collection::vec(entry(), 0..8).prop_map(Op::List),
        1 => Just(Op::Fallback),
        1 => prop_oneof![Just(Code::Ok), Just(Code::Internal)].prop_map(Op::End),
        1 => prop::collection::vec(LB..=LB + 1, 0..3).prop_map(Op::Balancers),
        2 => number().prop_map(Op::Kill),
        3 => number().prop_map(Op::Up),
        1 => number().prop_map(Op::Disconnect),
        4 => prop_oneof![0..300_u64, 300..20_000_u64].prop_map(Op::Run),
        6 => (1..40_usize).prop_map(Op::Calls),
        4 => (1..40_usize, 0..4_u8).prop_map(|(n, how)| Op::Ends(n, how)),
        1 => (1..10_usize).prop_map(Op::Void),
    ]
}

#[derive(Default)]
struct Model {
    /// The usable entries of the last list since the policy began.
    servers: BTreeSet<Met>,
    drops: BTreeSet<Met>,
    listed: bool,
    /// What the balancers have to hear in the end.
    want: ClientStats,
    got: ClientStats,
    open: Vec<Done>,
}

impl Model {
    fn take(&mut self, entries: &[ServerEntry]) {
        self.listed = true;
        (self.servers, self.drops) = Default::default();
        for entry in entries.iter().filter(|e| e.drop || e.port == 80) {
            match (entry.drop, entry.token.as_str()) {
                (true, token) => drop(self.drops.insert(Met::Drop(token.into()))),
                (false, "bad\n") => {}
                (false, token) => {
                    let n = u16::from_be_bytes([entry.address[2], entry.address[3]]);
                    self.servers.insert(met(n, token));
                }
            }
        }
    }

    fn call(&mut self, stage: &mut Stage) {
        let (what, done) = stage.pick();
        if let Some((sink, token)) = &done {
            sink.begin(*token);
        }
        self.met(what, done);
    }

    fn met(&mut self, what: Met, done: Done) {
        match &what {
            Met::Server(address, _) if *address == v4(OWN).to_string() => {
                assert!(done.is_none(), "a fallback call is not the balancer's");
            }
            Met::Server(..) => {
                assert!(self.listed && self.servers.contains(&what), "{what:?} is not listed");
                assert!(done.is_some());
                self.want.started += 1;
                self.open.push(done);
            }
            Met::Drop(token) => {
                assert!(self.drops.contains(&what), "{what:?} is not listed");
                self.want.started += 1;
                self.want.finished += 1;
                *self.want.drops.entry(token.as_str().into()).or_default() += 1;
            }
            Met::Queue | Met::Fail(_) => {}
        }
    }

    fn end(&mut self, how: u8) {
        let Some(Some((sink, token))) = self.open.pop() else { return };
        let (outcome, received, unsent) = match how {
            0 => (CallOutcome::Finished(Some(0)), 1, 0),
            1 => (CallOutcome::Failed, 0, 0),
            2 => (CallOutcome::NotSent, 0, 1),
            _ => (CallOutcome::Cancelled, 0, 0),
        };
        self.want.finished += 1;
        self.want.known_received += received;
        self.want.failed_to_send += unsent;
        sink.complete(token, outcome);
    }

    fn hear(&mut self, stage: &mut Stage) {
        for report in stage.reports() {
            self.got.add(report);
        }
    }
}

/// A pick that comes to nothing; a drop is one all the same.
fn void(stage: &mut Stage, model: &mut Model) {
    match stage.pick() {
        (_, Some((sink, token))) => sink.complete(token, CallOutcome::Void),
        (what, None) => model.met(what, None),
    }
}

fn play(ops: &[Op]) {
    let (mut stage, mut model) = (Stage::new(), Model::default());
    for op in ops {
        match op {
            Op::Balancers(numbers) => stage.update(numbers),
            Op::Kill(n) => stage.kill(*n),
            Op::Up(n) => stage.up(*n),
            Op::Disconnect(n) => stage.fleet.disconnect(&v4(*n)),
            Op::Run(ms) => stage.fleet.run_ms(*ms),
            Op::Calls(n) => (0..*n).for_each(|_| model.call(&mut stage)),
            Op::Ends(n, how) => (0..*n).for_each(|_| model.end(*how)),
            Op::Initial(_) | Op::List(_) | Op::Fallback | Op::End(_) if stage.open().is_none() => {}
            Op::Initial(ms) => stage.tell(initial(*ms)),
            Op::List(entries) => {
                model.take(entries);
                stage.tell(list(entries));
            }
            Op::Fallback => stage.tell(BalancerMessage::Fallback),
            Op::End(code) => stage.event(&WatchEvent::Ended(Status::new(*code, "played"))),
            Op::Void(n) => (0..*n).for_each(|_| void(&mut stage, &mut model)),
        }
        model.hear(&mut stage);
        model.call(&mut stage);
    }
    // The end: a balancer that wants reports, all calls over, the last word.
    while !model.open.is_empty() {
        model.end(0);
    }
    stage.up(LB);
    stage.update(&[LB]);
    stage.fleet.run_ms(300_000);
    if stage.open().is_some() {
        stage.event(&WatchEvent::Ended(Status::new(Code::Ok, "for a stream of its own")));
        stage.fleet.run_ms(300_000);
    }
    // A stream that nobody answers is opened anew now and then: one is there, or comes.
    while stage.open().is_none() {
        stage.fleet.run_ms(1_000);
    }
    stage.tell(initial(100));
    stage.fleet.engine.shutdown(stage.fleet.now);
    stage.fleet.drain();
    model.hear(&mut stage);
    assert_eq!(model.got, model.want, "every call is reported once");
    assert_eq!(stage.fleet.engine.poll_timeout(), None);
    assert_eq!(stage.open(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_call_goes_astray_and_each_is_counted_once(ops in prop::collection::vec(op(), 1..60)) {
        play(&ops);
    }
}
