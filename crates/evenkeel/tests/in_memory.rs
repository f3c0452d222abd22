//! The channel over pipes in memory, with time paused: waits of minutes, to the millisecond. And
//! over Unix sockets, which need another connector than TCP.

mod fixture;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel::{
    Backoff, BoxedIo, Channel, ChannelBuilder, Connecting, ConnectivityState, Connector, IoStream,
    Keepalive,
    core::{
        Address, Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Target,
        TargetError,
    },
};
use fixture::bytes::hello;
use tokio::{
    net::UnixListener,
    time::{Instant, timeout},
};
use tonic::Code;

/// `memory:name` is the one endpoint of that name.
struct Names;

impl ResolverFactory for Names {
    fn schemes(&self) -> &[&str] {
        &["memory"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        Ok(target.path().to_owned())
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let endpoint = Endpoint::new(Address::Named(target.path().to_owned()));
        Ok(Box::pin(async move { sink.update(ResolverUpdate::new(vec![endpoint])) }))
    }
}

#[derive(Clone, Copy)]
enum Server {
    Refuses,
    NeverConnects,
    /// Sends its SETTINGS and nothing more, though it reads. There is no second connection.
    Greets,
    Serves,
    /// Serves, and says GOAWAY to each connection at this age.
    Ages(Duration),
}

/// Connects to a server of the test, and notes when.
struct Pipes {
    server: Server,
    attempts: Mutex<Vec<Instant>>,
    /// Health checks that were begun.
    watches: Arc<AtomicUsize>,
}

impl Connector for Pipes {
    fn connect(&self, _address: &Address) -> Connecting {
        let mut attempts = self.attempts.lock().unwrap();
        attempts.push(Instant::now());
        let server = match self.server {
            Server::Greets if attempts.len() > 1 => Server::NeverConnects,
            server => server,
        };
        let watches = self.watches.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            match server {
                Server::Refuses => return Err(io::Error::other("refused as the test wants")),
                Server::NeverConnects => std::future::pending().await,
                Server::Greets => drop(tokio::spawn(greet(theirs))),
                Server::Serves => drop(tokio::spawn(serve(theirs, watches, Duration::MAX))),
                Server::Ages(age) => drop(tokio::spawn(serve(theirs, watches, age))),
            }
            Ok(Box::pin(ours) as BoxedIo)
        })
    }
}

async fn greet(io: impl IoStream + Unpin) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut read, mut write) = tokio::io::split(io);
    write.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut sink = [0; 1024];
    while read.read(&mut sink).await.is_ok_and(|n| n > 0) {}
}

/// Answers each request with headers and OK trailers around one empty message; to a health check
/// the message says SERVING, and INTERNAL is its end.
async fn serve(io: impl IoStream + Unpin, watches: Arc<AtomicUsize>, age: Duration) {
    let mut server = h2::server::handshake(io).await.unwrap();
    // The age of a connection is what it is for; the connection's own end comes before.
    let mut end = std::pin::pin!(tokio::time::sleep(age));
    loop {
        let next = tokio::select! {
            next = server.accept() => next,
            () = &mut end, if !end.is_elapsed() => {
                server.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, mut respond))) = next else { return };
        let is_check = request.uri().path() == "/grpc.health.v1.Health/Watch";
        watches.fetch_add(is_check.into(), Ordering::SeqCst);
        let (message, status) = match is_check {
            true => (&[0, 0, 0, 0, 2, 8, 1][..], 13),
            false => (&[0; 5][..], 0),
        };
        let head = http::Response::builder().header("content-type", "application/grpc");
        let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
        stream.send_data(bytes::Bytes::from_static(message), false).unwrap();
        let end = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from(status))];
        stream.send_trailers(http::HeaderMap::from_iter(end)).unwrap();
    }
}

fn over(server: Server) -> (ChannelBuilder, Arc<Pipes>) {
    let watches = Arc::default();
    let pipes = Arc::new(Pipes { server, attempts: Mutex::default(), watches });
    let builder = Channel::builder("memory:greeter")
        .register_resolver(Arc::new(Names))
        .connector(pipes.clone())
        .backoff(Backoff { jitter: 0.0, ..Backoff::default() });
    (builder, pipes)
}

async fn reaches(channel: &Channel, wanted: ConnectivityState, within: Duration) {
    let arrive = async {
        let mut state = channel.state();
        while state != wanted {
            state = channel.wait_for_state_change(state).await;
        }
    };
    timeout(within, arrive).await.unwrap_or_else(|_| panic!("not {wanted} in {within:?}"));
}

