//! The real binary: what it prints, how it answers, how it ends. Only a process shows exit codes
//! and signals.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel::Channel;
use evenkeel_proto::grpc::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use h2::client::{ResponseFuture, SendRequest};
use helloworld::{HelloReply, HelloRequest};
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::Code;

const WAIT_MAX: Duration = Duration::from_secs(10);

async fn within<F: Future>(future: F) -> F::Output {
    timeout(WAIT_MAX, future).await.expect("within 10 s")
}

fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greeter"));
    // Nothing from the caller's environment may change what is tested.
    command.env_clear().args(args).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// A greeter that accepts connections.
struct Greeter {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Greeter {
    async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let listen: &[&str] = &["--listen", "127.0.0.1:0"];
        let at_once: &[&str] =
            if args.contains(&"--drain-delay") { &[] } else { &["--drain-delay", "0s"] };
        let args = [listen, at_once, args].concat();
        let mut child = command(&args, env).spawn().expect("the binary");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = within(stdout.next_line()).await.expect("readable").expect("a line");
        let port = line.strip_prefix("Started server on port ").expect("the line of the contract");
        let address = format!("127.0.0.1:{port}").parse().expect("a port");
        Self { child, stdout, address }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a pid");
        kill_process(Pid::from_raw(pid).expect("not 0"), signal).expect("it runs");
    }

    /// Exit code and standard error.
    async fn ended(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("piped");
        within(pipe.read_to_string(&mut stderr)).await.expect("UTF-8");
        assert_eq!(within(self.stdout.next_line()).await.expect("readable"), None);
        (within(self.child.wait()).await.expect("ended").code(), stderr)
    }
}

/// A client that is h2 alone, with the generated messages.
struct Client {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self::over(within(TcpStream::connect(address)).await.expect("a connection")).await
    }

    async fn over(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (send, connection) = within(h2::client::handshake(socket)).await.expect("HTTP/2");
        Self { send, connection: tokio::spawn(connection) }
    }

    async fn start(&mut self, path: &str) -> ResponseFuture {
        let message = HelloRequest { name: "you".to_owned() };
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(message.encoded_len() as u32);
        message.encode(&mut bytes).expect("the buffer grows");
        let request = http::Request::post(format!("http://greeter.test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut send = within(self.send.clone().ready()).await.expect("takes calls");
        let (response, mut body) = send.send_request(request, false).expect("sent");
        body.send_data(bytes.freeze(), true).expect("sent");
        response
    }

    /// The reply's text, or the status.
    async fn hello(&mut self) -> Result<String, String> {
        finish(self.start("/helloworld.Greeter/SayHello").await).await
    }
}

async fn finish(response: ResponseFuture) -> Result<String, String> {
    let response = within(response).await.map_err(|error| error.to_string())?;
    let (head, mut body) = response.into_parts();
    if let Some(status) = head.headers.get("grpc-status") {
        return Err(status.to_str().expect("a number").to_owned());
    }
    let data = within(body.data()).await.expect("a message").map_err(|error| error.to_string())?;
    Ok(HelloReply::decode(&data[5..]).expect("a reply").message)
}

#[tokio::test]
async fn answers_with_the_address_of_the_connection() {
    let greeter = Greeter::start(&[], &[]).await;
    let mut client = Client::connect(greeter.address).await;
    assert_eq!(client.hello().await.as_deref(), Ok("Hello you (Backend IP: 127.0.0.1)"));
}

#[tokio::test]
async fn answers_with_the_pod_address_if_it_is_known() {
    let greeter = Greeter::start(&[], &[("MY_POD_IP", "10.0.2.95")]).await;
    let mut client = Client::connect(greeter.address).await;
    assert_eq!(client.hello().await.as_deref(), Ok("Hello you (Backend IP: 10.0.2.95)"));
}

#[tokio::test]
async fn fails_every_call_at_error_rate_one_with_unavailable() {
    let greeter = Greeter::start(&[], &[("GREETER_ERROR_RATE", "1")]).await;
    let mut client = Client::connect(greeter.address).await;
    for _ in 0..10 {
        assert_eq!(client.hello().await, Err("14".to_owned()));
    }
}

#[tokio::test]
async fn a_flag_wins_over_its_variable() {
    let env = [("GREETER_ERROR_RATE", "1")];
    let greeter = Greeter::start(&["--error-rate", "0"], &env).await;
    let mut client = Client::connect(greeter.address).await;
    client.hello().await.expect("an answer");
}

#[tokio::test]
async fn sends_goaway_at_the_age_and_warns_of_a_bare_number() {
    let greeter = Greeter::start(&[], &[("GRPC_MAX_CONNECTION_AGE", "100")]).await;
    let client = Client::connect(greeter.address).await;
    within(client.connection).await.expect("no panic").expect("GOAWAY with NO_ERROR");
    drop(client.send);
    greeter.signal(Signal::TERM);
    let (code, stderr) = greeter.ended().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("without unit is read as milliseconds"), "{stderr}");
}

