//! Three greeters in this process, nine sessions with four calls each, and who answered.

use std::{collections::BTreeSet, sync::Arc};

use evenkeel::Channel;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use tonic::{Request, metadata::MetadataValue};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backends = greeters::start(3).await?;
    let channel = Channel::builder(format!("ipv4:{}", greeters::addresses(&backends)))
        .register_policy(Arc::new(own_policy::Factory))
        .service_config(r#"{"loadBalancingConfig": [{"sticky": {"header": "x-session"}}]}"#)
        .build()?;
    let mut client = GreeterClient::new(channel);
    // Sessions go to who is READY. Before all are, some go elsewhere, and home later.
    let mut seen = BTreeSet::new();
    while seen.len() < backends.len() {
        let anybody = HelloRequest { name: "anybody".to_owned() };
        seen.insert(client.say_hello(anybody).await?.into_inner().message);
    }
    println!("session  answered by");
    for session in ["ada", "brian", "chris", "dana", "erin", "finn", "gil", "hana", "ines"] {
        let mut answers = Vec::new();
        for _ in 0..4 {
            let mut request = Request::new(HelloRequest { name: session.to_owned() });
            request.metadata_mut().insert("x-session", MetadataValue::from_static(session));
            answers.push(client.say_hello(request).await?.into_inner().message);
        }
        println!("{session:8} {}", answers.join(" "));
    }
    for backend in backends {
        backend.stop().await?;
    }
    Ok(())
}
