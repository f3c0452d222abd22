//! TLS towards servers that have it right and servers that do not: each wrong one has a defined
//! status with a clear text, the channel never becomes READY, and when the server is mended the
//! next calls work.

mod fixture;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel::{
    Backoff, BuildError, Channel, ConnectivityState,
    tls::{ClientTls, SpiffeRule},
};
use evenkeel_server::tls::{ClientAuth, ServerTls, TlsConnectInfo};
use fixture::{
    Backend,
    certificates::{Leaf, Signer},
    events::Events,
    peer::{self, Peer},
    soon,
};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, service::Routes};

const NAME: &str = "greeter.test";
const SIGNER: &str = "one of two that have this name";
const BACKOFF: Duration = Duration::from_millis(20);
const BLACK_HOLE_TIMEOUT: Duration = Duration::from_millis(200);

/// Answers with the client's names.
struct Who;

#[tonic::async_trait]
impl Greeter for Who {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let tls = request.extensions().get::<TlsConnectInfo>();
        let names = tls.and_then(TlsConnectInfo::peer_names);
        let message = names.map_or_else(|| "nobody".to_owned(), ToString::to_string);
        Ok(Response::new(HelloReply { message }))
    }
}

async fn serve(tls: ServerTls) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = Routes::new(GreeterServer::new(Who));
    Backend::with_routes(listener, routes, |builder| builder.tls(tls).unwrap())
}

fn channel(target: String, timeout: Duration, tls: ClientTls) -> (Channel, Events) {
    let events = Events::default();
    let backoff = Backoff { initial: BACKOFF, multiplier: 1.0, jitter: 0.0, max: BACKOFF };
    let channel = Channel::builder(target)
        .authority(NAME)
        .backoff(backoff)
        .connect_timeout(timeout)
        .recorder(events.recorder())
        .tls(tls)
        .build();
    (channel.unwrap(), events)
}

async fn call(channel: &Channel, wait_for_ready: bool) -> Result<String, Status> {
    let mut request = Request::new(HelloRequest::default());
    let options = evenkeel::CallOptions::default().wait_for_ready(wait_for_ready);
    request.extensions_mut().insert(options);
    let mut client = GreeterClient::new(channel.clone());
    soon("the call's end", client.say_hello(request)).await.map(|r| r.into_inner().message)
}

/// A channel to one backend, called once.
async fn once(backend: &Backend, tls: ClientTls) -> Result<String, Status> {
    let target = fixture::target(&[backend.address]);
    call(&channel(target, fixture::PATIENCE, tls).0, false).await
}

type Script = Arc<dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn script<F>(run: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |socket| Box::pin(run(socket)))
}

/// Whatever the client sends goes on to another address, and back.
fn pass_to(address: SocketAddr) -> Script {
    script(move |mut socket| async move {
        let mut onward = TcpStream::connect(address).await.unwrap();
        let _ = copy_bidirectional(&mut socket, &mut onward).await;
    })
}

async fn swallow(mut socket: TcpStream) {
    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
}

