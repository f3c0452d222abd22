//! A server that sends anything at all to a channel with two calls, over a pipe in memory and in
//! paused time. Each call has to end by its deadline, and after the channel nothing may be left.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel::{
    BoxedIo, Channel, Connecting, Connector,
    core::{
        Address, Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate,
        Target as ChannelTarget, TargetError,
    },
};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::{Builder, Handle},
    time::{Instant, sleep},
};
use tonic::body::Body;
use tower_service::Service as _;

use super::gist;
use crate::Target;

const DEADLINE: Duration = Duration::from_secs(1);
/// Timers have a resolution of 1 ms.
const LATE_MAX: Duration = Duration::from_millis(2);
/// Longer than anything that a channel of this test waits for.
const QUIET: Duration = Duration::from_secs(60);
/// Frames that come one by one; those after them come together.
const FRAMES_APART: usize = 24;
const HEAD_LEN: usize = 9;

pub(crate) const TARGET: Target = Target {
    name: "http2-server",
    run,
    words: &[
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x04\x01\x00\x00\x00\x00",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x7f\xff\xff\xff",
        b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07",
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00",
        b"\x00\x03\x00\x00\x00\x00",
        b"\x00\x04\x00\x00\x00\x00",
        b"\x00\x05\x00\xff\xff\xff",
        b"\x88",
        b"\x5f\x10application/grpc",
        b"\x00\x0bgrpc-status\x010",
        b"\x00\x16grpc-retry-pushback-ms\x011",
        b"\x00\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"too_many_pings",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    frames_from: Some(0),
};

fn run(input: &[u8]) -> String {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(two_calls(input))
}

async fn two_calls(input: &[u8]) -> String {
    let connector = Hostile { input: Arc::from(input), used: AtomicBool::new(false) };
    let channel = Channel::builder("fuzz:server")
        .register_resolver(Arc::new(Anywhere))
        .connector(Arc::new(connector))
        .seed(1)
        .build()
        .expect("valid settings");
    let begun = Instant::now();
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    let unary = Body::new(Full::new(message.clone()));
    // Its end comes late, so that it has a pump.
    let messages = stream::iter([message.clone(), message.clone()])
        .chain(stream::once(async move {
            sleep(DEADLINE / 100).await;
            message
        }))
        .map(|message| Ok::<_, Infallible>(http_body::Frame::data(message)));
    let pumped = Body::new(StreamBody::new(messages));
    let (one, other) = tokio::join!(call(&channel, unary), call(&channel, pumped));
    let took = begun.elapsed();
    assert!(took <= DEADLINE + LATE_MAX, "calls took {took:?}: {one}, {other}");
    drop(channel);
    sleep(QUIET).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "tasks after {one}, {other}");
    format!("{one}, {other}")
}

/// A call to its very end; how it ended.
async fn call(channel: &Channel, body: Body) -> String {
    let request = http::Request::post("/s/m")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", DEADLINE.as_millis()))
        .body(body)
        .expect("a request");
    let response = match channel.clone().call(request).await {
        Ok(response) => response,
        Err(status) => return format!("{:?} {}", status.code(), gist(status.message())),
    };
    let mut body = response.into_body();
    let mut data = 0_usize;
    loop {
        match body.frame().await {
            None => return format!("ended after {:?}", data.checked_ilog2()),
            Some(Err(status)) => {
                return format!("then {:?} {}", status.code(), gist(status.message()));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => data += bytes.len(),
                Err(trailers) => {
                    let status = trailers.trailers_ref().map(|t| t.contains_key("grpc-status"));
                    return format!("trailers {status:?} after {:?}", data.checked_ilog2());
                }
            },
        }
    }
}

/// One endpoint that is nowhere.
struct Anywhere;

impl ResolverFactory for Anywhere {
    fn schemes(&self) -> &[&str] {
        &["fuzz"]
    }

    fn default_authority(&self, target: &ChannelTarget) -> Result<String, TargetError> {
        Ok(target.path().to_owned())
    }

    fn start(
        &self,
        _target: &ChannelTarget,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let endpoint = Endpoint::new(Address::Named("server".into()));
        Ok(Box::pin(async move { sink.update(ResolverUpdate::new(vec![endpoint])) }))
    }
}

/// Connects once to a server that sends the input; then nobody listens any more.
struct Hostile {
    input: Arc<[u8]>,
    used: AtomicBool,
}

impl Connector for Hostile {
    fn connect(&self, _address: &Address) -> Connecting {
        if self.used.swap(true, Ordering::Relaxed) {
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) });
        }
        let input = self.input.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(input, theirs));
            Ok(Box::pin(ours) as BoxedIo)
        })
    }
}

/// Sends the frames of the input, each after the client had its time for the one before, and reads
/// what comes. An input of even length closes the connection then, any other leaves it open.
async fn serve(input: Arc<[u8]>, socket: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(socket);
    let send = async {
        let mut rest = &input[..];
        for _ in 0..FRAMES_APART {
            let len = rest.get(..3).map_or(rest.len(), |len| {
                HEAD_LEN + u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize
            });
            let (frame, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            if write.write_all(frame).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let _ = write.write_all(rest).await;
        if !input.len().is_multiple_of(2) {
            std::future::pending::<()>().await;
        }
    };
    let drain = async {
        let mut sink = [0; 4096];
        while read.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    };
    tokio::select! {
        () = send => {}
        () = drain => {}
        () = sleep(QUIET / 2) => {}
    }
}
