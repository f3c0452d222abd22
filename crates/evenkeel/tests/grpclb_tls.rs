//! A channel with TLS asks its balancers over TLS too, each under its own name.

mod fixture;

use std::sync::Arc;

use evenkeel::{Channel, core::Balancer, tls::ClientTls};
use evenkeel_server::tls::ServerTls;
use fixture::{
    certificates::Signer,
    events::Events,
    lookaside::{Entry::Server, Lookaside, backend_with, call},
    ready,
};
use rustls::crypto::ring;
use tokio::net::TcpListener;

fn server_tls(signer: &Signer, name: &str) -> ServerTls {
    let provider = Arc::new(ring::default_provider());
    ServerTls::new(signer.leaf(name).identity()).provider(provider)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

#[tokio::test]
async fn a_balancer_has_to_have_its_own_name() {
    let signer = Signer::new();
    let tls = |name: &str| server_tls(&signer, name);
    let own = backend_with(listener().await, |b| b.tls(tls("greeter.test")).unwrap());
    let one = backend_with(listener().await, |b| b.tls(tls("greeter.test")).unwrap());
    let lb = Lookaside::start_on(listener().await, |b| b.tls(tls("lb.test")).unwrap());
    for (name, good) in [("lb.test", true), ("greeter.test", false), ("not a name", false)] {
        let events = Events::default();
        let balancer = Balancer { address: lb.address.into(), name: Some(name.into()) };
        let client_tls =
            ClientTls::new(signer.roots()).provider(Arc::new(ring::default_provider()));
        let channel = Channel::builder(fixture::target(&[own.address]))
            .authority("greeter.test")
            .lb_policy("grpclb")
            .balancers([balancer])
            .tls(client_tls)
            .recorder(events.recorder())
            .build()
            .unwrap();
        channel.connect();
        if good {
            let stream = lb.stream().await;
            assert_eq!(stream.authority, "lb.test");
            stream.list(&[Server(one.address, "t")]).await;
            ready(&channel).await;
            assert_eq!(call(&channel).await.unwrap(), format!("{} t", one.address));
        } else {
            assert_eq!(call(&channel).await.unwrap(), format!("{} ", own.address), "{name}");
            assert_eq!(events.count("Lost("), 1, "{name}: {:?}", events.list());
        }
    }
}
