//! The cases that cancel. Dropping a call is how Rust cancels it, so there is no status to look at;
//! what is checked is that the call had begun, that the channel lets its stream go, and that the
//! connection serves the next call. That the server is told (RST_STREAM, CANCEL) is tested against
//! a server of frames.

use super::{
    outgoing::outgoing,
    proto::{StreamingInputCallRequest, StreamingOutputCallRequest},
    run::{Client, Done, Failure},
    streaming::{ask, expect_reply},
    unary,
};

const REQUEST: usize = 27_182;
const RESPONSE: i32 = 31_415;

pub(super) async fn after_begin(client: &mut Client) -> Done {
    // So that there is a connection, and the call begins as soon as it is made.
    unary::empty(client).await?;
    let (mut requests, stream) = outgoing::<StreamingInputCallRequest>();
    let mut caller = client.clone();
    let later = async {
        requests.begun().await;
        // Headers go out in the order of their calls: once this one is answered, the server has
        // those of the other.
        unary::empty(client).await
    };
    tokio::select! {
        biased;
        answer = caller.streaming_input_call(stream) => {
            let came = match answer {
                Ok(_) => "an answer".to_owned(),
                Err(status) => status.to_string(),
            };
            return Err(Failure::expected("a call that goes on until it is cancelled", came));
        }
        // The other branch is dropped with this, and so the call is cancelled.
        done = later => done?,
    }
    requests.let_go().await;
    unary::empty(client).await
}

pub(super) async fn after_first_response(client: &mut Client) -> Done {
    let (requests, stream) = outgoing::<StreamingOutputCallRequest>();
    requests.send(ask(REQUEST, RESPONSE)).await;
    let mut replies = client.full_duplex_call(stream).await?.into_inner();
    expect_reply(replies.message().await?, RESPONSE)?;
    drop(replies);
    requests.let_go().await;
    unary::empty(client).await
}
