//! Calls over TLS with whatever is linked: `cargo test` (both), `cargo test --no-default-features
//! --features ring` (or `aws_lc_rs`: one), `cargo test --no-default-features` (none).

use std::{sync::Arc, time::Duration};

use evenkeel::{
    BuildError, Channel,
    tls::{ClientTls, Roots},
};
use evenkeel_server::{
    Server,
    tls::{Identity, ServerTls},
};
use helloworld::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, service::Routes};

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: "hello".into() }))
    }
}

struct Sides {
    server: ServerTls,
    client: ClientTls,
}

fn sides() -> Sides {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let server = ServerTls::new(Identity::from_pem(&chain, key.serialize_pem()).unwrap());
    Sides { server, client: ClientTls::new(Roots::from_pem(chain).unwrap()) }
}

/// One call, or why channel and server could not be built; they have to agree.
async fn call(sides: Sides) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let channel = Channel::builder(format!("ipv4:{address}")).tls(sides.client).build();
    let server = Server::builder().tls(sides.server).map_err(|e| e.to_string());
    let channel = match (channel, &server) {
        (Ok(channel), Ok(_)) => channel,
        (Err(BuildError::Tls(why)), Err(same)) if *same == format!("TLS: {why}") => {
            return Err(why);
        }
        (channel, server) => panic!("{channel:?} and {server:?}"),
    };
    let routes = Routes::new(GreeterServer::new(Hello));
    let server =
        server.expect("looked at above").drain_delay(Duration::ZERO).build(routes).unwrap();
    let shutdown = server.shutdown_handle();
    let serving = tokio::spawn(server.serve([listener]));
    let mut client = GreeterClient::new(channel.clone());
    let answer = client.say_hello(HelloRequest::default());
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap();
    drop((client, channel));
    shutdown.drain();
    serving.await.unwrap().unwrap();
    Ok(answer.map_err(|status| status.to_string())?.into_inner().message)
}

/// One test, because what it installs stays for the process.
#[tokio::test]
async fn what_is_linked_given_or_installed_decides() {
    let linked = providers::linked();
    println!("linked: {linked:?}");
    let plain = call(sides()).await;
    match linked[..] {
        [] => assert!(plain.unwrap_err().contains("rustls has none; turn on")),
        [_] => assert_eq!(plain.unwrap(), "hello"),
        _ => assert!(plain.unwrap_err().contains("rustls has `ring` and `aws_lc_rs`; choose one")),
    }
    // Given ones, also a different one on each side.
    let made = |name: &str| Arc::new(providers::made(name).unwrap());
    for client in &linked {
        for server in &linked {
            let mut sides = sides();
            sides.client = sides.client.provider(made(client));
            sides.server = sides.server.provider(made(server));
            assert_eq!(call(sides).await.unwrap(), "hello", "{client} to {server}");
        }
    }
    assert!(CryptoProvider::get_default().is_none(), "the library installs nothing");
    if let Some(name) = linked.last() {
        providers::made(name).unwrap().install_default().unwrap();
        assert_eq!(call(sides()).await.unwrap(), "hello", "{name} is installed");
    }
}
