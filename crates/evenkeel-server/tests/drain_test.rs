//! The drain: its order, what it waits for, what it reports; and what is left of a dropped server.

mod wire;

use std::time::{Duration, Instant};

use evenkeel_server::{ServeError, Server};
use prost::Message as _;
use tonic::service::Routes;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use wire::{BoxError, Client, Running, SAY_HELLO, finish, hello, probe::STREAM, within};

const GREETER: &str = "helloworld.Greeter";
/// Waited for in full.
const SHORT: Duration = Duration::from_millis(500);
/// Never waited for.
const LONG: Duration = Duration::from_secs(3600);

async fn health(client: &mut Client, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = client.call("/grpc.health.v1.Health/Check", &[], &request).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.grpc_status, Some(0));
    HealthCheckResponse::decode(&answer.data[5..]).expect("a response").status()
}

#[tokio::test]
async fn health_says_not_serving_while_calls_and_connections_are_still_taken() {
    let server = Running::start(Server::builder().health([GREETER]).drain_delay(LONG)).await;
    let mut client = Client::connect(server.address).await;
    for service in ["", GREETER] {
        assert_eq!(health(&mut client, service).await, ServingStatus::Serving);
    }
    server.shutdown.drain();
    within(async { while health(&mut client, GREETER).await == ServingStatus::Serving {} }).await;
    assert_eq!(health(&mut client, "").await, ServingStatus::NotServing);
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    let mut late = Client::connect(server.address).await;
    assert_eq!(late.hello("late").await.expect("an answer").text(), "Hello late");
}

#[tokio::test]
async fn after_the_delay_connections_get_goaway_and_nobody_listens() {
    let server = Running::start(Server::builder().drain_delay(SHORT)).await;
    let mut clients =
        [Client::connect(server.address).await, Client::connect(server.address).await];
    for client in &mut clients {
        assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    }
    let asked = Instant::now();
    server.shutdown.drain();
    for client in clients {
        client.ended().await.expect("GOAWAY with NO_ERROR");
    }
    assert!(asked.elapsed() >= SHORT);
    let address = server.address;
    let report = server.report().await;
    assert_eq!((report.connections, report.connections_cut, report.streams_cut), (2, 0, 0));
    assert!(Client::try_connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_running_call_ends_before_the_drain_does() {
    let server = Running::start(Server::builder().drain_delay(Duration::ZERO)).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    server.shutdown.drain();
    client.refuses_calls().await;
    assert!(!server.task.is_finished());
    server.probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    assert_eq!(server.drain_with(client).await.connections_cut, 0);
}

#[tokio::test]
async fn the_report_counts_what_the_grace_cut() {
    let builder = Server::builder().drain_delay(Duration::ZERO).drain_grace(SHORT);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    let mut other = Client::connect(server.address).await;
    let mut idle = Client::connect(server.address).await;
    assert_eq!(idle.hello("you").await.expect("an answer").text(), "Hello you");
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    // Its handler is done; the response body alone must count as a running call.
    let _steps = server.probe.stream();
    let stream = other.start(STREAM, &[], &hello("")).await.expect("sent");
    let (_, mut body) = within(stream).await.expect("headers").into_parts();

    let report = server.drain().await;
    assert_eq!(report.connections, 3);
    assert_eq!((report.connections_cut, report.streams_cut), (2, 2));
    assert!(report.took >= SHORT);
    finish(held).await.expect_err("cut");
    within(body.data()).await.expect("an error").expect_err("cut");
}

#[tokio::test]
async fn a_health_watch_does_not_hold_the_drain() {
    let server =
        Running::start(Server::builder().health([GREETER]).drain_delay(Duration::ZERO)).await;
    let mut client = Client::connect(server.address).await;
    let request = HealthCheckRequest { service: GREETER.to_owned() };
    let watch = client.start("/grpc.health.v1.Health/Watch", &[], &request).await.expect("sent");
    let (_, mut body) = within(watch).await.expect("headers").into_parts();
    within(body.data()).await.expect("the first status").expect("no error");
    let report = server.drain_with(client).await;
    assert_eq!((report.connections_cut, report.streams_cut), (0, 0));
}

#[tokio::test]
async fn health_can_be_set_until_the_drain_starts() {
    let builder = Server::builder().health([GREETER]).drain_delay(LONG);
    let server = Running::start(builder).await;
    let handle = server.health.clone().expect("asked for");
    let mut client = Client::connect(server.address).await;
    handle.set(GREETER, false).await;
    assert_eq!(health(&mut client, GREETER).await, ServingStatus::NotServing);
    assert_eq!(health(&mut client, "").await, ServingStatus::Serving);
    server.shutdown.drain();
    within(async { while health(&mut client, "").await == ServingStatus::Serving {} }).await;
    handle.set(GREETER, true).await;
    assert_eq!(health(&mut client, GREETER).await, ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_knows_the_services() {
    let builder = Server::builder().reflection([helloworld::FILE_DESCRIPTOR_SET]);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
    };
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer = client.call(&path, &[], &list).await.expect("an answer");
        let found = answer.data.windows(GREETER.len()).any(|part| part == GREETER.as_bytes());
        assert!(found, "{version}: {answer:?}");
    }
}

#[tokio::test]
async fn a_dropped_server_leaves_no_task() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let server = Running::start(Server::builder().health([GREETER])).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    let _steps = server.probe.stream();
    let stream = client.start(STREAM, &[], &hello("")).await.expect("sent");
    let (_, mut body) = within(stream).await.expect("headers").into_parts();
    assert!(tasks() > before + 3, "server, connection, two calls, client");

    server.task.abort();
    finish(held).await.expect_err("the server is gone");
    within(body.data()).await.expect("an error").expect_err("the server is gone");
    server.probe.wait_left().await;
    drop(body);
    client.close().await;
    within(async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_serve_on() {
    let server = Running::start(Server::builder().max_connections(1)).await;
    let mut first = Client::connect(server.address).await;
    assert_eq!(first.hello("you").await.expect("an answer").text(), "Hello you");
    let second = async {
        let mut client = Client::try_connect(server.address).await?;
        Ok::<_, BoxError>(client.hello("you").await?)
    };
    second.await.expect_err("closed");
    assert_eq!(first.hello("you").await.expect("an answer").text(), "Hello you");
    first.close().await;
    within(async {
        loop {
            let Ok(mut third) = Client::try_connect(server.address).await else { continue };
            if third.hello("you").await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_without_listener_is_refused() {
    let server = Server::builder().build(Routes::default()).expect("good settings");
    let error = within(server.serve([])).await.expect_err("no listener");
    assert!(matches!(error, ServeError::NoListener), "{error}");
}

#[tokio::test]
async fn every_listener_is_served() {
    let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
    let (one, two) = (bind().await.expect("a port"), bind().await.expect("a port"));
    let addresses = [&one, &two].map(|listener| listener.local_addr().expect("bound"));
    let routes = wire::probe::Probe::default().routes();
    let server = Server::builder().drain_delay(Duration::ZERO).build(routes).expect("good");
    let shutdown = server.shutdown_handle();
    let task = tokio::spawn(server.serve([one, two]));
    for address in addresses {
        let mut client = Client::connect(address).await;
        let answer = client.hello("addresses").await.expect("an answer");
        assert!(answer.text().starts_with(&address.to_string()));
    }
    shutdown.drain();
    within(task).await.expect("no panic").expect("drained");
}
