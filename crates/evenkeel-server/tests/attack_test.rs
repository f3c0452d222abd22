//! Floods: each ends its own connection with ENHANCE_YOUR_CALM, is counted under its own name, and
//! costs other clients no call and the server no memory.

mod wire;

use evenkeel_server::{Builder, Event, Server};
use wire::{
    Client, Running,
    attacks::{Flood, Outcome, flood},
    frames::{self, Frames},
    within,
};

/// More than any limit lets through; an attack that comes so far was not stopped.
const FRAMES_MAX: u64 = 300_000;
const ATTACKS: u64 = 2;
const GOOD_CLIENTS: usize = 1;
/// Below the default, because each reset is a call that a slow build has to begin.
const RESETS_MAX: u32 = 400;
/// What all attacks together may leave behind, other tests of this process included.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Calls one after the other until it is told to stop; every one must be answered.
async fn calls(mut client: Client, mut stop: tokio::sync::watch::Receiver<bool>) -> u32 {
    let mut answered = 0;
    while !*stop.borrow_and_update() || answered < 100 {
        assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
        answered += 1;
    }
    answered
}

/// Attacks a few times, each on a new connection, while good clients call.
async fn attack(builder: Builder, kind: Flood, event: Event) -> Vec<Outcome> {
    let server = Running::start(builder).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut good = tokio::task::JoinSet::new();
    for _ in 0..GOOD_CLIENTS {
        good.spawn(calls(Client::connect(server.address).await, stopped.clone()));
    }
    let before_kib = resident_kib();
    let mut outcomes = Vec::new();
    for _ in 0..ATTACKS {
        let outcome = within(flood(server.address, kind, FRAMES_MAX)).await.expect("connected");
        assert!(outcome.ended, "{kind:?} was not stopped: {outcome:?}");
        outcomes.push(outcome);
    }
    server.counted(event, ATTACKS).await;
    stop.send_replace(true);
    while let Some(answered) = within(good.join_next()).await {
        answered.expect("every call was answered");
    }
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < GROWTH_KIB_MAX, "{kind:?}: {grown_kib} KiB");
    // Nothing of the attackers is left, and nothing else was counted for them.
    server.counted(Event::ConnectionEnded, ATTACKS + GOOD_CLIENTS as u64).await;
    let abuse = Event::ALL.iter().filter(|event| event.name().starts_with("abuse_"));
    let total: u64 = abuse.map(|event| server.stats.count(*event)).sum();
    assert_eq!(total, ATTACKS, "{:?}", server.stats);
    outcomes
}

