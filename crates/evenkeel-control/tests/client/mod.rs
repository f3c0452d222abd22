//! A client of the service without a gRPC library: it frames messages itself and polls the
//! response's body when it wants to, so that it can be slow, silent or wrong on purpose.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::{
    net::SocketAddr,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use evenkeel_control::{
    Control, Refusal, ServiceKey,
    config::Config,
    grpclb::{Grpclb, GrpclbSettings},
    metrics::Page,
    names::NameRules,
    status::{self, Status},
};
use evenkeel_proto::grpc::lb::v1::{
    ClientStats, InitialLoadBalanceRequest, LoadBalanceRequest, LoadBalanceResponse, Server,
    load_balance_request::LoadBalanceRequestType as Asked,
    load_balance_response::LoadBalanceResponseType as Told,
};
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Code, body::Body, transport::server::TcpConnectInfo};
use tower_service::Service as _;

const MESSAGES_MAX: usize = 1_000;
/// Longer than anything here takes, in paused time; shorter than the wait for a first message.
const QUIET: Duration = Duration::from_secs(5);

pub(crate) fn config(yaml: &str) -> Config {
    Config::from_yaml(yaml, "test", "default").expect("good")
}

pub(crate) fn key(text: &str) -> ServiceKey {
    ServiceKey::parse(text, "default").expect("a key")
}

pub(crate) fn initial(name: &str) -> LoadBalanceRequest {
    let request = InitialLoadBalanceRequest { name: name.to_owned() };
    LoadBalanceRequest { load_balance_request_type: Some(Asked::InitialRequest(request)) }
}

/// Calls that started, and when it is said to be, in seconds.
pub(crate) fn stats(started: i64, seconds: i64) -> ClientStats {
    let timestamp = Some(prost_types::Timestamp { seconds, nanos: 0 });
    ClientStats { num_calls_started: started, timestamp, ..ClientStats::default() }
}

/// A balancer.
pub(crate) struct Stage {
    pub(crate) control: Control,
    pub(crate) grpclb: Grpclb,
}

impl Stage {
    pub(crate) fn new(yaml: &str) -> Self {
        let control = Control::new(NameRules::default(), Config::default());
        control.configure(&config(yaml));
        Self::of(control)
    }

    pub(crate) fn of(control: Control) -> Self {
        let mut settings = GrpclbSettings::default();
        settings.phase = 0.0;
        Self { grpclb: Grpclb::new(control.clone(), settings), control }
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        self.client_from(name, "127.0.0.1:1")
    }

    pub(crate) fn client_from(&self, name: &str, from: &str) -> Client {
        let mut client = self.open(from);
        client.send(initial(name));
        client
    }

    /// A client that sends nothing by itself.
    pub(crate) fn silent(&self) -> Client {
        self.open("127.0.0.1:1")
    }

    fn open(&self, from: &str) -> Client {
        let (mut request, sender) = request(from);
        request.extensions_mut().insert(info(from));
        let future = self.grpclb.clone().call(request);
        let response = future.into_inner().expect("infallible");
        assert_eq!(response.headers().get("grpc-status"), None, "{response:?}");
        Client { sender: Some(sender), body: response.into_body(), bytes: BytesMut::new() }
    }

    pub(crate) async fn refused_at_once(&self) -> (Code, String) {
        self.call(|_| {}).await.expect_err("refused")
    }

    /// A call that is changed before it is sent; its status, when it is refused at once.
    pub(crate) async fn call(
        &self,
        change: impl FnOnce(&mut Request<Body>),
    ) -> Result<(), (Code, String)> {
        let (mut request, _sender) = request("127.0.0.1:1");
        change(&mut request);
        let response = self.grpclb.clone().call(request).await.expect("infallible");
        match response.headers().contains_key("grpc-status") {
            true => Err(status_of(response.headers())),
            false => Ok(()),
        }
    }

    pub(crate) fn status(&self) -> Status {
        Status::of(&self.control, &self.grpclb)
    }

    pub(crate) fn refused(&self, why: Refusal) -> u64 {
        self.status().refused.get(why.name()).copied().unwrap_or_default()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut page = Page::default();
        status::write_metrics(&mut page, &self.control, &self.grpclb);
        page.into_text()
    }
}

