//! What a client's answer does: one to something older, and refusals.

use super::*;

#[test]
fn a_stale_nonce_changes_nothing_and_the_next_answer_has_it_all() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    stage.ask(Kind::Endpoint, &["a"], "");
    let (first, _) = stage.told(Kind::Endpoint);
    stage.ask(Kind::Endpoint, &["a"], &first.nonce);
    stage.set(Kind::Endpoint, &[("a", "2"), ("b", "1")]);
    let (second, _) = stage.told(Kind::Endpoint);
    let heard = stage.ask(Kind::Endpoint, &["a", "b"], &first.nonce);
    assert_eq!(heard, Heard { stale: true, ..Heard::default() });
    assert!(stage.ask_with(Kind::Endpoint, &[], "77", "", Some("no")).stale, "never sent");
    stage.quiet();
    stage.ask(Kind::Endpoint, &["a", "b"], &second.nonce);
    assert_eq!(stage.told(Kind::Endpoint).1, ["b=1"]);
}

#[test]
fn in_delta_a_stale_nonce_still_brings_its_names() {
    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    stage.change(Kind::Endpoint, &["a"], &[]);
    let (first, _) = stage.told(Kind::Endpoint);
    stage.ack(&first);
    stage.set(Kind::Endpoint, &[("a", "2"), ("b", "1")]);
    let (second, _) = stage.told(Kind::Endpoint);
    assert!(stage.delta_with(Kind::Endpoint, &["b"], &[], &first.nonce, None, &[]).stale);
    stage.quiet();
    stage.ack(&second);
    assert_eq!(stage.told(Kind::Endpoint).1, ["b=1"]);
}

#[test]
fn a_refused_version_does_not_come_back_and_the_next_one_comes() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Listener, &[("a", "1")]);
    stage.ask(Kind::Listener, &[], "");
    let (first, _) = stage.told(Kind::Listener);
    stage.ask(Kind::Listener, &[], &first.nonce);
    stage.set(Kind::Listener, &[("a", "2")]);
    let (second, _) = stage.told(Kind::Listener);
    let accepted = first.version.to_string();
    let heard = stage.ask_with(Kind::Listener, &[], &second.nonce, &accepted, Some("bad port"));
    assert_eq!(heard.nacked, Some(Kind::Listener));
    stage.quiet();
    let view = &stage.machine.views()[0];
    assert_eq!((view.nacks, view.last_nack.as_deref()), (1, Some("bad port")));
    assert_eq!(view.accepted.as_deref(), Some(&*first.version));
    assert_eq!(view.sent.as_deref(), Some(&*second.version));
    assert_eq!(view.refusing, ["a"]);
    stage.ask_with(Kind::Listener, &[], &second.nonce, &accepted, None);
    stage.quiet();
    stage.set(Kind::Listener, &[("a", "3")]);
    let (third, texts) = stage.told(Kind::Listener);
    assert_eq!(texts, ["a=3"]);
    stage.ask(Kind::Listener, &[], &third.nonce);
    assert!(stage.machine.views()[0].refusing.is_empty());
    stage.set(Kind::Listener, &[("a", "2")]);
    stage.quiet();
}

#[test]
fn what_a_refusal_does_not_name_comes_without_what_it_names() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1"), ("c", "1")]);
    stage.ask(Kind::Cluster, &[], "");
    let (first, _) = stage.told(Kind::Cluster);
    stage.ask(Kind::Cluster, &[], &first.nonce);
    stage.set(Kind::Cluster, &[("a", "2"), ("b", "2"), ("c", "1")]);
    let (second, _) = stage.told(Kind::Cluster);
    let why = Some("Error adding/updating cluster(s) a: no such policy");
    stage.ask_with(Kind::Cluster, &[], &second.nonce, &first.version, why);
    let (third, texts) = stage.told(Kind::Cluster);
    assert_eq!(texts, ["a=1", "b=2", "c=1"], "what it took last of a stays in force");
    stage.ask(Kind::Cluster, &[], &third.nonce);
    stage.quiet();
    stage.set(Kind::Cluster, &[("a", "2"), ("b", "2"), ("c", "2")]);
    assert_eq!(stage.told(Kind::Cluster).1, ["a=1", "b=2", "c=2"]);
}

#[test]
fn in_delta_only_what_was_refused_is_held_back() {
    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    stage.change(Kind::Endpoint, &["a", "b"], &[]);
    let (first, _) = stage.told(Kind::Endpoint);
    stage.ack(&first);
    stage.set(Kind::Endpoint, &[("a", "2"), ("b", "1")]);
    let (second, _) = stage.told(Kind::Endpoint);
    stage.nack(&second, "no");
    stage.set(Kind::Endpoint, &[("a", "2"), ("b", "2")]);
    let (third, texts) = stage.told(Kind::Endpoint);
    assert_eq!(texts, ["b=2"]);
    stage.ack(&third);
    stage.quiet();
    stage.change(Kind::Endpoint, &["a"], &[]);
    assert_eq!(stage.told(Kind::Endpoint).1, ["a=1"], "asked again, it gets what it took");
}