fn calm(text: &str) -> Option<(u32, String)> {
    Some((11, text.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let builder = Server::builder().max_resets_per_second(RESETS_MAX);
    let outcomes = attack(builder, Flood::RapidReset, Event::AbuseResets).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_resets")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_of_calls_that_run_already() {
    // h2's own limit knows only of streams that no handler has seen.
    let builder = Server::builder().max_pending_resets(1_000_000).max_resets_per_second(RESETS_MAX);
    let outcomes = attack(builder, Flood::SlowReset, Event::AbuseResets).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_resets")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_flood() {
    let outcomes = attack(Server::builder(), Flood::Continuation, Event::AbuseContinuations).await;
    let expected = calm("too_many_continuations");
    assert!(outcomes.iter().all(|one| one.goaway == expected), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_flood() {
    let outcomes = attack(Server::builder(), Flood::Ping, Event::AbusePings).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_pings")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_flood() {
    let outcomes = attack(Server::builder(), Flood::Settings, Event::AbuseSettings).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_settings")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_bomb() {
    let outcomes = attack(Server::builder(), Flood::HeaderBomb, Event::AbuseHeaderList).await;
    let expected = calm("header_list_way_too_large");
    assert!(outcomes.iter().all(|one| one.goaway == expected), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_update_flood() {
    let event = Event::AbuseWindowUpdates;
    let outcomes = attack(Server::builder(), Flood::WindowUpdate, event).await;
    let expected = calm("too_many_window_updates");
    assert!(outcomes.iter().all(|one| one.goaway == expected), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_flood() {
    let outcomes = attack(Server::builder(), Flood::Priority, Event::AbuseOtherFrames).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_frames")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_unknown_frames() {
    let outcomes = attack(Server::builder(), Flood::Unknown, Event::AbuseOtherFrames).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_frames")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_empty_data() {
    let outcomes = attack(Server::builder(), Flood::EmptyData, Event::AbuseDataFrames).await;
    assert!(outcomes.iter().all(|one| one.goaway == calm("too_many_data_frames")), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed() {
    let outcomes = attack(Server::builder(), Flood::TooManyStreams, Event::AbuseErrorResets).await;
    let expected = calm("too_many_internal_resets");
    assert!(outcomes.iter().all(|one| one.goaway == expected), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_make_the_server_reset_them() {
    let outcomes = attack(Server::builder(), Flood::MadeYouReset, Event::AbuseErrorResets).await;
    let expected = calm("too_many_internal_resets");
    assert!(outcomes.iter().all(|one| one.goaway == expected), "{outcomes:?}");
}

#[tokio::test]
async fn another_protocol_is_counted_as_an_error() {
    let server = Running::start(Server::builder()).await;
    let mut client = Frames::connect(server.address).await;
    // DATA on a stream that nobody opened.
    client.send(&frames::frame(frames::DATA, 0, 1, b"x")).await;
    let goaway = client.find(frames::GOAWAY, 0, |_| true).await;
    assert_eq!(goaway.number(4), 1, "PROTOCOL_ERROR");
    server.counted(Event::ProtocolError, 1).await;
}

#[tokio::test]
async fn a_busy_client_meets_no_limit() {
    let server = Running::start(Server::builder()).await;
    let mut client = Frames::connect(server.address).await;
    let mut streams = (1..).step_by(2);
    // Thousands of PINGs and WINDOW_UPDATEs beside calls, as clients that measure bandwidth send.
    for _ in 0..500 {
        let stream = streams.next().expect("endless");
        let mut bytes = frames::request_headers(stream);
        bytes.extend(frames::request_data(stream, "you"));
        for _ in 0..10 {
            bytes.extend(frames::frame(frames::PING, 0, 0, &[1; 8]));
            bytes.extend(frames::frame(frames::WINDOW_UPDATE, 0, 0, &16_u32.to_be_bytes()));
        }
        client.send(&bytes).await;
        let ended = |frame: &frames::Frame| frame.flags & frames::END_STREAM != 0;
        client.find(frames::HEADERS, stream, ended).await;
    }
    // All that it has open at once is given up, because a deadline passed.
    let open: Vec<_> = streams.by_ref().take(1_000).collect();
    let headers: Vec<_> = open.iter().map(|stream| frames::request_headers(*stream)).collect();
    client.send(&headers.concat()).await;
    server.counted(Event::StreamOpened, 1_500).await;
    let cancel = 8_u32.to_be_bytes();
    let resets = open.iter().map(|stream| frames::frame(frames::RST_STREAM, 0, *stream, &cancel));
    client.send(&resets.collect::<Vec<_>>().concat()).await;
    let last = streams.next().expect("endless");
    client.send(&frames::request_headers(last)).await;
    client.send(&frames::request_data(last, "you")).await;
    let reply = client.find(frames::DATA, last, |_| true).await;
    assert!(reply.payload.ends_with(b"Hello you"), "{reply:?}");
    server.counted(Event::StreamReset, 1_000).await;
    server.counted(Event::StreamRequested, 1_501).await;
    assert_eq!(server.stats.count(Event::StreamRefused), 0);
}

#[test]
fn a_connection_with_much_to_do_lets_others_have_their_turn() {
    // One thread, which looks for new bytes between any two turns: as it is, tokio looks after 61,
    // in which all of the greedy calls may have had theirs.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .event_interval(1)
        .build()
        .unwrap()
        .block_on(serve_the_good_and_the_greedy());
}

async fn serve_the_good_and_the_greedy() {
    const CALLS: u64 = 900;
    let server = Running::start(Server::builder()).await;
    let mut good = Client::connect(server.address).await;
    assert_eq!(good.hello("you").await.expect("an answer").text(), "Hello you");
    let mut greedy = Frames::connect(server.address).await;
    server.counted(Event::ConnectionAccepted, 2).await;
    // What the kernel takes of it lies there before the server reads the first of it, and before
    // the good call is made; if it does not take all, the rest must not come first either.
    let calls: Vec<_> =
        (1..).step_by(2).take(CALLS as usize).map(frames::request_headers).collect();
    let calls = calls.concat();
    let answered = async {
        assert_eq!(good.hello("you").await.expect("an answer").text(), "Hello you");
        server.stats.count(Event::StreamOpened)
    };
    let ((), opened) = tokio::join!(biased; greedy.send(&calls), answered);
    assert!(opened < CALLS, "{opened} of {CALLS} calls came first");
    server.counted(Event::StreamOpened, CALLS + 2).await;
}
