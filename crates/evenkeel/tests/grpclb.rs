//! `grpclb` over sockets, against a balancer that says what the test says: what calls meet, what
//! they carry, and what the balancer hears of them.

#[path = "../src/dns/tests/double.rs"]
#[allow(dead_code, reason = "the resolver's own tests use the rest")]
mod double;
mod fixture;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use double::{Does, Double};

use evenkeel::{Backoff, Channel, ChannelBuilder, dns::DnsOptions};
use evenkeel_proto::grpc::lb::v1::ClientStats;
use fixture::{
    Backend,
    events::Events,
    fleet,
    lookaside::{
        Entry::{Drop, Server},
        Lookaside, backend, call,
    },
    ready, soon, target, until,
};
use tokio::net::TcpListener;
use tonic::Code;

/// A channel whose own backend is `own`, and what it tells.
fn to(own: &Backend, balancers: &[&Lookaside]) -> (ChannelBuilder, Events) {
    let events = Events::default();
    let builder = Channel::builder(target(&[own.address]))
        .lb_policy("grpclb")
        .balancers(balancers.iter().map(|lb| lb.balancer()))
        .backoff(Backoff { initial: Duration::from_millis(20), ..Backoff::default() })
        .recorder(events.recorder());
    (builder, events)
}

async fn shares(channel: &Channel, calls: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let met = call(channel).await.unwrap_or_else(|status| status.message().to_owned());
        *shares.entry(met).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn calls_follow_the_list_and_carry_its_tokens() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let (one, two) = (backend("127.0.0.1:0").await, backend("[::1]:0").await);
    assert!(two.address.is_ipv6());
    let (builder, events) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let stream = lb.stream().await;
    assert_eq!(stream.name, own.address.to_string(), "the target's name");
    stream.initial(0).await;
    let list = [Server(one.address, "t1"), Server(two.address, "t2"), Server(one.address, "")];
    stream.list(&list).await;
    ready(&channel).await;
    for server in [&one, &two] {
        events.wait_for(1, &format!("{} READY", server.address)).await;
    }
    // The last picker is published with the last READY.
    until("both", || channel.state() == evenkeel::ConnectivityState::Ready).await;
    shares(&channel, 1).await;
    let (t1, t2, none) =
        (format!("{} t1", one.address), format!("{} t2", two.address), format!("{} ", one.address));
    assert_eq!(shares(&channel, 300).await, [(t1, 100), (t2, 100), (none, 100)].into());
    // Another token for the same address counts as soon as its list is there.
    stream.list(&[Server(one.address, "new")]).await;
    events.wait_for(2, "List {").await;
    let new = format!("{} new", one.address);
    soon("the new token", async { while call(&channel).await.unwrap() != new {} }).await;
    assert_eq!(shares(&channel, 10).await, [(new, 10)].into());
    assert_eq!(events.count(&format!("{} CONNECTING", one.address)), 1, "no new connection");
}

#[tokio::test]
async fn drops_are_unavailable_and_reports_add_up_to_the_last_call() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let (builder, events) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let mut stream = lb.stream().await;
    stream.initial(100).await;
    stream
        .list(&[Drop("lb"), Server(one.address, "t"), Drop("rate"), Server(one.address, "")])
        .await;
    ready(&channel).await;
    let mut callers = Vec::new();
    for _ in 0..4 {
        let channel = channel.clone();
        callers.push(tokio::spawn(async move {
            let mut dropped = 0;
            for _ in 0..100 {
                if let Err(status) = call(&channel).await {
                    assert_eq!(status.code(), Code::Unavailable);
                    assert!(status.message().contains("the balancer drops this call (token"));
                    dropped += 1;
                }
            }
            dropped
        }));
    }
    let mut dropped = 0;
    for caller in callers {
        dropped += soon("a caller", caller).await.unwrap();
    }
    assert_eq!(dropped, 200);
    assert_eq!((events.count("\"lb\""), events.count("\"rate\"")), (100, 100));
    channel.shutdown(Duration::from_secs(5)).await;
    let (sums, reports) = stream.sums().await;
    let drops = sums.calls_finished_with_drop.iter();
    let mut drops: Vec<_> = drops.map(|d| (d.load_balance_token.as_str(), d.num_calls)).collect();
    drops.sort_unstable();
    assert_eq!(drops, [("lb", 100), ("rate", 100)]);
    assert_eq!((sums.num_calls_started, sums.num_calls_finished), (400, 400));
    assert_eq!(sums.num_calls_finished_known_received, 200);
    assert_eq!(sums.num_calls_finished_with_client_failed_to_send, 0);
    assert!(reports > 0);
}

