//! One type for both channels, so that `GRPC_CHANNEL=tonic` in a deployment goes back to tonic's
//! channel without a new build: what a team wants at hand in the first weeks. It costs a box or two
//! for each call; when nobody has turned the switch for a while, put `evenkeel::Channel` in its
//! place and delete this file.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{body::Body, transport::Endpoint};
use tower_service::Service;

/// The variable that chooses: `evenkeel`, which is also what is taken without it, or `tonic`.
pub const VARIABLE: &str = "GRPC_CHANNEL";

/// Any error of either channel; tonic's clients find the status in it.
type BoxError = Box<dyn Error + Send + Sync>;

/// Either channel. It goes under every generated client: `GreeterClient<AnyChannel>`.
#[derive(Clone, Debug)]
pub enum AnyChannel {
    /// Ours.
    Evenkeel(evenkeel::Channel),
    /// tonic's, to one address of the name.
    Tonic(tonic::transport::Channel),
}

impl AnyChannel {
    /// The channel to `server` (`greeter.default:8000`) that `choice`, the value of [`VARIABLE`],
    /// names.
    ///
    /// # Errors
    ///
    /// `choice` is another word, or `server` is no `host:port`.
    pub fn new(choice: Option<&str>, server: &str) -> Result<Self, BoxError> {
        match choice.unwrap_or("evenkeel") {
            "evenkeel" => {
                Ok(Self::Evenkeel(evenkeel::Channel::builder(format!("dns:///{server}")).build()?))
            }
            // Lazy, because evenkeel's does not connect in `build()` either.
            "tonic" => {
                let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
                Ok(Self::Tonic(endpoint.connect_lazy()))
            }
            other => Err(format!("{VARIABLE}: expected evenkeel or tonic, got {other:?}").into()),
        }
    }
}

impl Service<Request<Body>> for AnyChannel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Evenkeel(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Tonic(channel) => channel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Evenkeel(channel) => {
                let call = channel.call(request);
                Box::pin(async move { Ok(call.await?.map(Body::new)) })
            }
            Self::Tonic(channel) => {
                let call = channel.call(request);
                Box::pin(async move { Ok(call.await?) })
            }
        }
    }
}
