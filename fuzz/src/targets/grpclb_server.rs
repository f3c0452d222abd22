//! A grpclb client that sends anything at all to the balancer's service, in paused time. What it is
//! answered has to be messages of the protocol in their order, a stream whose client is done has to
//! end, and nothing may be left of it.

use std::{sync::LazyLock, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use evenkeel_control::{
    Control,
    config::Config,
    grpclb::{FIRST_MESSAGE_WAIT, Grpclb, GrpclbSettings},
    names::NameRules,
    status::Status,
};
use evenkeel_proto::grpc::lb::v1::{
    LoadBalanceResponse, load_balance_response::LoadBalanceResponseType as Told,
};
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::{runtime::Builder, time::timeout};
use tonic::body::Body;
use tower_service::Service as _;

use super::gist;
use crate::Target;

/// Longer than the balancer waits for anything.
const QUIET: Duration = Duration::from_secs(FIRST_MESSAGE_WAIT.as_secs() * 2);
const HEAD_LEN: usize = 5;

pub(crate) const TARGET: Target = Target {
    name: "grpclb-server",
    run,
    words: &[
        b"\x00\x00\x00\x00\x03\x0a\x03\x0a\x01a",
        b"\x00\x00\x00\x00\x05\x0a\x03\x0a\x01a",
        b"\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x02\x12\x00",
        b"\x00\x00\x00\x00\x04\x12\x02\x10\x07",
        b"\x01\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x01\x00\x00",
        b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x30\x01",
        b"\x38\x01",
        b"\x42\x0a\x0a\x06drop-x\x10\x01",
        b"\x0a\x02\x08\x01",
        b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"a.default.svc.cluster.local:80",
        b"b",
    ],
    frames_from: None,
};

/// One configuration for all inputs.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let yaml = "
services:
- name: a
  endpoints: [{address: \"127.0.0.1:1\"}, {address: \"[::1]:2\", weight: 3}]
  drops: [{category: x, percent: 50}]
- name: b
  endpoints: []
";
    Config::from_yaml(yaml, "fuzz", "default").expect("a good configuration")
});

/// An input of odd length leaves the request open.
fn run(input: &[u8]) -> String {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(one_stream(input))
}

async fn one_stream(input: &[u8]) -> String {
    let control = Control::new(NameRules::default(), CONFIG.clone());
    let mut grpclb = Grpclb::new(control.clone(), GrpclbSettings::default());
    let done = input.len().is_multiple_of(2);
    let response = grpclb.call(request(input, done)).await.expect("its error has no value");
    let (told, ended) = read(response.into_body()).await;
    assert!(ended.is_some() || !done, "a stream whose client is done stays open: {told:?}");
    assert!(ended.is_some() || !told.is_empty(), "a client that asked for nothing is waited for");
    let status = Status::of(&control, &grpclb);
    assert_eq!((grpclb.streams(), status.clients_total), (0, 0), "it is gone");
    let reports: u64 = status.services.iter().map(|s| s.client_stats.reports).sum();
    let warnings: Vec<_> = status.warnings.keys().collect();
    let refused: Vec<_> = status.refused.keys().collect();
    format!("{told:?} {ended:?} {refused:?} {warnings:?} {}", reports.min(3))
}

/// In pieces that do not care for messages.
fn request(input: &[u8], done: bool) -> Request<Body> {
    const PIECE: usize = 7;
    let pieces: Vec<Bytes> = input.chunks(PIECE).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
    let body = match done {
        true => Body::new(StreamBody::new(pieces)),
        false => Body::new(StreamBody::new(pieces.chain(stream::pending()))),
    };
    let path = "http://lb.test/grpc.lb.v1.LoadBalancer/BalanceLoad";
    Request::post(path).body(body).expect("a request")
}

/// What the balancer told, and the status with which it ended if it did.
async fn read(mut body: Body) -> (Vec<&'static str>, Option<String>) {
    let mut bytes = BytesMut::new();
    let mut told = Vec::new();
    while let Ok(frame) = timeout(QUIET, body.frame()).await {
        let frame = frame.expect("trailers come before the end").expect("no error");
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                assert!(bytes.is_empty(), "trailers in the middle of a message");
                let trailers = frame.into_trailers().expect("what is no data is trailers");
                let status = tonic::Status::from_header_map(&trailers).expect("a status");
                assert!(body.frame().await.is_none(), "something after the trailers");
                let ended = format!("{:?} {}", status.code(), gist(status.message()));
                return (told, Some(ended));
            }
        };
        bytes.extend_from_slice(&data);
        while let Some(kind) = message(&mut bytes) {
            assert_eq!(kind == "initial", told.is_empty(), "the initial response is the first");
            told.push(kind);
        }
    }
    (told, None)
}

fn message(bytes: &mut BytesMut) -> Option<&'static str> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if bytes.len() < HEAD_LEN + len {
        return None;
    }
    bytes.advance(HEAD_LEN);
    let message = LoadBalanceResponse::decode(bytes.split_to(len)).expect("a message");
    Some(match message.load_balance_response_type.expect("one of three") {
        Told::InitialResponse(_) => "initial",
        Told::ServerList(list) if list.servers.is_empty() => "empty list",
        Told::ServerList(_) => "list",
        Told::FallbackResponse(_) => panic!("nobody falls back"),
    })
}
