//! The cases of one request and one response, and the checks that others share with them.

use tonic::{Code, Request, Status, metadata::MetadataValue};

use super::{
    echo::{ECHO_INITIAL, ECHO_TRAILING},
    outgoing::outgoing,
    proto::{
        EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, StreamingOutputCallRequest,
    },
    run::{Client, Done, Failure, Unimplemented},
    streaming,
};

/// Bytes of a large request.
pub(super) const LARGE_REQUEST: usize = 271_828;
/// Bytes of a large response.
pub(super) const LARGE_RESPONSE: i32 = 314_159;
/// Calls of pick_first_unary.
const PICK_FIRST_CALLS: u32 = 100;

const INITIAL: &str = "test_initial_metadata_value";
const TRAILING: [u8; 3] = [0xab; 3];
const MESSAGE: &str = "test status message";
const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";

/// A payload of that many zeros.
pub(super) fn zeros(bytes: usize) -> Option<Payload> {
    Some(Payload { body: vec![0; bytes], ..Payload::default() })
}

/// Checks a response's payload: so many zeros.
pub(super) fn expect_zeros(payload: Option<&Payload>, bytes: i32) -> Done {
    let body = payload.map(|payload| payload.body.as_slice()).unwrap_or_default();
    if i32::try_from(body.len()) != Ok(bytes) {
        return Err(Failure::expected(format!("a payload of {bytes} bytes"), body.len()));
    }
    match body.iter().position(|byte| *byte != 0) {
        Some(at) => Err(Failure::expected("zeros only", format!("{} at {at}", body[at]))),
        None => Ok(()),
    }
}

/// Checks how a call ended that has to fail.
pub(super) fn expect_status<T>(got: Result<T, Status>, code: Code, message: Option<&str>) -> Done {
    let wanted = || match message {
        Some(text) => format!("{code:?} {text:?}"),
        None => format!("{code:?}"),
    };
    match got {
        Ok(_) => Err(Failure::expected(wanted(), "an answer")),
        Err(status) if status.code() != code || message.is_some_and(|m| m != status.message()) => {
            let came = format!("{:?} {:?}", status.code(), status.message());
            Err(Failure::expected(wanted(), came))
        }
        Err(_) => Ok(()),
    }
}

pub(super) async fn empty(client: &mut Client) -> Done {
    client.empty_call(Empty {}).await?;
    Ok(())
}

pub(super) async fn large(client: &mut Client, request: usize, response: i32) -> Done {
    let request = SimpleRequest {
        response_size: response,
        payload: zeros(request),
        ..SimpleRequest::default()
    };
    let reply = client.unary_call(request).await?.into_inner();
    expect_zeros(reply.payload.as_ref(), response)
}

pub(super) async fn unimplemented_method(client: &mut Client) -> Done {
    expect_status(client.unimplemented_call(Empty {}).await, Code::Unimplemented, None)
}

pub(super) async fn unimplemented_service(client: &mut Unimplemented) -> Done {
    expect_status(client.unimplemented_call(Empty {}).await, Code::Unimplemented, None)
}

pub(super) async fn special_status(client: &mut Client) -> Done {
    let request = SimpleRequest { response_status: status(SPECIAL), ..SimpleRequest::default() };
    expect_status(client.unary_call(request).await, Code::Unknown, Some(SPECIAL))
}

pub(super) async fn status_code(client: &mut Client) -> Done {
    let request = SimpleRequest { response_status: status(MESSAGE), ..SimpleRequest::default() };
    expect_status(client.unary_call(request).await, Code::Unknown, Some(MESSAGE))?;

    let (requests, stream) = outgoing();
    requests
        .send(StreamingOutputCallRequest {
            response_status: status(MESSAGE),
            ..StreamingOutputCallRequest::default()
        })
        .await;
    drop(requests);
    expect_status(streaming::only(client, stream).await, Code::Unknown, Some(MESSAGE))
}

fn status(message: &str) -> Option<EchoStatus> {
    Some(EchoStatus { code: Code::Unknown as i32, message: message.to_owned() })
}

