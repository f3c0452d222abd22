//! Watches against the API server's double: over sockets, in real time, each wait bounded.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use apiserver::{ApiServer, Fault, Kind, SliceEndpoint, SliceSpec, StreamingLists};
use evenkeel_kubernetes::{Cluster, Port, Selection, ServiceKey, State, Watch, WatchErrorKind};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// A kubeconfig in a file that goes away.
struct File(PathBuf);

static FILES: AtomicU32 = AtomicU32::new(0);

impl File {
    fn new(text: &str) -> Self {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("evenkeel-kubernetes-watch-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn server() -> ApiServer {
    ApiServer::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn cluster(server: &ApiServer) -> Cluster {
    Cluster::kubeconfig(&File::new(&server.kubeconfig()).0).unwrap()
}

fn join(server: &ApiServer) -> Watch {
    cluster(server).watch(ServiceKey::new("default", "greeter").unwrap())
}

/// The Service's endpoints are 10.1.0.N from now on.
fn publish(server: &ApiServer, last: &[u8]) {
    let endpoints = last.iter().map(|n| SliceEndpoint::ready([10, 1, 0, *n])).collect();
    server.apply(&SliceSpec::new("greeter", 8000, endpoints));
}

fn addresses(state: &State) -> Option<Vec<String>> {
    let State::Good { slices, .. } = state else { return None };
    let endpoints = slices.select(&Selection::new(Port::Number(8000))).unwrap();
    Some(endpoints.iter().map(|e| e.addresses()[0].to_string()).collect())
}

fn expected(last: &[u8]) -> Vec<String> {
    last.iter().map(|n| format!("10.1.0.{n}:8000")).collect()
}

/// Waits until the state is as wanted, through whatever comes before.
async fn until(watch: &mut Watch, what: &str, wanted: impl Fn(&State) -> bool) -> State {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = tokio::time::timeout_at(deadline, watch.changed()).await;
        let state = state.unwrap_or_else(|_| panic!("{what}: still {:?}", watch.state()));
        if wanted(&state) {
            return state;
        }
    }
}

async fn until_addresses(watch: &mut Watch, last: &[u8]) {
    let want = expected(last);
    until(watch, &format!("{want:?}"), |state| addresses(state).as_ref() == Some(&want)).await;
}

async fn until_error(watch: &mut Watch, kind: WatchErrorKind) -> String {
    let what = format!("{kind:?}");
    let state = until(watch, &what, |state| match state {
        State::Good { error: Some(error), .. } | State::Failed(error) => error.kind == kind,
        _ => false,
    });
    match state.await {
        State::Good { error: Some(error), .. } | State::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn users_share_one_request_that_ends_with_the_last_of_them() {
    let server = server().await;
    publish(&server, &[1, 2]);
    let mut users: Vec<Watch> = (0..5).map(|_| join(&server)).collect();
    for user in &mut users {
        until_addresses(user, &[1, 2]).await;
    }
    assert_eq!(server.count(Kind::StreamingList), 1);
    // Another cluster object, and another Service, are another request.
    let other = cluster(&server).watch(ServiceKey::new("default", "other").unwrap());
    let mut other = other;
    until(&mut other, "an empty set", |state| matches!(state, State::Good { .. })).await;
    assert_eq!(server.count(Kind::StreamingList), 2);
    drop(users);
    let mut again = join(&server);
    assert_eq!(again.state(), State::Pending);
    until_addresses(&mut again, &[1, 2]).await;
    assert_eq!(server.count(Kind::StreamingList), 3);
}

#[tokio::test]
async fn changes_are_seen_and_cost_no_request() {
    let server = server().await;
    let mut watch = join(&server);
    let state = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert_eq!(addresses(&state), Some(vec![]));
    for last in [&[1][..], &[1, 2, 3], &[2], &[]] {
        publish(&server, last);
        until_addresses(&mut watch, last).await;
    }
    server.delete("default", "greeter-1");
    let state = timeout(PATIENCE, watch.changed()).await.unwrap();
    assert!(matches!(state, State::Good { slices, .. } if slices.is_empty()));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_user_that_cancels_all_the_time_loses_nothing() {
    let server = server().await;
    publish(&server, &[1]);
    let mut watch = join(&server);
    until_addresses(&mut watch, &[1]).await;
    publish(&server, &[2]);
    let want = Some(expected(&[2]));
    let mut seen = None;
    for _ in 0..10_000 {
        if seen == want {
            break;
        }
        // Each turn drops the future and makes a new one.
        if let Ok(state) = timeout(Duration::from_millis(1), watch.changed()).await {
            seen = addresses(&state);
        }
    }
    assert_eq!(seen, want);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn when_the_leader_goes_another_user_goes_on_where_it_was() {
    let server = server().await;
    publish(&server, &[1]);
    let (mut leader, mut follower) = (join(&server), join(&server));
    until_addresses(&mut leader, &[1]).await;
    until_addresses(&mut follower, &[1]).await;
    drop(leader);
    publish(&server, &[1, 2]);
    until_addresses(&mut follower, &[1, 2]).await;
    assert_eq!((server.count(Kind::StreamingList), server.count(Kind::Watch)), (1, 1));
}

#[tokio::test]
async fn a_leader_on_a_runtime_that_stands_still_is_replaced() {
    let server = server().await;
    publish(&server, &[1]);
    let mut leader = join(&server);
    let (led, leads) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let standing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            until_addresses(&mut leader, &[1]).await;
            led.send(()).unwrap();
            // What no runtime survives, and applications do.
            released.recv().unwrap();
        });
    });
    timeout(PATIENCE, leads).await.unwrap().unwrap();
    let mut follower = join(&server);
    until_addresses(&mut follower, &[1]).await;
    publish(&server, &[1, 2]);
    until_addresses(&mut follower, &[1, 2]).await;
    release.send(()).unwrap();
    standing.join().unwrap();
}

#[tokio::test]
async fn servers_without_streaming_lists_are_listed_and_watched() {
    for how in [StreamingLists::Refused, StreamingLists::Unknown] {
        let server = server().await;
        server.streaming_lists(how);
        publish(&server, &[1]);
        let mut watch = join(&server);
        until_addresses(&mut watch, &[1]).await;
        publish(&server, &[1, 2]);
        until_addresses(&mut watch, &[1, 2]).await;
        assert_eq!((server.count(Kind::List), server.count(Kind::Watch)), (1, 1), "{how:?}");
    }
}

#[tokio::test]
async fn without_the_right_the_error_says_which_and_it_is_tried_again() {
    let server = server().await;
    publish(&server, &[1]);
    server.fault(Some(Fault::Status { code: 403, retry_after_s: None }));
    let mut watch = join(&server);
    let text = until_error(&mut watch, WatchErrorKind::Forbidden).await;
    for part in ["cannot watch resource", "Role", "in namespace default", "[\"list\", \"watch\"]"] {
        assert!(text.contains(part), "{text}");
    }
    server.fault(None);
    until_addresses(&mut watch, &[1]).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_the_last_set_is_kept() {
    let mut server = server().await;
    publish(&server, &[1]);
    let mut watch = join(&server);
    until_addresses(&mut watch, &[1]).await;
    server.stop().await;
    let text = until_error(&mut watch, WatchErrorKind::Connection).await;
    assert!(text.contains(&server.address().to_string()), "{text}");
    assert_eq!(addresses(&watch.state()), Some(expected(&[1])));
    publish(&server, &[1, 2]);
    server.resume().unwrap();
    until_addresses(&mut watch, &[1, 2]).await;
    let state = watch.state();
    assert!(matches!(state, State::Good { error: None, .. }), "{state:?}");
    // It went on from the version that it had.
    assert_eq!(server.count(Kind::StreamingList), 1);
}

#[tokio::test]
async fn what_was_compacted_is_listed_again() {
    let mut server = server().await;
    publish(&server, &[1]);
    let mut watch = join(&server);
    until_addresses(&mut watch, &[1]).await;
    server.stop().await;
    publish(&server, &[2]);
    server.compact();
    server.resume().unwrap();
    until_addresses(&mut watch, &[2]).await;
    assert_eq!((server.count(Kind::Watch), server.count(Kind::StreamingList)), (1, 2));
    // As a status of the answer, too.
    server.fault(Some(Fault::Status { code: 410, retry_after_s: None }));
    server.break_connections();
    until_error(&mut watch, WatchErrorKind::Connection).await;
    publish(&server, &[3]);
    server.fault(None);
    until_addresses(&mut watch, &[3]).await;
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again() {
    let server = server().await;
    publish(&server, &[1]);
    let token = File::new("old");
    let text = server.kubeconfig();
    let text = text.replace("user: {}", &format!("user: {{tokenFile: {}}}", token.0.display()));
    server.require_token(Some("new"));
    let cluster = Cluster::kubeconfig(&File::new(&text).0).unwrap();
    let mut watch = cluster.watch(ServiceKey::new("default", "greeter").unwrap());
    let text = until_error(&mut watch, WatchErrorKind::Unauthorized).await;
    assert!(text.contains("token of the ServiceAccount"), "{text}");
    std::fs::write(&token.0, "new\n").unwrap();
    until_addresses(&mut watch, &[1]).await;
}

#[tokio::test]
async fn a_server_that_ends_each_watch_is_not_hammered() {
    tokio::join!(
        requests_in_4_s(Fault::EndWatches),
        requests_in_4_s(Fault::Garbage),
        requests_in_4_s(Fault::Close),
    );
}

async fn requests_in_4_s(fault: Fault) {
    let server = server().await;
    server.fault(Some(fault.clone()));
    let mut watch = join(&server);
    let began = Instant::now();
    let mut errors = 0;
    while began.elapsed() < Duration::from_secs(4) {
        if timeout(Duration::from_secs(1), watch.changed()).await.is_ok() {
            errors += 1;
        }
    }
    // At 0, after 0.8 to 2.4 s, after 1.6 to 4.8 s more.
    let requests = server.requests().len();
    assert!((2..=3).contains(&requests), "{fault:?}: {requests} requests");
    assert!(errors >= 1, "{fault:?}");
    assert!(matches!(watch.state(), State::Failed(_)), "{fault:?}: {:?}", watch.state());
}

#[tokio::test]
async fn a_thousand_endpoints_in_slices_of_a_hundred_change_one_at_a_time() {
    let server = server().await;
    let spec = |number: u8, count: u8| {
        let endpoints = (0..count).map(|n| SliceEndpoint::ready([10, 2, number, n])).collect();
        SliceSpec {
            name: format!("greeter-{number}"),
            ..SliceSpec::new("greeter", 8000, endpoints)
        }
    };
    for number in 0..10 {
        server.apply(&spec(number, 100));
    }
    let mut watch = join(&server);
    let count = |state: &State| addresses(state).map(|list| list.len());
    until(&mut watch, "1,000 endpoints", |state| count(state) == Some(1_000)).await;
    server.apply(&spec(3, 99));
    let state = until(&mut watch, "999 endpoints", |state| count(state) == Some(999)).await;
    let State::Good { slices, .. } = state else { panic!("{state:?}") };
    assert_eq!(slices.endpoints_count(), 999);
    assert!(slices.applied_in() > Duration::ZERO);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_server_is_known_by_its_certificate() {
    let server = server().await;
    publish(&server, &[1]);
    let (address, authority) = tls_in_front_of(server.address()).await;
    let file = File::new(&authority);
    let config = |file: &File| {
        let text = server.kubeconfig().replace(
            &format!("{{server: \"http://{}\"}}", server.address()),
            &format!(
                "{{server: \"https://{address}\", certificate-authority: {}}}",
                file.0.display()
            ),
        );
        Cluster::kubeconfig(&File::new(&text).0).unwrap()
    };
    let key = ServiceKey::new("default", "greeter").unwrap();
    let mut watch = config(&file).watch(key.clone());
    until_addresses(&mut watch, &[1]).await;
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut watch = config(&File::new(&stranger.cert.pem())).watch(key);
    let text = until_error(&mut watch, WatchErrorKind::Connection).await;
    assert!(text.contains("TLS handshake") && text.contains("invalid peer certificate"), "{text}");
}

/// Ends TLS and passes the bytes on; returns its address and its certificate.
async fn tls_in_front_of(server: std::net::SocketAddr) -> (std::net::SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut plain) = acceptor.accept(socket).await else { return };
                let mut behind = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut plain, &mut behind).await;
            });
        }
    });
    (address, made.cert.pem())
}
