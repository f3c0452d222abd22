//! The rules of time, with numbers: no clock runs here.

use evenkeel_core::SECOND_NS;
use proptest::prelude::*;

use super::*;

const MS: Nanos = MILLISECOND_NS;
const S: Nanos = SECOND_NS;

fn schedule() -> Schedule {
    Schedule::new(&DnsOptions::default(), 0)
}

fn answer(ttl_s: u64, last_bytes: &[u8]) -> Result<Answer, Failure> {
    let addresses = last_bytes.iter().map(|b| IpAddr::from([10, 0, 0, *b])).collect();
    Ok(Answer { addresses, ttl: Duration::from_secs(ttl_s) })
}

fn failure(kind: FailureKind) -> Result<Answer, Failure> {
    Err(Failure { kind, message: format!("{kind:?}") })
}

fn update(last_bytes: &[u8]) -> Report {
    Report::Update(last_bytes.iter().map(|b| IpAddr::from([10, 0, 0, *b])).collect())
}

/// The wait after this outcome of a look-up that ends at 1,000 s.
fn wait_after(outcome: Result<Answer, Failure>, random: f64) -> Nanos {
    let mut schedule = schedule();
    schedule.finished(1000 * S, outcome, random);
    match schedule.next(1000 * S) {
        Step::Wait { until } => until - 1000 * S,
        step => panic!("{step:?}"),
    }
}

#[test]
fn looks_up_at_once_and_then_when_the_ttl_is_over() {
    let mut schedule = schedule();
    assert_eq!(schedule.next(0), Step::LookUp);
    assert_eq!(schedule.finished(S, answer(5, &[1]), 0.0), update(&[1]));
    assert_eq!(schedule.next(S), Step::Wait { until: 6 * S });
    assert_eq!(schedule.next(6 * S - 1), Step::Wait { until: 6 * S });
    assert_eq!(schedule.next(6 * S), Step::LookUp);
}

#[test]
fn waits_for_the_ttl_within_bounds_and_with_jitter_upwards() {
    for (ttl_s, random, expected) in [
        (0, 0.0, S),
        (1, 0.0, S),
        (1, 1.0, S + 100 * MS),
        (2, 0.5, 2 * S + 100 * MS),
        (5, 1.0, 5 * S + 500 * MS),
        (20, 1.0, 20 * S + 500 * MS),
        (31, 0.0, 30 * S),
        (300, 1.0, 30 * S + 500 * MS),
    ] {
        assert_eq!(wait_after(answer(ttl_s, &[1]), random), expected, "TTL {ttl_s}");
    }
}

#[test]
fn backs_off_from_the_least_to_the_longest_interval() {
    let mut schedule = schedule();
    let mut now = 0;
    let mut waits_ms = Vec::new();
    for _ in 0..10 {
        assert_eq!(schedule.next(now), Step::LookUp);
        schedule.finished(now, failure(FailureKind::NoSuchName), 0.0);
        let Step::Wait { until, .. } = schedule.next(now) else { panic!("no wait") };
        waits_ms.push((until - now) / MS);
        now = until;
    }
    assert_eq!(waits_ms, [1000, 1600, 2560, 4096, 6553, 10485, 16777, 26843, 30000, 30000]);
    assert_eq!(wait_after(failure(FailureKind::Silence), 1.0), 1200 * MS);

    // A good answer ends the streak.
    schedule.finished(now, answer(1, &[1]), 0.0);
    schedule.finished(now, failure(FailureKind::Silence), 0.0);
    assert_eq!(schedule.next(now), Step::Wait { until: now + S });
}

#[test]
fn a_request_is_served_at_once_but_not_within_the_least_interval() {
    let mut schedule = schedule();
    schedule.finished(10 * S, answer(30, &[1]), 0.0);
    schedule.requested(15 * S);
    assert_eq!(schedule.next(15 * S), Step::LookUp);

    schedule.finished(16 * S, answer(30, &[1]), 0.0);
    for after_ms in [200, 300] {
        let now = 16 * S + after_ms * MS;
        schedule.requested(now);
        assert_eq!(schedule.next(now), Step::Wait { until: 17 * S });
    }
    assert_eq!(schedule.next(17 * S), Step::LookUp);
    schedule.finished(17 * S, answer(30, &[1]), 0.0);
    assert_eq!(schedule.next(17 * S), Step::Wait { until: 47 * S });
}

