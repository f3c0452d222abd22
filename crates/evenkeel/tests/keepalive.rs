//! Keepalive (gRFC A8) in real time: peers that hang while TCP lives, and peers that mind pings.

mod fixture;

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use evenkeel::{Channel, ChannelBuilder, Keepalive};
use fixture::{
    bytes::hello,
    events::Events,
    frames::{self, ENHANCE_YOUR_CALM, Frames, NO_ERROR},
    peer::Peer,
    soon,
};
use tokio::sync::watch;
use tonic::Code;

const TIME: Duration = Duration::from_millis(150);
const TIMEOUT: Duration = Duration::from_millis(100);

fn to(target: String, permit_without_calls: bool) -> (ChannelBuilder, Events) {
    let events = Events::default();
    let builder = Channel::builder(target)
        .keepalive(Keepalive { time: TIME, timeout: TIMEOUT, permit_without_calls })
        .allow_aggressive_keepalive(true)
        .recorder(events.recorder());
    (builder, events)
}

/// Greets, and neither reads nor writes any more.
async fn hang(socket: tokio::net::TcpStream) {
    let frames = Frames::greet(socket, &[]).await;
    pending::<()>().await;
    drop(frames);
}

#[tokio::test]
async fn hung_server_is_left_and_its_calls_fail_with_the_reason() {
    let peer = Peer::start(|_, socket| hang(socket)).await;
    let (builder, events) = to(peer.target(), false);
    let channel = builder.build().unwrap();
    fixture::ready(&channel).await;
    let begun = Instant::now();
    let status = soon("the end", hello(&channel)).await.unwrap_err();
    assert!(begun.elapsed() >= TIMEOUT);
    assert_eq!(status.code(), Code::Unavailable);
    let why = "keepalive: nothing came within 100ms after a ping";
    assert_eq!(status.message(), format!("{}: {why}", peer.address));
    let end = events.wait_for(1, "ended").await;
    assert_eq!(end, format!("{} ended with 1: {why}", peer.address));
}