#[tokio::test]
async fn picks_that_found_no_stream_are_not_counted() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let slow = Backend::start(Duration::from_millis(5), |b| b.max_concurrent_streams(2)).await;
    let (builder, _) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let mut stream = lb.stream().await;
    stream.initial(100).await;
    stream.list(&[Server(slow.address, "")]).await;
    ready(&channel).await;
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { call(&channel).await.map(drop) })
        })
        .collect();
    for one in calls {
        soon("a call", one).await.unwrap().expect("all wait for their turn");
    }
    // The last handle is dropped: the last word is said all the same.
    drop(channel);
    let (sums, _) = stream.sums().await;
    assert_eq!((sums.num_calls_started, sums.num_calls_finished), (40, 40));
    assert_eq!(sums.num_calls_finished_known_received, 40);
}

#[tokio::test]
async fn an_unreachable_balancer_means_fallback_at_once() {
    let own = backend("127.0.0.1:0").await;
    let lb = Lookaside::start().await;
    let gone = lb.balancer();
    lb.stop().await;
    let (builder, events) = to(&own, &[]);
    let channel = builder.balancers([gone]).build().unwrap();
    let met = call(&channel).await.unwrap();
    assert_eq!(met, format!("{} ", own.address));
    assert_eq!(events.count("Fallback(\"no balancer can be reached\")"), 1);
}

#[tokio::test]
async fn fallback_comes_and_goes_by_the_balancers_word() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let (builder, events) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let stream = lb.stream().await;
    stream.list(&[Server(one.address, "")]).await;
    ready(&channel).await;
    let (listed, own) = (format!("{} ", one.address), format!("{} ", own.address));
    assert_eq!(call(&channel).await.unwrap(), listed);
    stream.fallback().await;
    soon("fallback", async { while call(&channel).await.unwrap() != own {} }).await;
    stream.list(&[Server(one.address, "")]).await;
    events.wait_for(1, "FallbackOver").await;
    soon("the list", async { while call(&channel).await.unwrap() != listed {} }).await;
    assert_eq!(shares(&channel, 20).await, [(listed, 20)].into());
}

#[tokio::test]
async fn a_lost_balancers_list_serves_on_and_the_next_one_takes_over() {
    let (own, lb, other) =
        (backend("127.0.0.1:0").await, Lookaside::start().await, Lookaside::start().await);
    let (one, two) = (backend("127.0.0.1:0").await, backend("127.0.0.1:0").await);
    let (builder, events) = to(&own, &[&lb, &other]);
    let channel = builder.build().unwrap();
    channel.connect();
    let mut stream = lb.stream().await;
    stream.initial(0).await;
    stream.list(&[Server(one.address, "a")]).await;
    ready(&channel).await;
    let listed = format!("{} a", one.address);
    assert_eq!(call(&channel).await.unwrap(), listed);
    stream.end();
    drop(stream);
    lb.stop().await;
    let stream = other.stream().await;
    events.wait_for(1, "Lost(").await;
    assert_eq!(shares(&channel, 20).await, [(listed, 20)].into());
    stream.initial(0).await;
    stream.list(&[Server(two.address, "b")]).await;
    let listed = format!("{} b", two.address);
    events.wait_for(1, &format!("{} READY", two.address)).await;
    soon("the new list", async { while call(&channel).await.unwrap() != listed {} }).await;
}

