//! What a client wants and is told: everything or by name, once and again, in parts, or that it is
//! not there.

use super::*;

#[test]
fn everything_is_told_once_and_again_when_it_changes() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.quiet();
    stage.ask(Kind::Cluster, &[], "");
    let (first, texts) = stage.told(Kind::Cluster);
    assert_eq!(texts, ["a=1", "b=1"]);
    stage.set(Kind::Cluster, &[("a", "2"), ("b", "1")]);
    stage.quiet();
    let heard = stage.ask(Kind::Cluster, &[], &first.nonce);
    assert_eq!(heard.acked, Some(Kind::Cluster));
    let (second, texts) = stage.told(Kind::Cluster);
    assert_eq!(texts, ["a=2", "b=1"], "all of it");
    assert_ne!((&second.version, &second.nonce), (&first.version, &first.nonce));
    stage.ask(Kind::Cluster, &[], &second.nonce);
    stage.quiet();
}

#[test]
fn nothing_is_said_before_there_is_something_and_an_empty_answer_when_there_is_nothing() {
    for mut stage in [Stage::sotw(), Stage::delta()] {
        match stage.machine.variant() {
            Variant::Delta => stage.change(Kind::Listener, &[], &[]),
            Variant::StateOfTheWorld => stage.ask(Kind::Listener, &[], ""),
        };
        stage.quiet();
        stage.machine.resources(Arc::default());
        let (_, texts) = stage.told(Kind::Listener);
        assert!(texts.is_empty(), "the client goes on without listeners");
        stage.quiet();
    }
}

#[test]
fn endpoints_are_told_by_name_and_only_those_that_changed() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1"), ("c", "1")]);
    stage.ask(Kind::Endpoint, &["a", "b"], "");
    let (first, texts) = stage.told(Kind::Endpoint);
    assert_eq!(texts, ["a=1", "b=1"]);
    stage.ask(Kind::Endpoint, &["a", "b"], &first.nonce);
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "2"), ("c", "2")]);
    let (second, texts) = stage.told(Kind::Endpoint);
    assert_eq!(texts, ["b=2"]);
    stage.ask(Kind::Endpoint, &["a", "b"], &second.nonce);
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "2"), ("c", "3")]);
    stage.quiet();
    stage.ask(Kind::Endpoint, &["a", "b", "c"], &second.nonce);
    assert_eq!(stage.told(Kind::Endpoint).1, ["c=3"]);
}

#[test]
fn who_gives_a_name_up_and_takes_it_again_is_told_again() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Endpoint, &[("a", "1")]);
    stage.ask(Kind::Endpoint, &["a"], "");
    let (first, _) = stage.told(Kind::Endpoint);
    stage.ask(Kind::Endpoint, &[], &first.nonce);
    stage.quiet();
    stage.ask(Kind::Endpoint, &["a"], &first.nonce);
    assert_eq!(stage.told(Kind::Endpoint).1, ["a=1"]);
}

#[test]
fn in_delta_a_name_that_is_asked_for_again_is_told_again() {
    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[("a", "1")]);
    stage.change(Kind::Endpoint, &["a"], &[]);
    let (first, _) = stage.told(Kind::Endpoint);
    stage.ack(&first);
    stage.change(Kind::Endpoint, &["a"], &[]);
    let (second, texts) = stage.told(Kind::Endpoint);
    assert_eq!(texts, ["a=1"], "it may have dropped it");
    stage.ack(&second);
    stage.change(Kind::Endpoint, &[], &["a"]);
    stage.set(Kind::Endpoint, &[("a", "2")]);
    stage.quiet();
}

#[test]
fn in_delta_a_name_given_up_beside_everything_is_told_again() {
    let mut stage = Stage::delta();
    stage.set(Kind::Cluster, &[("a", "1")]);
    stage.change(Kind::Cluster, &["*", "a", "none"], &[]);
    let (first, _) = stage.told(Kind::Cluster);
    stage.ack(&first);
    stage.change(Kind::Cluster, &[], &["a", "none"]);
    let (second, texts) = stage.told(Kind::Cluster);
    assert_eq!((texts, second.removed), (strings(&["a=1"]), vec!["none".into()]));
}