#[tokio::test]
async fn calls_leave_a_hung_server_for_one_that_answers() {
    // As a stopped process does it: the kernel still accepts, and nobody greets.
    let hung = Peer::start(|number, socket| async move {
        if number == 0 {
            hang(socket).await;
        }
        pending::<()>().await;
    })
    .await;
    let well = Peer::start(|_, socket| async move {
        Frames::greet(socket, &[]).await.answer_all(b"well").await;
    })
    .await;
    let (builder, events) = to(fixture::target(&[hung.address, well.address]), false);
    let channel = builder.build().unwrap();
    channel.connect();
    for peer in [&hung, &well] {
        events.wait_for(1, &format!("{} READY", peer.address)).await;
    }
    let mut failed = 0;
    // One by one, so each call that is sent to the hung server waits for its end there.
    for _ in 0..10 {
        match soon("the call's end", hello(&channel)).await {
            Ok(answer) => assert_eq!(answer, "well"),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    let end = events.wait_for(1, "ended").await;
    assert!(end.starts_with(&hung.address.to_string()), "{end}");
}

/// Counts PINGs of each connection, and answers them.
fn counting() -> (watch::Receiver<Vec<usize>>, impl Fn(usize) -> Counter) {
    let (count, counts) = watch::channel(vec![0; 10]);
    let count = Arc::new(count);
    (counts, move |number| Counter { number, count: count.clone() })
}

struct Counter {
    number: usize,
    count: Arc<watch::Sender<Vec<usize>>>,
}

impl Counter {
    async fn run(self, mut frames: Frames) {
        while let Some(frame) = frames.read_any().await {
            if frame.kind != frames::PING {
                continue;
            }
            self.count.send_modify(|counts| counts[self.number] += 1);
            frames.write(frames::PING, 1, 0, &frame.payload).await;
        }
    }
}

#[tokio::test]
async fn server_that_answers_pings_is_kept() {
    let (mut counts, counter) = counting();
    let peer = Peer::start(move |number, socket| {
        let counter = counter(number);
        async move { counter.run(Frames::greet(socket, &[]).await).await }
    })
    .await;
    let (builder, events) = to(peer.target(), false);
    let channel = builder.build().unwrap();
    fixture::ready(&channel).await;
    let mut call = Box::pin(hello(&channel));
    tokio::select! {
        end = &mut call => panic!("{end:?}"),
        five = soon("five pings", counts.wait_for(|counts| counts[0] == 5)) => drop(five),
    }
    assert_eq!(events.count("ended"), 0);
}

#[tokio::test]
async fn whatever_a_server_sends_is_a_sign_of_life_but_not_for_ever() {
    let peer = Peer::start(move |_, socket| async move {
        let mut frames = Frames::greet(socket, &[]).await;
        while frames.read_any().await.is_some_and(|frame| frame.kind != frames::PING) {}
        // In the ping's place. The ping itself stays without an answer.
        frames.write(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).await;
        pending::<()>().await;
    })
    .await;
    let (builder, events) = to(peer.target(), true);
    let channel = builder.build().unwrap();
    let begun = Instant::now();
    fixture::ready(&channel).await;
    let end = events.wait_for(1, "ended").await;
    assert!(end.contains("keepalive"), "{end}");
    assert!(begun.elapsed() >= TIME + TIME + TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_calls_there_are_pings_only_if_permitted() {
    let (mut counts, counter) = counting();
    let peer = Peer::start(move |number, socket| {
        let counter = counter(number);
        async move { counter.run(Frames::greet(socket, &[]).await).await }
    })
    .await;
    let (builder, _) = to(peer.target(), false);
    let quiet = builder.build().unwrap();
    fixture::ready(&quiet).await;
    let (builder, _) = to(peer.target(), true);
    let loud = builder.build().unwrap();
    fixture::ready(&loud).await;
    soon("pings", counts.wait_for(|counts| counts[1] == 4)).await.unwrap();
    assert_eq!(counts.borrow()[0], 0);
    // With a call it pings too.
    let mut call = Box::pin(hello(&quiet));
    tokio::select! {
        end = &mut call => panic!("{end:?}"),
        one = soon("a ping", counts.wait_for(|counts| counts[0] == 1)) => drop(one),
    }
}

#[tokio::test]
async fn too_many_pings_doubles_the_time_for_the_next_connections() {
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let seen = gaps.clone();
    let peer = Peer::start(move |_, socket| {
        let seen = seen.clone();
        async move {
            let begun = Instant::now();
            let mut frames = Frames::greet(socket, &[]).await;
            while frames.read_any().await.is_some_and(|frame| frame.kind != frames::PING) {}
            seen.lock().unwrap().push(begun.elapsed());
            // GOAWAY and the end arrive as one.
            frames.goaway(0, ENHANCE_YOUR_CALM, b"too_many_pings").await;
        }
    })
    .await;
    let (builder, events) = to(peer.target(), true);
    let channel = builder.build().unwrap();
    channel.connect();
    events.wait_for(3, "ended").await;
    let gaps = gaps.lock().unwrap();
    for (gap, expected) in gaps.iter().zip([TIME, TIME * 2, TIME * 4]) {
        assert!(*gap >= expected - Duration::from_millis(5), "{gaps:?}");
    }
    let list = events.list();
    let ends: Vec<_> =
        list.iter().filter(|e| e.contains("drains") || e.contains("ended")).collect();
    for pair in ends.chunks(2) {
        assert!(pair[0].ends_with("drains") && pair[1].contains("ended with 0"), "{ends:?}");
    }
}

#[tokio::test]
async fn complaint_in_a_later_goaway_counts_too() {
    let (hang_up, told) = watch::channel(false);
    let (ping, mut pinged) = watch::channel(None);
    let ping = Arc::new(ping);
    let peer = Peer::start(move |number, socket| {
        let (mut told, ping) = (told.clone(), ping.clone());
        async move {
            let begun = Instant::now();
            let mut frames = Frames::greet(socket, &[]).await;
            match number {
                0 => {
                    let stream = frames.request().await.unwrap();
                    frames.goaway(stream, NO_ERROR, b"").await;
                    frames.round_trip().await;
                    frames.goaway(stream, ENHANCE_YOUR_CALM, b"too_many_pings").await;
                    frames.answer(stream, b"late").await;
                    frames.drain().await;
                }
                // Began before the complaint.
                1 => tokio::select! {
                    _ = told.wait_for(|told| *told) => {}
                    _ = frames.read() => {}
                },
                _ => {
                    while frames.read_any().await.is_some_and(|frame| frame.kind != frames::PING) {}
                    ping.send_replace(Some(begun.elapsed()));
                }
            }
        }
    })
    .await;
    let (builder, events) = to(peer.target(), true);
    // So long that no connection ends by it.
    let timeout = fixture::PATIENCE * 2;
    let keepalive = Keepalive { time: TIME, timeout, permit_without_calls: true };
    let channel = builder.keepalive(keepalive).build().unwrap();
    fixture::ready(&channel).await;
    assert_eq!(soon("an answer", hello(&channel)).await.unwrap(), "late");
    let end = events.wait_for(1, "ended").await;
    assert!(end.contains("too_many_pings"), "{end}");
    assert_eq!(events.count("drains"), 1, "{:?}", events.list());
    hang_up.send_replace(true);
    let gap = *soon("a ping", pinged.wait_for(Option::is_some)).await.unwrap();
    assert!(gap >= Some(TIME * 2 - Duration::from_millis(5)), "{gap:?}");
}

#[tokio::test]
async fn times_under_the_floor_need_a_word() {
    let keepalive = |time| Keepalive { time, timeout: TIMEOUT, permit_without_calls: false };
    let builder = || Channel::builder("ipv4:127.0.0.1:1");
    let error = builder().keepalive(keepalive(TIME)).build().unwrap_err().to_string();
    assert!(error.contains("keepalive time: expected at least 10s, got 150ms"), "{error}");
    assert!(error.contains("allow_aggressive_keepalive"), "{error}");
    assert!(builder().keepalive(keepalive(Duration::from_secs(10))).build().is_ok());
    let aggressive = || builder().allow_aggressive_keepalive(true);
    assert!(aggressive().keepalive(keepalive(TIME)).build().is_ok());
    let error = aggressive().keepalive(keepalive(Duration::ZERO)).build().unwrap_err().to_string();
    assert!(error.contains("expected more than 0"), "{error}");
}