#[tokio::test]
async fn an_idle_connection_gets_goaway() {
    let greeter = Greeter::start(&["--max-connection-idle", "100ms"], &[]).await;
    let mut client = Client::connect(greeter.address).await;
    client.hello().await.expect("an answer");
    within(client.connection).await.expect("no panic").expect("GOAWAY with NO_ERROR");
    drop(client.send);
}

#[tokio::test]
async fn sigterm_lets_a_running_call_end_and_exits_zero() {
    let greeter = Greeter::start(&["--delay", "300ms"], &[]).await;
    let mut client = Client::connect(greeter.address).await;
    let running = client.start("/helloworld.Greeter/SayHello").await;
    // An answer to a later stream shows that the greeter has the earlier one.
    let unknown = client.start("/helloworld.Greeter/Unknown").await;
    assert_eq!(finish(unknown).await, Err("12".to_owned()));
    greeter.signal(Signal::TERM);
    assert_eq!(finish(running).await.as_deref(), Ok("Hello you (Backend IP: 127.0.0.1)"));
    within(client.connection).await.expect("no panic").expect("a clean end");
    let (code, stderr) = greeter.ended().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("drained"), "{stderr}");
}

/// What the health service says of a name, over a connection of its own.
async fn health(address: SocketAddr, name: &str) -> Result<ServingStatus, Code> {
    let channel = Channel::builder(format!("ipv4:{address}")).build().expect("good settings");
    let request = HealthCheckRequest { service: name.to_owned() };
    let answer = within(HealthClient::new(channel).check(request)).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn probes_have_names_of_their_own_and_a_drain_turns_each_off() {
    let greeter = Greeter::start(&["--drain-delay", "10s"], &[]).await;
    let names = ["", "helloworld.Greeter", "liveness", "readiness"];
    for name in names {
        assert_eq!(health(greeter.address, name).await, Ok(ServingStatus::Serving), "{name:?}");
    }
    assert_eq!(health(greeter.address, "alive").await, Err(Code::NotFound));
    greeter.signal(Signal::TERM);
    for name in names {
        let turned =
            async { while health(greeter.address, name).await != Ok(ServingStatus::NotServing) {} };
        within(turned).await;
    }
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let greeter = Greeter::start(&["--delay", "1h", "--drain-grace", "1h"], &[]).await;
    let mut client = Client::connect(greeter.address).await;
    let running = client.start("/helloworld.Greeter/SayHello").await;
    let unknown = client.start("/helloworld.Greeter/Unknown").await;
    assert_eq!(finish(unknown).await, Err("12".to_owned()));
    greeter.signal(Signal::TERM);
    // GOAWAY shows that the first signal was seen; two at once would count as one.
    within(async {
        while client.send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await
        }
    })
    .await;
    greeter.signal(Signal::TERM);
    let (code, stderr) = greeter.ended().await;
    assert_eq!(code, Some(143), "{stderr}");
    finish(running).await.expect_err("cut");
}

#[tokio::test]
async fn a_grace_that_is_over_still_exits_zero_and_says_what_was_cut() {
    let args = ["--delay", "1h", "--drain-grace", "100ms"];
    let greeter = Greeter::start(&args, &[]).await;
    let mut client = Client::connect(greeter.address).await;
    let running = client.start("/helloworld.Greeter/SayHello").await;
    let unknown = client.start("/helloworld.Greeter/Unknown").await;
    assert_eq!(finish(unknown).await, Err("12".to_owned()));
    greeter.signal(Signal::INT);
    finish(running).await.expect_err("cut");
    let (code, stderr) = greeter.ended().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("cut what still ran"), "{stderr}");
}

