//! Services whose calls tests hold open, release and break.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready as ready_or_pending},
};

use bytes::Bytes;
use evenkeel_server::orca::CallMetrics;
use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Status, body::Body, server::NamedService, service::Routes};
use tower_service::Service;

pub(crate) const STREAM: &str = "/test.Probe/Stream";
pub(crate) const PANIC_IN_CALL: &str = "/test.Probe/Panic";

/// Steps that a test may say in advance.
const STEPS_MAX: usize = 4;

/// What a stream does next.
pub(crate) enum Step {
    Data(&'static [u8]),
    Panic,
    End,
}

/// The tests' side of the services.
#[derive(Clone)]
pub(crate) struct Probe {
    /// Gets a permit for each held call that has begun.
    pub(crate) entered: Arc<Semaphore>,
    /// Takes a permit for each held call that may end.
    pub(crate) release: Arc<Semaphore>,
    /// Gets a permit for each held call whose handler is gone, answered or not.
    pub(crate) left: Arc<Semaphore>,
    steps: Arc<Mutex<Option<mpsc::Receiver<Step>>>>,
}

impl Default for Probe {
    fn default() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self { entered: none(), release: none(), left: none(), steps: Arc::default() }
    }
}

impl Probe {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(GreeterServer::new(self.clone())).add_service(Streamer(self.clone()))
    }

    /// Waits until one more held call has begun.
    pub(crate) async fn wait_entered(&self) {
        super::within(self.entered.acquire()).await.expect("never closed").forget();
    }

    /// Waits until one more held call's handler is gone.
    pub(crate) async fn wait_left(&self) {
        super::within(self.left.acquire()).await.expect("never closed").forget();
    }

    /// Steers the next streaming call.
    pub(crate) fn stream(&self) -> mpsc::Sender<Step> {
        let (sender, receiver) = mpsc::channel(STEPS_MAX);
        *self.steps.lock().expect("not poisoned") = Some(receiver);
        sender
    }
}

/// Counts on drop, so that a cancelled handler counts too.
struct Left(Arc<Semaphore>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[tonic::async_trait]
impl Greeter for Probe {
    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        let message = match request.get_ref().name.as_str() {
            "addresses" => format!(
                "{} {}",
                request.local_addr().expect("connect info"),
                request.remote_addr().expect("connect info")
            ),
            // Records what this call cost, where it finds a recorder.
            "cost" | "cost and fail" => {
                let metrics = request.extensions().get::<CallMetrics>();
                if let Some(metrics) = metrics {
                    metrics.set_cpu_utilization(0.9);
                    metrics.set_request_cost("rows", 12.0);
                    metrics.set_utilization("disk", 1.5);
                }
                if request.get_ref().name == "cost and fail" {
                    return Err(Status::resource_exhausted("asked for"));
                }
                format!("recorded: {}", metrics.is_some())
            }
            #[cfg(feature = "tls")]
            "who" => who(&request),
            "panic" => panic!("asked for"),
            "hold" => {
                let _left = Left(Arc::clone(&self.left));
                self.entered.add_permits(1);
                self.release.acquire().await.expect("never closed").forget();
                "held".to_owned()
            }
            // As many bytes as the name asks for.
            name => match name.strip_prefix("big ") {
                Some(bytes) => "x".repeat(bytes.parse().expect("a number")),
                None => format!("Hello {name}"),
            },
        };
        Ok(tonic::Response::new(HelloReply { message }))
    }
}

/// The client, as its connection knows it.
#[cfg(feature = "tls")]
fn who(request: &tonic::Request<HelloRequest>) -> String {
    let info = request.extensions().get::<evenkeel_server::tls::TlsConnectInfo>();
    let info = info.expect("a call over TLS");
    let count = info.peer_certs().map(<[_]>::len);
    format!("{count:?} {:?} {:?}", info.peer_names().map(|n| n.dns_names()), info.spiffe_id())
}

/// A service without stubs: it panics before it has a future, or streams what the test says.
#[derive(Clone)]
struct Streamer(Probe);

impl NamedService for Streamer {
    const NAME: &'static str = "test.Probe";
}

impl Service<Request<Body>> for Streamer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), STREAM, "any other path panics");
        let steps = self.0.steps.lock().expect("not poisoned").take().expect("steered");
        ready(Ok(Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(Steered(steps)))
            .expect("a response")))
    }
}

struct Steered(mpsc::Receiver<Step>);

impl http_body::Body for Steered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match ready_or_pending!(self.0.poll_recv(cx)) {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data)))),
            Some(Step::Panic) => panic!("asked for"),
            Some(Step::End) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().expect("a header value"));
                Some(Ok(Frame::trailers(trailers)))
            }
            None => None,
        })
    }
}