/// A rustls server with these protocols, which then says something that is not HTTP/2.
fn tls_script(leaf: &Leaf, alpn: &[&[u8]]) -> Script {
    let chain = vec![CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    script(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(socket).await else { return };
            let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
}

/// A server that is wrong, and what a call is told of it.
struct Row {
    what: &'static str,
    text: &'static str,
    timeout: Duration,
    script: Script,
}

fn row(what: &'static str, text: &'static str, script: Script) -> Row {
    Row { what, text, timeout: fixture::PATIENCE, script }
}

/// Wrong in what they speak.
fn strangers(signer: &Signer) -> Vec<Row> {
    let leaf = signer.leaf(NAME);
    let http1 = tls_script(&leaf, &[b"http/1.1"]);
    let without = tls_script(&leaf, &[]);
    let liar = tls_script(&leaf, &[b"h2"]);
    let plaintext = script(|mut socket| async move {
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).await.unwrap();
        let _ = socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        swallow(socket).await;
    });
    let closes = script(|mut socket| async move {
        let mut head = [0; 5];
        socket.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        socket.read_exact(&mut hello).await.unwrap();
    });
    let never = "no end of the TLS handshake within 200ms";
    let late = |what, script| Row { what, text: never, timeout: BLACK_HOLE_TIMEOUT, script };
    vec![
        row("wrong ALPN", "the server refuses HTTP/2 (ALPN h2); is this a gRPC port?", http1),
        row("no ALPN", "to choose HTTP/2 (ALPN h2), but it chose nothing", without),
        row("HTTP/1 behind TLS", "but the server answered in HTTP/1", liar),
        row("plaintext", "expected TLS from the server; is this a plaintext port?", plaintext),
        row("closes", "the server closed the connection; does it speak TLS on this port?", closes),
        row("RST", "Connection reset by peer", script(|s| async move { peer::reset(s) })),
        late("black hole", script(swallow)),
        late(
            "a byte of TLS",
            script(|mut socket| async move {
                socket.write_all(&[0x16]).await.unwrap();
                swallow(socket).await;
            }),
        ),
    ]
}

/// Wrong in who they are, or whom they want.
async fn impostors(signer: &Signer, backends: &mut Vec<Backend>) -> Vec<Row> {
    let (stranger, namesake) = (Signer::new(), Signer::named(SIGNER));
    let server = |leaf: Leaf| ServerTls::new(leaf.identity());
    let wants = |roots| server(signer.leaf(NAME)).client_auth(ClientAuth::Required(roots));
    let uri = "spiffe://test/greeter";
    let table = [
        ("expired", "certificate expired", server(signer.expired(NAME))),
        ("wrong name", "not valid for name \"greeter.test\"", server(signer.leaf("b.test"))),
        ("no DNS name", "not valid for name \"greeter.test\"", server(signer.leaf(uri))),
        ("unknown CA", "none of the channel's roots has signed it", server(stranger.leaf(NAME))),
        ("a CA of the same name", "signer's name, but not its key", server(namesake.leaf(NAME))),
        ("no client certificate", "the server wants a client certificate", wants(signer.roots())),
    ];
    let mut rows = Vec::new();
    for (what, text, tls) in table {
        let backend = serve(tls).await;
        rows.push(row(what, text, pass_to(backend.address)));
        backends.push(backend);
    }
    rows
}

#[tokio::test]
async fn each_wrong_server_has_its_error_and_serves_once_it_is_mended() {
    let signer = Signer::named(SIGNER);
    let good = serve(ServerTls::new(signer.leaf(NAME).identity())).await;
    let mut backends = Vec::new();
    let mut rows = strangers(&signer);
    rows.extend(impostors(&signer, &mut backends).await);
    for Row { what, text, timeout, script } in rows {
        let mended = Arc::new(AtomicBool::new(false));
        let (is_mended, mend_to) = (mended.clone(), pass_to(good.address));
        let peer = Peer::start(move |_, socket| {
            if is_mended.load(Ordering::SeqCst) { mend_to(socket) } else { script(socket) }
        })
        .await;
        let (channel, events) = channel(peer.target(), timeout, ClientTls::new(signer.roots()));
        let status = call(&channel, false).await.expect_err(what);
        peer::expect(&status, &[text, &peer.target(), "cannot connect to"]);
        assert_eq!(channel.state(), ConnectivityState::TransientFailure, "{what}");
        peer.accepted(2).await;
        assert_eq!(events.count("READY"), 0, "{what}: {:?}", events.list());

        mended.store(true, Ordering::SeqCst);
        assert_eq!(call(&channel, true).await.expect(what), "nobody");
    }
    backends.push(good);
    for backend in backends {
        backend.stop().await;
    }
}

#[tokio::test]
async fn a_refused_client_certificate_is_called_that() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let tls = ServerTls::new(signer.leaf(NAME).identity())
        .client_auth(ClientAuth::Optional(signer.roots()));
    let backend = serve(tls).await;
    let plain = ClientTls::new(signer.roots());
    assert_eq!(once(&backend, plain.clone()).await.unwrap(), "nobody");
    let known = plain.clone().identity(signer.leaf("client.test").identity());
    assert_eq!(once(&backend, known).await.unwrap(), "the names client.test");
    for bad in [stranger.leaf("client.test"), signer.expired("client.test")] {
        let status = once(&backend, plain.clone().identity(bad.identity())).await.unwrap_err();
        peer::expect(&status, &["the server refuses the client certificate"]);
    }
    backend.stop().await;
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_is_a_handshake() {
    let signer = Signer::new();
    let backend = serve(ServerTls::new(signer.leaf(NAME).identity())).await;
    let address = backend.address;
    let peer = Peer::start(move |_, socket| async move {
        let onward = TcpStream::connect(address).await.unwrap();
        onward.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = socket.into_split();
        let (mut from_server, mut to_server) = onward.into_split();
        let upwards = async {
            while let Ok(byte) = from_client.read_u8().await {
                let _ = to_server.write_u8(byte).await;
                tokio::task::yield_now().await;
            }
        };
        let downwards = async {
            while let Ok(byte) = from_server.read_u8().await {
                let _ = to_client.write_u8(byte).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = upwards => {}, () = downwards => {} }
    })
    .await;
    let tls = ClientTls::new(signer.roots());
    let (channel, events) = channel(peer.target(), fixture::PATIENCE, tls);
    assert_eq!(call(&channel, false).await.unwrap(), "nobody");
    assert_eq!((peer.accepts(), events.count("TRANSIENT_FAILURE")), (1, 0));
    drop((channel, peer));
    backend.stop().await;
}

#[tokio::test]
async fn servers_and_clients_are_known_by_their_spiffe_ids() {
    let signer = Signer::new();
    let id = |name: &str| format!("spiffe://cluster.local/ns/default/sa/{name}");
    let rule = |name: &str| SpiffeRule::id(&id(name)).unwrap();
    let of_domain = |name: &str| SpiffeRule::trust_domain(name).unwrap();
    let tls = ServerTls::new(signer.leaf(&id("greeter")).identity())
        .client_auth(ClientAuth::Required(signer.roots()))
        .spiffe([rule("client"), of_domain("other.org")]);
    let backend = serve(tls).await;
    let client = |name: &str| ClientTls::new(signer.roots()).identity(signer.leaf(name).identity());
    let me = client(&id("client"));

    for good in [vec![rule("greeter")], vec![of_domain("cluster.local")]] {
        let answer = once(&backend, me.clone().spiffe(good)).await.unwrap();
        assert_eq!(answer, format!("the names {}", id("client")));
    }
    for bad in [vec![rule("greeters")], vec![of_domain("cluster")], vec![]] {
        let status = once(&backend, me.clone().spiffe(bad)).await.unwrap_err();
        peer::expect(&status, &["expected the peer to be", &format!("it is {}", id("greeter"))]);
    }
    // The chain is verified all the same.
    let stranger = ClientTls::new(Signer::new().roots()).spiffe([rule("greeter")]);
    let status = once(&backend, stranger).await.unwrap_err();
    peer::expect(&status, &["none of the channel's roots has signed it"]);

    let server = || [rule("greeter")];
    let welcome = client("spiffe://other.org/whoever").spiffe(server());
    assert!(once(&backend, welcome).await.is_ok());
    for unwelcome in [id("clients"), "client.test".to_owned()] {
        let status = once(&backend, client(&unwelcome).spiffe(server())).await.unwrap_err();
        peer::expect(&status, &["the server refuses the client certificate"]);
    }
    backend.stop().await;
}

#[tokio::test]
async fn the_server_name_is_the_authoritys_host_or_the_one_that_is_given() {
    let signer = Signer::new();
    for name in ["127.0.0.1", "other.test"] {
        let backend = serve(ServerTls::new(signer.leaf(name).identity())).await;
        let target = fixture::target(&[backend.address]);
        let tls = ClientTls::new(signer.roots());
        // Without an authority of its own, that of a literal target is its first address.
        let by_target = Channel::builder(&target).tls(tls.clone()).build().unwrap();
        assert_eq!(call(&by_target, false).await.is_ok(), name == "127.0.0.1", "{name}");
        assert!(once(&backend, tls.clone().server_name(name)).await.is_ok(), "{name}");
        let error = Channel::builder(&target).tls(tls.server_name("not a name")).build();
        let Err(BuildError::Tls(text)) = error else { panic!("a name with blanks") };
        assert!(
            text.contains("got \"not a name\"; give one with ClientTls::server_name"),
            "{text}"
        );
        backend.stop().await;
    }
}

#[tokio::test]
async fn rustls_own_configuration_gets_http2_by_alpn_and_nothing_else() {
    let signer = Signer::new();
    let backend = serve(ServerTls::new(signer.leaf(NAME).identity())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(signer.pem.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = ClientTls::from_config(config);
    assert_eq!(once(&backend, tls.clone()).await.unwrap(), "nobody");
    let both = tls.identity(signer.leaf(NAME).identity());
    let error = Channel::builder("ipv4:127.0.0.1:1").tls(both).build().unwrap_err();
    assert!(error.to_string().contains("within the rustls::ClientConfig"), "{error}");
    backend.stop().await;
}

/// A provider that can be told from others: its random numbers are counted.
#[derive(Debug)]
struct Counting(&'static AtomicUsize);

impl SecureRandom for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.0.fetch_add(1, Ordering::Relaxed);
        ring::default_provider().secure_random.fill(bytes)
    }
}

fn counting(count: &'static AtomicUsize) -> CryptoProvider {
    let secure_random = Box::leak(Box::new(Counting(count)));
    CryptoProvider { secure_random, ..ring::default_provider() }
}

#[tokio::test]
async fn the_provider_is_the_given_one_else_the_installed_one() {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    static INSTALLED: AtomicUsize = AtomicUsize::new(0);
    let signer = Signer::new();
    let leaf = signer.leaf(NAME).identity();
    let backend = serve(ServerTls::new(leaf).provider(Arc::new(ring::default_provider()))).await;
    let tls = ClientTls::new(signer.roots());
    let given = tls.clone().provider(Arc::new(counting(&GIVEN)));
    assert!(once(&backend, given).await.is_ok());
    assert!(GIVEN.swap(0, Ordering::Relaxed) > 0);
    // Other tests of this process may use it from now on; it is as good as the linked one.
    counting(&INSTALLED).install_default().unwrap();
    assert!(once(&backend, tls).await.is_ok());
    assert!(INSTALLED.load(Ordering::Relaxed) > 0);
    assert_eq!(GIVEN.load(Ordering::Relaxed), 0);
    backend.stop().await;
}
