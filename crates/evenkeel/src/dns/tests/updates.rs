//! Good answers over time: what is reported, when it is asked again, what is left behind.

use super::{double::Does::*, double::Double, *};

fn target(server: &Double) -> String {
    format!("dns://{}/greeter.test:8000", server.address)
}

#[tokio::test]
async fn one_endpoint_per_address_in_the_order_of_the_answer() {
    let server = Double::start().await;
    let list = ["127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    server.set("greeter.test.", Has(60, ips(&list)));
    let mut resolver = Running::start(&target(&server), options());
    let expected = ["127.0.0.3:8000", "127.0.0.2:8000", "127.0.0.4:8000"];
    assert_eq!(resolver.update().await, expected);
    assert_eq!(server.log(), ["A greeter.test. udp"]);
}

#[tokio::test]
async fn ipv4_goes_before_ipv6_and_ipv6_alone_is_used() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(0, ips(&["::2", "127.0.0.2", "::3"])));
    let mut resolver = Running::start(&target(&server), options());
    assert_eq!(resolver.update().await, ["127.0.0.2:8000"]);
    assert_eq!(server.asked("AAAA greeter.test. udp"), 0);
    server.set("greeter.test.", Has(0, ips(&["::2", "::3"])));
    assert_eq!(resolver.update().await, ["[::2]:8000", "[::3]:8000"]);
}

#[tokio::test]
async fn a_backend_added_in_dns_is_found_when_the_ttl_is_over_and_within_a_second() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(1, ips(&["127.0.0.2"])));
    let started = std::time::Instant::now();
    let mut resolver = Running::start(&target(&server), options());
    resolver.update().await;
    let first = std::time::Instant::now();
    server.set("greeter.test.", Has(1, ips(&["127.0.0.2", "127.0.0.3"])));
    assert_eq!(resolver.update().await, ["127.0.0.2:8000", "127.0.0.3:8000"]);
    let (least, most) = (started.elapsed(), first.elapsed());
    assert!(least >= Duration::from_secs(1), "before the TTL: {least:?}");
    assert!(most <= Duration::from_secs(2), "TTL + 1 s is over: {most:?}");
}

#[tokio::test]
async fn a_rotated_answer_is_no_news() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2", "127.0.0.3"])));
    let mut resolver = Running::start(&target(&server), options());
    resolver.update().await;
    server.set("greeter.test.", Has(0, ips(&["127.0.0.3", "127.0.0.2"])));
    let asked = server.asked("A greeter.test. udp");
    server.asked_at_least("A greeter.test. udp", asked + 3).await;
    resolver.nothing_new();
    server.set("greeter.test.", Has(0, ips(&["127.0.0.4"])));
    assert_eq!(resolver.update().await, ["127.0.0.4:8000"]);
}

#[tokio::test]
async fn looks_again_on_request_long_before_the_ttl() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let mut resolver = Running::start(&target(&server), options());
    resolver.update().await;
    for last in [3, 4] {
        server.set("greeter.test.", Has(3600, vec![IpAddr::from([127, 0, 0, last])]));
        resolver.request();
        assert_eq!(resolver.update().await, [format!("127.0.0.{last}:8000")]);
    }
    assert_eq!(server.asked("A greeter.test. udp"), 3);
}

#[tokio::test]
async fn an_address_is_reported_once_and_nobody_is_asked() {
    let server = Double::start().await;
    for (host, expected) in [("127.0.0.9", "127.0.0.9:443"), ("[::1]:80", "[::1]:80")] {
        let target = format!("dns://{}/{host}", server.address);
        let mut resolver = Running::start(&target, options());
        assert_eq!(resolver.update().await, [expected]);
        resolver.request();
        tokio::task::yield_now().await;
        resolver.nothing_new();
        assert!(!resolver.task.is_finished());
    }
    assert_eq!(server.log(), [""; 0]);
}

#[tokio::test]
async fn a_dropped_resolver_leaves_no_task_and_no_connection() {
    let server = Double::start().await;
    let slow = Truncates(Box::new(Silence));
    server.set("slow.test.", slow);
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();

    let mut idle = Running::start(&target(&server), options());
    idle.update().await;
    // In the middle of a question over TCP.
    let busy = Running::start(&format!("dns://{}/slow.test:8000", server.address), options());
    server.asked_at_least("A slow.test. tcp", 1).await;
    assert!(metrics.num_alive_tasks() > before + 1);
    drop((idle, busy));

    server.closed_at_least(1).await;
    let gone = async {
        while metrics.num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("tasks are left");
}
