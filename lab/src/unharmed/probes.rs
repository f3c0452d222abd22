//! The calls that look for harm, and the verdict on each kind of it.

use std::time::Duration;

use evenkeel::Channel;
use http::{HeaderMap, HeaderValue};
use tokio::time::timeout;
use tonic::{
    Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::{
    BYTES, IN_TRAILERS, LONG, TEXT, TWO,
    call::{Answer, call},
    harm,
    mirror::{self, Mirror},
};
use crate::{checks::Check, error::LabError};

/// The example of the W3C's specification.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACESTATE: &str = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
/// Two such headers and their copies are below the 60 KiB that Envoy takes by default.
const LONG_BYTES: usize = 24 * 1024;
/// A deadline that is far away, and one that passes.
const FAR: Duration = Duration::from_millis(7_500);
const NEAR: Duration = Duration::from_millis(300);
/// For what is not a deadline's to end.
const LIMIT: Duration = Duration::from_secs(10);
/// Every code but OK.
const CODES: std::ops::RangeInclusive<u8> = 1..=16;

/// What the checks of one example are called.
#[derive(Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) authority: &'static str,
    pub(crate) trace_context: &'static str,
    pub(crate) deadlines: &'static str,
    pub(crate) statuses: &'static str,
    pub(crate) trailers_only: &'static str,
    pub(crate) metadata: &'static str,
    pub(crate) long_headers: &'static str,
}

/// Makes the calls over `channel`, whose `:authority` is `authority` and behind which is `mirror`.
///
/// # Errors
///
/// When a call gets no answer at all: then nothing can be judged.
pub(crate) async fn probe(
    channel: &Channel,
    authority: &str,
    mirror: &Mirror,
    ids: &Ids,
) -> Result<Vec<Check>, LabError> {
    let sent = headers();
    let answer = bounded(call(channel, "answer", &sent)).await;
    let answer = answer.map_err(lost("a call with metadata of every kind"))?;
    let arrived = answer.arrived.clone().unwrap_or_default();
    let (long, short): (Vec<_>, Vec<_>) =
        harm_of(&sent, &answer).into_iter().partition(|harm| harm.contains(LONG));
    let (trace, metadata) = short.into_iter().partition(|harm| harm.contains("trace"));
    let came = (arrived.authority == authority && arrived.path == "/helloworld.Greeter/SayHello")
        .then(Vec::new)
        .unwrap_or_else(|| vec![format!("{}{} came", arrived.authority, arrived.path)]);
    Ok(vec![
        verdict(
            ids.authority,
            &format!(":authority {authority} and the path reach the backend"),
            1,
            came,
            "host_rewrite_literal in the route",
        ),
        verdict(
            ids.trace_context,
            "traceparent and tracestate reach the backend bit by bit",
            2,
            trace,
            "request_headers_to_remove: [traceparent] in the route",
        ),
        deadlines(channel, mirror, ids.deadlines).await?,
        statuses(channel, true, ids.statuses).await,
        statuses(channel, false, ids.trailers_only).await,
        verdict(
            ids.metadata,
            "text, bytes and repeated names come as sent, both ways",
            9,
            metadata,
            "response_headers_to_remove: [x-text] in the route",
        ),
        verdict(
            ids.long_headers,
            &format!("a header of {LONG_BYTES} bytes comes as sent, both ways"),
            3,
            long,
            "max_request_headers_kb: 8 in the connection manager",
        ),
    ])
}

/// The values of the request header `name` that reached the mirror behind `channel`, which the
/// caller did not set.
///
/// # Errors
///
/// When the call gets no answer.
pub(crate) async fn arrived(channel: &Channel, name: &str) -> Result<Vec<String>, LabError> {
    let answer = bounded(call(channel, "answer", &[])).await.map_err(lost("a plain call"))?;
    let arrived = answer.arrived.unwrap_or_default();
    Ok(arrived.values(name).into_iter().map(str::to_owned).collect())
}

