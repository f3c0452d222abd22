//! All certificates and roots are replaced while 500 calls a second run and every connection lives
//! for a fraction of a second: no call fails, and new connections use what is new.

mod fixture;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel::{
    Channel,
    tls::{ClientTls, Identity, Roots},
};
use evenkeel_server::tls::{ClientAuth, ServerTls, TlsConnectInfo};
use fixture::{
    Backend,
    certificates::{Leaf, Secret, Signer},
    events::Events,
    soon,
};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::interval,
};
use tokio_rustls::TlsConnector;
use tonic::{Request, Response, Status, service::Routes};

const NAME: &str = "greeter.test";
/// 500 a second.
const BETWEEN_CALLS: Duration = Duration::from_millis(2);
/// Calls at once.
const CALLS_MAX: usize = 32;
const AGE: Duration = Duration::from_millis(250);

/// Answers with the client's SPIFFE ID.
struct Who;

#[tonic::async_trait]
impl Greeter for Who {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let tls = request.extensions().get::<TlsConnectInfo>().expect("TLS");
        let message = tls.spiffe_id().expect("a client with an ID").to_owned();
        Ok(Response::new(HelloReply { message }))
    }
}

/// What the calls came to.
#[derive(Default)]
struct Tally {
    calls: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    /// The newest client certificate that a server has seen.
    newest: AtomicU64,
}

fn client_id(number: u64) -> String {
    format!("spiffe://test/client/{number}")
}