pub(super) async fn custom_metadata(client: &mut Client) -> Done {
    let request =
        echoed(SimpleRequest { response_size: 1, payload: zeros(1), ..SimpleRequest::default() });
    let reply = client.unary_call(request).await?;
    // tonic puts headers and trailers of a single response together.
    let (metadata, reply, _) = reply.into_parts();
    expect_zeros(reply.payload.as_ref(), 1)?;
    expect_initial(&metadata)?;
    expect_trailing(&metadata)?;

    let (requests, stream) = outgoing();
    requests
        .send(StreamingOutputCallRequest {
            response_parameters: vec![ResponseParameters {
                size: 1,
                ..ResponseParameters::default()
            }],
            payload: zeros(1),
            ..StreamingOutputCallRequest::default()
        })
        .await;
    let reply = client.full_duplex_call(echoed(stream)).await?;
    expect_initial(reply.metadata())?;
    let mut replies = reply.into_inner();
    let first = replies.message().await?.ok_or(Failure::expected("a response", "none"))?;
    expect_zeros(first.payload.as_ref(), 1)?;
    drop(requests);
    let trailers = replies.trailers().await?.unwrap_or_default();
    expect_trailing(&trailers)
}

fn echoed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ECHO_INITIAL, MetadataValue::from_static(INITIAL));
    request.metadata_mut().insert_bin(ECHO_TRAILING, MetadataValue::from_bytes(&TRAILING));
    request
}

fn expect_initial(headers: &tonic::metadata::MetadataMap) -> Done {
    let came: Vec<_> = headers.get_all(ECHO_INITIAL).iter().map(|v| v.as_bytes()).collect();
    if came == [INITIAL.as_bytes()] {
        return Ok(());
    }
    Err(Failure::expected(format!("one header {ECHO_INITIAL}: {INITIAL}"), format!("{came:?}")))
}

fn expect_trailing(trailers: &tonic::metadata::MetadataMap) -> Done {
    let came: Vec<_> =
        trailers.get_all_bin(ECHO_TRAILING).iter().map(|value| value.to_bytes().ok()).collect();
    if matches!(&came[..], [Some(bytes)] if bytes[..] == TRAILING) {
        return Ok(());
    }
    Err(Failure::expected(format!("one trailer {ECHO_TRAILING}: ab ab ab"), format!("{came:?}")))
}

/// The channel has pick_first, and so one server gets all calls, however many there are.
pub(super) async fn pick_first(client: &mut Client) -> Done {
    let mut first = None;
    for call in 0..PICK_FIRST_CALLS {
        let request = SimpleRequest {
            response_size: 1,
            payload: zeros(1),
            fill_server_id: true,
            ..SimpleRequest::default()
        };
        let id = client.unary_call(request).await?.into_inner().server_id;
        if id.is_empty() {
            return Err(Failure::expected("a server id", format!("none in call {call}")));
        }
        let first = first.get_or_insert_with(|| id.clone());
        if *first != id {
            return Err(Failure::expected(first.as_str(), format!("{id} in call {call}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_other_size_or_bytes_fails() {
        let ones = Payload { body: vec![1; 3], ..Payload::default() };
        assert!(expect_zeros(zeros(3).as_ref(), 3).is_ok());
        assert!(expect_zeros(zeros(3).as_ref(), 4).is_err());
        assert!(expect_zeros(None, 1).is_err());
        assert!(expect_zeros(Some(&ones), 3).is_err());
    }

    #[test]
    fn a_status_of_other_code_or_message_fails() {
        let unknown = || Err::<(), _>(Status::unknown(MESSAGE));
        assert!(expect_status(unknown(), Code::Unknown, Some(MESSAGE)).is_ok());
        assert!(expect_status(unknown(), Code::Unknown, None).is_ok());
        assert!(expect_status(unknown(), Code::Unknown, Some("other")).is_err());
        assert!(expect_status(unknown(), Code::Internal, Some(MESSAGE)).is_err());
        assert!(expect_status(Ok(()), Code::Unknown, None).is_err());
    }

    #[test]
    fn metadata_that_is_missing_doubled_or_changed_fails() {
        let sent = echoed(());
        assert!(expect_initial(sent.metadata()).is_ok());
        assert!(expect_trailing(sent.metadata()).is_ok());
        let none = Request::new(());
        assert!(expect_initial(none.metadata()).is_err());
        assert!(expect_trailing(none.metadata()).is_err());
        let mut doubled = echoed(());
        doubled.metadata_mut().append(ECHO_INITIAL, MetadataValue::from_static(INITIAL));
        doubled.metadata_mut().append_bin(ECHO_TRAILING, MetadataValue::from_bytes(&TRAILING));
        assert!(expect_initial(doubled.metadata()).is_err());
        assert!(expect_trailing(doubled.metadata()).is_err());
    }
}
