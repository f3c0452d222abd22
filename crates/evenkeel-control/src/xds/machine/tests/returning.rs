//! Clients that come back, and bring along what they have.

use super::*;

#[test]
fn who_comes_back_with_everything_there_is_is_told_nothing() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.ask(Kind::Cluster, &[], "");
    let version = stage.told(Kind::Cluster).0.version;

    // Another process, or this one after a restart.
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.ask_with(Kind::Cluster, &[], "", &version, None);
    stage.quiet();
    assert_eq!(stage.machine.views()[0].accepted.as_deref(), Some(&*version));
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "2")]);
    assert_eq!(stage.told(Kind::Cluster).1, ["a=1", "b=2"]);

    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1")]);
    stage.ask_with(Kind::Cluster, &[], "", &version, None);
    assert_eq!(stage.told(Kind::Cluster).1, ["a=1"], "it has something else");
}

/// grpc-go starts a timer for each name when its stream is new, and what does not come in time
/// does not exist for it.
#[test]
fn who_comes_back_with_names_is_told_what_they_are() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1")]);
    let version = kind_resources(&[("a", "1")]).version.clone();
    stage.ask_with(Kind::Cluster, &["a"], "", &version, None);
    assert_eq!(stage.told(Kind::Cluster).1, ["a=1"]);
}

#[test]
fn in_delta_who_comes_back_is_told_the_difference() {
    let mut stage = Stage::delta();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "2"), ("d", "1")]);
    let initial = [("a", "1"), ("b", "1"), ("c", "1")];
    stage.delta_with(Kind::Cluster, &[], &[], "", None, &initial);
    let (first, texts) = stage.told(Kind::Cluster);
    assert_eq!(texts, ["b=2", "d=1"]);
    stage.ack(&first);
    let (second, texts) = stage.told(Kind::Cluster);
    assert_eq!((texts.len(), second.removed), (0, vec!["c".into()]));

    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    let initial = [("a", "1"), ("unasked", "1")];
    stage.delta_with(Kind::Endpoint, &["a", "b"], &[], "", None, &initial);
    let (first, texts) = stage.told(Kind::Endpoint);
    assert_eq!((texts, first.removed.len()), (strings(&["b=1"]), 0));
}
