//! Streams in both directions, and that whoever does not read stops whoever sends.

mod fixture;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use evenkeel::Channel;
use fixture::{
    Backend as Server,
    bytes::{BytesCodec, Echo, chat, client, hello, path},
    frames::{self, Frames},
    peer::Peer,
    soon, until,
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, sync::oneshot};
use tonic::{Code, Request, service::Routes};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// h2 takes so much of one stream's body before it asks its maker to wait.
const SEND_BUFFER_BYTES: usize = 400 * KIB;
/// The window that a stream of ours starts with.
const STREAM_WINDOW_BYTES: usize = 2 * MIB;

async fn echo() -> (Server, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let channel = Channel::builder(fixture::target(&[server.address])).build().unwrap();
    (server, channel)
}

/// Messages of one size, and how many were taken so far.
fn messages(
    count: usize,
    size: usize,
) -> (Arc<AtomicUsize>, impl Stream<Item = Bytes> + Send + 'static) {
    let taken = Arc::new(AtomicUsize::new(0));
    let message = Bytes::from(vec![b'm'; size]);
    let counter = taken.clone();
    let list = stream::iter(0..count).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        message.clone()
    });
    (taken, list)
}

#[tokio::test]
async fn client_streams_large_and_small_messages() {
    let (server, channel) = echo().await;
    for (count, size) in [(8, MIB), (5000, KIB), (1, 5 * MIB), (0, 0)] {
        let request = Request::new(messages(count, size).1);
        let mut client = client(&channel);
        let call = client.client_streaming(request, path("Count"), BytesCodec);
        let answer = soon("the sum", call).await.unwrap().into_inner();
        assert_eq!(answer, format!("{count} {}", count * size));
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn server_streams_large_and_small_messages() {
    let (server, channel) = echo().await;
    for (count, size) in [(8, MIB), (5000, KIB), (20_000, 1), (0, 0)] {
        let request = Request::new(Bytes::from(format!("{count} {size}")));
        let mut client = client(&channel);
        let call = client.server_streaming(request, path("Send"), BytesCodec);
        let mut answers = soon("a head", call).await.unwrap().into_inner();
        let mut seen = 0;
        while let Some(message) = soon("a message", answers.message()).await.unwrap() {
            assert_eq!(message.len(), size);
            seen += 1;
        }
        assert_eq!(seen, count);
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn both_stream_at_once() {
    let (server, channel) = echo().await;
    for (count, size) in [(12, MIB), (5000, KIB)] {
        let call = chat(&channel, "Chat", messages(count, size).1);
        let mut answers = soon("a head", call).await.unwrap().into_inner();
        for _ in 0..count {
            assert_eq!(soon("an echo", answers.message()).await.unwrap().unwrap().len(), size);
        }
        assert!(soon("the end", answers.message()).await.unwrap().is_none());
    }
    drop(channel);
    server.stop().await;
}

#[tokio::test]
async fn server_that_does_not_read_stops_the_clients_pump() {
    const COUNT: usize = 512;
    let (full, is_full) = oneshot::channel();
    let (read, may_read) = oneshot::channel();
    let signals = std::sync::Mutex::new(Some((full, may_read)));
    let peer = Peer::start(move |_, socket| {
        let (full, may_read) = signals.lock().unwrap().take().expect("one connection");
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut body = request.into_body();
            let reading = async move {
                let window = 65_535;
                until("a full window", || body.flow_control().used_capacity() == window).await;
                full.send(()).unwrap();
                may_read.await.unwrap();
                let mut bytes = 0;
                while let Some(data) = body.data().await {
                    let len = data.unwrap().len();
                    bytes += len;
                    body.flow_control().release_capacity(len).unwrap();
                }
                let head = http::Response::builder().header("content-type", "application/grpc");
                let mut answer = respond.send_response(head.body(()).unwrap(), false).unwrap();
                let text = bytes.to_string();
                answer.send_data(frames::enveloped(text.as_bytes()).into(), false).unwrap();
                let ok = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                answer.send_trailers(ok.into_iter().collect()).unwrap();
            };
            let serving = async {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0");
                    respond.send_response(head.body(()).unwrap(), true).unwrap();
                }
            };
            tokio::join!(reading, serving);
        }
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    let (taken, list) = messages(COUNT, 16 * KIB);
    let mut upload = client(&channel);
    let call = upload.client_streaming(Request::new(list), path("Count"), BytesCodec);
    let mut call = Box::pin(call);
    let mut is_full = Box::pin(is_full);
    assert!(
        tokio::select! {
            _ = &mut call => false,
            full = soon("a full window", &mut is_full) => full.is_ok(),
        },
        "the call ended before the server read"
    );
    // Time enough to take more: other calls come and go on the same connection.
    for _ in 0..50 {
        let other = soon("an answer", chat(&channel, "Other", stream::empty())).await;
        drop(other.unwrap());
    }
    let held = taken.load(Ordering::SeqCst) * 16 * KIB;
    assert!(held <= 64 * KIB + SEND_BUFFER_BYTES + 64 * KIB, "{held} bytes taken");

    read.send(()).unwrap();
    let answer = soon("the sum", call).await.unwrap().into_inner();
    assert_eq!(answer, (COUNT * (16 * KIB + 5)).to_string());
    assert_eq!(taken.load(Ordering::SeqCst), COUNT);
}

/// What h2's server does not do: it sends as fast as the client's window allows, and counts. Each
/// piece is one DATA frame with one message, 5 bytes of envelope included.
async fn flood(mut frames: Frames, sent: Arc<AtomicUsize>, piece: usize, total: usize) {
    let large = frames.request().await.unwrap();
    frames.head(large).await;
    let mut message = (piece as u32).to_be_bytes()[1..].to_vec();
    message.extend([frames::DATA, 0]);
    message.extend(large.to_be_bytes());
    message.extend(frames::enveloped(&vec![b'm'; piece - 5]));
    let (mut window, mut rest) = (STREAM_WINDOW_BYTES, total);
    while rest > 0 {
        let count = (window.min(rest) / piece).min(1000);
        if count > 0 {
            frames.socket.write_all(&message.repeat(count)).await.unwrap();
            (window, rest) = (window - count * piece, rest - count * piece);
            sent.fetch_add(count * piece, Ordering::SeqCst);
            continue;
        }
        let frame = frames.read_any().await.unwrap();
        match frame.kind {
            frames::WINDOW_UPDATE if frame.stream == large => {
                let more = frame.payload[..].try_into().unwrap();
                window += u32::from_be_bytes(more) as usize;
            }
            frames::HEADERS => frames.answer(frame.stream, b"small").await,
            _ => {}
        }
    }
    frames.trailers(large, "0").await;
    frames.drain().await;
}

#[tokio::test]
async fn client_that_does_not_read_stops_the_server_and_nothing_else() {
    for (piece, total) in [(16 * KIB, 8 * MIB), (16, 3 * MIB)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let peer = Peer::start(move |_, socket| {
            let sent = counter.clone();
            async move { flood(Frames::greet(socket, &[]).await, sent, piece, total).await }
        })
        .await;
        let channel = Channel::builder(peer.target()).build().unwrap();
        let request = Request::new(Bytes::new());
        let mut client = client(&channel);
        let call = client.server_streaming(request, path("Send"), BytesCodec);
        let mut answers = soon("a head", call).await.unwrap().into_inner();
        until("a full window", || sent.load(Ordering::SeqCst) == STREAM_WINDOW_BYTES).await;
        for _ in 0..20 {
            assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "small");
        }
        assert_eq!(sent.load(Ordering::SeqCst), STREAM_WINDOW_BYTES);
        let mut count = 0;
        while let Some(message) = soon("a message", answers.message()).await.unwrap() {
            assert_eq!(message.len(), piece - 5);
            count += 1;
        }
        assert_eq!((count, peer.accepts()), (total / piece, 1));
    }
}

#[tokio::test]
async fn unread_bytes_of_dropped_calls_give_the_window_back() {
    let (server, channel) = echo().await;
    // 20 × 2 MiB is five times the connection's window.
    for _ in 0..20 {
        let request = Request::new(Bytes::from(format!("4 {MIB}")));
        let mut client = client(&channel);
        let call = client.server_streaming(request, path("Send"), BytesCodec);
        let mut answers = soon("a head", call).await.unwrap().into_inner();
        assert_eq!(soon("a message", answers.message()).await.unwrap().unwrap().len(), MIB);
    }
    let request = Request::new(Bytes::from(format!("12 {MIB}")));
    let mut client = client(&channel);
    let call = client.server_streaming(request, path("Send"), BytesCodec);
    let mut answers = soon("a head", call).await.unwrap().into_inner();
    let mut seen = 0;
    while let Some(message) = soon("a message", answers.message()).await.unwrap() {
        seen += message.len();
    }
    assert_eq!(seen, 12 * MIB);
    drop((channel, client, answers));
    server.stop().await;
}

#[tokio::test]
async fn stream_that_never_pauses_ends_at_its_deadline() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        let stream = frames.request().await.unwrap();
        frames.head(stream).await;
        let (mut reader, mut writer) = frames.socket.into_split();
        let mut message = vec![0, 0, 12, frames::DATA, 0];
        message.extend(stream.to_be_bytes());
        message.extend(frames::enveloped(b"more..."));
        let many = message.repeat(1000);
        let writing = async { while writer.write_all(&many).await.is_ok() {} };
        let mut sink = tokio::io::sink();
        let reading = tokio::io::copy(&mut reader, &mut sink);
        let _ = tokio::join!(writing, reading);
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    let mut request = Request::new(Bytes::new());
    request.set_timeout(std::time::Duration::from_millis(200));
    let mut client = client(&channel);
    let call = client.server_streaming(request, path("Send"), BytesCodec);
    let mut answers = soon("a head", call).await.unwrap().into_inner();
    let end = async {
        loop {
            // One message a turn: the server is always ahead, and no poll of the body is pending.
            tokio::task::yield_now().await;
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    };
    let status = soon("the deadline", end).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains(&peer.address.to_string()), "{status}");
}

#[tokio::test]
async fn server_may_answer_before_it_has_read_the_request() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        let stream = frames.request().await.unwrap();
        frames.answer(stream, b"enough").await;
        frames.rst(stream, frames::NO_ERROR).await;
        let stream = frames.request().await.unwrap();
        frames.answer(stream, b"again").await; // and no RST: the client's own ends its upload
        let mut reset = false;
        let mut next = None;
        while !reset || next.is_none() {
            let frame = frames.read().await.unwrap();
            reset |= frame.kind == frames::RST_STREAM && frame.stream == stream;
            next = next.or((frame.kind == frames::HEADERS).then_some(frame.stream));
        }
        frames.answer(next.unwrap(), b"still here").await;
        frames.answer_all(b"still here").await;
    })
    .await;
    let channel = Channel::builder(peer.target()).build().unwrap();
    for answer in ["enough", "again"] {
        let endless = stream::repeat(Bytes::from(vec![0; 10 * KIB]));
        let mut client = client(&channel);
        let call = client.client_streaming(Request::new(endless), path("Count"), BytesCodec);
        assert_eq!(soon("an answer", call).await.unwrap().into_inner(), answer);
    }
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "still here");
    assert_eq!(peer.accepts(), 1);
}
