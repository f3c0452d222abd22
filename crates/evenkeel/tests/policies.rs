//! Who gets the calls: policies and resolvers, built in and of a user's own, and what a change of
//! the resolver's list does to connections.

mod fixture;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use evenkeel::{Backend, BuildError, Channel, ChannelBuilder, ConnectivityState};
use fixture::{
    bytes::{hello, unary},
    events::Events,
    frames::Frames,
    keyed::{Keyed, Standby},
    manual::{Manual, Says},
    peer::Peer,
    soon,
};
use tokio::sync::watch;
use tonic::{Code, Request};

/// A server that answers; it ends all its connections when it is told to.
async fn well() -> (Peer, watch::Sender<bool>) {
    let (end, ending) = watch::channel(false);
    let peer = Peer::start(move |_, socket| {
        let mut ending = ending.clone();
        async move {
            let frames = Frames::greet(socket, &[]).await;
            tokio::select! {
                () = frames.answer_all(b"well") => {}
                Ok(_) = ending.wait_for(|end| *end) => {}
            }
        }
    })
    .await;
    (peer, end)
}

/// The address that served a call.
async fn served_by(channel: &Channel, key: Option<&str>) -> SocketAddr {
    let mut request = Request::new(Bytes::from_static(b"hello"));
    if let Some(key) = key {
        request.metadata_mut().insert("key", key.parse().unwrap());
    }
    let response = soon("an answer", unary(channel, request)).await.unwrap();
    let backend = response.extensions().get::<Backend>().unwrap();
    backend.address.to_string().parse().unwrap()
}

fn noting(builder: ChannelBuilder) -> (Channel, Events) {
    let events = Events::default();
    (builder.recorder(events.recorder()).build().unwrap(), events)
}

async fn all_ready(events: &Events, peers: &[&Peer]) {
    for peer in peers {
        events.wait_for(1, &format!("{} READY", peer.address)).await;
    }
}

#[tokio::test]
async fn pick_first_stays_with_the_first_and_goes_on_to_the_second() {
    let ((one, end_one), (two, _end_two)) = (well().await, well().await);
    let target = fixture::target(&[one.address, two.address]);
    let (channel, events) = noting(Channel::builder(target).lb_policy("pick_first"));
    for _ in 0..20 {
        assert_eq!(served_by(&channel, None).await, one.address);
    }
    assert_eq!((one.accepts(), two.accepts()), (1, 0));

    // Its connection lost, the channel is IDLE until the next call wants one.
    let first = one.address;
    end_one.send_replace(true);
    fixture::in_state(&channel, ConnectivityState::Idle).await;
    assert!(events.list().last().unwrap().contains("IDLE"), "{:?}", events.list());
    drop(one);
    // Nobody listens there any more once its task has ended, which the next call may outrun.
    let mut next = first;
    while next == first {
        next = match soon("an end", hello(&channel)).await {
            Ok(_) => served_by(&channel, None).await,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                next
            }
        };
    }
    for _ in 0..20 {
        assert_eq!(served_by(&channel, None).await, two.address);
    }
    assert_eq!(two.accepts(), 1);
}

#[tokio::test]
async fn connecting_leaves_idle_without_a_call() {
    let (peer, end) = well().await;
    let (channel, events) = noting(Channel::builder(peer.target()).lb_policy("pick_first"));
    fixture::ready(&channel).await;
    end.send_replace(true);
    fixture::in_state(&channel, ConnectivityState::Idle).await;
    assert_eq!(peer.accepts(), 1, "{:?}", events.list());
    end.send_replace(false);
    fixture::ready(&channel).await;
    assert_eq!(served_by(&channel, None).await, peer.address);
    assert_eq!(peer.accepts(), 2);
}

