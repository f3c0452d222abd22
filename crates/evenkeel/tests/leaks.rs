//! What is left of many channels. A test binary of its own with one test: the process's sockets are
//! counted, and other tests in the same process have some too.

mod fixture;

use evenkeel::Channel;
use fixture::{
    Backend as Server,
    bytes::{Echo, hello},
    runtime::{OwnRuntime, sockets},
    soon, until,
};
use tokio::net::TcpListener;
use tonic::service::Routes;

#[tokio::test]
async fn two_hundred_channels_leave_no_task_and_no_socket() {
    let before_all = sockets();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::with_routes(listener, Routes::new(Echo::default()), |b| b);
    let target = fixture::target(&[server.address]);
    let own = OwnRuntime::default();
    let before = sockets();
    for _ in 0..20 {
        let channel = || own.hosts(Channel::builder(&target)).build().unwrap();
        let channels: Vec<_> = (0..10).map(|_| channel()).collect();
        for channel in &channels {
            assert_eq!(soon("an answer", hello(channel)).await.unwrap(), "hello");
        }
        assert!(sockets() >= before + 20, "both ends are this process's: {}", sockets());
    }
    own.has_tasks(0).await;
    until("as many sockets as before", || sockets() == before).await;
    server.stop().await;
    until("no server", || sockets() < before).await;
    drop(own);
    until("no runtime", || sockets() <= before_all).await;
}
