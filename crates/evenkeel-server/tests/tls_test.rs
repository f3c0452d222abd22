//! TLS on the server's side: who the client is, handshakes that fail, stall or never come, and the
//! limits of HTTP/2, which hold inside TLS as well.

mod wire;

use std::time::Duration;

use evenkeel_server::{
    Builder, Event, Server,
    tls::{ClientAuth, Identity, ServerTls, SpiffeRule},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wire::{
    Running,
    certificates::Signer,
    frames::{self, PREFACE, frame, settings},
    within,
};

/// Waited for in full, and long enough for a good handshake on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(300);
/// No response fits into the kernel's buffers, TLS's and this.
const BIG_BYTES: usize = 8 * 1024 * 1024;
const ENHANCE_YOUR_CALM: u32 = 11;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;

fn tls(signer: &Signer) -> Builder {
    with(ServerTls::new(signer.server()))
}

fn with(tls: ServerTls) -> Builder {
    Server::builder().drain_delay(Duration::ZERO).tls(tls).expect("good certificates")
}

/// What the client is told while it waits for an answer: an alert comes after its handshake.
async fn refused(signer: &Signer, server: &Running, leaf: Option<&wire::certificates::Leaf>) {
    let connected = signer.client(server.address, leaf).await;
    let Ok(mut client) = connected else { return };
    client.hello("you").await.expect_err("it was refused");
}

#[tokio::test]
async fn handlers_see_who_the_client_is() {
    let signer = Signer::new();
    let auth = ClientAuth::Optional(signer.roots());
    let own = ServerTls::new(signer.server()).client_auth(auth);
    let server = Running::start(with(own)).await;

    let mut nobody = signer.client(server.address, None).await.expect("no certificate is wanted");
    assert_eq!(nobody.hello("who").await.expect("an answer").text(), "None None None");
    let leaf = signer.leaf(&["spiffe://a.test/client"], "client.test");
    let mut client = signer.client(server.address, Some(&leaf)).await.expect("accepted");
    assert_eq!(
        client.hello("who").await.expect("an answer").text(),
        r#"Some(1) Some(["client.test"]) Some("spiffe://a.test/client")"#
    );
    // Addresses are there as without TLS.
    let addresses = format!("{} {}", server.address, client.local);
    assert_eq!(client.hello("addresses").await.expect("an answer").text(), addresses);
    refused(&signer, &server, Some(&Signer::new().leaf(&[], "client.test"))).await;
    server.counted(Event::TlsHandshakeFailed, 1).await;

    nobody.close().await;
    assert_eq!(server.drain_with(client).await.connections_cut, 0);
}

#[tokio::test]
async fn handshakes_that_stall_are_closed_and_keep_nobody_out() {
    let signer = Signer::new();
    let server = Running::start(tls(&signer).handshake_timeout(HANDSHAKE)).await;
    let mut stalled = Vec::new();
    for number in 0..40 {
        let mut socket = within(TcpStream::connect(server.address)).await.expect("accepted");
        if number % 2 == 1 {
            // The head of a record and nothing of its 512 bytes.
            socket.write_all(&[0x16, 3, 1, 2, 0]).await.expect("sent");
        }
        stalled.push(socket);
    }
    let mut client = signer.client(server.address, None).await.expect("accepted at once");
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    server.counted(Event::HandshakeTimeout, 40).await;
    for mut socket in stalled {
        // FIN or RST; either is an end.
        let _ = within(socket.read_to_end(&mut Vec::new())).await;
    }
    // Without HTTP/2's preface, the timeout ends it all the same.
    let _silent = signer.connect(server.address, &[b"h2"], None).await.expect("a handshake");
    server.counted(Event::HandshakeTimeout, 41).await;
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    assert_eq!(server.drain_with(client).await.connections_cut, 0);
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_and_told_why() {
    let signer = Signer::new();
    let server = Running::start(tls(&signer)).await;
    let alpn = |names: &'static [&'static [u8]]| signer.connect(server.address, names, None);
    let error = alpn(&[b"http/1.1"]).await.expect_err("no HTTP/2").to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    // rustls alone would let it pass; then nothing but the end comes.
    let mut without = alpn(&[]).await.expect("a handshake");
    assert_eq!(within(without.read_to_end(&mut Vec::new())).await.ok(), Some(0));
    drop(without);
    let plaintext = wire::Client::connect(server.address).await;
    plaintext.ended().await.expect_err("no TLS");
    let error = Signer::new().connect(server.address, &[b"h2"], None).await;
    let error = error.expect_err("another CA").to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    server.counted(Event::TlsHandshakeFailed, 4).await;
    server.counted(Event::ConnectionEnded, 4).await;

    let client = signer.client(server.address, None).await.expect("accepted");
    assert_eq!(server.drain_with(client).await.connections_cut, 0);
}

#[tokio::test]
async fn a_handshake_is_a_connection_to_limit_and_drain() {
    let signer = Signer::new();
    let server = Running::start(tls(&signer).max_connections(1).drain_grace(SHORT)).await;
    let _silent = within(TcpStream::connect(server.address)).await.expect("accepted");
    server.counted(Event::ConnectionAccepted, 1).await;
    signer.client(server.address, None).await.err().expect("one too many");
    server.counted(Event::ConnectionRefused, 1).await;
    assert_eq!(server.drain().await.connections_cut, 1);
}

#[tokio::test]
async fn floods_inside_tls_get_goaway() {
    let signer = Signer::new();
    let server = Running::start(tls(&signer)).await;
    let stream = signer.connect(server.address, &[b"h2"], None).await.expect("a handshake");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut flood = [PREFACE, &settings(&[])].concat();
    (0..2_000).for_each(|_| flood.extend(frame(frames::PING, 0, 0, &[7; 8])));
    let flooding = tokio::spawn(async move { writer.write_all(&flood).await });
    let goaway = within(async {
        loop {
            let mut head = [0; 9];
            reader.read_exact(&mut head).await.expect("GOAWAY comes before the end");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            reader.read_exact(&mut payload).await.expect("a whole frame");
            if head[3] == frames::GOAWAY {
                return payload;
            }
        }
    });
    let payload = goaway.await;
    assert_eq!(payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
    assert_eq!(&payload[8..], b"too_many_pings");
    server.counted(Event::AbusePings, 1).await;
    flooding.abort();
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_inside_tls_too() {
    let signer = Signer::new();
    let server = Running::start(tls(&signer).max_write_stall(SHORT)).await;
    let mut stream = signer.connect(server.address, &[b"h2"], None).await.expect("a handshake");
    let window = u32::MAX >> 1;
    let increment = (window - 65_535).to_be_bytes();
    let all = [
        PREFACE,
        &settings(&[(INITIAL_WINDOW, window)]),
        &frame(frames::WINDOW_UPDATE, 0, 0, &increment),
        &frames::request_headers(1),
        &frames::request_data(1, &format!("big {BIG_BYTES}")),
    ];
    within(stream.write_all(&all.concat())).await.expect("sent");
    within(stream.flush()).await.expect("sent");
    // `stream` stays open and reads nothing.
    server.counted(Event::WriteStalled, 1).await;
    server.counted(Event::ConnectionEnded, 1).await;
}

#[test]
fn settings_that_can_not_work_are_refused_when_they_are_made() {
    let (signer, other) = (Signer::new(), Signer::new());
    let (one, two) = (signer.leaf(&[], "a.test"), other.leaf(&[], "a.test"));
    let mixed = Identity::from_pem(one.chain, two.key).expect("PEM");
    let rule = SpiffeRule::trust_domain("a.test").expect("a trust domain");
    let cases = [
        (ServerTls::new(mixed), "expected the key of the first certificate"),
        (ServerTls::new(signer.server()).spiffe([rule]), "expected ServerTls::client_auth"),
    ];
    for (tls, expected) in cases {
        let error = Server::builder().tls(tls).expect_err(expected).to_string();
        assert!(error.starts_with("TLS: ") && error.contains(expected), "{error}");
    }
}