#[tokio::test]
async fn round_robin_goes_round_what_is_ready_and_reconnects_by_itself() {
    let ((one, end_one), (two, _), (three, _)) = (well().await, well().await, well().await);
    let target = fixture::target(&[one.address, two.address, three.address]);
    let (channel, events) = noting(Channel::builder(target));
    channel.connect();
    all_ready(&events, &[&one, &two, &three]).await;
    let mut shares = BTreeMap::new();
    for _ in 0..30 {
        *shares.entry(served_by(&channel, None).await).or_insert(0) += 1;
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    end_one.send_replace(true);
    events.wait_for(1, "ended").await;
    end_one.send_replace(false);
    // Without a call.
    one.accepted(2).await;
    assert_eq!(channel.state(), ConnectivityState::Ready);
}

#[tokio::test]
async fn new_list_keeps_the_connections_that_it_still_names() {
    let ((one, _), (two, _), (three, _)) = (well().await, well().await, well().await);
    let manual = Manual::new(Says::Addresses(vec![one.address, two.address]));
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let (channel, events) = noting(builder);
    channel.connect();
    all_ready(&events, &[&one, &two]).await;
    // Calls go on all the time; none of them may fail.
    let (stop, stopped) = watch::channel(false);
    let caller = tokio::spawn({
        let channel = channel.clone();
        async move {
            let mut count = 0;
            while !*stopped.borrow() {
                served_by(&channel, None).await;
                count += 1;
            }
            count
        }
    });
    // In another order and twice, which changes nothing.
    let list = [two.address, one.address, two.address].to_vec();
    manual.say(Says::Addresses(list));
    events.wait_for(2, "resolved").await;
    manual.say(Says::Addresses(vec![two.address, three.address]));
    all_ready(&events, &[&three]).await;
    events.wait_for(1, &format!("{} ended with", one.address)).await;
    let mut served = BTreeSet::new();
    for _ in 0..10 {
        served.insert(served_by(&channel, None).await);
    }
    assert_eq!(served, BTreeSet::from([two.address, three.address]));
    // Empty is a list too: calls fail at once, and all connections go.
    stop.send_replace(true);
    assert!(soon("the caller", caller).await.unwrap() > 0);
    manual.say(Says::Addresses(Vec::new()));
    fixture::in_state(&channel, ConnectivityState::TransientFailure).await;
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert!(status.message().contains("the resolver found no endpoints"), "{status}");
    events.wait_for(3, "ended with 0: no longer used").await;
    assert_eq!((one.accepts(), two.accepts(), three.accepts()), (1, 1, 1));
    // And back.
    manual.say(Says::Addresses(vec![one.address]));
    fixture::in_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(served_by(&channel, None).await, one.address);
}

#[tokio::test]
async fn resolvers_error_does_not_take_the_endpoints_away() {
    let (peer, _end) = well().await;
    let manual = Manual::new(Says::Addresses(vec![peer.address]));
    let builder = Channel::builder("manual:///x").register_resolver(manual.factory());
    let (channel, events) = noting(builder);
    fixture::ready(&channel).await;
    manual.say(Says::Error("SERVFAIL".into()));
    assert_eq!(events.wait_for(1, "resolver error").await, "resolver error: SERVFAIL");
    assert_eq!(served_by(&channel, None).await, peer.address);
    assert_eq!(peer.accepts(), 1);
}

#[tokio::test]
async fn own_policy_sends_each_call_where_its_key_says() {
    let ((one, _), (two, _)) = (well().await, well().await);
    let target = fixture::target(&[one.address, two.address]);
    let config = r#"{"loadBalancingConfig":[{"unheard_of":{}},{"keyed":{}}]}"#;
    let builder = Channel::builder(&target);
    let (channel, events) = noting(builder.register_policy(Arc::new(Keyed)).service_config(config));
    channel.connect();
    all_ready(&events, &[&one, &two]).await;
    for (key, peer) in [("0", &one), ("1", &two), ("1", &two), ("0", &one)] {
        assert_eq!(served_by(&channel, Some(key)).await, peer.address);
    }
    let status = soon("an error", hello(&channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let text = format!("target {target}: the call's key names no endpoint");
    assert_eq!(status.message(), text);

    // Another channel of the same process does not know it.
    let error = Channel::builder(&target).lb_policy("keyed").build().unwrap_err();
    assert!(matches!(error, BuildError::ServiceConfig(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("a policy among grpclb, pick_first, round_robin"), "{text}");
    let error = Channel::builder("manual:///x").build().unwrap_err().to_string();
    assert!(error.contains("no resolver for the scheme \"manual\""), "{error}");
}

#[tokio::test]
async fn connection_that_no_picker_names_closes_when_its_policy_lets_go_of_it() {
    let ((one, _), (two, _)) = (well().await, well().await);
    let manual = Manual::new(Says::Addresses(vec![one.address, two.address]));
    let builder = Channel::builder("manual:///x")
        .register_resolver(manual.factory())
        .register_policy(Arc::new(Standby))
        .lb_policy("standby");
    let (channel, events) = noting(builder);
    channel.connect();
    all_ready(&events, &[&one, &two]).await;
    assert_eq!(served_by(&channel, None).await, one.address);
    // The policy publishes nothing, as its picker stays as it is.
    manual.say(Says::Addresses(vec![one.address]));
    let end = events.wait_for(1, "ended").await;
    assert_eq!(end, format!("{} ended with 0: no longer used", two.address));
    assert_eq!(served_by(&channel, None).await, one.address);
}

#[tokio::test]
async fn bad_settings_are_refused_with_field_value_and_range() {
    let builder = || Channel::builder("ipv4:127.0.0.1:1");
    let config = |json: &str| builder().service_config(json);
    let backoff = |change: fn(&mut evenkeel::Backoff)| {
        let mut backoff = evenkeel::Backoff::default();
        change(&mut backoff);
        builder().backoff(backoff)
    };
    let cases = [
        (config("{"), "service config: (whole text): expected JSON"),
        (config("7"), "expected a JSON object, got 7"),
        (
            config(r#"{"loadBalancingConfig":[{"least_request":{}}]}"#),
            "loadBalancingConfig: expected a policy among grpclb, pick_first, round_robin, got [{\
             \"least",
        ),
        (
            config(r#"{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":1}}]}"#),
            "loadBalancingConfig[0].pick_first.shuffleAddressList: expected true or false, got 1",
        ),
        (builder().lb_policy("p2c"), "expected a policy among"),
        (Channel::builder(""), "it is empty; expected e.g. dns:///greeter.default:8000"),
        (Channel::builder("xds:///greeter"), "no resolver for the scheme \"xds\""),
        (Channel::builder("ipv4:greeter:80"), "\"greeter\" is not an IP address"),
        (builder().authority("a b"), "authority: expected host[:port], got \"a b\""),
        (builder().user_agent("\n"), "user agent: expected visible ASCII"),
        (builder().connect_timeout(std::time::Duration::ZERO), "connect timeout: expected more"),
        (backoff(|b| b.multiplier = 0.5), "backoff multiplier: expected 1 or more, got 0.5"),
        (backoff(|b| b.multiplier = f64::NAN), "backoff multiplier: expected 1 or more, got NaN"),
        (backoff(|b| b.jitter = 2.0), "backoff jitter: expected 0 to 1, got 2"),
        (backoff(|b| b.max = std::time::Duration::ZERO), "expected 0 < initial ≤ max, got 1s"),
    ];
    for (builder, expected) in cases {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
    // A config without a policy leaves the choice to the other setting.
    assert!(config("{}").lb_policy("pick_first").build().is_ok());
    let error = config("{}").lb_policy("p2c").build().unwrap_err().to_string();
    assert!(error.contains("expected a policy among"), "{error}");
}

#[test]
fn channel_needs_a_runtime() {
    let error = Channel::builder("ipv4:127.0.0.1:1").build().unwrap_err();
    assert!(matches!(error, BuildError::NoRuntime));
    assert!(error.to_string().contains("ChannelBuilder::runtime"), "{error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let builder = Channel::builder("ipv4:127.0.0.1:1").runtime(runtime.handle().clone());
    assert!(builder.build().is_ok());
}
