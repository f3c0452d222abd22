//! Aggregated resources over real sockets: what comes, who is refused and why, and that what one
//! client does costs the others nothing. The protocol's own rules are tested with the machine.

mod stage;

use std::collections::BTreeMap;

use evenkeel_control::xds::{
    ADS_SERVICE_NAME, FIRST_REQUEST_WAIT, Kind, LRS_SERVICE_NAME, NAMES_MAX, NODE_BYTES_MAX,
};
use evenkeel_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use http_body_util::BodyExt as _;
use prost_types::{Struct, Value, value::Kind as ValueKind};
use stage::{Stage, bodies, node, within};
use tonic::{Code, Status};

#[tokio::test]
async fn both_variants_get_what_there_is_and_what_changes() {
    let mut stage = Stage::new().await;
    let (mut sotw, mut delta) = (stage.sotw("one").await, stage.delta("two").await);
    sotw.ask(Kind::Cluster, &[]).await;
    delta.ask(Kind::Cluster, &[]).await;
    stage.set(Kind::Cluster, &[("a", "1"), ("b", "1")]);
    let (first, other) = (sotw.next().await, delta.next().await);
    assert_eq!(bodies(&first), ["a=1", "b=1"]);
    assert_eq!((first.type_url.as_str(), &first.nonce[..]), (Kind::Cluster.type_url(), "1"));
    assert!(first.control_plane.as_ref().expect("it is told").identifier.starts_with("evenkeel/"));
    let named = other.resources.iter().map(|one| (one.name.clone(), one.version.clone()));
    let named: Vec<_> = named.collect();
    assert_eq!(named, [("a".into(), "1".into()), ("b".into(), "1".into())]);
    assert_eq!(other.system_version_info, first.version_info, "both have the same now");

    sotw.answer(&first, &[], None).await;
    delta.ack(&other).await;
    stage.set(Kind::Cluster, &[("b", "2")]);
    let second = sotw.next().await;
    assert_ne!(second.version_info, first.version_info);
    assert_eq!(bodies(&second), ["a=1", "b=2"], "what is new comes first");
    sotw.answer(&second, &[], None).await;
    assert_eq!(bodies(&sotw.next().await), ["b=2"], "then goes what is gone");
    let second = delta.next().await;
    assert_eq!((&second.resources[0].name[..], second.removed_resources.len()), ("b", 0));
    delta.ack(&second).await;
    assert_eq!(delta.next().await.removed_resources, ["a"]);
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_reason_and_concerns_nobody_else() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Listener, &[("a", "1")]);
    let (mut picky, mut easy) = (stage.sotw("picky").await, stage.sotw("easy").await);
    for client in [&mut picky, &mut easy] {
        client.ask(Kind::Listener, &[]).await;
        let first = client.next().await;
        client.answer(&first, &[], None).await;
    }
    stage.set(Kind::Listener, &[("a", "2")]);
    let refused = picky.next().await;
    picky.answer(&refused, &[], Some("no such filter")).await;
    let taken = easy.next().await;
    assert_eq!(taken.version_info, refused.version_info);
    easy.answer(&taken, &[], None).await;

    let views = stage.seen(|views| views.iter().any(|view| view.kinds[0].nacks == 1)).await;
    let view = views.iter().find(|view| view.node == "picky").expect("it is there");
    let kind = &view.kinds[0];
    assert_eq!((kind.kind, kind.last_nack.as_deref()), ("LDS", Some("no such filter")));
    assert_eq!((&view.view[..], &kind.refusing[..]), ("all", &["a".to_owned()][..]));
    assert_ne!(kind.accepted, kind.sent, "what it took before is in force");
    let metrics = stage.metrics();
    for line in [
        r#"evenkeel_balancer_xds_nacks_total{type="LDS",variant="state_of_the_world"} 1"#,
        r#"evenkeel_balancer_xds_refusing_clients{type="LDS"} 1"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }

    stage.set(Kind::Listener, &[("a", "3")]);
    let next = picky.next().await;
    assert_eq!(bodies(&next), ["a=3"], "what was refused does not come between");
    picky.answer(&next, &[], None).await;
    assert_eq!(bodies(&easy.next().await), ["a=3"]);
    stage.seen(|views| views.iter().all(|view| view.kinds[0].refusing.is_empty())).await;
}