#[test]
fn a_request_never_delays_a_look_up() {
    let mut schedule = schedule();
    schedule.finished(0, answer(1, &[1]), 0.0);
    schedule.requested(S / 2);
    assert_eq!(schedule.next(S / 2), Step::Wait { until: S });
}

#[test]
fn reports_a_list_only_when_it_is_another_set() {
    let mut schedule = schedule();
    assert_eq!(schedule.finished(S, answer(5, &[1, 2, 3]), 0.0), update(&[1, 2, 3]));
    assert_eq!(schedule.finished(6 * S, answer(5, &[2, 3, 1]), 0.0), Report::Nothing);
    assert_eq!(schedule.finished(11 * S, answer(5, &[2, 1]), 0.0), update(&[2, 1]));
    assert_eq!(schedule.finished(16 * S, answer(5, &[1, 2, 4]), 0.0), update(&[1, 2, 4]));
}

#[test]
fn reports_every_failure_before_the_first_good_answer() {
    let mut schedule = schedule();
    for kind in [FailureKind::NoSuchName, FailureKind::NoSuchName, FailureKind::Silence] {
        let report = schedule.finished(S, failure(kind), 0.0);
        assert_eq!(report, Report::Error { message: format!("{kind:?}"), expired: false });
    }
    assert_eq!(schedule.finished(2 * S, answer(5, &[1]), 0.0), update(&[1]));
}

#[test]
fn keeps_the_last_list_while_it_is_fresh_and_then_says_that_it_expired() {
    let mut schedule = schedule();
    schedule.finished(0, answer(30, &[1]), 0.0);
    let report = schedule.finished(30 * S, failure(FailureKind::NoSuchName), 0.0);
    assert_eq!(report, Report::Nothing);
    assert_eq!(schedule.failure().map(|f| f.kind), Some(FailureKind::NoSuchName));
    let report = schedule.finished(299 * S, failure(FailureKind::Silence), 0.0);
    assert_eq!(report, Report::Nothing);

    // Between two look-ups, at its own time.
    assert_eq!(schedule.next(299 * S), Step::Wait { until: 300 * S });
    let message = "Silence (no good answer for 300 s: the last one is not trusted)".to_owned();
    let error = Report::Error { message, expired: true };
    assert_eq!(schedule.next(300 * S), Step::Report(error));
    assert!(matches!(schedule.next(300 * S), Step::Wait { until, .. } if until > 300 * S));

    // Each further failure renews the message.
    let report = schedule.finished(302 * S, failure(FailureKind::Code(2)), 0.0);
    assert!(matches!(report, Report::Error { expired: true, .. }), "{report:?}");

    // The same list is news after that.
    assert_eq!(schedule.finished(310 * S, answer(30, &[1]), 0.0), update(&[1]));
    assert_eq!(schedule.next(310 * S), Step::Wait { until: 340 * S });
    assert_eq!(schedule.failure(), None);
}

#[test]
fn a_good_list_does_not_expire_while_look_ups_succeed_or_run() {
    let options = DnsOptions { stale_max: Duration::from_secs(2), ..DnsOptions::default() };
    let mut schedule = Schedule::new(&options, 0);
    schedule.finished(0, answer(30, &[1]), 0.0);
    assert_eq!(schedule.next(29 * S), Step::Wait { until: 30 * S });
    assert_eq!(schedule.next(30 * S), Step::LookUp);
    let report = schedule.finished(31 * S, failure(FailureKind::Silence), 0.0);
    assert!(matches!(report, Report::Error { expired: true, .. }), "{report:?}");
}

