//! The policy in a channel, over real greeters: where calls go, what moves when a backend leaves,
//! and what callers hear when there is none.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use evenkeel::{BuildError, Channel};
use greeters::RunningGreeter;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

const CONFIG: &str = r#"{"loadBalancingConfig": [{"sticky": {"header": "x-session"}}]}"#;
const PATIENCE: Duration = Duration::from_secs(10);

async fn soon<F: Future>(what: &str, f: F) -> F::Output {
    timeout(PATIENCE, f).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

fn build(target: String, config: &str) -> Result<Channel, BuildError> {
    let builder = Channel::builder(target).register_policy(Arc::new(own_policy::Factory));
    builder.service_config(config).build()
}

async fn call(client: &mut GreeterClient<Channel>, session: &str) -> Result<String, Status> {
    let mut request = Request::new(HelloRequest { name: session.to_owned() });
    if !session.is_empty() {
        request.metadata_mut().insert("x-session", session.parse().expect("ASCII"));
    }
    soon("an answer", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

/// Where each of the sessions goes.
async fn homes(client: &mut GreeterClient<Channel>) -> BTreeMap<String, String> {
    let mut homes = BTreeMap::new();
    for n in 0..60 {
        let session = format!("session-{n}");
        let home = call(client, &session).await.expect("an answer");
        homes.insert(session, home);
    }
    homes
}

/// Calls without a session, until each of these has answered.
async fn all_answer(client: &mut GreeterClient<Channel>, backends: &[RunningGreeter]) {
    let mut missing: Vec<&str> = backends.iter().map(|b| b.name.as_str()).collect();
    soon("every backend", async {
        while !missing.is_empty() {
            let name = call(client, "").await.expect("an answer");
            missing.retain(|m| *m != name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_stays_and_only_those_of_a_lost_backend_move() {
    let mut backends = greeters::start(3).await.expect("free ports");
    let target = format!("ipv4:{}", greeters::addresses(&backends));
    let mut client = GreeterClient::new(build(target.clone(), CONFIG).expect("a valid config"));
    all_answer(&mut client, &backends).await;
    let before = homes(&mut client).await;
    assert_eq!(before, homes(&mut client).await, "the second time as the first");
    for backend in &backends {
        assert!(before.values().any(|home| *home == backend.name), "{} has none", backend.name);
    }

    let mut other = GreeterClient::new(build(target, CONFIG).expect("a valid config"));
    all_answer(&mut other, &backends).await;
    assert_eq!(before, homes(&mut other).await, "a second client chooses alike");

    let lost = backends.pop().expect("three were started");
    let name = lost.name.clone();
    soon("the end of one", lost.stop()).await.expect("it served");
    let after = homes(&mut client).await;
    for (session, home) in &before {
        if *home == name {
            assert_ne!(after[session], name, "{session} moved");
        } else {
            assert_eq!(after[session], *home, "{session} had no reason to move");
        }
    }
    for backend in backends {
        soon("the end of one", backend.stop()).await.expect("it served");
    }
}

#[tokio::test]
async fn without_any_backend_calls_fail_and_say_why() {
    let gone = greeters::start(1).await.expect("a free port");
    let address = greeters::addresses(&gone);
    for backend in gone {
        soon("its end", backend.stop()).await.expect("it served");
    }
    let channel = build(format!("ipv4:{address}"), CONFIG).expect("a valid config");
    let error = call(&mut GreeterClient::new(channel), "ada").await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("none of 1 endpoints"), "{}", error.message());
    assert!(error.message().contains(&address), "{}", error.message());
}

#[tokio::test]
async fn a_config_without_a_header_is_refused() {
    for settings in [r#"{}"#, r#"{"header": 7}"#, r#"{"header": "two words"}"#] {
        let config = format!(r#"{{"loadBalancingConfig": [{{"sticky": {settings}}}]}}"#);
        let error = build("ipv4:127.0.0.1:1".to_owned(), &config).expect_err("a bad setting");
        assert!(error.to_string().contains("sticky.header"), "{error}");
        assert!(error.to_string().contains("a header's name"), "{error}");
    }
}