fn request(kind: Kind) -> DiscoveryRequest {
    let type_url = kind.type_url().into();
    DiscoveryRequest { node: Some(node("bad")), type_url, ..DiscoveryRequest::default() }
}

fn many_names() -> Vec<String> {
    (0..10_000).map(|n| format!("cluster-{n}")).collect()
}

fn huge() -> Struct {
    let text = Value { kind: Some(ValueKind::StringValue("x".repeat(NODE_BYTES_MAX))) };
    Struct { fields: BTreeMap::from([("labels".to_owned(), text)]) }
}

#[tokio::test]
async fn each_bad_request_has_a_clear_status_and_costs_nobody_else_anything() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let mut good = stage.sotw("good").await;
    good.ask(Kind::Cluster, &[]).await;
    let mut last = good.next().await;

    let mut named = node("bad");
    named.metadata = Some(huge());
    let runtime = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    let names = format!("expected at most {NAMES_MAX} names of EDS, got 10000");
    let bytes = format!("expected a node of at most {NODE_BYTES_MAX} bytes, got ");
    let clusters = request(Kind::Cluster);
    let table: [(DiscoveryRequest, Code, &str); 6] = [
        (
            DiscoveryRequest { type_url: runtime.into(), ..clusters.clone() },
            Code::InvalidArgument,
            "got \"type.googleapis.com/envoy.service.runtime.v3.Runtime\"",
        ),
        (
            DiscoveryRequest { type_url: String::new(), ..clusters.clone() },
            Code::InvalidArgument,
            "expected a type_url of type.googleapis.com/envoy.config.cluster.v3.Cluster",
        ),
        (
            DiscoveryRequest { node: None, ..clusters.clone() },
            Code::InvalidArgument,
            "expected node in the first request, got none",
        ),
        (DiscoveryRequest { node: Some(named), ..clusters.clone() }, Code::InvalidArgument, &bytes),
        (
            DiscoveryRequest { resource_names: many_names(), ..request(Kind::Endpoint) },
            Code::ResourceExhausted,
            &names,
        ),
        (
            DiscoveryRequest { node: Some(node("nobody")), ..clusters.clone() },
            Code::PermissionDenied,
            "nobody gets nothing",
        ),
    ];
    for (number, (bad, code, text)) in table.into_iter().enumerate() {
        let mut client = stage.sotw("").await;
        client.send(bad).await;
        let message = client.ended(code).await;
        assert!(message.contains(text), "{message}");
        // The good client still gets what is new.
        good.answer(&last, &[], None).await;
        stage.set(Kind::Cluster, &[("a", &format!("{number} after it"))]);
        last = good.next().await;
        assert_eq!(bodies(&last), [format!("a={number} after it")]);
    }

    let mut client = stage.delta("").await;
    let names = DeltaDiscoveryRequest {
        node: Some(node("bad")),
        type_url: Kind::Endpoint.type_url().into(),
        resource_names_subscribe: many_names(),
        ..DeltaDiscoveryRequest::default()
    };
    client.send(names).await;
    client.ended(Code::ResourceExhausted).await;

    let mut client = stage.sotw("").await;
    let large = DiscoveryRequest { version_info: "x".repeat(2 * 1024 * 1024), ..clusters };
    client.send(large).await;
    client.ended(Code::OutOfRange).await;
    stage.seen(|views| views.len() == 1).await;
}

#[tokio::test]
async fn a_stale_nonce_is_passed_over_and_the_stream_goes_on() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Endpoint, &[("a", "1"), ("b", "1")]);
    let mut client = stage.sotw("one").await;
    client.ask(Kind::Endpoint, &["a"]).await;
    let first = client.next().await;
    client.answer(&first, &["a"], None).await;
    stage.set(Kind::Endpoint, &[("a", "2"), ("b", "1")]);
    let second = client.next().await;
    client.answer(&first, &["a", "b"], Some("too late to refuse")).await;
    client.answer(&second, &["a", "b"], None).await;
    assert_eq!(bodies(&client.next().await), ["b=1"], "the answer to the newest counts");
    let view = &stage.xds.clients(1).0[0].kinds[0];
    assert_eq!((view.nacks, view.names), (0, 2));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up_and_finds_the_newest() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Cluster, &[("a", "0")]);
    let (mut slow, mut quick) = (stage.delta("slow").await, stage.delta("quick").await);
    slow.ask(Kind::Cluster, &[]).await;
    quick.ask(Kind::Cluster, &[]).await;
    let first = slow.next().await;
    let mut last = quick.next().await;
    for version in 1..=50 {
        quick.ack(&last).await;
        stage.set(Kind::Cluster, &[("a", &version.to_string())]);
        last = quick.next().await;
        assert_eq!(last.resources[0].version, version.to_string());
    }
    slow.ack(&first).await;
    assert_eq!(slow.next().await.resources[0].version, "50");
}