#[test]
fn senseless_options_do_not_spin() {
    let zero = Duration::ZERO;
    let options = DnsOptions {
        interval_min: zero,
        interval_max: zero,
        stale_max: zero,
        timeout: zero,
        ..DnsOptions::default()
    };
    let mut schedule = Schedule::new(&options, 0);
    schedule.finished(0, answer(0, &[1]), 0.0);
    assert_eq!(schedule.next(0), Step::Wait { until: 10 * MS });
    schedule.requested(0);
    assert_eq!(schedule.next(0), Step::Wait { until: 10 * MS });

    let max = Duration::MAX;
    let options = DnsOptions {
        interval_min: max,
        interval_max: max,
        stale_max: max,
        timeout: max,
        ..DnsOptions::default()
    };
    let mut schedule = Schedule::new(&options, 0);
    schedule.finished(S, failure(FailureKind::Silence), 1.0);
    assert_eq!(schedule.next(S), Step::Wait { until: Nanos::MAX });
}

#[derive(Clone, Debug)]
enum Event {
    Pass(Nanos),
    Request,
    Good(u64, Vec<u8>),
    Bad(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..40 * S).prop_map(Event::Pass),
        (0..2 * S).prop_map(Event::Pass),
        Just(Event::Request),
        (0..400u64, prop::collection::vec(0..4u8, 1..4)).prop_map(|(t, a)| Event::Good(t, a)),
        (0..3u8).prop_map(Event::Bad),
    ]
}

/// What a channel believes, and what the rules allow it to be told.
#[derive(Default)]
struct Model {
    now: Nanos,
    last: Option<Nanos>,
    good_at: Option<Nanos>,
    wait_max: Nanos,
    believed: Option<Vec<IpAddr>>,
    expired: bool,
}

impl Model {
    fn hear(&mut self, report: Report) {
        match report {
            Report::Nothing => {}
            Report::Update(mut list) => {
                list.sort();
                assert_ne!(self.believed.as_ref(), Some(&list), "no news");
                self.believed = Some(list);
                self.expired = false;
            }
            Report::Error { expired, .. } => {
                assert_eq!(expired, self.good_at.is_some());
                if let Some(at) = self.good_at {
                    assert!(self.now >= at + 300 * S, "expired too early");
                }
                self.believed = None;
                self.expired = expired;
            }
        }
    }

    /// Lets the schedule act until it waits.
    fn settle(&mut self, schedule: &mut Schedule, outcome: &mut Option<Result<Answer, Failure>>) {
        for _ in 0..3 {
            match schedule.next(self.now) {
                Step::Report(report) => self.hear(report),
                Step::Wait { until } => {
                    assert!(until > self.now, "a wait that is over");
                    assert!(until <= self.now + self.wait_max, "too long");
                    return;
                }
                Step::LookUp => {
                    let Some(outcome) = outcome.take() else {
                        return;
                    };
                    if let Some(last) = self.last {
                        assert!(self.now >= last + S, "within the least interval");
                    }
                    self.last = Some(self.now);
                    self.wait_max = 36 * S;
                    if let Ok(answer) = &outcome {
                        self.good_at = Some(self.now);
                        self.wait_max = (nanos(answer.ttl).max(S) + S).min(31 * S);
                    }
                    let report = schedule.finished(self.now, outcome, 0.7);
                    self.hear(report);
                }
            }
        }
        panic!("no rest after three steps");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_its_promises_whatever_happens(events in prop::collection::vec(event(), 1..60)) {
        let mut schedule = schedule();
        let mut model = Model::default();
        for event in events {
            let mut outcome = None;
            match event {
                Event::Pass(time) => model.now += time,
                Event::Request => schedule.requested(model.now),
                Event::Good(ttl_s, list) => outcome = Some(answer(ttl_s, &list)),
                Event::Bad(code) => outcome = Some(failure(FailureKind::Code(code.into()))),
            }
            model.settle(&mut schedule, &mut outcome);
            // What is believed is what the last good answer said, unless it may be distrusted.
            if let (Some(at), None) = (model.good_at, &model.believed) {
                prop_assert!(model.expired && model.now >= at + 300 * S);
            }
        }
    }
}
