//! Signals, in a file of their own: they go to the whole process, so no other test may run beside
//! it.

mod wire;

use std::time::Duration;

use evenkeel_server::{Ended, Server, Termination};
use rustix::process::{Signal, getpid, kill_process};
use tokio::net::TcpListener;
use wire::{Client, SAY_HELLO, finish, hello, probe::Probe, within};

#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends_at_once() {
    let signal = |signal| kill_process(getpid(), signal).expect("to ourselves");

    // One signal: the running call ends, and so does the server.
    let (probe, mut client, task) = start().await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    probe.wait_entered().await;
    signal(Signal::TERM);
    client.refuses_calls().await;
    probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    client.ended().await.expect("a clean end");
    let ended = within(task).await.expect("no panic");
    assert!(matches!(ended, Ended::Drained(report) if report.streams_cut == 0), "{ended:?}");
    assert_eq!(ended.exit_code(), 0);

    // Two signals: the second does not wait for the call, whose grace is long.
    let (probe, mut client, task) = start().await;
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    probe.wait_entered().await;
    signal(Signal::TERM);
    client.refuses_calls().await;
    assert!(!task.is_finished());
    signal(Signal::INT);
    let ended = within(task).await.expect("no panic");
    assert_eq!(ended, Ended::Forced { signal: 2 });
    assert_eq!(ended.exit_code(), 130);
    finish(held).await.expect_err("cut");
}

async fn start() -> (Probe, Client, tokio::task::JoinHandle<Ended>) {
    let probe = Probe::default();
    let server = Server::builder()
        .drain_delay(Duration::ZERO)
        .drain_grace(Duration::from_secs(3600))
        .build(probe.routes())
        .expect("good settings");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let signals = Termination::install().expect("handlers");
    let task =
        tokio::spawn(async move { signals.serve(server, [listener]).await.expect("served") });
    (probe, Client::connect(address).await, task)
}
