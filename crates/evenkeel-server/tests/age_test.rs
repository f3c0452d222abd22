//! The life of a connection: GOAWAY at its age, what survives it, what ends it.

mod wire;

use std::time::{Duration, Instant};

use evenkeel_server::Server;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use wire::{
    Client, Running, SAY_HELLO, finish,
    frames::{self, Frames},
    hello,
    probe::{STREAM, Step},
    within,
};

/// Long enough to send a call before it, on a busy machine too.
const AGE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_connection_ends_without_error_at_its_age() {
    let server = Running::start(Server::builder().max_connection_age(AGE).seed(1)).await;
    let started = Instant::now();
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    client.ended().await.expect("GOAWAY with NO_ERROR");
    assert!(started.elapsed() >= AGE.mul_f64(0.9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_call_in_flight_survives_the_age() {
    let server = Running::start(Server::builder().max_connection_age(AGE)).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    client.refuses_calls().await;
    server.probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn a_streaming_response_keeps_its_connection_until_it_ends() {
    let server = Running::start(Server::builder().max_connection_age(AGE)).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    let response = client.start(STREAM, &[], &hello("")).await.expect("sent");
    // The handler's future is done: only the body is left.
    let (_, mut body) = within(response).await.expect("headers").into_parts();
    client.refuses_calls().await;
    steps.try_send(Step::Data(b"still here")).expect("the stream lives");
    let data = within(body.data()).await.expect("data").expect("no error");
    assert_eq!(&data[..], b"still here");
    steps.try_send(Step::End).expect("the stream lives");
    assert!(within(body.data()).await.is_none());
    let trailers = within(body.trailers()).await.expect("no error").expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn the_grace_cuts_a_call_that_takes_too_long() {
    let builder = Server::builder().max_connection_age(AGE).max_connection_age_grace(AGE);
    let server = Running::start(builder).await;
    let started = Instant::now();
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    finish(held).await.expect_err("the connection was closed");
    assert!(started.elapsed() >= AGE.mul_f64(1.9), "{:?}", started.elapsed());
    server.probe.wait_left().await;
}

#[tokio::test]
async fn a_stream_opened_before_the_client_saw_goaway_is_served() {
    let server = Running::start(Server::builder().max_connection_age(AGE)).await;
    let mut client = Frames::connect(server.address).await;
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(0), u32::MAX >> 1, "the first GOAWAY lets every stream in");
    assert_eq!(goaway.number(4), 0, "NO_ERROR");
    let ping = client.find(frames::PING, 0, |frame| frame.flags & frames::ACK == 0).await;

    // To the server this looks like a call that crossed its GOAWAY on the wire.
    client.send(&frames::request_headers(1)).await;
    client.send(&frames::request_data(1, "you")).await;
    let reply = client.find(frames::DATA, 1, |_| true).await;
    assert!(reply.payload.ends_with(b"Hello you"), "{reply:?}");
    let ended = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
    client.find(frames::HEADERS, 1, ended).await;

    client.send(&frames::frame(frames::PING, frames::ACK, 0, &ping.payload)).await;
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(0), 1, "the second GOAWAY names the last stream");
    assert!(client.next().await.is_none(), "then the connection ends");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let server = Running::start(Server::builder().handshake_timeout(AGE)).await;
    let mut socket = TcpStream::connect(server.address).await.expect("a connection");
    let mut received = Vec::new();
    within(socket.read_to_end(&mut received)).await.expect("the server's settings, then the end");
}

#[tokio::test]
async fn the_limits_are_announced() {
    let builder = Server::builder().max_concurrent_streams(7).max_header_list_bytes(4321);
    let server = Running::start(builder).await;
    let mut client = Frames::connect(server.address).await;
    let settings = client.find(frames::SETTINGS, 0, |_| true).await.settings();
    assert!(settings.contains(&(3, 7)), "MAX_CONCURRENT_STREAMS in {settings:?}");
    assert!(settings.contains(&(6, 4321)), "MAX_HEADER_LIST_SIZE in {settings:?}");
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let server = Running::start(Server::builder().max_pending_resets(5)).await;
    let mut client = Frames::connect(server.address).await;
    let mut flood = Vec::new();
    for stream in (1..200).step_by(2) {
        flood.extend(frames::request_headers(stream));
        let cancel = 8_u32.to_be_bytes();
        flood.extend(frames::frame(frames::RST_STREAM, 0, stream, &cancel));
    }
    client.send(&flood).await;
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(4), 11, "ENHANCE_YOUR_CALM");
}