#[tokio::test]
async fn one_address_has_a_limit_and_room_comes_back() {
    let mut stage = Stage::with("limits: {streams_per_peer_max: 1}").await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let mut first = stage.sotw("one").await;
    first.ask(Kind::Cluster, &[]).await;
    first.next().await;
    let (sender, requests) = stage::requests::<DiscoveryRequest>();
    let refused = within(stage.client().stream_aggregated_resources(requests)).await;
    let refused = refused.expect_err("it is full");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    drop((sender, first));
    stage.seen(|views| views.is_empty()).await;
    let mut second = stage.sotw("two").await;
    second.ask(Kind::Cluster, &[]).await;
    assert_eq!(bodies(&second.next().await), ["a=1"]);
}

#[tokio::test]
async fn streams_end_in_a_drain() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let (mut ads, mut silent) = (stage.delta("one").await, stage.sotw("two").await);
    ads.ask(Kind::Cluster, &[]).await;
    ads.next().await;
    stage.xds.end_streams();
    assert!(ads.ended(Code::Unavailable).await.contains("this balancer is going"));
    silent.ended(Code::Unavailable).await;
}

#[tokio::test]
async fn who_comes_back_after_a_restart_is_told_nothing_new() {
    let mut stage = Stage::new().await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let mut client = stage.sotw("one").await;
    client.ask(Kind::Cluster, &[]).await;
    let before = client.next().await;

    let mut stage = Stage::new().await;
    stage.set(Kind::Cluster, &[("a", "1")]);
    let mut client = stage.sotw("one").await;
    let again =
        DiscoveryRequest { version_info: before.version_info.clone(), ..request(Kind::Cluster) };
    client.send(again).await;
    let accepted = |views: &[evenkeel_control::xds::ClientView]| {
        views.iter().any(|view| view.kinds.iter().any(|kind| kind.accepted.is_some()))
    };
    let views = stage.seen(accepted).await;
    assert_eq!(views[0].kinds[0].responses, 0);
    stage.set(Kind::Cluster, &[("a", "2")]);
    assert_eq!(bodies(&client.next().await), ["a=2"]);
}

/// Without sockets, so that time can stand still. A client whose host is gone is noticed below, by
/// the server's TCP keepalive and its limits for stalls.
#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_is_asked_ends() {
    let (xds, _views) = stage::unserved();
    for is_lrs in [false, true] {
        let begun = tokio::time::Instant::now();
        let response = match is_lrs {
            true => stage::call(xds.lrs(), LRS_SERVICE_NAME, "StreamLoadStats").await,
            false => stage::call(xds.ads(), ADS_SERVICE_NAME, "StreamAggregatedResources").await,
        };
        let body = response.into_body().collect().await.expect("no error");
        let status = Status::from_header_map(body.trailers().expect("trailers"));
        let status = status.expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("expected the first request within 10s"), "{status}");
        assert_eq!(begun.elapsed().as_secs(), FIRST_REQUEST_WAIT.as_secs());
    }
    assert_eq!(xds.streams(), 0);
}

#[tokio::test]
async fn what_is_no_method_and_what_is_compressed_is_refused_at_once() {
    let (xds, _views) = stage::unserved();
    for (method, text) in [
        ("FetchClusters", "expected StreamAggregatedResources or DeltaAggregatedResources"),
        ("compressed", "expected messages that are not compressed"),
    ] {
        let response = stage::call(xds.ads(), ADS_SERVICE_NAME, method).await;
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(text), "{status}");
    }
}
