//! A real shortage of file descriptors, in a file of its own: the limit is the whole process's.

mod wire;

use std::{fs::File, net};

use evenkeel_server::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wire::{Client, Running, within};

#[tokio::test]
async fn accepting_goes_on_when_file_descriptors_are_there_again() {
    let server = Running::start(Server::builder()).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.hello("before").await.expect("an answer").text(), "Hello before");

    let limit = Rlimit { current: Some(256), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    // The client's end takes the last descriptor; the kernel completes the handshake alone.
    files.pop();
    let waiting = net::TcpStream::connect(server.address).expect("the listener's queue");
    File::open("/dev/null").expect_err("nothing is left for the server's end");
    // These answers come through the same event loop as the failing accept.
    for _ in 0..3 {
        assert_eq!(client.hello("during").await.expect("an answer").text(), "Hello during");
    }

    drop(files);
    drop(waiting);
    let mut late = within(Client::try_connect(server.address)).await.expect("accepted again");
    assert_eq!(late.hello("after").await.expect("an answer").text(), "Hello after");
}