#[tokio::test]
async fn a_balancer_that_comes_back_is_found_by_backoff() {
    let own = backend("127.0.0.1:0").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().unwrap();
    let lb = Lookaside::start_on(listener, |b| b);
    let one = backend("127.0.0.1:0").await;
    let (builder, events) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let mut stream = lb.stream().await;
    stream.list(&[Server(one.address, "a")]).await;
    ready(&channel).await;
    stream.end();
    drop(stream);
    lb.stop().await;
    events.wait_for(2, "refused").await;
    let listed = format!("{} a", one.address);
    assert_eq!(shares(&channel, 20).await, [(listed, 20)].into());
    let lb = Lookaside::start_on(TcpListener::bind(address).await.unwrap(), |b| b);
    let stream = lb.stream().await;
    stream.list(&[Server(one.address, "b")]).await;
    let listed = format!("{} b", one.address);
    soon("the new list", async { while call(&channel).await.unwrap() != listed {} }).await;
    assert_eq!(events.count("Fallback("), 0);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_stream_and_not_the_list() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let (builder, events) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let stream = lb.stream().await;
    stream.list(&[Server(one.address, "a")]).await;
    ready(&channel).await;
    let million = vec![Server(one.address, "b"); 1_000_000];
    stream.list(&million).await;
    let lost = events.wait_for(1, "Lost(").await;
    assert!(lost.contains("OutOfRange") && lost.contains("message length too large"), "{lost}");
    let listed = format!("{} a", one.address);
    assert_eq!(shares(&channel, 20).await, [(listed, 20)].into());
    lb.stream().await;
}

#[tokio::test]
async fn a_channel_that_never_counts_says_nothing() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let (builder, _) = to(&own, &[&lb]);
    let channel = builder.build().unwrap();
    channel.connect();
    let mut stream = lb.stream().await;
    stream.list(&[Server(one.address, "a")]).await;
    ready(&channel).await;
    call(&channel).await.unwrap();
    channel.shutdown(Duration::from_secs(5)).await;
    assert_eq!(stream.sums().await, (ClientStats::default(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_report_is_taken_also_when_a_channel_has_hardly_any_grace() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let servers = fleet(3).await;
    // It may be over before or after the backends' connections: that is the scheduler's.
    for round in 0..40 {
        let (builder, _) = to(&own, &[&lb]);
        let channel = builder.build().unwrap();
        channel.connect();
        let mut stream = lb.stream().await;
        stream.initial(60_000).await;
        let list: Vec<_> = servers.iter().map(|server| Server(server.address, "")).collect();
        stream.list(&list).await;
        ready(&channel).await;
        for _ in 0..6 {
            call(&channel).await.unwrap();
        }
        let grace = Duration::from_micros(round * 50);
        // As balancers do: the stream ends when the client has said its last.
        let last = async move { stream.sums().await };
        let ((), (sums, _)) = tokio::join!(channel.shutdown(grace), last);
        let counts = (sums.num_calls_started, sums.num_calls_finished_known_received);
        assert_eq!(counts, (6, 6), "round {round}");
    }
}

#[tokio::test]
async fn without_its_policy_a_balancer_is_not_asked() {
    let own = fleet(1).await.remove(0);
    let lb = Lookaside::start().await;
    let channel =
        Channel::builder(target(&[own.address])).balancers([lb.balancer()]).build().unwrap();
    ready(&channel).await;
    assert_eq!(call(&channel).await.unwrap(), own.address.to_string());
    channel.shutdown(Duration::from_secs(5)).await;
    lb.stop().await;
}

/// A zone in which the greeter has an address of its own, and its balancer is on this port.
async fn zone(own: SocketAddr, lb: SocketAddr) -> Double {
    let dns = Double::start().await;
    dns.set("greeter.test.", Does::Has(60, vec![own.ip()]));
    let service = (0, 0, lb.port(), "lb.test.");
    dns.set("_grpclb._tcp.greeter.test.", Does::Services(60, vec![service]));
    dns.set("lb.test.", Does::Has(60, vec![lb.ip()]));
    dns
}

#[tokio::test]
async fn srv_records_lead_to_the_balancer_for_whoever_configures_grpclb() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let dns = zone(own.address, lb.address).await;
    let target = format!("dns://{}/greeter.test:{}", dns.address, own.address.port());
    let config = r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;
    let by_name = Channel::builder(&target).lb_policy("grpclb");
    let by_config = Channel::builder(&target).service_config(config);
    for builder in [by_name, by_config] {
        let channel = builder.build().unwrap();
        channel.connect();
        let stream = lb.stream().await;
        assert_eq!(stream.name, format!("greeter.test:{}", own.address.port()));
        assert_eq!(stream.authority, "lb.test");
        stream.list(&[Server(one.address, "t")]).await;
        ready(&channel).await;
        assert_eq!(call(&channel).await.unwrap(), format!("{} t", one.address));
    }
    let asked = dns.asked("SRV _grpclb._tcp.greeter.test. udp");
    assert!(asked > 0);
    let channel = Channel::builder(&target).build().unwrap();
    assert_eq!(call(&channel).await.unwrap(), format!("{} ", own.address));
    assert_eq!(dns.asked("SRV _grpclb._tcp.greeter.test. udp"), asked, "nobody else asks");
}

#[tokio::test]
async fn a_name_without_srv_records_is_served_by_its_addresses() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let dns = zone(own.address, lb.address).await;
    let nothing = Does::Code(hickory_resolver::proto::op::ResponseCode::NXDomain);
    for does in [nothing, Does::Silence] {
        dns.set("_grpclb._tcp.greeter.test.", does);
        let target = format!("dns://{}/greeter.test:{}", dns.address, own.address.port());
        let channel = Channel::builder(&target).lb_policy("grpclb").build().unwrap();
        assert_eq!(call(&channel).await.unwrap(), format!("{} ", own.address));
    }
}

