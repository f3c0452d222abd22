//! Which balancer is asked, and when again.

use super::{super::*, stage::*};
use crate::{
    Code, Status, WatchEvent,
    testing::{Backend, v4},
};

#[test]
fn balancers_are_tried_in_order() {
    let mut stage = Stage::with("grpclb");
    stage.up(LB + 1);
    stage.update(&[LB, LB + 1]);
    assert_eq!(stage.open().unwrap().1, v4(LB + 1));
    assert_eq!(stage.pick().0, Met::Queue, "one was reached, so its list is waited for");
}

#[test]
fn one_that_refuses_or_ends_the_stream_is_followed_by_the_next() {
    for code in [Code::Ok, Code::Unimplemented, Code::Unavailable] {
        let mut stage = Stage::with("grpclb");
        stage.all_up();
        stage.update(&[LB, LB + 1]);
        assert_eq!(stage.open().unwrap().1, v4(LB));
        stage.event(&WatchEvent::Ended(Status::new(code, "as it is")));
        stage.fleet.run_ms(10);
        assert_eq!(stage.open().unwrap().1, v4(LB + 1));
    }
}

#[test]
fn one_that_never_answers_is_followed_by_the_next_after_5_s() {
    for hangs in [false, true] {
        let mut stage = Stage::with("grpclb");
        stage.all_up();
        if hangs {
            stage.fleet.set(v4(LB), Backend::HangsForEver);
        }
        stage.update(&[LB, LB + 1]);
        stage.fleet.run_ms(4_980);
        assert_ne!(stage.open().map(|(_, address)| address), Some(v4(LB + 1)));
        stage.fleet.run_ms(30);
        assert_eq!(stage.open().unwrap().1, v4(LB + 1));
        // The last one has longer, and then they begin anew.
        stage.fleet.run_ms(29_000);
        assert_eq!(stage.open().unwrap().1, v4(LB + 1));
        stage.up(LB);
        stage.fleet.run_ms(3_000);
        assert_eq!(stage.open().unwrap().1, v4(LB));
    }
}

#[test]
fn any_first_word_is_an_answer() {
    let mut stage = Stage::with("grpclb");
    stage.all_up();
    stage.update(&[LB, LB + 1]);
    stage.say(initial(0));
    stage.fleet.run_ms(120_000);
    assert_eq!((stage.open().unwrap().1, stage.streams()), (v4(LB), 1));
}

#[test]
fn a_lost_balancer_is_followed_by_the_other_at_once() {
    let mut stage = Stage::with("grpclb");
    stage.all_up();
    stage.update(&[LB, LB + 1]);
    stage.say(list(&[server(1, "")]));
    stage.fleet.run_ms(5_000);
    stage.kill(LB);
    assert_eq!(stage.open().unwrap().1, v4(LB + 1));
    assert_eq!(stage.pick().0, met(1, ""), "the last list serves on");
    // One that drains (GOAWAY) is connected to again.
    stage.up(LB);
    stage.say(list(&[server(1, "")]));
    stage.fleet.run_ms(5_000);
    stage.fleet.disconnect(&v4(LB + 1));
    stage.fleet.run_ms(10);
    assert_eq!(stage.open().unwrap().1, v4(LB));
}

#[test]
fn balancers_that_refuse_are_asked_with_the_channels_backoff() {
    let mut stage = Stage::new();
    stage.kill(LB);
    stage.fleet.take_log();
    stage.fleet.run_ms(10_000);
    let log = stage.fleet.take_log();
    let connects = log.iter().filter(|line| line.ends_with("connect 10.0.3.132:80"));
    let at: Vec<u64> = connects.map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    let gaps: Vec<u64> = at.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps, [1_600, 2_560, 4_096], "{at:?}");
    assert!((990..=1_020).contains(&at[0]), "{at:?}");
}

#[test]
fn an_update_leaves_the_stream_of_a_balancer_that_stays() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    let before = stage.open();
    stage.update(&[LB + 1, LB]);
    stage.update(&[LB, LB + 1]);
    assert_eq!((stage.open(), stage.streams()), (before, 1));
    stage.update(&[LB + 1]);
    assert_eq!((stage.open().unwrap().1, stage.streams()), (v4(LB + 1), 2));
    assert_eq!(stage.pick().0, met(1, ""), "the last list serves until the new one's");
}

#[test]
fn balancers_that_are_gone_leave_their_list() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.fleet.engine.set_balancers(Balancers::None);
    stage.fleet.update(&crate::testing::endpoints([OWN]));
    stage.fleet.run_ms(10);
    assert_eq!((stage.open(), stage.pick().0), (None, met(1, "")));
    stage.kill(1);
    assert_eq!(stage.pick().0, met(OWN, ""));
}

#[test]
fn another_policy_and_an_idle_channel_end_the_stream() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.fleet.engine.enter_idle(stage.fleet.now);
    stage.fleet.drain();
    assert_eq!((stage.open(), stage.fleet.connected.len()), (None, 0));
    assert_eq!(stage.fleet.engine.poll_timeout(), None, "no timer is left");
    stage.update(&[LB]);
    stage.say(list(&[server(1, "")]));
    let round_robin = crate::testing::policy("round_robin");
    stage.fleet.update_with(&crate::testing::endpoints([OWN]), &round_robin);
    stage.fleet.run_ms(10);
    assert_eq!((stage.open(), stage.pick().0), (None, met(OWN, "")));
}
