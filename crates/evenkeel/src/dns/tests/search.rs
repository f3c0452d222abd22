//! The search list of a Kubernetes pod: with `ndots:5` even a whole Service name is tried with
//! each suffix first, and a naive resolver asks several questions for each that it needs.

use hickory_resolver::proto::op::ResponseCode;

use super::{
    double::{Does::*, Double},
    *,
};

/// What the kubelet writes for a pod in the namespace `default`.
const POD: &str = "\
search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:5
";

/// What a pod's resolver asks for `greeter.default`, in this order; the second is the Service.
const A: [&str; 4] = [
    "A greeter.default.default.svc.cluster.local. udp",
    "A greeter.default.svc.cluster.local. udp",
    "A greeter.default.cluster.local. udp",
    "A greeter.default. udp",
];
const SERVICE: &str = "greeter.default.svc.cluster.local.";

fn lookup(files: &Files, name: &str) -> Lookup {
    let name = Name::from_ascii(name).unwrap();
    Lookup::new(name, None, files.system(), Duration::from_secs(5))
}

#[tokio::test]
async fn in_a_pod_a_look_up_is_one_question_after_the_first() {
    let server = Double::start().await;
    let files = Files::new("pod", "", Some(POD), server.address.port());
    server.set(SERVICE, Has(0, ips(&["127.0.0.2"])));
    let mut resolver = Running::start_with("greeter.default", &files, options());
    assert_eq!(resolver.update().await, ["127.0.0.2:8000"]);
    server.asked_at_least(A[1], 5).await;
    server.set(SERVICE, Has(3600, ips(&["127.0.0.3"])));
    assert_eq!(resolver.update().await, ["127.0.0.3:8000"]);
    let log = server.log();
    assert_eq!(log[0], A[0]);
    assert!(log.len() >= 6 && log[1..].iter().all(|asked| asked == A[1]), "{log:?}");
}

#[tokio::test]
async fn each_way_to_write_a_service_ends_at_one_question() {
    let server = Double::start().await;
    let files = Files::new("ways", "", Some(POD), server.address.port());
    server.set(SERVICE, Has(5, ips(&["127.0.0.2"])));
    for (name, at_first) in [
        ("greeter", 1),
        ("greeter.default", 2),
        ("greeter.default.svc", 3),
        ("greeter.default.svc.cluster.local", 4),
        ("greeter.default.svc.cluster.local.", 1),
    ] {
        let mut lookup = lookup(&files, name);
        for questions in [at_first, 1, 1] {
            let before = server.log().len();
            lookup.run().await.unwrap();
            assert_eq!(server.log().len() - before, questions, "{name}: {:?}", server.log());
        }
    }
}

#[tokio::test]
async fn a_suffix_that_ceases_to_work_is_forgotten() {
    for gone in [Code(ResponseCode::NXDomain), Has(5, Vec::new())] {
        let server = Double::start().await;
        let files = Files::new("forgotten", "", Some(POD), server.address.port());
        server.set(SERVICE, Has(5, ips(&["127.0.0.2"])));
        let mut lookup = lookup(&files, "greeter.default");
        lookup.run().await.unwrap();

        server.set(SERVICE, gone);
        let before = server.log().len();
        lookup.run().await.unwrap_err();
        let questions = |log: &[String]| -> Vec<String> {
            log.iter().filter(|q| q.starts_with("A ")).cloned().collect()
        };
        assert_eq!(questions(&server.log()[before..]), [A[1], A[0], A[2], A[3]]);

        // A Service that appears in the pod's own namespace is found first again.
        server.set("greeter.default.default.svc.cluster.local.", Has(5, ips(&["127.0.0.4"])));
        server.set(SERVICE, Has(5, ips(&["127.0.0.3"])));
        let before = server.log().len();
        assert_eq!(lookup.run().await.unwrap().addresses, ips(&["127.0.0.4"]));
        assert_eq!(server.log()[before..], [A[0]]);
    }
}

#[tokio::test]
async fn a_suffix_is_not_forgotten_because_a_server_failed() {
    let server = Double::start().await;
    let files = Files::new("kept", "", Some(POD), server.address.port());
    server.set(SERVICE, Has(5, ips(&["127.0.0.2"])));
    let mut lookup = lookup(&files, "greeter.default");
    lookup.run().await.unwrap();
    server.set(SERVICE, Code(ResponseCode::ServFail));
    lookup.run().await.unwrap_err();
    server.set(SERVICE, Has(5, ips(&["127.0.0.3"])));
    lookup.run().await.unwrap();
    assert_eq!(server.asked(A[0]), 1, "{:?}", server.log());
}

#[tokio::test]
async fn a_service_with_ipv6_alone_is_one_question_of_each_type() {
    let server = Double::start().await;
    let files = Files::new("six", "", Some(POD), server.address.port());
    server.set(SERVICE, Has(5, ips(&["fd00::2", "fd00::3"])));
    let mut lookup = lookup(&files, "greeter.default");
    lookup.run().await.unwrap();
    let before = server.log().len();
    assert_eq!(lookup.run().await.unwrap().addresses, ips(&["fd00::2", "fd00::3"]));
    assert_eq!(server.log()[before..], [A[1].to_owned(), format!("AAA{}", A[1])]);
}

#[tokio::test]
async fn the_channels_of_a_pod_share_what_was_found() {
    let server = Double::start().await;
    let files = Files::new("podshare", "", Some(POD), server.address.port());
    server.set(SERVICE, Has(3600, ips(&["127.0.0.2"])));
    let registry = Arc::default();
    let mut channels: Vec<_> =
        (0..20).map(|_| Running::share(&registry, "greeter.default", &files, options())).collect();
    for channel in &mut channels {
        assert_eq!(channel.update().await, ["127.0.0.2:8000"]);
    }
    assert_eq!(server.log(), A[..2]);
    server.set(SERVICE, Has(3600, ips(&["127.0.0.3"])));
    channels[7].request();
    for channel in &mut channels {
        assert_eq!(channel.update().await, ["127.0.0.3:8000"]);
    }
    assert_eq!(server.log(), [A[0], A[1], A[1]]);
}