/// Starts calls by the clock until it is told to stop, then waits for all. A machine that can't
/// keep up gets fewer calls, and no queue of them.
async fn load(channel: Channel, tally: Arc<Tally>) {
    let mut ticks = interval(BETWEEN_CALLS);
    let mut calls = JoinSet::new();
    while !tally.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        while calls.try_join_next().is_some() {}
        if calls.len() >= CALLS_MAX {
            continue;
        }
        let (mut client, tally) = (GreeterClient::new(channel.clone()), tally.clone());
        calls.spawn(async move {
            let mut request = Request::new(HelloRequest::default());
            request.set_timeout(fixture::PATIENCE);
            let answer = client.say_hello(request).await;
            tally.calls.fetch_add(1, Ordering::Relaxed);
            match answer {
                Ok(reply) => {
                    let id = reply.into_inner().message;
                    let number = id.rsplit('/').next().and_then(|n| n.parse().ok());
                    tally.newest.fetch_max(number.expect("a number"), Ordering::Relaxed);
                }
                Err(status) => {
                    eprintln!("a call failed: {status}");
                    tally.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    calls.join_all().await;
}

/// Both sides' files and what uses them.
struct Stage {
    servers: Secret,
    clients: Secret,
    identity: Identity,
    trusted_by_servers: Roots,
    trusted_by_clients: Roots,
    addresses: Vec<SocketAddr>,
    events: Events,
    tally: Arc<Tally>,
}

impl Stage {
    /// Waits until every server has had new connections of the channel: handshakes that began
    /// before are over.
    async fn reconnected(&self) {
        for address in &self.addresses {
            let ready = format!("{address} READY");
            self.events.wait_for(self.events.count(&ready) + 2, &ready).await;
        }
    }

    async fn seen_client(&self, number: u64) {
        let seen = || self.tally.newest.load(Ordering::Relaxed) >= number;
        fixture::until(&format!("client {number}"), seen).await;
    }

    /// What the servers show to a new connection that trusts only `signer`.
    async fn assert_shown(&self, signer: &Signer, client: &Leaf, leaf: &Leaf) {
        for address in &self.addresses {
            let shown = soon("a handshake", shown_by(*address, signer, client)).await;
            assert!(shown == der(&leaf.chain), "{address} shows another certificate");
        }
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

async fn shown_by(address: SocketAddr, signer: &Signer, client: &Leaf) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&signer.pem)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![der(&client.chain)], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), socket).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn files<'a>(leaf: &'a Leaf, ca: &'a str) -> [(&'static str, &'a str); 3] {
    [("tls.crt", &leaf.chain), ("tls.key", &leaf.key), ("ca.crt", ca)]
}

async fn start(servers: Secret, clients: Secret) -> (Stage, Vec<Backend>, Channel) {
    // Looked at in each handshake, so that nothing here waits for an interval.
    let watch = |secret: &Secret| {
        let (chain, key) = (secret.path("tls.crt"), secret.path("tls.key"));
        let identity = Identity::watch_every(Duration::ZERO, chain, key).unwrap();
        let roots = Roots::watch_every(Duration::ZERO, secret.path("ca.crt")).unwrap();
        (identity, roots)
    };
    let (identity, trusted_by_servers) = watch(&servers);
    let mut backends = Vec::new();
    for _ in 0..2 {
        let tls = ServerTls::new(identity.clone())
            .client_auth(ClientAuth::Required(trusted_by_servers.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let routes = Routes::new(GreeterServer::new(Who));
        backends.push(Backend::with_routes(listener, routes, |builder| {
            builder.max_connection_age(AGE).tls(tls).unwrap()
        }));
    }
    let (client, trusted_by_clients) = watch(&clients);
    let events = Events::default();
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let channel = Channel::builder(fixture::target(&addresses))
        .authority(NAME)
        .recorder(events.recorder())
        .tls(ClientTls::new(trusted_by_clients.clone()).identity(client))
        .build()
        .unwrap();
    let stage = Stage {
        servers,
        clients,
        identity,
        trusted_by_servers,
        trusted_by_clients,
        addresses,
        events,
        tally: Arc::default(),
    };
    (stage, backends, channel)
}

/// Runs `work` under load, and gives what the calls came to.
async fn under_load<F: Future<Output = Stage>>(
    channel: Channel,
    tally: Arc<Tally>,
    work: F,
) -> Stage {
    fixture::ready(&channel).await;
    let began = Instant::now();
    let loading = tokio::spawn(load(channel, tally.clone()));
    let stage = work.await;
    tally.stop.store(true, Ordering::Relaxed);
    soon("the last call's end", loading).await.unwrap();
    let calls = tally.calls.load(Ordering::Relaxed);
    let per_s = calls as f64 / began.elapsed().as_secs_f64();
    let connections = stage.events.count("READY");
    let failed = tally.failed.load(Ordering::Relaxed);
    println!("{calls} calls at {per_s:.0}/s over {connections} connections, {failed} failed");
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_every_certificate_and_root_fails_no_call() {
    let (old_servers, new_servers) = (Signer::new(), Signer::new());
    let (old_clients, new_clients) = (Signer::new(), Signer::new());
    let server = [1, 2, 3, 4].map(|n| if n < 3 { &old_servers } else { &new_servers }.leaf(NAME));
    let client =
        [1, 2, 3].map(|n| if n < 3 { &old_clients } else { &new_clients }.leaf(&client_id(n)));
    let servers = Secret::new(&files(&server[0], &old_clients.pem));
    let clients = Secret::new(&files(&client[0], &old_servers.pem));
    let (mut stage, backends, channel) = start(servers, clients).await;
    let tally = stage.tally.clone();
    let both = |one: &Signer, other: &Signer| format!("{}{}", one.pem, other.pem);

    let rotation = async {
        stage.reconnected().await;
        stage.assert_shown(&old_servers, &client[0], &server[0]).await;
        // Certificates of the same signers.
        stage.clients.swap(&files(&client[1], &old_servers.pem));
        stage.seen_client(2).await;
        stage.servers.swap(&files(&server[1], &old_clients.pem));
        stage.assert_shown(&old_servers, &client[1], &server[1]).await;
        stage.reconnected().await;

        // The servers' signer: trusted before it signs, the old one until it does not any more.
        stage.clients.swap(&files(&client[1], &both(&old_servers, &new_servers)));
        stage.reconnected().await;
        stage.servers.swap(&files(&server[2], &old_clients.pem));
        stage.reconnected().await;
        stage.clients.swap(&files(&client[1], &new_servers.pem));
        stage.reconnected().await;
        stage.assert_shown(&new_servers, &client[1], &server[2]).await;

        // The clients' signer.
        stage.servers.swap(&files(&server[2], &both(&old_clients, &new_clients)));
        stage.reconnected().await;
        stage.clients.swap(&files(&client[2], &new_servers.pem));
        stage.seen_client(3).await;
        stage.reconnected().await;
        stage.servers.swap(&files(&server[2], &new_clients.pem));
        stage.reconnected().await;

        // Half a certificate changes nothing; the next whole one does.
        let half = &server[3].chain[..server[3].chain.len() / 2];
        let broken = Leaf { chain: half.to_owned(), key: server[3].key.clone() };
        stage.servers.swap(&files(&broken, &new_clients.pem));
        stage.reconnected().await;
        stage.assert_shown(&new_servers, &client[2], &server[2]).await;
        let error = stage.identity.status().last_error.expect("an error");
        assert!(error.contains("it is cut off"), "{error}");
        stage.servers.swap(&files(&server[3], &new_clients.pem));
        stage.assert_shown(&new_servers, &client[2], &server[3]).await;
        stage.reconnected().await;
        stage
    };
    let stage = under_load(channel, tally.clone(), rotation).await;

    assert_eq!(tally.failed.load(Ordering::Relaxed), 0);
    // Not one connection was refused either.
    for part in ["TLS handshake", "alert"] {
        assert_eq!(stage.events.count(part), 0, "{:?}", stage.events.list());
    }
    assert_eq!(stage.identity.status().failures, 1);
    assert_eq!(stage.trusted_by_servers.status().reloads, 2);
    assert_eq!(stage.trusted_by_clients.status().reloads, 2);
    for backend in backends {
        backend.stop().await;
    }
}
