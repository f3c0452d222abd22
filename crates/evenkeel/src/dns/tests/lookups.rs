//! One look-up: files, search list, several servers, CNAMEs, answers that must be ignored.

use hickory_resolver::proto::op::ResponseCode;

use super::{
    double::{Does::*, Double},
    schedule::{Answer, Failure},
    *,
};

/// Looks up what a server says directly.
async fn ask(server: &Double, name: &str) -> Result<Answer, Failure> {
    lookup(server, name).run().await
}

fn lookup(server: &Double, name: &str) -> Lookup {
    let name = Name::from_ascii(name).unwrap();
    Lookup::new(name, Some(server.address), System::new(), Duration::from_secs(5))
}

fn with_files(files: &Files, name: &str, timeout_ms: u64) -> Lookup {
    let name = Name::from_ascii(name).unwrap();
    Lookup::new(name, None, files.system(), Duration::from_millis(timeout_ms))
}

fn answer(ttl_s: u64, list: &[&str]) -> Result<Answer, Failure> {
    Ok(Answer { addresses: ips(list), ttl: Duration::from_secs(ttl_s) })
}

#[tokio::test]
async fn the_least_ttl_of_a_cname_chain_counts() {
    let server = Double::start().await;
    server.set("target.test.", Has(7, ips(&["127.0.0.2"])));
    for (ttl_s, inline, expected) in [(3, true, 3), (9, true, 7), (3, false, 3), (9, false, 7)] {
        server.set("alias.test.", Alias { ttl_s, to: "target.test.", inline });
        assert_eq!(ask(&server, "alias.test").await, answer(expected, &["127.0.0.2"]));
    }
}

#[tokio::test]
async fn a_cname_that_leads_nowhere_is_a_failure() {
    let server = Double::start().await;
    server.set("alias.test.", Alias { ttl_s: 5, to: "missing.test.", inline: false });
    server.set("loop.test.", Alias { ttl_s: 5, to: "loop.test.", inline: false });
    let failure = ask(&server, "alias.test").await.unwrap_err();
    assert!(failure.message.contains("answered NXDOMAIN"), "{failure:?}");
    let failure = ask(&server, "loop.test").await.unwrap_err();
    assert!(failure.message.contains("has no A or AAAA records"), "{failure:?}");
}

#[tokio::test]
async fn answers_with_another_id_or_question_are_ignored() {
    let server = Double::start().await;
    server.set("greeter.test.", LiesFirst(Box::new(Has(5, ips(&["127.0.0.2"])))));
    assert_eq!(ask(&server, "greeter.test").await, answer(5, &["127.0.0.2"]));
    assert_eq!(server.log(), ["A greeter.test. udp"]);
}

#[tokio::test]
async fn a_server_that_knows_no_edns_is_asked_without() {
    let server = Double::start().await;
    server.set("greeter.test.", KnowsNoEdns(Box::new(Has(5, ips(&["127.0.0.2"])))));
    assert_eq!(ask(&server, "greeter.test").await, answer(5, &["127.0.0.2"]));
}

#[tokio::test]
async fn one_hiccup_of_the_server_is_no_failure() {
    let server = Double::start().await;
    server.set("greeter.test.", Fails(1, Box::new(Has(5, ips(&["127.0.0.2"])))));
    assert_eq!(ask(&server, "greeter.test").await, answer(5, &["127.0.0.2"]));
}

#[tokio::test]
async fn a_silent_server_is_asked_until_the_time_is_over() {
    let server = Double::start().await;
    server.set("greeter.test.", Ignores(7, Box::new(Has(5, ips(&["127.0.0.2"])))));
    assert_eq!(ask(&server, "greeter.test").await, answer(5, &["127.0.0.2"]));
    assert!(server.asked("A greeter.test. udp") >= 8);
}

#[tokio::test]
async fn a_failure_of_the_a_question_is_not_answered_with_ipv6() {
    let server = Double::start().await;
    server.set("greeter.test.", Fails(9, Box::new(Has(5, ips(&["::2"])))));
    let failure = ask(&server, "greeter.test").await.unwrap_err();
    assert!(failure.message.contains("SERVFAIL"), "{failure:?}");
    assert_eq!(server.asked("AAAA greeter.test. udp"), 0);
}

#[tokio::test]
async fn a_name_with_a_server_of_its_own_is_absolute() {
    let server = Double::start().await;
    for name in ["greeter", "greeter.test", "greeter.test."] {
        let _ = ask(&server, name).await;
    }
    let expected = ["A greeter. udp", "A greeter.test. udp", "A greeter.test. udp"];
    assert_eq!(server.log(), expected);
}

