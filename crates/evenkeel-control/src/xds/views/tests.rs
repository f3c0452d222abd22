//! Views that follow a running balancer. Real time, because files are looked at; each wait is for
//! an event and bounded.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{config::Config, key::ServiceKey, merge::Change, names::NameRules, snapshot::Endpoint};

const WAIT_MAX: Duration = Duration::from_secs(10);

fn control(yaml: &str) -> Control {
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&Config::from_yaml(yaml, "test", "default").expect("good"));
    control
}

fn envoy() -> Node {
    Node { user_agent_name: "envoy".into(), ..Node::default() }
}

fn follow(views: &NodeViews, node: &Node) -> watch::Receiver<Option<Arc<Resources>>> {
    views.follow(node, &Peer::default()).expect("a view").resources
}

fn endpoints(resources: &Option<Arc<Resources>>) -> usize {
    let resources = resources.as_deref().expect("made");
    resources.kind(Kind::Endpoint).expect("there").by_name.len()
}

#[tokio::test]
async fn clients_wait_until_all_services_are_known_and_then_follow_them() {
    let control = control("services: [{name: watched}, {name: fixed, endpoints: []}]");
    let views = NodeViews::new(control.clone());
    let running = tokio::spawn(views.clone().run());
    let mut resources = follow(&views, &envoy());
    assert!(resources.borrow().is_none());
    let key = ServiceKey::parse("watched", "default").expect("a key");
    control.watched(&key, Change::Replace(Vec::new()));
    timeout(WAIT_MAX, resources.wait_for(Option::is_some)).await.expect("in time").expect("there");
    assert_eq!(endpoints(&resources.borrow_and_update()), 2);
    let one = Endpoint::new(([10, 0, 0, 1], 8000).into());
    control.watched(&key, Change::Replace(vec![one]));
    timeout(WAIT_MAX, resources.changed()).await.expect("in time").expect("there");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_known_does_not_keep_the_others_back_for_ever() {
    let views =
        NodeViews::new(control("services: [{name: watched}, {name: fixed, endpoints: []}]"));
    let mut resources = follow(&views, &envoy());
    assert!(resources.borrow().is_none());
    let running = tokio::spawn(views.run());
    let in_time = SYNC_WAIT_MAX + GATHER + LOOK_INTERVAL;
    timeout(in_time, resources.wait_for(Option::is_some)).await.expect("in time").expect("there");
    assert_eq!(endpoints(&resources.borrow()), 1);
    running.abort();
}

#[tokio::test]
async fn clients_of_one_view_share_what_they_get_and_a_view_without_clients_goes() {
    let views = NodeViews::new(control("services: [{name: a, endpoints: []}]"));
    let (one, two) = (follow(&views, &envoy()), follow(&views, &envoy()));
    let shared =
        |one: &watch::Receiver<Option<Arc<Resources>>>| one.borrow().clone().expect("made");
    assert!(Arc::ptr_eq(&shared(&one), &shared(&two)));
    let grpc = follow(&views, &Node::default());
    assert_eq!(lock(&views.inner.state).views.len(), 2);
    drop((one, two));
    views.refresh();
    assert_eq!(lock(&views.inner.state).views.len(), 1);
    drop(grpc);
}

#[tokio::test]
async fn a_name_that_is_asked_for_is_there_in_the_form_in_which_it_was_asked() {
    let views = NodeViews::new(control("services: [{name: a, endpoints: []}]"));
    let mut resources = follow(&views, &Node::default());
    resources.borrow_and_update();
    let asked = ["A.default:80".to_owned(), "b".to_owned()];
    views.asked(&resources, Kind::Listener, &asked);
    assert!(resources.has_changed().expect("it lives"));
    let all = resources.borrow_and_update().clone().expect("made");
    let listeners = &all.kind(Kind::Listener).expect("there").by_name;
    assert!(listeners.contains_key("A.default:80") && !listeners.contains_key("b"));
    views.asked(&resources, Kind::Listener, &asked);
    assert!(!resources.has_changed().expect("it lives"), "it is there");
    let many: Vec<String> = (1..2 * ASKED_MAX).map(|n| format!("a.default:{n}")).collect();
    views.asked(&resources, Kind::Listener, &many);
    views.asked(&resources, Kind::Listener, &many);
    assert!(lock(&views.inner.state).views.values().all(|live| live.asked.len() == ASKED_MAX));
}

#[tokio::test]
async fn there_is_a_limit_of_views_and_those_without_clients_make_room() {
    let views = NodeViews::new(control("services: []"));
    let node = |n: usize| {
        let locality = evenkeel_proto::envoy::config::core::v3::Locality {
            zone: format!("z{n}"),
            ..Default::default()
        };
        Node { locality: Some(locality), ..Node::default() }
    };
    let mut held: Vec<_> = (0..VIEWS_MAX).map(|n| follow(&views, &node(n))).collect();
    let refused = views.follow(&node(VIEWS_MAX), &Peer::default()).expect_err("too many");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    held.pop();
    views.follow(&node(VIEWS_MAX), &Peer::default()).expect("there is room");
}

#[tokio::test]
async fn an_ingress_of_a_service_that_has_none_is_told_so() {
    let views = NodeViews::new(control("services: [{name: a, endpoints: []}]"));
    let node = |service: &str| {
        let text = |text: &str| prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue(text.into())),
        };
        let fields = [("role", text("ingress")), ("service", text(service))];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
        Node { metadata: Some(prost_types::Struct { fields }), ..Node::default() }
    };
    let code = |service: &str| {
        views.follow(&node(service), &Peer::default()).expect_err("no ingress").code()
    };
    assert_eq!(code("a"), tonic::Code::FailedPrecondition);
    assert_eq!(code("b"), tonic::Code::NotFound);
    assert_eq!(code("a b"), tonic::Code::InvalidArgument);
}
