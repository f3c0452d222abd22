//! The rules of the protocol, one by one. Resources are made by hand: a name and a version are all
//! that the machine knows of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use evenkeel_proto::google::rpc::Status;

use super::*;
use crate::xds::KindResources;

/// A client and what it is told.
struct Stage {
    machine: Machine,
    resources: Resources,
    now: Instant,
}

fn resource(name: &str, version: &str) -> Arc<Resource> {
    let body = Bytes::from(format!("{name}={version}"));
    Arc::new(Resource { name: name.into(), version: version.into(), body })
}

pub(super) fn kind_resources(list: &[(&str, &str)]) -> Arc<KindResources> {
    let all = list.iter().map(|(name, version)| resource(name, version));
    let by_name: BTreeMap<_, _> = all.map(|one| (one.name.clone(), one)).collect();
    let version = version(by_name.values().map(AsRef::as_ref));
    Arc::new(KindResources { version, by_name })
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Stage {
    fn new(variant: Variant) -> Self {
        let resources = Resources::default();
        Self { machine: Machine::new(variant), resources, now: Instant::now() }
    }

    fn sotw() -> Self {
        Self::new(Variant::StateOfTheWorld)
    }

    fn delta() -> Self {
        Self::new(Variant::Delta)
    }

    fn set(&mut self, kind: Kind, list: &[(&str, &str)]) {
        self.resources.set(kind, kind_resources(list));
        self.machine.resources(Arc::new(self.resources.clone()));
    }

    fn next(&mut self) -> Option<Outgoing> {
        self.machine.next(self.now)
    }

    /// The next response; its kind and its resources as `name=version`.
    fn told(&mut self, kind: Kind) -> (Outgoing, Vec<String>) {
        let outgoing = self.next().expect("a response");
        assert_eq!(outgoing.kind, kind, "{outgoing:?}");
        let text = |r: &Arc<Resource>| format!("{}={}", r.name, r.version);
        let texts = outgoing.resources.iter().map(text).collect();
        (outgoing, texts)
    }

    fn quiet(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "{next:?}");
    }

    fn ask(&mut self, kind: Kind, names: &[&str], nonce: &str) -> Heard {
        self.ask_with(kind, names, nonce, "", None)
    }

    fn ask_with(
        &mut self,
        kind: Kind,
        names: &[&str],
        nonce: &str,
        version: &str,
        error: Option<&str>,
    ) -> Heard {
        let error_detail = error.map(|text| Status { message: text.into(), ..Status::default() });
        let request = DiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names: strings(names),
            response_nonce: nonce.into(),
            version_info: version.into(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.machine.request(&request).expect("a good request")
    }

    fn change(&mut self, kind: Kind, add: &[&str], remove: &[&str]) -> Heard {
        self.delta_with(kind, add, remove, "", None, &[])
    }

    fn ack(&mut self, outgoing: &Outgoing) {
        let heard = self.delta_with(outgoing.kind, &[], &[], &outgoing.nonce, None, &[]);
        assert_eq!(heard.acked, Some(outgoing.kind));
    }

    fn nack(&mut self, outgoing: &Outgoing, why: &str) {
        let heard = self.delta_with(outgoing.kind, &[], &[], &outgoing.nonce, Some(why), &[]);
        assert_eq!(heard.nacked, Some(outgoing.kind));
    }

    fn delta_with(
        &mut self,
        kind: Kind,
        add: &[&str],
        remove: &[&str],
        nonce: &str,
        error: Option<&str>,
        initial: &[(&str, &str)],
    ) -> Heard {
        let error_detail = error.map(|text| Status { message: text.into(), ..Status::default() });
        let initial = initial.iter().map(|(name, version)| (name.to_string(), version.to_string()));
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(add),
            resource_names_unsubscribe: strings(remove),
            response_nonce: nonce.into(),
            error_detail,
            initial_resource_versions: initial.collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.machine.delta(request).expect("a good request")
    }
}

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