#[tokio::test(start_paused = true)]
async fn attempts_follow_the_backoff_to_the_millisecond() {
    let (builder, pipes) = over(Server::Refuses);
    let channel = builder.build().unwrap();
    let begun = Instant::now();
    channel.connect();
    let shutdown = channel.wait_for_state_change(ConnectivityState::TransientFailure);
    reaches(&channel, ConnectivityState::TransientFailure, Duration::from_secs(1)).await;
    assert!(timeout(Duration::from_secs(400), shutdown).await.is_err(), "it stays so");
    let times: Vec<u128> = pipes.attempts.lock().unwrap()[..]
        .iter()
        .map(|at| at.duration_since(begun).as_millis())
        .collect();
    let mut want = vec![0_f64];
    let mut wait = 1000_f64;
    while want.len() < times.len() {
        want.push(want.last().unwrap() + wait);
        wait = (wait * 1.6).min(120_000.0);
    }
    assert!(times.len() > 10, "{times:?}");
    for (time, want) in times.iter().zip(want) {
        // tokio's timers have a resolution of 1 ms, and each attempt starts from the one before.
        assert!((*time as f64 - want).abs() <= times.len() as f64, "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_given_up_after_the_connect_timeout() {
    for (server, why) in [
        (Server::NeverConnects, "no connection within 20s"),
        (Server::Refuses, "refused as the test wants"),
    ] {
        let channel = over(server).0.build().unwrap();
        let begun = Instant::now();
        let status = hello(&channel).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(why), "{status}");
        assert!(status.message().contains("greeter"), "{status}");
        let took = begun.elapsed().as_secs();
        assert_eq!(took, if matches!(server, Server::Refuses) { 0 } else { 20 });
    }
}

#[tokio::test(start_paused = true)]
async fn keepalive_leaves_a_silent_server_after_time_and_timeout() {
    let keepalive = Keepalive {
        time: Duration::from_secs(600),
        timeout: Duration::from_secs(20),
        permit_without_calls: true,
    };
    let channel = over(Server::Greets).0.keepalive(keepalive).build().unwrap();
    channel.connect();
    reaches(&channel, ConnectivityState::Ready, Duration::from_secs(1)).await;
    let begun = Instant::now();
    let left = channel.wait_for_state_change(ConnectivityState::Ready);
    timeout(Duration::from_secs(700), left).await.expect("keepalive");
    let took = begun.elapsed();
    assert!((Duration::from_secs(620)..Duration::from_secs(621)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn goes_idle_without_calls_and_is_woken_by_the_next() {
    let (builder, pipes) = over(Server::Serves);
    let channel = builder.build().unwrap();
    hello(&channel).await.unwrap();
    for _ in 0..10 {
        // Time that passes between two calls is what this test is about.
        tokio::time::sleep(Duration::from_secs(29 * 60)).await;
        assert_eq!(channel.state(), ConnectivityState::Ready);
        hello(&channel).await.unwrap();
    }
    assert_eq!(pipes.attempts.lock().unwrap().len(), 1);
    let idle = channel.wait_for_state_change(ConnectivityState::Ready);
    let begun = Instant::now();
    assert_eq!(idle.await, ConnectivityState::Idle);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    assert!((30.0..=34.0).contains(&minutes), "{minutes}");
    hello(&channel).await.unwrap();
    assert_eq!(channel.state(), ConnectivityState::Ready);
    assert_eq!(pipes.attempts.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn goes_idle_although_its_server_ends_each_connection_by_age() {
    let minute = Duration::from_secs(60);
    let (builder, pipes) = over(Server::Ages(minute));
    let channel = builder.build().unwrap();
    hello(&channel).await.unwrap();
    let begun = Instant::now();
    reaches(&channel, ConnectivityState::Idle, 40 * minute).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    assert!((30.0..=34.0).contains(&minutes), "{minutes}");
    let connections = pipes.attempts.lock().unwrap().len();
    assert!(connections > 20, "{connections}: one a minute until then");
}

#[tokio::test(start_paused = true)]
async fn health_checks_in_a_loop_are_slow_and_no_reason_to_stay_awake() {
    let (builder, pipes) = over(Server::Serves);
    let config = r#"{"healthCheckConfig":{"serviceName":"any"}}"#;
    let minute = Duration::from_secs(60);
    let backoff = Backoff { initial: minute, jitter: 0.0, ..Backoff::default() };
    let channel = builder.service_config(config).backoff(backoff).build().unwrap();
    let begun = Instant::now();
    channel.connect();
    channel.wait_for_state_change(ConnectivityState::Idle).await;
    reaches(&channel, ConnectivityState::Idle, Duration::from_secs(40 * 60)).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    assert!((30.0..=34.0).contains(&minutes), "{minutes}");
    // Each is answered and ended at once: two in the time of the backoff's first wait.
    let watches = pipes.watches.load(Ordering::SeqCst);
    let per_minute = watches as f64 / minutes;
    assert!((1.0..=2.1).contains(&per_minute), "{watches} in {minutes} minutes");
    tokio::time::sleep(Duration::from_secs(600)).await; // in which nothing is to happen
    assert_eq!(pipes.watches.load(Ordering::SeqCst), watches, "and none while it is IDLE");
    assert_eq!(pipes.attempts.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_are_served_over_a_pipe() {
    let (builder, pipes) = over(Server::Serves);
    let channel = builder.build().unwrap();
    for _ in 0..100 {
        hello(&channel).await.unwrap();
    }
    assert_eq!(pipes.attempts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn calls_are_served_over_unix_sockets() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let unique = format!("evenkeel-{}-{}", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(&unique);
    let by_path = UnixListener::bind(&path).unwrap();
    let name = net::SocketAddr::from_abstract_name(&unique).unwrap();
    let by_name = net::UnixListener::bind_addr(&name).unwrap();
    by_name.set_nonblocking(true).unwrap();
    let by_name = UnixListener::from_std(by_name).unwrap();
    let targets = [format!("unix:{}", path.display()), format!("unix-abstract:{unique}")];
    for (listener, target) in [by_path, by_name].into_iter().zip(targets) {
        let server = tokio::spawn(async move {
            serve(listener.accept().await.unwrap().0, Arc::default(), Duration::MAX).await;
        });
        let channel = Channel::builder(target).build().unwrap();
        fixture::soon("an answer", hello(&channel)).await.unwrap();
        drop(channel);
        fixture::soon("the server's end", server).await.unwrap();
    }
    std::fs::remove_file(path).unwrap();
}
