//! What a name may have: many records, of both families or one, doubled, rotated, behind aliases.

use super::{double::Does::*, double::Double, *};

fn target(server: &Double) -> String {
    format!("dns://{}/greeter.test:8000", server.address)
}

fn endpoints(list: &[IpAddr]) -> Vec<String> {
    list.iter().map(|ip| SocketAddr::new(*ip, 8000).to_string()).collect()
}

#[tokio::test]
async fn three_hundred_addresses_come_over_tcp_after_a_truncated_answer() {
    let v4 = |i: u16| IpAddr::from([127, 1, (i / 250) as u8, i as u8]);
    let v6 = |i: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, i]);
    for (kind, list) in
        [("A", (0..300).map(v4).collect::<Vec<_>>()), ("AAAA", (0..300).map(v6).collect())]
    {
        let server = Double::start().await;
        server.set("greeter.test.", Truncates(Box::new(Has(60, list.clone()))));
        let mut resolver = Running::start(&target(&server), options());
        // The 10 that came with the truncated answer are not taken for all.
        assert_eq!(resolver.update().await, endpoints(&list));
        let expected = [format!("{kind} greeter.test. udp"), format!("{kind} greeter.test. tcp")];
        assert!(server.log().ends_with(&expected), "{:?}", server.log());
        // The connection lives no longer than the question.
        server.closed_at_least(1).await;
    }
}

#[tokio::test]
async fn three_dual_stack_pods_are_three_endpoints() {
    let server = Double::start().await;
    let list = ["fd00::2", "127.0.0.2", "fd00::3", "127.0.0.3", "fd00::4", "127.0.0.4"];
    server.set("greeter.test.", Has(60, ips(&list)));
    let mut resolver = Running::start(&target(&server), options());
    assert_eq!(resolver.update().await, ["127.0.0.2:8000", "127.0.0.3:8000", "127.0.0.4:8000"]);
    assert_eq!(server.log(), ["A greeter.test. udp"]);
}

#[tokio::test]
async fn a_doubled_or_rotated_answer_of_either_family_is_no_news() {
    for (kind, [one, two, three, other]) in [
        ("A", ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]),
        ("AAAA", ["fd00::2", "fd00::3", "fd00::4", "fd00::5"]),
    ] {
        let server = Double::start().await;
        let question = format!("{kind} greeter.test. udp");
        server.set("greeter.test.", Has(0, ips(&[one, two, one, three, two])));
        let mut resolver = Running::start(&target(&server), options());
        assert_eq!(resolver.update().await, endpoints(&ips(&[one, two, three])));
        for list in [[three, one, two, two], [two, three, one, one]] {
            server.set("greeter.test.", Has(0, ips(&list)));
            server.asked_at_least(&question, server.asked(&question) + 2).await;
            resolver.nothing_new();
        }
        server.set("greeter.test.", Has(0, ips(&[three, other, three])));
        assert_eq!(resolver.update().await, endpoints(&ips(&[three, other])));
    }
}

#[tokio::test]
async fn a_chain_of_aliases_is_followed_to_either_family() {
    let names = ["greeter.test.", "b.test.", "c.test.", "d.test.", "e.test."];
    for (kind, list) in [("A", ["127.0.0.2", "127.0.0.3"]), ("AAAA", ["fd00::2", "fd00::3"])] {
        for inline in [true, false] {
            let server = Double::start().await;
            for pair in names.windows(2) {
                server.set(pair[0], Alias { ttl_s: 60, to: pair[1], inline });
            }
            server.set("e.test.", Has(60, ips(&list)));
            let mut resolver = Running::start(&target(&server), options());
            assert_eq!(resolver.update().await, endpoints(&ips(&list)), "{kind}, {inline}");
            // What stands in the first answer is not asked for again.
            let asked = server.asked(&format!("{kind} e.test. udp"));
            assert_eq!(asked, u32::from(!inline), "{kind}, {inline}");
        }
    }
}

#[tokio::test]
async fn an_alias_that_moves_is_followed() {
    let server = Double::start().await;
    server.set("blue.test.", Has(0, ips(&["127.0.0.2"])));
    server.set("green.test.", Has(0, ips(&["127.0.0.3"])));
    server.set("greeter.test.", Alias { ttl_s: 0, to: "blue.test.", inline: true });
    let mut resolver = Running::start(&target(&server), options());
    assert_eq!(resolver.update().await, ["127.0.0.2:8000"]);
    server.set("greeter.test.", Alias { ttl_s: 0, to: "green.test.", inline: false });
    assert_eq!(resolver.update().await, ["127.0.0.3:8000"]);
}
