//! A client that sends anything at all to a server, over loopback: evenkeel-server owns its
//! sockets. The server has to close the connection when the client has sent all, and to serve
//! others on.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel::Channel;
use evenkeel_server::Server;
use http_body_util::Full;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tonic::{body::Body, service::Routes};
use tower_service::Service as _;

use crate::{Target, findings::SERVER_THREAD};

/// The longest wait for the server's end of a connection: on a busy machine, with a grace.
const PATIENCE: Duration = Duration::from_secs(15);
/// A good client calls after this many bad ones.
const GOOD_CALL_EACH: usize = 64;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_LEN: usize = 9;
const GOAWAY: u8 = 7;
/// UNIMPLEMENTED: there is no method, and that is an answer.
const UNIMPLEMENTED: &str = "12";

pub(crate) const TARGET: Target = Target {
    name: "http2-client",
    run,
    words: &[
        PREFACE,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x04\x01\x00\x00\x00\x00",
        b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pingpong",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
        b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08",
        b"\x00\x00\x05\x02\x00\x00\x00\x00\x03\x00\x00\x00\x01\x10",
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\x83\x86\x44\x04/s/m\x41\x01x",
        b"\x00\x02te\x08trailers",
        b"\x82",
        b"\x87",
        b"\x00\x0cgrpc-timeout\x021n",
        b"\x5f\x10application/grpc",
        b"\xff\xff\xff\xff",
    ],
    frames_from: Some(PREFACE.len()),
};

/// Addresses on which the server listens: one would run out of ports to be called from.
const LISTENERS: usize = 8;

struct Bench {
    runtime: Runtime,
    addresses: Vec<SocketAddr>,
    channel: Channel,
}

/// One server for all inputs, as in life.
static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(SERVER_THREAD)
        .enable_all()
        .build()
        .expect("a runtime");
    let (addresses, channel) = runtime.block_on(async {
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..LISTENERS {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("it is bound"));
            listeners.push(listener);
        }
        let server = Server::builder().build(Routes::default()).expect("valid settings");
        tokio::spawn(server.serve(listeners));
        let channel = Channel::builder(format!("ipv4:{}", addresses[0])).build();
        (addresses, channel.expect("valid settings"))
    });
    Bench { runtime, addresses, channel }
});
static INPUTS: AtomicUsize = AtomicUsize::new(0);

fn run(input: &[u8]) -> String {
    let number = INPUTS.fetch_add(1, Ordering::Relaxed);
    let address = BENCH.addresses[number % LISTENERS];
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP option");
    socket.set_read_timeout(Some(PATIENCE)).expect("a TCP option");
    socket.set_write_timeout(Some(PATIENCE)).expect("a TCP option");
    // The server may have closed the connection before it has read all.
    let sent = socket.write_all(input).and_then(|()| socket.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        let slow =
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!slow, "the server holds a connection whose client has sent all");
    }
    if number.is_multiple_of(GOOD_CALL_EACH) {
        BENCH.runtime.block_on(good_call());
    }
    // What a socket was closed with is a matter of time; what the server said is not.
    drop(sent);
    said(&answer)
}

async fn good_call() {
    let message = Bytes::from_static(&[0; 5]);
    let request = http::Request::post("/s/m")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(message)))
        .expect("a request");
    let answer = timeout(PATIENCE, BENCH.channel.clone().call(request)).await;
    let answer = answer.expect("the server answers others in time");
    let answer = answer.expect("the server serves others");
    assert_eq!(answer.headers()["grpc-status"], UNIMPLEMENTED);
}

/// The GOAWAY that the server closed with, if it sent one.
fn said(mut answer: &[u8]) -> String {
    while let Some(head) = answer.first_chunk::<HEAD_LEN>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = answer.get(HEAD_LEN..HEAD_LEN + len).unwrap_or_default();
        if head[3] == GOAWAY && payload.get(4..8) != Some(&[0; 4]) {
            let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
            return format!("GOAWAY {:?} {text}", payload.get(4..8));
        }
        answer = &answer[(HEAD_LEN + len).min(answer.len())..];
    }
    "closed".into()
}
