//! A client of xDS that sends anything at all to the balancer, in paused time. Two bits of the
//! first byte say in which variant of the protocol, and whether what follows is the body of the
//! request as it is, or steps of a client that reads what it is told: requests by hand or of any
//! bytes, answers, resources that change, time that passes. What such a client may rely on is in
//! `client`.

mod client;

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use evenkeel_control::xds::{FIRST_REQUEST_WAIT, Variant, Xds};
use evenkeel_proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::{runtime::Builder, task::unconstrained, time::timeout};
use tonic::body::Body;
use tower_service::Service as _;

use self::client::Client;
use super::gist;
use crate::Target;

/// Longer than the balancer waits for anything.
const QUIET: Duration = Duration::from_secs(FIRST_REQUEST_WAIT.as_secs() * 2);
const HEAD_LEN: usize = 5;
/// Steps of one input; more are ignored.
const STEPS_MAX: usize = 64;

pub(crate) const TARGET: Target = Target {
    name: "xds-server",
    run,
    words: &[
        b"\x00\x03\x01\x00\x01",
        b"\x00\x04\x01\x01\x03\x00",
        b"\x00\x04\x02\x00\x00\x01",
        b"\x00\x04\x02\x01\x01\x04",
        b"\x00\x02\x04\x00",
        b"\x00\x02\x03\xff",
        b"\x00\x02\x0a\x00",
        b"type.googleapis.com/envoy.config.cluster.v3.Cluster",
        b"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        b"type.googleapis.com/envoy.config.listener.v3.Listener",
        b"\x0a\x03\x0a\x01a",
        b"\x12\x05\x0a\x03\x0a\x01a",
        b"\x1a\x05alpha",
        b"\x1a\x01*",
        b"\x22\x01*",
        b"\x2a\x011",
        b"\x32\x02\x08\x03",
        b"\x3a\x011",
        b"\xff\xff\xff\xff",
    ],
    frames_from: None,
};

fn run(input: &[u8]) -> String {
    let (how, rest) = input.split_first().map_or((0, input), |(how, rest)| (*how, rest));
    let variant = if how & 1 == 0 { Variant::StateOfTheWorld } else { Variant::Delta };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads");
    // The client polls by hand, and takes "not yet" for an answer; it must be no matter of budget.
    runtime.block_on(unconstrained(async {
        if how & 2 == 0 { steps(variant, rest).await } else { body(variant, rest).await }
    }))
}

async fn steps(variant: Variant, input: &[u8]) -> String {
    let (mut client, mut rest) = (Client::new(variant).await, input);
    for _ in 0..STEPS_MAX {
        let Some((len, after)) = rest.split_first_chunk() else { break };
        let len = usize::from(u16::from_be_bytes(*len));
        let (step, after) = after.split_at(len.min(after.len()));
        client.step(step).await;
        rest = after;
    }
    client.end().await
}

/// An input of odd length leaves the request open.
async fn body(variant: Variant, input: &[u8]) -> String {
    /// In pieces that do not care for messages.
    const PIECE: usize = 7;
    let (xds, _sender) = client::balancer();
    let done = input.len().is_multiple_of(2);
    let pieces: Vec<Bytes> = input.chunks(PIECE).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
    let request = match done {
        true => Body::new(StreamBody::new(pieces)),
        false => Body::new(StreamBody::new(pieces.chain(stream::pending()))),
    };
    let mut response = open(&xds, variant, request).await;
    let (told, ended) = read(variant, &mut response).await;
    assert!(ended.is_some() || !done, "a stream whose client is done stays open: {told:?}");
    let (views, _) = xds.clients(1);
    assert!(ended.is_some() || !views.is_empty(), "a client that says nothing is waited for");
    assert!(ended.is_none() || (xds.streams(), views.len()) == (0, 0), "something is left");
    format!("{told:?} {ended:?}")
}

/// The response to a request with this body.
async fn open(xds: &Xds, variant: Variant, body: Body) -> Body {
    let method = match variant {
        Variant::StateOfTheWorld => "StreamAggregatedResources",
        Variant::Delta => "DeltaAggregatedResources",
    };
    let service = evenkeel_control::xds::ADS_SERVICE_NAME;
    let request = Request::post(format!("http://control.test/{service}/{method}")).body(body);
    let response = xds.ads().call(request.expect("a request")).await;
    response.expect("its error has no value").into_body()
}

/// What was told, by type, and the status with which it ended if it did.
async fn read(variant: Variant, body: &mut Body) -> (Vec<String>, Option<String>) {
    let (mut bytes, mut told) = (BytesMut::new(), Vec::new());
    while let Ok(frame) = timeout(QUIET, body.frame()).await {
        let frame = frame.expect("trailers come before the end").expect("no error");
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => {
                assert!(bytes.is_empty(), "trailers in the middle of a message");
                let ended = status(frame);
                assert!(body.frame().await.is_none(), "something after the trailers");
                return (told, Some(ended));
            }
        }
        while let Some(message) = message(&mut bytes) {
            told.push(match variant {
                Variant::StateOfTheWorld => {
                    DiscoveryResponse::decode(message).expect("a message").type_url
                }
                Variant::Delta => {
                    DeltaDiscoveryResponse::decode(message).expect("a message").type_url
                }
            });
        }
    }
    (told, None)
}

/// The next whole message.
fn message(bytes: &mut BytesMut) -> Option<BytesMut> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if bytes.len() < HEAD_LEN + len {
        return None;
    }
    bytes.advance(HEAD_LEN);
    Some(bytes.split_to(len))
}

fn status(frame: Frame<Bytes>) -> String {
    let trailers = frame.into_trailers().expect("what is no data is trailers");
    let status = tonic::Status::from_header_map(&trailers).expect("a status");
    format!("{:?} {}", status.code(), gist(status.message()))
}
