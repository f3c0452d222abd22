//! Balancers beside a name's addresses: what is asked, what is told, and that neither waits.

use hickory_resolver::proto::op::ResponseCode;

use super::{
    double::{Does::*, Double},
    *,
};

const RECORD: &str = "_grpclb._tcp.greeter.test.";
const QUESTION: &str = "SRV _grpclb._tcp.greeter.test. udp";

fn looking_for_balancers(server: &Double) -> Running {
    let hosts = factory(&Arc::default(), options());
    let factory = DnsResolverFactory { balancers: Arc::default(), balancers_wanted: true, ..hosts };
    Running::of(&factory, &format!("dns://{}/greeter.test:8000", server.address))
}

impl Running {
    async fn both(&mut self) -> (Vec<String>, Vec<String>) {
        match self.event().await {
            Event::Both(addresses, balancers) => (addresses, balancers),
            Event::Update(addresses) => (addresses, Vec::new()),
            event => panic!("expected an update, not {event:?}"),
        }
    }

    /// The first update for which this holds.
    async fn until(&mut self, holds: impl Fn(&[String], &[String]) -> bool) {
        loop {
            let (addresses, balancers) = self.both().await;
            if holds(&addresses, &balancers) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn balancers_are_the_hosts_of_the_srv_records_in_their_order() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let records = vec![(2, 0, 9001, "b.test."), (1, 0, 9000, "a.test."), (3, 0, 9002, "no.test.")];
    server.set(RECORD, Services(3600, records));
    server.set("a.test.", Has(3600, ips(&["127.0.0.10", "127.0.0.11"])));
    server.set("b.test.", Has(3600, ips(&["::1"])));
    let mut resolver = looking_for_balancers(&server);
    let want = ["127.0.0.10:9000 a.test", "127.0.0.11:9000 a.test", "[::1]:9001 b.test"];
    resolver.until(|_, balancers| balancers == want).await;
    assert_eq!(server.asked(QUESTION), 1);
    // Only who wants balancers asks for them.
    let mut other =
        Running::start(&format!("dns://{}/greeter.test:8000", server.address), options());
    assert_eq!(other.update().await, ["127.0.0.2:8000"]);
    assert_eq!(server.asked(QUESTION), 1);
}

#[tokio::test]
async fn a_failure_of_srv_delays_no_address() {
    let noise = [Silence, Code(ResponseCode::ServFail), Code(ResponseCode::NXDomain), Noise];
    for does in noise {
        let server = Double::start().await;
        server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
        server.set(RECORD, does.clone());
        let mut resolver = looking_for_balancers(&server);
        let (addresses, balancers) = resolver.both().await;
        assert_eq!(addresses, ["127.0.0.2:8000"], "{does:?}");
        assert!(balancers.is_empty() || balancers == ["pending"], "{does:?}: {balancers:?}");
        if !matches!(does, Silence) && !balancers.is_empty() {
            let (addresses, balancers) = resolver.both().await;
            assert_eq!((addresses.len(), balancers.len()), (1, 0), "{does:?}");
        }
    }
}

#[tokio::test]
async fn balancers_are_looked_up_again_at_their_own_ttl() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    server.set(RECORD, Services(0, vec![(0, 0, 9000, "a.test.")]));
    server.set("a.test.", Has(3600, ips(&["127.0.0.10"])));
    let mut resolver = looking_for_balancers(&server);
    resolver.until(|_, balancers| balancers == ["127.0.0.10:9000 a.test"]).await;
    server.set(RECORD, Services(0, vec![(0, 0, 9009, "a.test.")]));
    resolver.until(|_, balancers| balancers == ["127.0.0.10:9009 a.test"]).await;
    // Those that are known stay when the records are gone.
    server.set(RECORD, Code(ResponseCode::NXDomain));
    server.asked_at_least(QUESTION, server.asked(QUESTION) + 2).await;
    resolver.nothing_new();
    assert_eq!(server.asked("A greeter.test. udp"), 1);
    // A wish to look again is one for both.
    resolver.request();
    server.asked_at_least("A greeter.test. udp", 2).await;
}

#[tokio::test]
async fn balancers_of_a_name_without_addresses_are_told() {
    let server = Double::start().await;
    server.set(RECORD, Services(3600, vec![(0, 0, 9000, "a.test.")]));
    server.set("a.test.", Has(3600, ips(&["127.0.0.10"])));
    let mut resolver = looking_for_balancers(&server);
    loop {
        match resolver.event().await {
            Event::Error { expired: false, .. } => {}
            Event::Both(addresses, balancers) => {
                assert!(addresses.is_empty());
                assert_eq!(balancers, ["127.0.0.10:9000 a.test"]);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}
