//! When calls go to the resolver's own backends, and when no more.

use super::{super::*, stage::*};
use crate::{
    Status, WatchEvent,
    testing::{Backend, endpoints, v4},
};

fn own() -> Met {
    met(OWN, "")
}

#[test]
fn a_balancer_that_is_not_there_means_fallback_at_once() {
    let mut stage = Stage::with("grpclb");
    stage.up(OWN);
    stage.update(&[LB, LB + 1]);
    assert_eq!(stage.pick().0, own());
    let lost = Status::unavailable("balancer 10.0.3.133:80: 10.0.3.133:80 refused");
    let why = BalancerNews::Fallback("no balancer can be reached");
    assert_eq!(stage.news(), [BalancerNews::Lost(lost), why]);
}

#[test]
fn a_resolver_without_balancers_means_fallback_at_once() {
    let mut stage = Stage::with("grpclb");
    stage.up(OWN);
    stage.fleet.update(&endpoints([OWN]));
    stage.fleet.run_ms(2);
    assert_eq!(stage.pick().0, own());
    stage.up(LB);
    stage.up(1);
    stage.update(&[LB]);
    stage.say(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""), "when one is found, its list is used");
}

#[test]
fn balancers_that_are_looked_up_are_waited_for_a_moment() {
    let mut stage = Stage::with("grpclb");
    stage.all_up();
    stage.fleet.engine.set_balancers(Balancers::Pending);
    stage.fleet.update(&endpoints([OWN]));
    stage.fleet.run_ms(999);
    assert_eq!(stage.pick().0, Met::Queue);
    stage.fleet.run_ms(10);
    assert_eq!(stage.pick().0, own());
    stage.update(&[LB]);
    stage.say(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""));
}

#[test]
fn a_silent_balancer_means_fallback_after_10_s() {
    let mut stage = Stage::new();
    stage.say(initial(0));
    stage.fleet.run_ms(9_970);
    assert_eq!(stage.pick().0, Met::Queue);
    stage.fleet.run_ms(20);
    assert_eq!(stage.pick().0, own());
    let mut stage = Stage::with(r#"[{"grpclb":{"initialFallbackTimeout":"0.5s"}}]"#);
    stage.all_up();
    stage.update(&[LB]);
    stage.fleet.run_ms(480);
    assert_eq!(stage.pick().0, Met::Queue);
    stage.fleet.run_ms(20);
    assert_eq!(stage.pick().0, own());
}

#[test]
fn every_stream_refused_means_fallback_at_once() {
    let mut stage = Stage::new();
    stage.event(&WatchEvent::Ended(Status::unavailable("no such service")));
    stage.fleet.run_ms(2);
    assert_eq!(stage.pick().0, own());
    // Likewise when it ends after its initial response.
    let mut stage = Stage::new();
    stage.tell(initial(0));
    stage.end();
    stage.fleet.run_ms(2);
    assert_eq!(stage.pick().0, own());
}

#[test]
fn the_balancers_word_means_fallback_and_its_next_list_the_end_of_it() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.say(BalancerMessage::Fallback);
    assert_eq!(stage.calls(10), [(own(), 10)].into());
    stage.fleet.take_log();
    stage.tell(list(&[server(1, "")]));
    assert_eq!(stage.pick().0, met(1, ""), "its connection was kept");
    assert_eq!(stage.fleet.take_log(), ["30 close 10.0.3.32:80"]);
    assert_eq!(stage.news().last(), Some(&BalancerNews::FallbackOver));
}

#[test]
fn fallback_serves_until_a_server_of_the_new_list_is_ready() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.say(BalancerMessage::Fallback);
    stage.fleet.set(v4(2), Backend::HangsUntil(500));
    stage.tell(list(&[server(2, "")]));
    assert_eq!(stage.pick().0, own());
    stage.fleet.run_ms(600);
    assert_eq!(stage.pick().0, met(2, ""));
}

#[test]
fn a_lost_balancers_list_serves_on_and_the_search_goes_on() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, ""), server(2, "")]));
    stage.fleet.run_ms(5_000);
    stage.kill(LB);
    for _ in 0..100 {
        assert_eq!(stage.calls(10).len(), 2);
        stage.fleet.run_ms(1_000);
    }
    stage.up(LB);
    while stage.open().is_none() {
        stage.fleet.run_ms(1_000);
    }
    stage.say(list(&[server(3, "")]));
    assert_eq!(stage.pick().0, met(3, ""));
}

#[test]
fn balancer_and_servers_lost_means_fallback_at_once() {
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.kill(LB);
    stage.kill(1);
    assert_eq!(stage.pick().0, own());
    // In the other order too.
    let mut stage = Stage::new();
    stage.say(list(&[server(1, "")]));
    stage.kill(1);
    assert!(matches!(stage.pick().0, Met::Fail(_)), "the balancer is there and has to say");
    stage.kill(LB);
    assert_eq!(stage.pick().0, own());
}

#[test]
fn servers_that_hang_when_the_balancer_is_lost_mean_fallback_after_a_while() {
    let mut stage = Stage::new();
    stage.fleet.set(v4(1), Backend::HangsForEver);
    stage.say(list(&[server(1, "")]));
    stage.kill(LB);
    assert_eq!(stage.pick().0, Met::Queue);
    stage.fleet.run_ms(10_000);
    assert_eq!(stage.pick().0, own());
}

#[test]
fn a_balancer_that_ends_its_stream_costs_no_call_and_is_not_hammered() {
    let mut stage = Stage::new();
    let mut streams = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60_000 {
        if stage.open().is_some() {
            streams.push(stage.fleet.now / MILLISECOND_NS);
            stage.tell(initial(0));
            stage.tell(list(&[server(1, ""), server(2, "")]));
            stage.end();
        }
        stage.fleet.run_ms(1);
        let met = stage.pick().0;
        assert!(met != own() && !matches!(met, Met::Fail(_)), "{met:?}");
        seen.insert(met);
    }
    let gaps: Vec<u64> = streams.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(streams.len() <= 12, "{} streams in a minute: {gaps:?}", streams.len());
    assert!(gaps.iter().all(|gap| (990..=10_010).contains(gap)), "{gaps:?}");
    assert!(seen.contains(&met(1, "")) && seen.contains(&met(2, "")));
}

#[test]
fn the_resolvers_news_reach_the_fallback() {
    let mut stage = Stage::with("grpclb");
    stage.all_up();
    stage.fleet.update(&endpoints([OWN]));
    stage.fleet.run_ms(2);
    stage.fleet.update(&endpoints([9]));
    stage.fleet.run_ms(2);
    assert_eq!(stage.calls(10), [(met(9, ""), 10)].into());
    stage.fleet.update(&[]);
    assert_eq!(stage.pick().0, Met::Fail("the resolver found no endpoints".into()));
}
