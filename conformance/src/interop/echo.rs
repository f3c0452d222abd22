//! Metadata that the client asks back: a header of the request as a header of the response, another
//! one as a trailer. It stands around the service, because a tonic handler cannot set the trailers
//! of a call that succeeds.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

/// Comes back as a header.
pub(super) const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
/// Comes back as a trailer; its value is binary.
pub(super) const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// A service that echoes.
#[derive(Clone, Debug)]
pub(super) struct Echo<S>(pub(super) S);

impl<S: NamedService> NamedService for Echo<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Echo<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let initial = request.headers().get(ECHO_INITIAL).cloned();
        let trailing = request.headers().get(ECHO_TRAILING).cloned();
        let answer = self.0.call(request);
        async move {
            let mut response = answer.await?;
            if let Some(value) = initial {
                set(response.headers_mut(), ECHO_INITIAL, value);
            }
            Ok(match trailing {
                Some(value) => with_trailer(response, value),
                None => response,
            })
        }
        .boxed()
    }
}

fn with_trailer(mut response: Response<Body>, value: HeaderValue) -> Response<Body> {
    // A call that fails at once has its trailers in place of headers.
    if response.headers().contains_key("grpc-status") {
        set(response.headers_mut(), ECHO_TRAILING, value);
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                set(trailers, ECHO_TRAILING, value.clone());
            }
            frame
        }))
    })
}

fn set(headers: &mut HeaderMap, name: &'static str, value: HeaderValue) {
    headers.insert(HeaderName::from_static(name), value);
}
