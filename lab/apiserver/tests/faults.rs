//! What the double can be told to do wrong, seen by a client.

mod http;

use ::http::Method;
use apiserver::{ApiServer, Fault, Kind, SliceEndpoint, SliceSpec, StreamingLists};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use self::http::{Events, send, whole};

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const STREAMING: &str = "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
                         &resourceVersionMatch=NotOlderThan";

async fn server() -> ApiServer {
    let server = ApiServer::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    server.apply(&SliceSpec::new("greeter", 8000, vec![SliceEndpoint::ready([10, 1, 0, 1])]));
    server
}

async fn list(server: &ApiServer) -> (u16, serde_json::Value) {
    let (status, body) = send(&server.address().to_string(), Method::GET, PATH, None).await;
    (status.as_u16(), whole(body).await)
}

async fn watch(server: &ApiServer, query: &str) -> (u16, Events) {
    let path = format!("{PATH}{query}");
    let (status, body) = send(&server.address().to_string(), Method::GET, &path, None).await;
    (status.as_u16(), Events::new(body))
}

#[tokio::test]
async fn statuses_read_as_the_real_ones_and_requests_are_counted() {
    let server = server().await;
    for code in [401, 403, 410, 429, 500] {
        server.fault(Some(Fault::Status { code, retry_after_s: Some(1) }));
        let (status, body) = list(&server).await;
        assert_eq!((status, &body["code"]), (code, &code.into()));
    }
    server.fault(Some(Fault::Status { code: 403, retry_after_s: None }));
    let (_, body) = list(&server).await;
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("cannot list resource \"endpointslices\" in API group"), "{message}");
    server.fault(None);
    assert_eq!(list(&server).await.0, 200);
    assert_eq!((server.count(Kind::List), server.count(Kind::Watch)), (7, 0));
    server.require_token(Some("secret"));
    assert_eq!(list(&server).await.0, 401);
    assert!(server.kubeconfig().contains("token: \"secret\""));
}

#[tokio::test]
async fn slow_hanging_and_closing_requests_are_what_they_are_called() {
    let server = server().await;
    server.fault(Some(Fault::Slow(Duration::from_millis(200))));
    let began = Instant::now();
    assert_eq!(list(&server).await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
    server.fault(Some(Fault::Hang));
    assert!(timeout(Duration::from_millis(300), list(&server)).await.is_err());
    server.fault(Some(Fault::Close));
    let socket = TcpStream::connect(server.address()).await.unwrap();
    socket.writable().await.unwrap();
    socket.try_write(format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut buffer = [0; 16];
    timeout(http::PATIENCE, socket.readable()).await.unwrap().unwrap();
    assert_eq!(socket.try_read(&mut buffer).ok(), Some(0));
}

#[tokio::test]
async fn running_watches_go_on_through_compaction_and_end_with_their_connection() {
    let mut server = server().await;
    let (status, mut events) = watch(&server, STREAMING).await;
    assert_eq!((status, events.change().await["type"].as_str()), (200, Some("ADDED")));
    assert_eq!(events.next().await.unwrap()["type"], "BOOKMARK");
    let before = server.version();
    server.apply(&SliceSpec::new("greeter", 8000, Vec::new()));
    assert_eq!(events.change().await["type"], "MODIFIED");
    server.compact();
    let (_, mut late) = watch(&server, &format!("?watch=true&resourceVersion={before}")).await;
    assert_eq!(late.next().await.unwrap()["object"]["code"], 410);
    server.apply(&SliceSpec::new("greeter", 8000, vec![SliceEndpoint::ready([10, 1, 0, 2])]));
    assert_eq!(events.change().await["type"], "MODIFIED");
    server.break_connections();
    assert_eq!(events.next().await, None);
    server.stop().await;
    assert!(TcpStream::connect(server.address()).await.is_err());
    server.resume().unwrap();
    assert_eq!(list(&server).await.0, 200);
}

#[tokio::test]
async fn streaming_lists_can_be_refused_or_unknown() {
    let server = server().await;
    server.streaming_lists(StreamingLists::Refused);
    assert_eq!(watch(&server, STREAMING).await.0, 422);
    server.streaming_lists(StreamingLists::Unknown);
    let (status, mut events) = watch(&server, &format!("{STREAMING}&timeoutSeconds=1")).await;
    assert_eq!((status, events.next().await.unwrap()["type"].as_str()), (200, Some("ADDED")));
    while let Some(event) = events.next().await {
        assert_eq!(event["object"]["metadata"]["annotations"], serde_json::Value::Null);
    }
    server.streaming_lists(StreamingLists::Served);
    server.fault(Some(Fault::EndWatches));
    assert_eq!(watch(&server, STREAMING).await.1.next().await, None);
}