#[tokio::test]
async fn a_service_config_in_txt_records_can_ask_for_grpclb() {
    let (own, lb) = (backend("127.0.0.1:0").await, Lookaside::start().await);
    let one = backend("127.0.0.1:0").await;
    let dns = zone(own.address, lb.address).await;
    let config = r#"grpc_config=[{"clientLanguage":["go"],"serviceConfig":{}},{"serviceConfig":
        {"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"round_robin":{}}]}}]}}]"#;
    dns.set("_grpc_config.greeter.test.", Does::Texts(60, vec!["v=spf1 -all", config]));
    let target = format!("dns://{}/greeter.test:{}", dns.address, own.address.port());
    let options = DnsOptions { service_config: true, ..DnsOptions::default() };
    let channel = Channel::builder(&target).dns(options.clone()).build().unwrap();
    channel.connect();
    let stream = lb.stream().await;
    stream.list(&[Server(one.address, "t")]).await;
    ready(&channel).await;
    assert_eq!(shares(&channel, 20).await, [(format!("{} t", one.address), 20)].into());
    // Whoever did not ask for it does not look for it.
    let asked = dns.asked("TXT _grpc_config.greeter.test. udp");
    let channel = Channel::builder(&target).build().unwrap();
    assert_eq!(call(&channel).await.unwrap(), format!("{} ", own.address));
    assert_eq!(dns.asked("TXT _grpc_config.greeter.test. udp"), asked);
    // A bad one fails calls and says why; none, and no answer, leave the channel its own.
    let bad = r#"grpc_config=[{"serviceConfig":{"loadBalancingConfig":[{"p2c":{}}]}}]"#;
    let nothing = Does::Code(hickory_resolver::proto::op::ResponseCode::NXDomain);
    for (does, want) in [
        (Does::Texts(60, vec![bad]), "in the TXT records is refused: loadBalancingConfig"),
        (Does::Texts(60, vec!["v=spf1 -all"]), ""),
        (nothing, ""),
        (Does::Silence, ""),
    ] {
        let dns = zone(own.address, lb.address).await;
        dns.set("_grpc_config.greeter.test.", does.clone());
        let target = format!("dns://{}/greeter.test:{}", dns.address, own.address.port());
        let channel = Channel::builder(&target).dns(options.clone()).build().unwrap();
        match call(&channel).await {
            Ok(met) => assert_eq!((met, want), (format!("{} ", own.address), ""), "{does:?}"),
            Err(status) => {
                assert!(!want.is_empty() && status.message().contains(want), "{status:?}");
            }
        }
    }
}