fn info(from: &str) -> TcpConnectInfo {
    let from: SocketAddr = from.parse().expect("an address");
    TcpConnectInfo { local_addr: None, remote_addr: Some(from) }
}

fn request(from: &str) -> (Request<Body>, mpsc::Sender<Bytes>) {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let bytes: Bytes = receiver.recv().await?;
        Some((Ok::<_, tonic::Status>(Frame::data(bytes)), receiver))
    });
    let request = Request::post("http://lb.test/grpc.lb.v1.LoadBalancer/BalanceLoad")
        .header("content-type", "application/grpc")
        .extension(info(from))
        .body(Body::new(StreamBody::new(frames)));
    (request.expect("a request"), sender)
}

/// What comes from the balancer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Initial(Option<Duration>),
    Servers(Vec<Server>),
    Ended(Code, String),
}

/// One stream.
pub(crate) struct Client {
    sender: Option<mpsc::Sender<Bytes>>,
    body: Body,
    bytes: BytesMut,
}

impl Client {
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let sender = self.sender.as_ref().expect("not finished");
        sender.try_send(Bytes::copy_from_slice(bytes)).expect("room for it");
    }

    pub(crate) fn send(&mut self, message: LoadBalanceRequest) {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(message.encoded_len() as u32);
        message.encode(&mut bytes).expect("the buffer grows");
        self.send_raw(&bytes);
    }

    pub(crate) fn report(&mut self, report: ClientStats) {
        let kind = Some(Asked::ClientStats(report));
        self.send(LoadBalanceRequest { load_balance_request_type: kind });
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn next(&mut self) -> Answer {
        let answer = tokio::time::timeout(QUIET, self.answer());
        answer.await.expect("an answer within 5 s")
    }

    async fn answer(&mut self) -> Answer {
        loop {
            if let Some(message) = self.message() {
                return message;
            }
            let frame = self.body.frame().await.expect("trailers before the end");
            match frame.expect("no error").into_data() {
                Ok(data) => self.bytes.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().expect("trailers");
                    let (code, message) = status_of(&trailers);
                    return Answer::Ended(code, message);
                }
            }
        }
    }

    fn message(&mut self) -> Option<Answer> {
        let head: [u8; 5] = self.bytes.get(..5)?.try_into().expect("five bytes");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.bytes.len() < 5 + length {
            return None;
        }
        self.bytes.advance(5);
        let message = LoadBalanceResponse::decode(self.bytes.split_to(length)).expect("a message");
        Some(match message.load_balance_response_type.expect("one of three") {
            Told::InitialResponse(initial) => Answer::Initial(
                initial
                    .client_stats_report_interval
                    .map(|interval| interval.try_into().expect("positive")),
            ),
            Told::ServerList(list) => Answer::Servers(list.servers),
            Told::FallbackResponse(_) => panic!("nobody falls back"),
        })
    }

    pub(crate) async fn servers(&mut self) -> Vec<Server> {
        match self.next().await {
            Answer::Servers(servers) => servers,
            other => panic!("expected a list, got {other:?}"),
        }
    }

    /// The status's message.
    pub(crate) async fn ended(&mut self, code: Code) -> String {
        match self.next().await {
            Answer::Ended(got, message) if got == code => message,
            other => panic!("expected {code:?}, got {other:?}"),
        }
    }

    /// Like `ended`, however long it takes and whatever comes before.
    pub(crate) async fn ended_at_last(&mut self, code: Code) {
        loop {
            if let Answer::Ended(got, message) = self.answer().await {
                assert_eq!(got, code, "{message}");
                return;
            }
        }
    }

    /// Lets the balancer take what was sent; it has to have nothing to say.
    pub(crate) async fn is_quiet(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(&mut cx);
        assert!(matches!(polled, Poll::Pending), "{polled:?}");
    }
}

fn status_of(headers: &HeaderMap) -> (Code, String) {
    let status = tonic::Status::from_header_map(headers).expect("a status");
    (status.code(), status.message().to_owned())
}
