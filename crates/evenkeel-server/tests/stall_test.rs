//! Clients that do nothing: idle connections, frames that never end, windows that never open,
//! sockets that nobody reads. None may hold the server's memory or connections for ever.

mod wire;

use std::time::{Duration, Instant};

use evenkeel_server::{Event, Server};
use wire::{
    Client, Running, SAY_HELLO, finish,
    frames::{self, Frames},
    hello,
    probe::{STREAM, Step},
    within,
};

/// Waited for in full.
const SHORT: Duration = Duration::from_millis(300);
/// Never waited for.
const LONG: Duration = Duration::from_secs(3600);
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;
/// No response fits into the kernel's buffers and this.
const BIG_BYTES: usize = 8 * 1024 * 1024;

#[tokio::test]
async fn an_idle_connection_gets_goaway_and_a_busy_one_does_not() {
    let server = Running::start(Server::builder().max_connection_idle(SHORT)).await;
    let mut busy = Client::connect(server.address).await;
    let held = busy.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(server.address).await;
        // The server counts from the end of the call, which comes after this.
        let called = Instant::now();
        assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
        clients.push((called, client));
    }
    for (called, client) in clients {
        client.ended().await.expect("GOAWAY with NO_ERROR");
        assert!(called.elapsed() >= SHORT, "{:?}", called.elapsed());
    }
    server.counted(Event::ConnectionIdle, 100).await;

    let released = Instant::now();
    server.probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    busy.ended().await.expect("GOAWAY with NO_ERROR, now that it is idle");
    assert!(released.elapsed() >= SHORT, "{:?}", released.elapsed());
    server.counted(Event::ConnectionEnded, 101).await;
}

#[tokio::test]
async fn a_response_that_still_streams_is_not_idle() {
    let server = Running::start(Server::builder().max_connection_idle(SHORT)).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    let response = client.start(STREAM, &[], &hello("")).await.expect("sent");
    let (_, mut body) = within(response).await.expect("headers").into_parts();
    // Idle connections that begin after it end before it: the stream outlives the limit.
    for _ in 0..2 {
        Client::connect(server.address).await.ended().await.expect("GOAWAY with NO_ERROR");
    }
    assert_eq!(client.hello("you").await.expect("it takes calls").text(), "Hello you");
    steps.try_send(Step::End).expect("the stream lives");
    assert!(within(body.data()).await.is_none());
    drop(body);
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn idle_connections_may_live_for_ever() {
    let builder = Server::builder().max_connection_idle(None).handshake_timeout(SHORT);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    // The silent one shows that the time has passed.
    let mut silent = tokio::net::TcpStream::connect(server.address).await.expect("connected");
    let mut received = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut received);
    within(read).await.expect("settings, then the end");
    server.counted(Event::HandshakeTimeout, 1).await;
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    assert_eq!(server.stats.count(Event::ConnectionIdle), 0);
}

#[tokio::test]
async fn a_flood_of_connections_is_refused_and_counted() {
    let server = Running::start(Server::builder().max_connections(10)).await;
    let mut good = Client::connect(server.address).await;
    assert_eq!(good.hello("you").await.expect("an answer").text(), "Hello you");
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(within(tokio::net::TcpStream::connect(server.address)).await.expect("TCP"));
    }
    server.counted(Event::ConnectionRefused, 191).await;
    server.counted(Event::ConnectionAccepted, 10).await;
    assert_eq!(good.hello("you").await.expect("an answer").text(), "Hello you");
    drop(flood);
    server.counted(Event::ConnectionEnded, 9).await;
    let mut late = Client::connect(server.address).await;
    assert_eq!(late.hello("late").await.expect("an answer").text(), "Hello late");
}

