//! The answers of a DNS server. What reads them is private in evenkeel and starts with a socket, so
//! its files are compiled here a second time, by path, over sockets in memory (`transport`): real
//! ones would cost a real time-out for each answer that is none.

use std::{cell::Cell, collections::HashSet, net::SocketAddr, str::FromStr as _, time::Duration};

use evenkeel::dns::DnsOptions;
use evenkeel_core::BALANCERS_MAX;
use hickory_resolver::proto::rr::Name;
use tokio::{runtime::Builder, time::Instant};

use self::{
    lookup::{Lookup, SrvLookup},
    schedule::{LookUp as _, Report, Schedule, Step, nanos},
    system::System,
};
use super::gist;
use crate::Target;

#[path = "../../../../crates/evenkeel/src/dns/lookup.rs"]
#[allow(dead_code, unused_imports, reason = "the target calls a part of it")]
mod lookup;
#[path = "../../../../crates/evenkeel/src/dns/query.rs"]
#[allow(dead_code, reason = "the target calls a part of it")]
mod query;
#[path = "../../../../crates/evenkeel/src/dns/schedule.rs"]
#[allow(dead_code, reason = "the target calls a part of it")]
mod schedule;
#[path = "../../../../crates/evenkeel/src/dns/system.rs"]
#[allow(dead_code, reason = "the target calls a part of it")]
mod system;
mod transport;

/// The name that all questions are about.
const NAME: &str = "greeter.test.";
const TIMEOUT: Duration = Duration::from_secs(5);
/// Timers have a resolution of 1 ms.
const LATE_MAX: Duration = Duration::from_millis(2);

pub(crate) const TARGET: Target = Target {
    name: "dns",
    run,
    words: &[
        b"\x07greeter\x04test\x00",
        b"\xc0\x0c",
        b"\xc0\x00",
        b"\xff\xff",
        b"\x00\x01\x00\x01",
        b"\x00\x1c\x00\x01",
        b"\x00\x05\x00\x01",
        b"\x00\x06\x00\x01",
        b"\x00\x00\x29\x04\xd0",
        b"\x00\x04\x0a\x00\x00\x01",
        b"\x00\x00\x00\x00\x00\x00",
        b"\x80\x00\x00\x00",
        b"\x81\x80",
        b"\x83\x80",
        b"\x81\x83",
        b"\x81\x82",
        b"\x01\x00",
        b"\x00\x17",
    ],
    frames_from: None,
};

thread_local! {
    /// What the servers of this thread answer, one after the other and then from the first again.
    static ANSWERS: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// An input is one message, or several, each with its length in two bytes before it, as over TCP.
/// Each gets the id of the question that it answers.
fn messages(input: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (Vec::new(), input);
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len));
        let Some((message, after)) = after.split_at_checked(len) else {
            return vec![input.to_vec()];
        };
        all.push(message.to_vec());
        rest = after;
    }
    all
}

fn run(input: &[u8]) -> String {
    ANSWERS.set(messages(input));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(look_up())
}

async fn look_up() -> String {
    let name = Name::from_str(NAME).expect("a name");
    let server = SocketAddr::from(([127, 0, 0, 1], 53));
    let lookup = || Lookup::new(name.clone(), Some(server), System::new(), TIMEOUT);
    let (mut lookup, mut balancers) = (lookup(), SrvLookup(lookup()));
    let mut schedule = Schedule::new(&DnsOptions::default(), 0);
    let mut results = String::new();
    let epoch = Instant::now();
    // The second look-up starts from what the first one found.
    for _ in 0..2 {
        let begun = Instant::now();
        let outcome = lookup.run().await;
        assert!(begun.elapsed() <= TIMEOUT + LATE_MAX, "{:?}", begun.elapsed());
        match &outcome {
            Ok(answer) => {
                let distinct: HashSet<_> = answer.addresses.iter().collect();
                assert!(!distinct.is_empty(), "no address is no answer");
                assert_eq!(distinct.len(), answer.addresses.len(), "each once");
                let first = answer.addresses[0].is_ipv4();
                assert!(answer.addresses.iter().all(|ip| ip.is_ipv4() == first), "one family");
                let ttl = answer.ttl.as_secs().checked_ilog2();
                results += &format!("{first} {} {ttl:?} ", distinct.len().min(4));
            }
            Err(failure) => {
                assert!(failure.message.contains("greeter.test"), "{}", failure.message);
                results += &format!("{:?} {} ", failure.kind, gist(&failure.message));
            }
        }
        let now = nanos(epoch.elapsed());
        let ok = outcome.is_ok();
        let report = schedule.finished(now, outcome, 1.0);
        assert!(ok || !matches!(report, Report::Update(_)), "an update out of a failure");
        let Step::Wait { until } = schedule.next(now) else { panic!("no wait after a look-up") };
        let wait = Duration::from_nanos(until - now);
        let range = Duration::from_secs(1)..=Duration::from_secs(37);
        assert!(range.contains(&wait), "{wait:?} to the next look-up");
    }
    let begun = Instant::now();
    match balancers.run().await {
        Ok(answer) => {
            assert!(!answer.addresses.is_empty(), "no balancer is no answer");
            assert!(answer.addresses.len() <= BALANCERS_MAX, "{}", answer.addresses.len());
            results += "balancers";
        }
        Err(failure) => results += &format!("{:?}", failure.kind),
    }
    assert!(begun.elapsed() <= TIMEOUT + LATE_MAX, "{:?}", begun.elapsed());
    results
}
