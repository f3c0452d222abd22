//! Look-ups that fail: each ends in time with a message that names the cause.

use hickory_resolver::proto::op::ResponseCode;

use super::{
    double::{Does, Does::*, Double},
    *,
};

fn target(server: &Double) -> String {
    format!("dns://{}/greeter.test:8000", server.address)
}

/// The first report for a server that does this, without its address.
async fn first_error(does: Does) -> String {
    let server = Double::start().await;
    server.set("greeter.test.", does);
    let options = DnsOptions { timeout: Duration::from_millis(500), ..options() };
    let mut resolver = Running::start(&target(&server), options);
    let (message, expired) = resolver.error().await;
    assert!(!expired);
    message.replace(&server.address.to_string(), "SERVER")
}

#[tokio::test]
async fn each_failure_says_what_was_asked_what_came_and_what_to_do() {
    let cannot = "cannot resolve greeter.test: ";
    let asked = "cannot resolve greeter.test: asked for A greeter.test.; ";
    let silent = format!(
        "{asked}no answer within 0.5 s from DNS server SERVER: check the address, and that UDP and \
         TCP reach it"
    );
    for (does, expected) in [
        (
            Code(ResponseCode::NXDomain),
            format!(
                "{cannot}DNS server SERVER answered NXDOMAIN (no such name) for greeter.test.; \
                 check the spelling and the namespace, and that the Service exists"
            ),
        ),
        (
            Has(5, Vec::new()),
            format!(
                "{cannot}DNS server SERVER has no A or AAAA records for greeter.test.; check that \
                 the Service is headless and that its pods are ready"
            ),
        ),
        (
            Code(ResponseCode::ServFail),
            format!(
                "{asked}DNS server SERVER answered SERVFAIL (Server Failure): see that server's log"
            ),
        ),
        (
            Code(ResponseCode::Refused),
            format!(
                "{asked}DNS server SERVER answered REFUSED: check that it serves this zone to this \
                 client"
            ),
        ),
        (
            Code(ResponseCode::NotImp),
            format!(
                "{asked}DNS server SERVER answered NOTIMP (Not Implemented): see that server's log"
            ),
        ),
        (Silence, silent.clone()),
        (Truncates(Box::new(Silence)), silent.clone()),
    ] {
        assert_eq!(first_error(does.clone()).await, expected, "{does:?}");
    }
    let noise = first_error(Noise).await;
    assert!(
        noise.starts_with(&format!("{asked}DNS server SERVER sent something unreadable (")),
        "{noise}"
    );
    assert!(noise.ends_with("): check that it speaks DNS"), "{noise}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_found_out_at_once() {
    let server = Double::start().await;
    let target = target(&server);
    let address = server.address;
    drop(server);
    let started = std::time::Instant::now();
    let (message, _) = Running::start(&target, DnsOptions::default()).error().await;
    assert!(started.elapsed() < DnsOptions::default().timeout, "{:?}", started.elapsed());
    assert_eq!(
        message,
        format!(
            "cannot resolve greeter.test: asked for A greeter.test.; DNS server {address} is not \
             there (connection refused): check its address and port"
        )
    );
}

#[tokio::test]
async fn a_truncated_answer_without_tcp_says_so() {
    let server = Double::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), false).await;
    server.set("greeter.test.", Truncates(Box::new(Silence)));
    let (message, _) = Running::start(&target(&server), options()).error().await;
    let expected = "sent a truncated answer over UDP and none over TCP (Connection refused";
    assert!(message.contains(expected), "{message}");
    assert!(message.ends_with("): let TCP through to it"), "{message}");
}

#[tokio::test]
async fn tries_again_by_itself_until_the_name_exists() {
    let server = Double::start().await;
    let mut resolver = Running::start(&target(&server), options());
    for _ in 0..3 {
        resolver.error().await;
    }
    server.set("greeter.test.", Has(60, ips(&["127.0.0.2"])));
    loop {
        match resolver.event().await {
            Event::Both(..) | Event::Config(_) => panic!("nobody asked for it"),
            Event::Update(addresses) => {
                assert_eq!(addresses, ["127.0.0.2:8000"]);
                break;
            }
            Event::Error { expired, .. } => assert!(!expired),
        }
    }
}

#[tokio::test]
async fn a_failure_after_a_good_answer_keeps_the_last_list() {
    for does in
        [Code(ResponseCode::NXDomain), Has(0, Vec::new()), Code(ResponseCode::ServFail), Silence]
    {
        let server = Double::start().await;
        server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
        let options = DnsOptions { timeout: Duration::from_millis(500), ..options() };
        let mut resolver = Running::start(&target(&server), options);
        resolver.update().await;
        let asked = server.asked("A greeter.test. udp");
        server.set("greeter.test.", does);
        server.asked_at_least("A greeter.test. udp", asked + 8).await;
        resolver.nothing_new();
        server.set("greeter.test.", Has(0, ips(&["127.0.0.3"])));
        assert_eq!(resolver.update().await, ["127.0.0.3:8000"]);
        // Told apart from the list: once when it began, with the reason, and once when it was over.
        let renewals = resolver.sink.renewals.lock().unwrap().clone();
        let [Some(why), None] = &renewals[..] else { panic!("{renewals:?}") };
        assert!(why.contains("greeter.test."), "{why}");
    }
}

#[tokio::test]
async fn the_last_list_expires_and_recovers() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
    let options = DnsOptions { stale_max: Duration::from_millis(200), ..options() };
    let mut resolver = Running::start(&target(&server), options);
    resolver.update().await;
    server.set("greeter.test.", Code(ResponseCode::NXDomain));
    let (message, expired) = resolver.error().await;
    assert!(expired);
    assert!(message.contains("answered NXDOMAIN (no such name) for greeter.test."), "{message}");
    assert!(
        message.ends_with("(no good answer for 0.2 s: the last one is not trusted)"),
        "{message}"
    );
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
    loop {
        match resolver.event().await {
            Event::Both(..) | Event::Config(_) => panic!("nobody asked for it"),
            Event::Update(addresses) => {
                assert_eq!(addresses, ["127.0.0.2:8000"]);
                break;
            }
            Event::Error { expired, .. } => assert!(expired),
        }
    }
}

#[tokio::test]
async fn no_server_at_all_says_where_to_name_one() {
    let files = Files::new("noserver", "", None, 53);
    let mut resolver = Running::start_with("greeter.test", &files, options());
    let (message, _) = resolver.error().await;
    assert!(message.contains("resolv.conf can't be read"), "{message}");
    assert!(message.ends_with("in the target: dns://SERVER/NAME:PORT"), "{message}");
    files.write_resolv_conf("search a.test\n");
    loop {
        let (message, _) = resolver.error().await;
        if message.contains("names no server") {
            break;
        }
    }
}
