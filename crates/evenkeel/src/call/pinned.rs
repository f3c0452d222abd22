//! Calls of the channel's own on one certain connection: the streams behind watches. There is no
//! pick, as the connection is the point; no retry, as who watches decides on that; no deadline,
//! as they end with the connection. A service, so that generated clients go on top and bring
//! messages, their limits and statuses along.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, uri::Authority};
use tokio::time::Instant;
use tower_service::Service;

use super::{
    ending::CallEnding,
    failure,
    feedback::Feedback,
    head,
    outgoing::Outgoing,
    request::Call,
    response::{Held, ResponseBody, grpc_status},
};
use crate::{
    channel::Shared,
    edge::{RequestBody, Status},
    transport::{StreamSlot, Transport},
};

/// Sends on one connection.
#[derive(Clone)]
pub(crate) struct Pinned {
    shared: Arc<Shared>,
    transport: Arc<Transport>,
    authority: Option<Authority>,
}

impl Pinned {
    /// Calls that go to this connection. They and their responses keep it open.
    pub(crate) fn new(shared: Arc<Shared>, transport: Arc<Transport>) -> Self {
        Self { shared, transport, authority: None }
    }

    /// Says this `:authority` instead of the channel's.
    pub(crate) fn with_authority(self, authority: Option<Authority>) -> Self {
        Self { authority, ..self }
    }

    /// The connection has ended or drains; the driver is told or will be.
    pub(crate) fn is_ending(&self) -> bool {
        !self.transport.seen.is_usable()
    }

    async fn send(self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, Status> {
        let Self { shared, transport, authority } = &self;
        let (parts, body) = request.into_parts();
        let mut call = Call::new(parts, &shared.defaults)?.with_authority(authority.clone())?;
        let mut body = Outgoing::Unread(body);
        poll_fn(|cx| Poll::Ready(body.read(cx, shared))).await?;
        let slot = StreamSlot::wait_for_own(transport).await;
        let request = call.attempt(None, 0, Instant::now());
        let broken = |error: h2::Error| failure::status(&error, transport);
        let (response, stream) =
            transport.sender().send_request(request, body.is_empty()).map_err(broken)?;
        body.send(stream)?;
        let (parts, stream) = response.await.map_err(broken)?.into_parts();
        let status = grpc_status(&parts.headers);
        if status.is_none()
            && let Some(error) = head::refuse(&parts, &transport.address)
        {
            return Err(error);
        }
        let ended = status.is_some() && stream.is_end_stream();
        let held = Held {
            stream,
            slot,
            feedback: Feedback::new(None),
            ending: CallEnding::default(),
            pump: body.commit(),
            throttle: None,
            timeout: None,
            deadline: None,
        };
        Ok(Response::from_parts(parts, ResponseBody::new(held, status.is_some(), ended)))
    }
}

impl fmt::Display for Pinned {
    /// Where it sends, and for which channel.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of target {}", self.transport.address, self.shared.target)
    }
}

impl Service<Request<RequestBody>> for Pinned {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
