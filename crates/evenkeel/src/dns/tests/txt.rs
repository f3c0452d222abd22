//! Service configs beside a name's addresses: that they come together, and what is waited for.

use hickory_resolver::proto::op::ResponseCode;
use tokio::time::Instant;

use super::{
    double::{Does::*, Double},
    *,
};

const RECORD: &str = "_grpc_config.greeter.test.";

fn looking_for_config(server: &Double) -> Running {
    let options = DnsOptions { service_config: true, ..options() };
    let factory = DnsResolverFactory {
        balancers: Arc::default(),
        configs: Arc::default(),
        ..factory(&Arc::default(), options)
    };
    let factory = factory.with_policies(PolicyRegistry::built_in());
    Running::of(&factory, &format!("dns://{}/greeter.test:8000", server.address))
}

async fn server_with(does: double::Does) -> Double {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    server.set(RECORD, does);
    server
}

#[tokio::test]
async fn the_first_addresses_come_with_their_config() {
    let config = r#"grpc_config=[{"serviceConfig":{"loadBalancingConfig":[{"pick_first":{}}]}}]"#;
    let server = server_with(Texts(0, vec!["other", config])).await;
    let mut resolver = looking_for_config(&server);
    assert_eq!(resolver.event().await, Event::Config("pick_first".into()));
    assert_eq!(resolver.update().await, ["127.0.0.2:8000"]);
    // A new one is news, and one that is bad or gone leaves the last.
    let config = r#"grpc_config=[{"serviceConfig":{"loadBalancingConfig":[{"round_robin":{}}]}}]"#;
    server.set(RECORD, Texts(0, vec![config]));
    assert_eq!(resolver.event().await, Event::Config("round_robin".into()));
    assert_eq!(resolver.update().await, ["127.0.0.2:8000"]);
    for does in [Texts(0, vec!["grpc_config={}"]), Code(ResponseCode::NXDomain)] {
        server.set(RECORD, does);
        let question = "TXT _grpc_config.greeter.test. udp";
        server.asked_at_least(question, server.asked(question) + 2).await;
        resolver.nothing_new();
    }
}

#[tokio::test]
async fn without_a_config_the_addresses_are_told_at_once_or_soon() {
    for does in [Code(ResponseCode::NXDomain), Texts(60, vec!["v=spf1 -all"]), Silence] {
        let server = server_with(does.clone()).await;
        let begun = Instant::now();
        let mut resolver = looking_for_config(&server);
        assert_eq!(resolver.update().await, ["127.0.0.2:8000"], "{does:?}");
        // A silent one costs a second, and not the look-up's time-out.
        assert!(begun.elapsed() < Duration::from_secs(4), "{does:?}");
    }
}

#[tokio::test]
async fn a_first_config_that_is_bad_is_an_error() {
    let server = server_with(Texts(60, vec!["grpc_config=[{}]"])).await;
    let (message, expired) = looking_for_config(&server).error().await;
    let want = "the service config in the TXT records is refused: expected a list of objects";
    assert!(message.starts_with(want) && !expired, "{message}");
}