#[tokio::test]
async fn the_search_list_is_tried_and_the_suffix_that_worked_remembered() {
    let server = Double::start().await;
    let conf = "nameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:5\n";
    let files = Files::new("search", "", Some(conf), server.address.port());
    server.set("greeter.b.test.", Has(5, ips(&["127.0.0.2"])));
    let mut lookup = with_files(&files, "greeter", 5000);
    assert_eq!(lookup.run().await, answer(5, &["127.0.0.2"]));
    assert_eq!(lookup.run().await, answer(5, &["127.0.0.2"]));
    let (a, b) = ("A greeter.a.test. udp", "A greeter.b.test. udp");
    assert_eq!(server.log(), [a, b, b]);

    // It is only the first guess.
    server.set("greeter.b.test.", Code(ResponseCode::NXDomain));
    server.set("greeter.", Has(6, ips(&["127.0.0.3"])));
    assert_eq!(lookup.run().await, answer(6, &["127.0.0.3"]));
    assert_eq!(server.log()[3..], [b, a, "A greeter. udp"]);

    server.set("greeter.", Code(ResponseCode::NXDomain));
    let failure = lookup.run().await.unwrap_err();
    let names = "for greeter. and greeter.a.test. and greeter.b.test.;";
    assert!(failure.message.contains(names), "{failure:?}");
}

#[tokio::test]
async fn a_failing_server_ends_the_search_before_a_wrong_name_is_found() {
    let server = Double::start().await;
    let conf = "nameserver 127.0.0.1\nsearch a.test\noptions ndots:5\n";
    let files = Files::new("searchfail", "", Some(conf), server.address.port());
    server.set("greeter.a.test.", Code(ResponseCode::ServFail));
    server.set("greeter.", Has(5, ips(&["127.0.0.66"])));
    let failure = with_files(&files, "greeter", 5000).run().await.unwrap_err();
    assert!(failure.message.contains("asked for A greeter.a.test."), "{failure:?}");
    assert_eq!(server.asked("A greeter. udp"), 0);
}

#[tokio::test]
async fn the_next_server_is_asked_when_the_first_fails_or_is_silent() {
    let first = Double::start().await;
    let port = first.address.port();
    let second = Double::start_at(SocketAddr::from(([127, 0, 0, 2], port)), false).await;
    second.set("greeter.test.", Has(5, ips(&["127.0.0.9"])));
    let conf = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n";
    let files = Files::new("servers", "", Some(conf), port);
    for does in [Code(ResponseCode::ServFail), Code(ResponseCode::Refused), Noise, Silence] {
        first.set("greeter.test.", does.clone());
        let asked = first.log().len();
        let mut lookup = with_files(&files, "greeter.test", 2000);
        assert_eq!(lookup.run().await, answer(5, &["127.0.0.9"]), "{does:?}");
        assert!(first.log().len() > asked, "the first was not asked");
        // The second one is the first choice from now on.
        let asked = first.log().len();
        assert_eq!(lookup.run().await, answer(5, &["127.0.0.9"]), "{does:?}");
        assert_eq!(first.log().len(), asked, "{does:?}");
    }
    // NXDOMAIN is an answer: nobody else is asked.
    first.set("greeter.test.", Code(ResponseCode::NXDomain));
    let failure = with_files(&files, "greeter.test", 2000).run().await.unwrap_err();
    assert!(failure.message.contains("DNS server 127.0.0.1"), "{failure:?}");

    // When no one answers, each is named with its own fault.
    first.set("greeter.test.", Code(ResponseCode::ServFail));
    second.set("greeter.test.", Silence);
    let failure = with_files(&files, "greeter.test", 500).run().await.unwrap_err();
    let expected = [
        format!("DNS server 127.0.0.1:{port} answered SERVFAIL"),
        format!("no answer within 0.5 s from DNS server 127.0.0.2:{port}"),
    ];
    assert!(expected.iter().all(|e| failure.message.contains(e)), "{failure:?}");
}

#[tokio::test]
async fn the_hosts_file_goes_before_dns_and_is_read_again() {
    let hosts = "127.0.0.7 greeter # ours\n127.0.0.8 greeter\n::7 six\n127.0.0.5 localhost\n";
    let files = Files::new("hosts", hosts, None, 53);
    let mut lookup = with_files(&files, "greeter", 5000);
    let found = lookup.run().await.unwrap();
    assert_eq!(found.addresses, ips(&["127.0.0.7", "127.0.0.8"]));
    assert_eq!(with_files(&files, "six.", 5000).run().await.unwrap().addresses, ips(&["::7"]));
    let local = with_files(&files, "localhost", 5000).run().await.unwrap();
    assert_eq!(local.addresses, ips(&["127.0.0.5"]));
    std::fs::write(files.folder.join("hosts"), "127.0.0.9 greeter\n").unwrap();
    assert_eq!(lookup.run().await.unwrap().addresses, ips(&["127.0.0.9"]));
}

#[tokio::test]
async fn localhost_needs_neither_files_nor_servers() {
    let files = Files::new("localhost", "", None, 53);
    for name in ["localhost", "localhost.", "greeter.localhost"] {
        let found = with_files(&files, name, 5000).run().await.unwrap();
        assert_eq!(found.addresses, ips(&["127.0.0.1"]), "{name}");
    }
}