#[tokio::test]
async fn a_header_block_that_comes_byte_by_byte_is_cut() {
    let server = Running::start(Server::builder().handshake_timeout(SHORT)).await;
    let mut client = Frames::connect(server.address).await;
    let started = Instant::now();
    let block = frames::request_headers(1).repeat(100);
    // Progress by bytes is none: the frame does not end.
    let trickle = async {
        for byte in block {
            if tokio::io::AsyncWriteExt::write_all(&mut client.socket, &[byte]).await.is_err() {
                break;
            }
            // The attack is to be slow.
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    within(async {
        tokio::select! {
            () = trickle => {}
            () = server.counted(Event::FrameStalled, 1) => {}
        }
    })
    .await;
    server.counted(Event::FrameStalled, 1).await;
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(4), 11, "ENHANCE_YOUR_CALM");
    assert_eq!(&goaway.payload[8..], b"frame_timeout");
    server.counted(Event::ConnectionEnded, 1).await;
}

#[tokio::test]
async fn a_header_block_without_end_is_cut() {
    let server = Running::start(Server::builder().handshake_timeout(SHORT)).await;
    let mut client = Frames::connect(server.address).await;
    client.send(&frames::frame(frames::HEADERS, 0, 1, &frames::request_block())).await;
    client.find(frames::GOAWAY, 0, |frame| frame.number(4) == 11).await;
    server.counted(Event::FrameStalled, 1).await;
}

/// A connection that gives no stream any window.
async fn without_window(server: &Running) -> Frames {
    Frames::connect_with(server.address, &[(INITIAL_WINDOW, 0)]).await
}

#[tokio::test]
async fn responses_without_window_are_reset_and_their_connection_lives() {
    let server = Running::start(Server::builder().max_response_stall(SHORT)).await;
    let mut client = without_window(&server).await;
    let started = Instant::now();
    for stream in [1, 3, 5] {
        client.send(&frames::request_headers(stream)).await;
        client.send(&frames::request_data(stream, "you")).await;
    }
    for stream in [1, 3, 5] {
        let reset = client.find(frames::RST_STREAM, stream, |_| true).await;
        assert_eq!(reset.number(0), 8, "CANCEL");
    }
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    server.counted(Event::ResponseStalled, 3).await;

    // With window the connection serves on, however slowly it comes.
    client.send(&frames::request_headers(7)).await;
    client.send(&frames::request_data(7, "you")).await;
    client.find(frames::HEADERS, 7, |_| true).await;
    client.send(&frames::frame(frames::WINDOW_UPDATE, 0, 7, &100_u32.to_be_bytes())).await;
    let reply = client.find(frames::DATA, 7, |_| true).await;
    assert!(reply.payload.ends_with(b"Hello you"), "{reply:?}");
    let ended = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
    client.find(frames::HEADERS, 7, ended).await;
    server.counted(Event::ResponseStalled, 3).await;
}

#[tokio::test]
async fn a_window_of_one_byte_does_not_hold_a_large_response() {
    let server = Running::start(Server::builder().max_response_stall(SHORT)).await;
    let mut client = Frames::connect_with(server.address, &[(INITIAL_WINDOW, 1)]).await;
    client.send(&frames::request_headers(1)).await;
    client.send(&frames::request_data(1, &format!("big {BIG_BYTES}"))).await;
    let reset = client.find(frames::RST_STREAM, 1, |_| true).await;
    assert_eq!(reset.number(0), 8, "CANCEL");
    server.counted(Event::ResponseStalled, 1).await;
    // The connection lives.
    client.send(&frames::request_headers(3)).await;
    client.send(&frames::frame(frames::WINDOW_UPDATE, 0, 3, &100_u32.to_be_bytes())).await;
    client.send(&frames::request_data(3, "you")).await;
    let ended = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
    client.find(frames::HEADERS, 3, ended).await;
}

#[tokio::test]
async fn a_window_of_one_byte_does_not_hold_small_responses() {
    let server = Running::start(Server::builder().max_response_stall(SHORT)).await;
    let mut client = Frames::connect_with(server.address, &[(INITIAL_WINDOW, 1)]).await;
    let started = Instant::now();
    for stream in [1, 3, 5] {
        client.send(&frames::request_headers(stream)).await;
        client.send(&frames::request_data(stream, "you")).await;
    }
    // Their handlers are done and their tasks, too: all of it waits inside h2.
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(4), 11, "ENHANCE_YOUR_CALM");
    assert_eq!(&goaway.payload[8..], b"response_timeout");
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    server.counted(Event::ResponseStalled, 1).await;
    server.counted(Event::ConnectionEnded, 1).await;
}

#[tokio::test]
async fn a_stream_that_waits_for_its_handler_is_not_stalled() {
    let server = Running::start(Server::builder().max_response_stall(SHORT)).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    steps.try_send(Step::Data(b"one")).expect("the call will take it");
    let response = client.start(STREAM, &[], &hello("")).await.expect("sent");
    let (_, mut body) = within(response).await.expect("headers").into_parts();
    assert_eq!(&within(body.data()).await.expect("data").expect("no error")[..], b"one");
    // Another client's stall shows that the time has passed.
    let mut other = without_window(&server).await;
    other.send(&frames::request_headers(1)).await;
    other.send(&frames::request_data(1, "you")).await;
    other.find(frames::RST_STREAM, 1, |_| true).await;
    steps.try_send(Step::Data(b"two")).expect("the stream lives");
    assert_eq!(&within(body.data()).await.expect("data").expect("no error")[..], b"two");
    server.counted(Event::ResponseStalled, 1).await;
}

#[tokio::test]
async fn a_deadline_ends_a_response_without_window() {
    let server = Running::start(Server::builder().max_response_stall(LONG)).await;
    let mut client = without_window(&server).await;
    let mut block = frames::request_block();
    block.extend(frames::literal(0, "grpc-timeout", "200m"));
    client.send(&frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &block)).await;
    client.send(&frames::request_data(1, "you")).await;
    client.find(frames::RST_STREAM, 1, |_| true).await;
    server.counted(Event::DeadlineExceeded, 1).await;
    assert_eq!(server.stats.count(Event::ResponseStalled), 0);
}

#[tokio::test]
async fn a_socket_that_nobody_reads_is_closed() {
    let server = Running::start(Server::builder().max_write_stall(SHORT)).await;
    let window = u32::MAX >> 1;
    let mut client = Frames::connect_with(server.address, &[(INITIAL_WINDOW, window)]).await;
    let increment = (window - 65_535).to_be_bytes();
    client.send(&frames::frame(frames::WINDOW_UPDATE, 0, 0, &increment)).await;
    let name = format!("big {BIG_BYTES}");
    client.send(&frames::request_headers(1)).await;
    client.send(&frames::request_data(1, &name)).await;
    // `client` stays open and reads nothing.
    server.counted(Event::WriteStalled, 1).await;
    server.counted(Event::ConnectionEnded, 1).await;
    let mut good = Client::connect(server.address).await;
    assert_eq!(good.hello("you").await.expect("an answer").text(), "Hello you");
    drop(client);
}

#[tokio::test]
async fn panics_and_deadlines_are_counted() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    for _ in 0..3 {
        let answer = client.hello("panic").await.expect("an answer");
        assert_eq!(answer.grpc_status, Some(tonic::Code::Internal as i32));
    }
    let headers = [("grpc-timeout", "20m")];
    client.call(SAY_HELLO, &headers, &hello("hold")).await.expect("an answer");
    server.counted(Event::HandlerPanicked, 3).await;
    server.counted(Event::DeadlineExceeded, 1).await;
    server.counted(Event::StreamOpened, 4).await;
    let names: Vec<_> = server.stats.counters().filter(|(_, count)| *count == 3).collect();
    assert_eq!(names, [("handlers_panicked", 3)]);
}
