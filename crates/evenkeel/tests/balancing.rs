//! The channel over real greeters: who gets the calls, and that polite ends cost none.

mod fixture;

use std::{collections::BTreeMap, time::Duration};

use evenkeel::Channel;
use fixture::{Backend, fleet, ready, soon, target};
use helloworld::{HelloRequest, greeter_client::GreeterClient};

async fn hello(client: &mut GreeterClient<Channel>) -> Result<String, tonic::Status> {
    let request = HelloRequest { name: "you".into() };
    soon("an answer", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

#[tokio::test]
async fn round_robin_is_exact_over_three_backends() {
    let backends = fleet(3).await;
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let channel = Channel::builder(target(&addresses)).build().unwrap();
    let mut client = GreeterClient::new(channel.clone());
    let mut first = std::collections::BTreeSet::new();
    while first.len() < 3 {
        first.insert(hello(&mut client).await.unwrap());
    }
    let mut shares = BTreeMap::new();
    for _ in 0..300 {
        *shares.entry(hello(&mut client).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [100, 100, 100]);
    for backend in backends {
        backend.stop().await;
    }
}

#[tokio::test]
async fn no_call_is_lost_to_connection_age() {
    let age = Duration::from_millis(150);
    let mut backends = Vec::new();
    for _ in 0..3 {
        let tune = |b: evenkeel_server::Builder| b.max_connection_age(age);
        backends.push(Backend::start(Duration::from_millis(2), tune).await);
    }
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let channel = Channel::builder(target(&addresses)).build().unwrap();
    ready(&channel).await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut client = GreeterClient::new(channel.clone());
        callers.push(tokio::spawn(async move {
            for _ in 0..400 {
                hello(&mut client).await.unwrap();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    for backend in backends {
        backend.stop().await;
    }
}
