//! What every call gets: connect info, its deadline, isolation of panics, limits on its headers.

mod wire;

use std::time::Duration;

use evenkeel_server::{Event, Server};
use tonic::Code;
use wire::{
    Client, Running, SAY_HELLO, finish, hello,
    probe::{PANIC_IN_CALL, STREAM, Step},
    within,
};

#[tokio::test]
async fn a_call_knows_both_addresses_of_its_connection() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.hello("addresses").await.expect("an answer");
    assert_eq!(answer.text(), format!("{} {}", server.address, client.local));
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_waits() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let headers = [("grpc-timeout", "50m")];
    let answer = client.call(SAY_HELLO, &headers, &hello("hold")).await.expect("an answer");
    assert_eq!(answer.grpc_status, Some(Code::DeadlineExceeded as i32));
    server.probe.wait_left().await;
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_has_begun() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    steps.try_send(Step::Data(b"begun")).expect("the call will take it");
    let headers = [("grpc-timeout", "100m")];
    let answer = client.call(STREAM, &headers, &hello("")).await.expect("an answer");
    assert_eq!(&answer.data[..], b"begun");
    assert_eq!(answer.grpc_status, Some(Code::DeadlineExceeded as i32));
    within(steps.closed()).await;
}

#[tokio::test]
async fn a_call_within_its_deadline_is_answered() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.call(SAY_HELLO, &[("grpc-timeout", "10S")], &hello("you")).await;
    assert_eq!(answer.expect("an answer").text(), "Hello you");
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.call(SAY_HELLO, &[("grpc-timeout", "soon")], &hello("you")).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.grpc_status, Some(Code::Internal as i32));
    let message = answer.headers.get("grpc-message").expect("a message");
    assert!(message.to_str().expect("ASCII").contains("soon"), "{message:?}");
}

#[tokio::test]
async fn a_panic_answers_internal_and_leaves_the_other_calls_alone() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;

    let answer = client.hello("panic").await.expect("an answer");
    assert_eq!(answer.grpc_status, Some(Code::Internal as i32));
    let answer = client.call(PANIC_IN_CALL, &[], &hello("")).await.expect("an answer");
    assert_eq!(answer.grpc_status, Some(Code::Internal as i32));

    server.probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_with_internal() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    steps.try_send(Step::Data(b"begun")).expect("the call will take it");
    steps.try_send(Step::Panic).expect("the call will take it");
    let answer = client.call(STREAM, &[], &hello("")).await.expect("an answer");
    assert_eq!(&answer.data[..], b"begun");
    assert_eq!(answer.grpc_status, Some(Code::Internal as i32));
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    let answer = client.call("/no.Service/Method", &[], &hello("")).await.expect("an answer");
    assert_eq!(answer.grpc_status, Some(Code::Unimplemented as i32));
}

#[tokio::test]
async fn a_header_list_over_the_limit_is_refused_alone() {
    let server = Running::start(Server::builder().max_header_list_bytes(2048)).await;
    let mut client = Client::connect(server.address).await;
    let long = "x".repeat(4096);
    let answer = client.call(SAY_HELLO, &[("x-long", &long)], &hello("you")).await;
    assert_eq!(answer.expect("an answer").http_status, 431);
    for _ in 0..3 {
        assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    }
    server.counted(Event::StreamRefused, 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_handler_along() {
    let server = Running::start(Server::builder().drain_delay(Duration::ZERO)).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    drop(held);
    server.probe.wait_left().await;
    let report = server.drain_with(client).await;
    assert_eq!((report.connections_cut, report.streams_cut), (0, 0));
}