/// Arguments, environment, and a part of the message.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

async fn output(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = within(command(args, env).output()).await.expect("the binary");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[tokio::test]
async fn a_port_in_use_exits_one_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, text) = output(&["--listen", &address], &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
    assert!(text.contains("GREETER_LISTEN") && !text.contains("Started"), "{text}");
}

#[tokio::test]
async fn bad_configuration_exits_64_and_says_what_was_expected() {
    let cases: [Case; 15] = [
        (&["--delay", "soon"], &[], "expected numbers with units such as 5s"),
        (&[], &[("GRPC_MAX_CONNECTION_AGE", "5x")], "got \"5x\""),
        (&[], &[("GRPC_MAX_CONNECTION_AGE", "")], "expected numbers with units such as 5s"),
        (&[], &[("GRPC_MAX_CONNECTION_AGE", "5")], "expected 10ms to 365 days, got 5ms"),
        (&["--error-rate", "1.5"], &[], "expected a fraction from 0 to 1"),
        (&[], &[("GREETER_ERROR_RATE", "NaN")], "expected a fraction from 0 to 1"),
        (&["--listen", "8000"], &[], "such as 0.0.0.0:8000"),
        (&[], &[("MY_POD_IP", "greeter")], "expected an IP address"),
        (&["--drain-grace", "9000h"], &[], "drain_grace: expected 0ns to 365 days"),
        (&["--max-connection-idle", "1ms"], &[], "max_connection_idle: expected 10ms"),
        (&["--max-connections", "0"], &[], "max_connections: expected at least 1"),
        (&["--capacity", "0"], &[], "expected a number from 1 to 1000000, got \"0\""),
        (&["--orca", "--orca-oob-min", "0s"], &[], "orca.min_report_interval: expected 1ms"),
        (&[], &[("GREETER_ORCA_OOB_MIN", "often")], "expected numbers with units such as 5s"),
        (&["--nonsense"], &[], "--nonsense"),
    ];
    for (args, env, expected) in cases {
        let (code, text) = output(args, env).await;
        assert_eq!(code, Some(64), "{args:?} {env:?}: {text}");
        assert!(text.contains(expected), "{args:?} {env:?}: {text}");
    }
}

#[tokio::test]
async fn help_exits_zero_and_names_every_variable() {
    let (code, text) = output(&["--help"], &[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("GRPC_MAX_CONNECTION_AGE_GRACE") && text.contains("MY_POD_IP"));
}

/// A certificate that is its own CA, and its key, in files that go away.
struct Files {
    folder: PathBuf,
    chain: String,
    key: String,
}

impl Files {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("greeter-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["greeter.test".to_owned()]).expect("a name");
        let chain = params.self_signed(&key).expect("a certificate").pem();
        let files = Self { folder, chain, key: key.serialize_pem() };
        std::fs::write(files.path("tls.crt"), &files.chain).expect("a file");
        std::fs::write(files.path("tls.key"), &files.key).expect("a file");
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A client that has this certificate too.
    fn client(&self) -> TlsConnector {
        let chain = CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(chain.clone()).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![chain], key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn serves_over_tls_with_the_certificate_of_its_files() {
    let files = Files::new();
    let (chain, key) = (files.path("tls.crt"), files.path("tls.key"));
    let args = ["--tls-cert", &chain, "--tls-key", &key];
    let greeter = Greeter::start(&args, &[("GREETER_TLS_CLIENT_CA", &chain)]).await;
    let socket = within(TcpStream::connect(greeter.address)).await.expect("a connection");
    let name = ServerName::try_from("greeter.test").expect("a name");
    let stream = within(files.client().connect(name, socket)).await.expect("a handshake");
    let mut client = Client::over(stream).await;
    assert_eq!(client.hello().await.as_deref(), Ok("Hello you (Backend IP: 127.0.0.1)"));

    for (args, expected) in [
        (["--tls-cert", &key, "--tls-key", &key], "expected -----BEGIN CERTIFICATE-----"),
        (["--tls-cert", "/none", "--tls-key", &key], "/none: No such file"),
    ] {
        let (code, text) = output(&args, &[]).await;
        assert_eq!(code, Some(64), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let (code, text) = output(&["--tls-cert", &chain], &[]).await;
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("--tls-key"), "{text}");
}