#[test]
fn a_name_that_does_not_exist_is_said_to_be_none_and_comes_when_it_does() {
    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[("a", "1")]);
    stage.change(Kind::Endpoint, &["a", "none"], &[]);
    let (first, texts) = stage.told(Kind::Endpoint);
    assert_eq!((texts, first.removed.clone()), (strings(&["a=1"]), vec!["none".into()]));
    stage.ack(&first);
    stage.quiet();
    stage.set(Kind::Endpoint, &[("a", "1"), ("none", "1")]);
    assert_eq!(stage.told(Kind::Endpoint).1, ["none=1"]);

    let mut stage = Stage::sotw();
    stage.set(Kind::Listener, &[("a", "1")]);
    stage.ask(Kind::Listener, &["none"], "");
    let (first, texts) = stage.told(Kind::Listener);
    assert!(texts.is_empty());
    stage.ask(Kind::Listener, &["none", "never"], &first.nonce);
    let (second, _) = stage.told(Kind::Listener);
    stage.ask(Kind::Listener, &["none", "never"], &second.nonce);
    stage.quiet();
    stage.set(Kind::Listener, &[("a", "1"), ("none", "1")]);
    assert_eq!(stage.told(Kind::Listener).1, ["none=1"]);
}

#[test]
fn what_is_gone_is_left_out_of_the_whole_and_named_in_delta() {
    let mut stage = Stage::sotw();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.ask(Kind::Cluster, &[], "");
    let (first, _) = stage.told(Kind::Cluster);
    stage.ask(Kind::Cluster, &[], &first.nonce);
    stage.set(Kind::Cluster, &[("b", "1")]);
    let (second, texts) = stage.told(Kind::Cluster);
    assert_eq!((texts, second.removed.len()), (strings(&["b=1"]), 0));

    let mut stage = Stage::delta();
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    stage.change(Kind::Cluster, &[], &[]);
    let (first, _) = stage.told(Kind::Cluster);
    stage.ack(&first);
    stage.set(Kind::Cluster, &[("b", "1")]);
    let (second, texts) = stage.told(Kind::Cluster);
    assert_eq!((texts.len(), second.removed), (0, vec!["a".into()]));
}

#[test]
fn nobody_is_told_that_endpoints_do_not_exist_before_it_is_known() {
    for exists in [true, false] {
        let mut stage = Stage::delta();
        stage.resources.set_pending(["a".into()].into());
        stage.set(Kind::Endpoint, &[]);
        stage.change(Kind::Endpoint, &["a"], &[]);
        stage.quiet();
        stage.resources.set_pending([].into());
        stage.set(Kind::Endpoint, if exists { &[("a", "1")] } else { &[] });
        let (outgoing, texts) = stage.told(Kind::Endpoint);
        assert_eq!((texts.len(), outgoing.removed.len()), (exists.into(), (!exists).into()));
        stage.ack(&outgoing);
        stage.quiet();
    }
    let mut stage = Stage::delta();
    stage.set(Kind::Endpoint, &[]);
    stage.resources.set_pending(["a".into()].into());
    stage.set(Kind::Endpoint, &[]);
    stage.change(Kind::Endpoint, &["a"], &[]);
    stage.quiet();
    // Only what is known of it has changed.
    stage.resources.set_pending([].into());
    stage.machine.resources(Arc::new(stage.resources.clone()));
    assert_eq!(stage.told(Kind::Endpoint).0.removed, ["a".into()]);
}

#[test]
fn a_large_answer_comes_in_parts() {
    let body = Bytes::from(vec![0; RESPONSE_BYTES_SOFT_MAX / 2]);
    let names = ["a", "b", "c"];
    let all =
        names.map(|name| Resource { name: name.into(), version: "1".into(), body: body.clone() });
    let by_name = all.into_iter().map(|one| (one.name.clone(), Arc::new(one))).collect();
    let mut stage = Stage::delta();
    let kind = KindResources { version: "1".into(), by_name };
    stage.resources.set(Kind::Endpoint, Arc::new(kind));
    stage.machine.resources(Arc::new(stage.resources.clone()));
    stage.change(Kind::Endpoint, &names, &[]);
    for name in names {
        let (outgoing, texts) = stage.told(Kind::Endpoint);
        assert_eq!(texts, [format!("{name}=1")]);
        stage.quiet();
        stage.ack(&outgoing);
    }
    stage.quiet();
}

#[test]
fn what_can_not_be_asked_for_is_refused() {
    let mut machine = Machine::new(Variant::StateOfTheWorld);
    let url = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    let request = DiscoveryRequest { type_url: url.into(), ..DiscoveryRequest::default() };
    assert_eq!(machine.request(&request), Err(Bad::Type(url.into())));
    let request = DiscoveryRequest {
        type_url: Kind::Endpoint.type_url().into(),
        resource_names: (0..10_000).map(|n| n.to_string()).collect(),
        ..DiscoveryRequest::default()
    };
    assert_eq!(machine.request(&request), Err(Bad::Names(Kind::Endpoint, 10_000)));
}
