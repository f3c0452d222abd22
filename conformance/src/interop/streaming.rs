//! The cases with several messages in one direction or both.

use std::time::Duration;

use futures_util::stream;
use tonic::{Code, Request, Status};

use super::{
    outgoing::{Outgoing, outgoing},
    proto::{
        ResponseParameters, StreamingInputCallRequest, StreamingOutputCallRequest,
        StreamingOutputCallResponse,
    },
    run::{Client, Done, Failure},
    unary::{expect_status, expect_zeros, zeros},
};

const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];
/// The sum of `REQUESTS`.
const REQUESTED: i32 = 74_922;

/// How long the sleeping server may sleep.
const SLEEP_LIMIT: Duration = Duration::from_millis(1);

/// A request for one response of that size, with a payload of its own.
pub(super) fn ask(payload: usize, response: i32) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![parameters(response)],
        payload: zeros(payload),
        ..StreamingOutputCallRequest::default()
    }
}

fn parameters(size: i32) -> ResponseParameters {
    ResponseParameters { size, ..ResponseParameters::default() }
}

/// Makes a full duplex call and returns its end: the one response that it may have.
pub(super) async fn only(
    client: &mut Client,
    requests: Outgoing<StreamingOutputCallRequest>,
) -> Result<Option<StreamingOutputCallResponse>, Status> {
    client.full_duplex_call(requests).await?.into_inner().message().await
}

pub(super) async fn client_streaming(client: &mut Client) -> Done {
    let requests = REQUESTS.map(|bytes| StreamingInputCallRequest {
        payload: zeros(bytes),
        ..StreamingInputCallRequest::default()
    });
    let reply = client.streaming_input_call(stream::iter(requests)).await?.into_inner();
    if reply.aggregated_payload_size == REQUESTED {
        return Ok(());
    }
    Err(Failure::expected(format!("{REQUESTED} bytes received"), reply.aggregated_payload_size))
}

pub(super) async fn server_streaming(client: &mut Client) -> Done {
    let request = StreamingOutputCallRequest {
        response_parameters: RESPONSES.map(parameters).to_vec(),
        ..StreamingOutputCallRequest::default()
    };
    let mut replies = client.streaming_output_call(request).await?.into_inner();
    for bytes in RESPONSES {
        expect_reply(replies.message().await?, bytes)?;
    }
    expect_end(replies.message().await?)
}

pub(super) async fn ping_pong(client: &mut Client) -> Done {
    let (requests, stream) = outgoing();
    // Before the call: a server may send its headers with its first response.
    requests.send(ask(REQUESTS[0], RESPONSES[0])).await;
    let mut replies = client.full_duplex_call(stream).await?.into_inner();
    expect_reply(replies.message().await?, RESPONSES[0])?;
    for (bytes, response) in REQUESTS.into_iter().zip(RESPONSES).skip(1) {
        if !requests.send(ask(bytes, response)).await {
            return Err(Failure::expected("the call to go on", "its end"));
        }
        expect_reply(replies.message().await?, response)?;
    }
    drop(requests);
    expect_end(replies.message().await?)
}

pub(super) async fn empty_stream(client: &mut Client) -> Done {
    let (requests, stream) = outgoing();
    drop(requests);
    expect_end(only(client, stream).await?)
}

pub(super) async fn timeout_on_sleeping_server(client: &mut Client) -> Done {
    let (requests, stream) = outgoing();
    requests
        .send(StreamingOutputCallRequest {
            payload: zeros(REQUESTS[0]),
            ..StreamingOutputCallRequest::default()
        })
        .await;
    let mut call = Request::new(stream);
    call.set_timeout(SLEEP_LIMIT);
    let end = match client.full_duplex_call(call).await {
        Ok(reply) => reply.into_inner().message().await,
        Err(status) => Err(status),
    };
    // Only now: a request stream that ends would let the server end the call.
    drop(requests);
    expect_status(end, Code::DeadlineExceeded, None)
}

/// Checks the next response of a stream.
pub(super) fn expect_reply(reply: Option<StreamingOutputCallResponse>, bytes: i32) -> Done {
    match reply {
        Some(reply) => expect_zeros(reply.payload.as_ref(), bytes),
        None => Err(Failure::expected(format!("a response of {bytes} bytes"), "the end")),
    }
}

fn expect_end(reply: Option<StreamingOutputCallResponse>) -> Done {
    match reply {
        Some(_) => Err(Failure::expected("the end", "one more response")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_requests() {
        assert_eq!(i32::try_from(REQUESTS.iter().sum::<usize>()), Ok(REQUESTED));
    }

    #[test]
    fn a_response_too_many_or_too_few_fails() {
        let reply = |bytes| Some(StreamingOutputCallResponse { payload: zeros(bytes) });
        assert!(expect_reply(reply(9), 9).is_ok());
        assert!(expect_reply(reply(8), 9).is_err());
        assert!(expect_reply(None, 0).is_err());
        assert!(expect_end(None).is_ok());
        assert!(expect_end(reply(0)).is_err());
    }
}
