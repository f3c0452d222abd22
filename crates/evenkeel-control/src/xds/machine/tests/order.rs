//! What comes before what, and what waits for an answer.

use super::*;

#[test]
fn what_is_named_goes_before_what_names_it() {
    let mut stage = Stage::sotw();
    for (kind, names) in [
        (Kind::Route, &["a"][..]),
        (Kind::Listener, &[]),
        (Kind::Endpoint, &["a"]),
        (Kind::Cluster, &[]),
    ] {
        stage.ask(kind, names, "");
    }
    for kind in Kind::ALL {
        stage.set(kind, &[("a", "1")]);
    }
    let (clusters, _) = stage.told(Kind::Cluster);
    let (endpoints, _) = stage.told(Kind::Endpoint);
    stage.quiet();
    stage.ask(Kind::Endpoint, &["a"], &endpoints.nonce);
    stage.quiet();
    stage.ask(Kind::Cluster, &[], &clusters.nonce);
    let (listeners, _) = stage.told(Kind::Listener);
    stage.quiet();
    stage.ask(Kind::Listener, &[], &listeners.nonce);
    let (routes, _) = stage.told(Kind::Route);
    stage.ask(Kind::Route, &["a"], &routes.nonce);
    stage.quiet();
}

/// Envoy answers for its clusters when all of them are warm.
#[test]
fn what_warms_a_cluster_does_not_wait_for_the_answer_and_what_routes_to_it_does() {
    let mut stage = Stage::delta();
    for kind in [Kind::Cluster, Kind::Endpoint, Kind::Secret, Kind::Route] {
        stage.set(kind, &[("a", "1")]);
    }
    stage.change(Kind::Cluster, &[], &[]);
    let (clusters, _) = stage.told(Kind::Cluster);
    stage.change(Kind::Route, &["a"], &[]);
    stage.quiet();
    stage.change(Kind::Endpoint, &["a"], &[]);
    stage.change(Kind::Secret, &["a"], &[]);
    let (endpoints, _) = stage.told(Kind::Endpoint);
    let (secrets, _) = stage.told(Kind::Secret);
    stage.ack(&endpoints);
    stage.ack(&secrets);
    stage.quiet();
    stage.ack(&clusters);
    stage.told(Kind::Route);
}

#[test]
fn a_client_that_does_not_answer_holds_the_rest_up_for_a_while_only() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1")]);
    stage.set(Kind::Listener, &[("a", "1")]);
    stage.ask(Kind::Cluster, &[], "");
    stage.ask(Kind::Listener, &[], "");
    stage.told(Kind::Cluster);
    stage.quiet();
    let wakes_at = stage.machine.wakes_at().expect("it waits");
    assert_eq!(wakes_at, stage.now + ACK_WAIT_MAX);
    stage.now = wakes_at;
    stage.told(Kind::Listener);
    stage.quiet();
}

#[test]
fn a_cluster_goes_when_nothing_names_it_any_more() {
    let mut stage = Stage::delta();
    for kind in [Kind::Cluster, Kind::Listener] {
        stage.set(kind, &[("old", "1")]);
        stage.change(kind, &[], &[]);
        let (outgoing, _) = stage.told(kind);
        stage.ack(&outgoing);
    }
    stage.set(Kind::Cluster, &[("new", "1")]);
    stage.set(Kind::Listener, &[("new", "1")]);
    for (kind, texts, removed) in [
        (Kind::Cluster, &["new=1"][..], None),
        (Kind::Listener, &["new=1"], None),
        (Kind::Listener, &[], Some("old")),
        (Kind::Cluster, &[], Some("old")),
    ] {
        let (outgoing, got) = stage.told(kind);
        assert_eq!(got, texts);
        assert_eq!(outgoing.removed.first().map(AsRef::as_ref), removed);
        stage.ack(&outgoing);
    }
    stage.quiet();
}

/// Envoy warms a cluster that it is sent again, and waits for its endpoints to do so.
#[test]
fn endpoints_are_told_again_when_their_cluster_is() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    stage.ask(Kind::Cluster, &[], "");
    let (clusters, _) = stage.told(Kind::Cluster);
    stage.ask(Kind::Endpoint, &["a", "b"], "");
    let (endpoints, _) = stage.told(Kind::Endpoint);
    stage.ask(Kind::Endpoint, &["a", "b"], &endpoints.nonce);
    stage.ask(Kind::Cluster, &[], &clusters.nonce);
    stage.quiet();
    stage.set(Kind::Cluster, &[("a", "2"), ("b", "1")]);
    let (clusters, _) = stage.told(Kind::Cluster);
    let (endpoints, texts) = stage.told(Kind::Endpoint);
    assert_eq!(texts, ["a=1"]);
    stage.ask(Kind::Endpoint, &["a", "b"], &endpoints.nonce);
    stage.ask(Kind::Cluster, &[], &clusters.nonce);
    stage.quiet();
}
