//! Our channel's grpclb policy against our balancer, over sockets: both ends say the same numbers.
//! Other people's clients are in `conformance`.

use std::{net::SocketAddr, time::Duration};

use evenkeel::{Backoff, Channel, ConnectivityState, core::Balancer};
use evenkeel_control::{
    Control,
    config::Config,
    grpclb::{Grpclb, GrpclbSettings},
    names::NameRules,
    status::Status,
};
use evenkeel_server::{Server, ShutdownHandle};
use greeters::RunningGreeter;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Code, service::Routes};

const PATIENCE: Duration = Duration::from_secs(10);

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("within 10 s")
}

/// One that runs.
struct Lookaside {
    control: Control,
    grpclb: Grpclb,
    address: SocketAddr,
    shutdown: ShutdownHandle,
}

impl Lookaside {
    async fn start(yaml: &str) -> Self {
        let control = Control::new(NameRules::default(), Config::default());
        control.configure(&config(yaml));
        let mut settings = GrpclbSettings::default();
        settings.client_stats_interval = Duration::from_millis(100);
        let grpclb = Grpclb::new(control.clone(), settings);
        let routes = Routes::new(grpclb.clone());
        let server = Server::builder().drain_delay(Duration::ZERO).build(routes);
        let server = server.expect("good settings");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shutdown = server.shutdown_handle();
        tokio::spawn(server.serve([listener]));
        Self { control, grpclb, address, shutdown }
    }

    fn balancer(&self) -> Balancer {
        Balancer { address: self.address.into(), name: None }
    }

    fn status(&self) -> Status {
        Status::of(&self.control, &self.grpclb)
    }

    /// Looks until it is so; only looking again tells.
    async fn when(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        within(async {
            loop {
                let status = self.status();
                if is_so(&status) {
                    break status;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn config(yaml: &str) -> Config {
    Config::from_yaml(yaml, "test", "default").expect("good")
}

async fn greeters() -> [RunningGreeter; 2] {
    let one = RunningGreeter::start("one").await.expect("a port");
    [one, RunningGreeter::start("two").await.expect("a port")]
}

/// A service `greeter`, whose alias is what a channel to nowhere asks with.
fn yaml(greeters: &[(&RunningGreeter, u32)], more: &str) -> String {
    let endpoint = |(greeter, weight): &(&RunningGreeter, u32)| {
        format!("{{address: \"{}\", weight: {weight}}}", greeter.address)
    };
    let endpoints = greeters.iter().map(endpoint).collect::<Vec<_>>().join(", ");
    let service = "- name: greeter\n  aliases: [\"127.0.0.1:1\"]";
    format!("services:\n{service}\n  endpoints: [{endpoints}]\n{more}")
}

/// Nobody listens at the target itself, so that falling back would be seen.
fn channel(balancers: &[&Lookaside]) -> Channel {
    Channel::builder("ipv4:127.0.0.1:1")
        .lb_policy("grpclb")
        .balancers(balancers.iter().map(|lookaside| lookaside.balancer()))
        .backoff(Backoff { initial: Duration::from_millis(20), ..Backoff::default() })
        .build()
        .expect("good settings")
}

/// Every greeter of the list is connected, so that the first calls are shared too.
async fn ready(channel: &Channel, greeters: usize) {
    channel.connect();
    let mut state = channel.state();
    while state != ConnectivityState::Ready {
        state = within(channel.wait_for_state_change(state)).await;
    }
    let connected = || {
        let subchannels = channel.snapshot().subchannels;
        subchannels.iter().filter(|one| one.state == ConnectivityState::Ready).count() >= greeters
    };
    within(async {
        while !connected() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn call(channel: &Channel) -> Result<String, tonic::Status> {
    // A call that fails at once never waits, and others have to have their turn.
    tokio::task::yield_now().await;
    let mut client = GreeterClient::new(channel.clone());
    let reply = within(client.say_hello(HelloRequest { name: "you".into() })).await?;
    Ok(reply.into_inner().message)
}

#[tokio::test]
async fn weights_and_drops_are_exact_and_both_ends_count_the_same() {
    let [one, two] = greeters().await;
    let drops = "  drops: [{category: overload, percent: 25}]\n";
    let lookaside = Lookaside::start(&yaml(&[(&one, 1), (&two, 2)], drops)).await;
    let channel = channel(&[&lookaside]);
    ready(&channel, 2).await;
    let (mut ones, mut twos, mut dropped) = (0_u64, 0, 0);
    for _ in 0..1_000 {
        match call(&channel).await {
            Ok(name) if name == "one" => ones += 1,
            Ok(_) => twos += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                assert!(status.message().contains("drop-overload"), "{status}");
                dropped += 1;
            }
        }
    }
    assert_eq!((ones, twos, dropped), (250, 500, 250));
    channel.shutdown(PATIENCE).await;
    let status = lookaside.when(|status| status.clients_total == 0).await;
    let sums = &status.services[0].client_stats;
    assert_eq!((sums.started, sums.finished), (1_000, 1_000));
    assert_eq!((sums.known_received, sums.failed_to_send), (750, 0));
    assert_eq!(sums.dropped["drop-overload"], 250);
    assert_eq!((status.warnings, status.refused), ([].into(), [].into()));
}

#[tokio::test]
async fn a_changed_list_counts_at_once_and_an_empty_one_fails_calls() {
    let [one, two] = greeters().await;
    let lookaside = Lookaside::start(&yaml(&[(&one, 1)], "")).await;
    let channel = channel(&[&lookaside]);
    ready(&channel, 1).await;
    assert_eq!(call(&channel).await.expect("served"), "one");
    lookaside.control.configure(&config(&yaml(&[(&two, 1)], "")));
    within(async { while call(&channel).await.expect("no call fails") != "two" {} }).await;
    lookaside.control.configure(&config(&yaml(&[], "")));
    let failed = within(async {
        loop {
            if let Err(status) = call(&channel).await {
                break status;
            }
        }
    });
    assert_eq!(failed.await.code(), Code::Unavailable);
    lookaside.control.configure(&config(&yaml(&[(&one, 1)], "")));
    within(async { while call(&channel).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_balancer_that_drains_costs_no_call_and_the_other_has_the_client() {
    let [one, two] = greeters().await;
    let list = yaml(&[(&one, 1), (&two, 1)], "");
    let (first, second) = (Lookaside::start(&list).await, Lookaside::start(&list).await);
    let channel = channel(&[&first, &second]);
    ready(&channel, 2).await;
    first.when(|status| status.clients_total == 1).await;
    assert_eq!(second.status().clients_total, 0);
    first.shutdown.drain();
    first.grpclb.end_streams();
    within(async {
        while second.status().clients_total == 0 {
            call(&channel).await.expect("the last list serves on");
        }
    })
    .await;
    for _ in 0..10 {
        call(&channel).await.expect("the new list serves");
    }
    assert_eq!(first.status().clients_total, 0);
}
