//! The ClusterIP double: one backend per connection, and what resets do.

use std::{io::ErrorKind, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

fn v4(listener: &TcpListener) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port())
}

async fn read_one(stream: &mut TcpStream) -> std::io::Result<u8> {
    timeout(LIMIT, stream.read_u8()).await.expect("in time")
}

/// A backend that writes its number once per byte it reads.
async fn numbered(number: u8, tasks: &mut JoinSet<()>) -> SocketAddrV4 {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = v4(&listener);
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move {
                while stream.read_u8().await.is_ok() {
                    stream.write_u8(number).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn one_connection_goes_to_one_backend_and_many_spread() {
    let mut tasks = JoinSet::new();
    let mut backends = Vec::new();
    for number in 0..3 {
        backends.push(numbered(number, &mut tasks).await);
    }
    let proxy = L4::start(ANY, backends.clone()).await.unwrap();
    for _ in 0..60 {
        let mut caller = TcpStream::connect(proxy.address()).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..5 {
            caller.write_u8(0).await.unwrap();
            seen.push(read_one(&mut caller).await.unwrap());
        }
        assert!(seen.iter().all(|number| *number == seen[0]), "one connection: {seen:?}");
    }
    // 60 random picks miss one of three backends with probability 8e-11.
    let given = proxy.connections();
    assert_eq!(given.len(), 3, "{given:?}");
    assert_eq!(given.values().sum::<u64>(), 60);
}

#[tokio::test]
async fn a_destination_that_refuses_resets_the_caller() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let closed = v4(&listener);
    drop(listener);
    let proxy = L4::start(ANY, vec![closed]).await.unwrap();
    let mut caller = TcpStream::connect(proxy.address()).await.unwrap();
    let error = read_one(&mut caller).await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_on_one_side_reaches_the_other_and_the_proxy_goes_on() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let proxy = L4::start(ANY, vec![v4(&listener)]).await.unwrap();

    let mut caller = TcpStream::connect(proxy.address()).await.unwrap();
    let (backend, _) = timeout(LIMIT, listener.accept()).await.expect("in time").unwrap();
    backend.set_zero_linger().unwrap();
    drop(backend);
    assert_eq!(read_one(&mut caller).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);

    let caller = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut backend, _) = timeout(LIMIT, listener.accept()).await.expect("in time").unwrap();
    caller.set_zero_linger().unwrap();
    drop(caller);
    assert_eq!(read_one(&mut backend).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);

    let mut caller = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut backend, _) = timeout(LIMIT, listener.accept()).await.expect("in time").unwrap();
    backend.write_u8(7).await.unwrap();
    assert_eq!(read_one(&mut caller).await.unwrap(), 7);
}

#[tokio::test]
async fn a_half_closed_connection_still_carries_the_other_way() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let proxy = L4::start(ANY, vec![v4(&listener)]).await.unwrap();
    let mut caller = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut backend, _) = timeout(LIMIT, listener.accept()).await.expect("in time").unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_one(&mut backend).await.expect_err("end").kind(), ErrorKind::UnexpectedEof);
    backend.write_u8(9).await.unwrap();
    assert_eq!(read_one(&mut caller).await.unwrap(), 9);
}
