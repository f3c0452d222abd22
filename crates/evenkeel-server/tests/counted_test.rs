//! A meter of a server's calls: it knows a path after a service has answered for it, hears of each
//! end once, and of the bytes of messages without their framing.

mod wire;

use std::sync::{Arc, Mutex};

use evenkeel_server::{CallEnd, CallMeter, Server};
use tokio::sync::watch;
use tonic::Code;
use wire::{
    Client, Running, SAY_HELLO, hello,
    probe::{STREAM, Step},
    within,
};

/// A method, its status, bytes sent and received.
type End = (Option<String>, Option<u8>, u64, u64);

struct Counting {
    known: Mutex<Vec<String>>,
    ends: watch::Sender<Vec<End>>,
}

impl Counting {
    fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), ends: watch::Sender::new(Vec::new()) })
    }

    async fn ended(&self, count: usize) -> Vec<End> {
        let mut ends = self.ends.subscribe();
        within(ends.wait_for(|ends| ends.len() >= count)).await.expect("it is here").clone()
    }
}

impl CallMeter for Counting {
    fn started(&self, path: &str) -> Option<u32> {
        let known = self.known.lock().expect("not poisoned");
        known.iter().position(|name| name == path).map(|at| at as u32)
    }

    fn known(&self, path: &str) -> u32 {
        let mut known = self.known.lock().expect("not poisoned");
        known.push(path.to_owned());
        known.len() as u32 - 1
    }

    fn ended(&self, method: Option<u32>, end: &CallEnd) {
        let known = self.known.lock().expect("not poisoned");
        let method = method.map(|at| known[at as usize].clone());
        let end = (method, end.status, end.sent_bytes, end.received_bytes);
        self.ends.send_modify(|ends| ends.push(end));
    }
}

#[tokio::test]
async fn a_path_is_a_method_once_a_service_has_answered_for_it() {
    let meter = Counting::new();
    let server = Running::start(Server::builder().call_meter(meter.clone())).await;
    let mut client = Client::connect(server.address).await;
    client.call("/no.Service/Method", &[], &hello("")).await.expect("an answer");
    client.call("/no.Service/Method", &[], &hello("")).await.expect("an answer");
    client.hello("you").await.expect("an answer");
    client.hello("panic").await.expect("an answer");
    client.call(SAY_HELLO, &[("grpc-timeout", "soon")], &hello("you")).await.expect("an answer");
    let unimplemented = Some(Code::Unimplemented as u8);
    let internal = Some(Code::Internal as u8);
    let greeter = || Some(SAY_HELLO.to_owned());
    let expected = [
        (None, unimplemented, 0, 0),
        (None, unimplemented, 0, 0),
        // `you` in a field, and `Hello you` in another.
        (greeter(), Some(0), 11, 5),
        (greeter(), internal, 0, 7),
        (greeter(), internal, 0, 0),
    ];
    assert_eq!(meter.ended(5).await, expected);
    assert_eq!(*meter.known.lock().expect("not poisoned"), [SAY_HELLO]);
}

#[tokio::test]
async fn a_stream_is_known_while_it_runs_and_counted_at_its_end() {
    let meter = Counting::new();
    let server = Running::start(Server::builder().call_meter(meter.clone())).await;
    let mut client = Client::connect(server.address).await;
    let steps = server.probe.stream();
    let response = client.start(STREAM, &[], &hello("")).await.expect("sent");
    steps.try_send(Step::Data(b"\0\0\0\0\x05begun")).expect("the call will take it");
    let head = within(response).await.expect("a head");
    assert_eq!(*meter.known.lock().expect("not poisoned"), [STREAM]);
    assert!(meter.ends.borrow().is_empty());
    drop((head, client));
    drop(steps);
    let ends = meter.ended(1).await;
    assert_eq!((ends[0].0.as_deref(), ends[0].1), (Some(STREAM), None));
}