/// The metadata that is sent.
fn headers() -> Vec<(&'static str, HeaderValue)> {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(BYTES, MetadataValue::from_bytes(&every_byte));
    let bytes = metadata.into_headers().remove(BYTES);
    // No period that a table of either end could make short.
    let mut state = 7_u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + u8::try_from((state >> 24) % 26).unwrap_or(0))
    };
    let long: String = (0..LONG_BYTES).map(letter).collect();
    let value = HeaderValue::from_static;
    let mut sent = vec![
        ("traceparent", value(TRACEPARENT)),
        ("tracestate", value(TRACESTATE)),
        (TEXT, value("a text; with = signs \"and\" quotes")),
        (TWO, value("one")),
        (TWO, value("two")),
    ];
    sent.extend(bytes.map(|bytes| (BYTES, bytes)));
    sent.extend(HeaderValue::from_str(&long).ok().map(|long| (LONG, long)));
    sent
}

fn harm_of(sent: &harm::Sent, answer: &Answer) -> Vec<String> {
    let none = HeaderMap::new();
    let trailers = answer.trailers.as_ref().unwrap_or(&none);
    let arrived = answer.arrived.clone().unwrap_or_default();
    let mut found = harm::of_request(sent, &arrived);
    found.extend(harm::of_response(sent, &answer.headers, "", "response header"));
    found.extend(harm::of_response(sent, trailers, IN_TRAILERS, "trailer"));
    found
}

/// One deadline reaches the backend; another one passes there, and ends the call on both sides.
async fn deadlines(
    channel: &Channel,
    mirror: &Mirror,
    id: &'static str,
) -> Result<Check, LabError> {
    let within = |deadline: Duration| {
        let text = format!("{}m", deadline.as_millis());
        HeaderValue::from_str(&text).ok().map(|value| ("grpc-timeout", value))
    };
    let far: Vec<_> = within(FAR).into_iter().collect();
    let answer = bounded(call(channel, "answer", &far)).await;
    let arrived = answer.map_err(lost("a call with a deadline"))?.arrived.unwrap_or_default();
    let mut found = harm::of_deadline(FAR, &arrived);
    let mut given_up = mirror.given_up();
    let before = *given_up.borrow_and_update();
    let near: Vec<_> = within(NEAR).into_iter().collect();
    found.extend(harm::of_late(&bounded(call(channel, "hang", &near)).await));
    if timeout(LIMIT, given_up.wait_for(|count| *count > before)).await.is_err() {
        found.push(format!("the backend still works on it after {LIMIT:?}"));
    }
    let expected = "grpc-timeout reaches the backend, not longer than sent; a call that nobody \
                    answers ends with DEADLINE_EXCEEDED, and so does the backend's work";
    Ok(verdict(id, expected, 3, found, "request_headers_to_remove: [grpc-timeout] in the route"))
}

/// Each code, with a message and details.
async fn statuses(channel: &Channel, in_trailers: bool, id: &'static str) -> Check {
    let (what, expected) = if in_trailers {
        ("trailers", "each code in trailers after a message, with its text and details")
    } else {
        ("only", "each code alone, without trailers, with its text and details")
    };
    let mut found = Vec::new();
    for code in CODES {
        let asked = mirror::status(&code.to_string());
        let came = bounded(call(channel, &format!("{what} {code}"), &[])).await;
        found.extend(harm::of_status(&asked, in_trailers, &came));
    }
    verdict(id, expected, CODES.count(), found, "local_reply_config, or a filter that buffers")
}

/// `looked` things were looked at, and `harm` is what was found.
fn verdict(
    id: &'static str,
    expected: &str,
    looked: usize,
    harm: Vec<String>,
    breaks: &'static str,
) -> Check {
    let seen = match harm.as_slice() {
        [] => format!("unharmed ({looked} looked at)"),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first}; and {} more", others.len()),
    };
    Check { id, holds: harm.is_empty(), expected: expected.to_owned(), seen, breaks }
}

/// A call that hangs is a result, too.
async fn bounded(call: impl Future<Output = Result<Answer, Status>>) -> Result<Answer, Status> {
    let late = || Err(Status::unknown(format!("no answer within {LIMIT:?}")));
    timeout(LIMIT, call).await.unwrap_or_else(|_| late())
}

fn lost(what: &'static str) -> impl FnOnce(Status) -> LabError {
    move |status| LabError::io(what)(std::io::Error::other(status.to_string()))
}
