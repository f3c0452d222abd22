//! A layer around the server's calls is told of each beginning and of exactly one end, also of
//! those that no handler sees to their end, and runs every piece of a call.

mod wire;

use std::sync::{Arc, Mutex};

use evenkeel_server::{CallLayer, CallScope, CallStart, Server};
use tokio::sync::watch;
use tonic::Code;
use wire::{
    Client, Running, SAY_HELLO, hello,
    probe::{STREAM, Step},
    within,
};

#[derive(Clone)]
struct Noting {
    ends: watch::Sender<Vec<Option<u8>>>,
    starts: Arc<Mutex<Vec<String>>>,
    /// Runs nothing, which a layer must not do.
    is_lazy: bool,
}

impl CallLayer for Noting {
    fn start(&self, call: &mut CallStart<'_>) -> Option<Box<dyn CallScope>> {
        let said = call.headers.get("x-name").is_some();
        let peer = call.peer.map(|peer| peer.to_string()).unwrap_or_default();
        self.starts.lock().expect("not poisoned").push(format!("{} {said} {peer}", call.path));
        Some(Box::new(Noted(self.clone())))
    }
}

struct Noted(Noting);

impl CallScope for Noted {
    fn enter(&mut self, piece: &mut dyn FnMut()) {
        if !self.0.is_lazy {
            piece();
        }
    }

    fn end(self: Box<Self>, status: Option<u8>) {
        self.0.ends.send_modify(|ends| ends.push(status));
    }
}

impl Noting {
    fn new(is_lazy: bool) -> Self {
        Self { ends: watch::Sender::new(Vec::new()), starts: Arc::default(), is_lazy }
    }

    /// The ends, as soon as there are so many.
    async fn ended(&self, count: usize) -> Vec<Option<u8>> {
        let mut ends = self.ends.subscribe();
        within(ends.wait_for(|ends| ends.len() >= count)).await.expect("it is here").clone()
    }
}

#[tokio::test]
async fn every_end_is_told_once_with_its_status() {
    let layer = Noting::new(false);
    let server = Running::start(Server::builder().call_layer(layer.clone())).await;
    let mut client = Client::connect(server.address).await;
    let named = client.call(SAY_HELLO, &[("x-name", "1")], &hello("you")).await;
    assert_eq!(named.expect("an answer").text(), "Hello you");
    client.hello("panic").await.expect("an answer");
    let late = [("grpc-timeout", "50m")];
    client.call(SAY_HELLO, &late, &hello("hold")).await.expect("an answer");
    let malformed = [("grpc-timeout", "soon")];
    client.call(SAY_HELLO, &malformed, &hello("you")).await.expect("an answer");
    client.call("/no.Service/Method", &[], &hello("")).await.expect("an answer");
    let codes =
        [Code::Ok, Code::Internal, Code::DeadlineExceeded, Code::Internal, Code::Unimplemented];
    assert_eq!(layer.ended(5).await, codes.map(|code| Some(code as u8)));
    let starts = layer.starts.lock().expect("not poisoned").clone();
    assert_eq!(starts.len(), 5);
    assert_eq!(starts[0], format!("{SAY_HELLO} true {}", client.local));
    assert_eq!(starts[4], format!("/no.Service/Method false {}", client.local));
}

#[tokio::test]
async fn a_stream_ends_with_its_trailers_or_its_panic() {
    let layer = Noting::new(false);
    let server = Running::start(Server::builder().call_layer(layer.clone())).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    steps.try_send(Step::Data(b"begun")).expect("the call will take it");
    steps.try_send(Step::Panic).expect("the call will take it");
    client.call(STREAM, &[], &hello("")).await.expect("an answer");
    assert_eq!(layer.ended(1).await, [Some(Code::Internal as u8)]);
}

#[tokio::test]
async fn a_client_that_goes_leaves_no_status() {
    let layer = Noting::new(false);
    let server = Running::start(Server::builder().call_layer(layer.clone())).await;
    let mut client = Client::connect(server.address).await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    drop((held, client));
    assert_eq!(layer.ended(1).await, [None]);
}

#[tokio::test]
async fn a_layer_that_does_not_run_the_handler_fails_the_call_and_not_the_server() {
    let layer = Noting::new(true);
    let server = Running::start(Server::builder().call_layer(layer.clone())).await;
    let mut client = Client::connect(server.address).await;
    for count in 1..3 {
        let answer = client.hello("you").await.expect("an answer");
        assert_eq!(answer.grpc_status, Some(Code::Internal as i32));
        assert_eq!(layer.ended(count).await, vec![Some(Code::Internal as u8); count]);
    }
}
