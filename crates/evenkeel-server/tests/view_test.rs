//! A view of a server: what it shows of connections and streams, and that it forgets them.

mod wire;

use std::time::Duration;

use evenkeel_server::{Event, Server, ServerView};
use wire::{Client, Running, SAY_HELLO, finish, hello, within};

#[tokio::test]
async fn shows_connections_their_calls_and_their_drain() {
    let view = ServerView::new();
    assert_eq!(view.snapshot(), None, "nothing serves yet");
    let builder = Server::builder().drain_delay(Duration::ZERO).view(&view);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.hello("you").await.expect("an answer").text(), "Hello you");
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;

    let now = view.snapshot().expect("it serves");
    assert_eq!((now.connections, now.listeners.len()), (1, 1));
    assert_eq!(now.listeners[0].local, Some(server.address));
    assert_eq!((now.streams.started, now.streams.answered, now.streams.reset), (2, 1, 0));
    let (connections, all) = view.connections(0, 10);
    let [shown] = connections[..] else { panic!("{connections:?}") };
    assert_eq!((shown.peer, shown.local), (Some(client.local), Some(server.address)));
    assert_eq!((shown.streams_open, shown.draining, all), (1, false, true));

    server.shutdown.drain();
    client.refuses_calls().await;
    let shown = view.connection(shown.id).expect("it has a call");
    assert_eq!((shown.streams_open, shown.draining), (1, true));
    server.probe.release.add_permits(1);
    assert_eq!(finish(held).await.expect("an answer").text(), "held");
    server.drain_with(client).await;
    assert_eq!((view.snapshot(), view.connection(shown.id)), (None, None));
}

#[tokio::test]
async fn counts_stay_when_their_connection_is_gone_and_resets_are_told_apart() {
    let view = ServerView::new();
    let builder = Server::builder().drain_delay(Duration::ZERO).view(&view);
    let server = Running::start(builder).await;
    let mut client = Client::connect(server.address).await;
    client.hello("you").await.expect("an answer");
    let held = client.start(SAY_HELLO, &[], &hello("hold")).await.expect("sent");
    server.probe.wait_entered().await;
    drop(held);
    server.counted(Event::StreamReset, 1).await;
    client.close().await;
    let gone = async {
        while view.snapshot().is_none_or(|now| now.connections > 0) {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
    let streams = view.snapshot().expect("it serves").streams;
    assert_eq!((streams.started, streams.answered, streams.reset), (2, 1, 1));
    let _ = server.drain().await;
}

#[tokio::test]
async fn connections_come_in_pages() {
    let view = ServerView::new();
    let server = Running::start(Server::builder().drain_delay(Duration::ZERO).view(&view)).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(server.address).await;
        client.hello("you").await.expect("an answer");
        clients.push(client);
    }
    let (first, all) = view.connections(0, 3);
    assert_eq!((first.len(), all), (3, false));
    let (rest, all) = view.connections(first[2].id + 1, 3);
    assert_eq!((rest.len(), all), (2, true));
    let peers: Vec<_> = first.iter().chain(&rest).map(|c| c.peer).collect();
    let locals: Vec<_> = clients.iter().map(|client| Some(client.local)).collect();
    assert_eq!(peers, locals, "in the order in which they came");
    drop(clients);
    let _ = server.drain().await;
}
