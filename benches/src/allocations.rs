//! Allocations of one unary call. Only `costs` counts them (it has `stats_alloc` as its global
//! allocator): counting costs time, which `ratios` measures.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use stats_alloc::INSTRUMENTED_SYSTEM;
use tonic::body::Body;
use tower_service::Service as _;

use crate::{
    callers::{Caller, Candidate, evenkeel_channel, evenkeel_channel_with},
    floor, overhead,
};

/// Calls that are counted, after as many that are not: buffers have grown then.
const CALLS: u32 = 2_000;

/// Allocations and reallocations of this process so far; 0 where nobody counts.
pub fn count() -> u64 {
    let stats = INSTRUMENTED_SYSTEM.stats();
    (stats.allocations + stats.reallocations) as u64
}

/// Bytes allocated so far.
fn bytes() -> u64 {
    INSTRUMENTED_SYSTEM.stats().bytes_allocated as u64
}

/// One way to call, one call at a time.
#[derive(Debug, Serialize)]
pub struct CallCost {
    /// Which.
    pub what: &'static str,
    /// Allocations of one call.
    pub allocations: f64,
    /// Bytes that they had.
    pub bytes: f64,
}

/// Counts for one candidate. To be called in a runtime with one thread, so that wake-ups between
/// threads don't make the number waver.
///
/// # Errors
///
/// It can't connect, or a call fails.
pub async fn measure(candidate: Candidate, backends: &[SocketAddr]) -> Result<CallCost, String> {
    let mut caller = Caller::connect(candidate, backends).await?;
    for _ in 0..CALLS {
        caller.call().await?;
    }
    let before = (count(), bytes());
    for _ in 0..CALLS {
        caller.call().await?;
    }
    Ok(CallCost::since(before, candidate.name()))
}

/// Counts for `evenkeel::Channel` without tonic's generated client: called as a service with the
/// same bytes as the floor sends, so that the difference is the channel's own.
///
/// # Errors
///
/// It can't connect, or a call fails.
pub async fn measure_channel(backends: &[SocketAddr]) -> Result<CallCost, String> {
    let channel = evenkeel_channel(backends).await?;
    count_channel(channel, "evenkeel, the channel alone").await
}

/// The same with metrics on, which allocate nothing once a method and a status are known.
///
/// # Errors
///
/// It can't connect, or a call fails.
pub async fn measure_metered(backends: &[SocketAddr]) -> Result<CallCost, String> {
    // Nobody is asked to take them within the time that this takes.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let telemetry = overhead::telemetry(overhead::Kind::Kept, nobody)?;
    let tune = |builder| telemetry.channel(builder, "fixed:///backends");
    let channel = evenkeel_channel_with(backends, tune).await?;
    count_channel(channel, "the same, metrics on").await
}

async fn count_channel(
    mut channel: evenkeel::Channel,
    what: &'static str,
) -> Result<CallCost, String> {
    let message = floor::message()?;
    for _ in 0..CALLS {
        call_channel(&mut channel, &message).await?;
    }
    let before = (count(), bytes());
    for _ in 0..CALLS {
        call_channel(&mut channel, &message).await?;
    }
    Ok(CallCost::since(before, what))
}

async fn call_channel(channel: &mut evenkeel::Channel, message: &Bytes) -> Result<(), String> {
    // As generated clients do: neither path nor value is copied.
    let mut request = Request::new(Body::new(Full::new(message.clone())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/helloworld.Greeter/SayHello");
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut body = channel.call(request).await.map_err(|e| e.to_string())?.into_body();
    let (mut read, mut ok) = (0, false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| e.to_string())?;
        read += frame.data_ref().map_or(0, Bytes::len);
        ok |= frame.trailers_ref().and_then(|t| t.get("grpc-status")).is_some_and(|s| s == "0");
    }
    if ok && read > 0 { Ok(()) } else { Err(format!("{read} bytes, status 0: {ok}")) }
}

impl CallCost {
    fn since(before: (u64, u64), what: &'static str) -> Self {
        let per_call = |all: u64| all as f64 / f64::from(CALLS);
        let (allocations, bytes) = (per_call(count() - before.0), per_call(bytes() - before.1));
        Self { what, allocations, bytes }
    }
}
