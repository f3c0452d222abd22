//! Three greeters in this process and a file that names first one of them, then all; who answers
//! follows the file.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use evenkeel::Channel;
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use own_resolver::FileResolver;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backends = greeters::start(3).await?;
    let addresses = greeters::addresses(&backends).replace(',', "\n");
    let file = std::env::temp_dir().join(format!("endpoints-{}", std::process::id()));
    let one = addresses.lines().next().unwrap_or_default();
    fs::write(&file, one)?;
    let resolver = FileResolver { interval: Duration::from_millis(100), ..Default::default() };
    let channel = Channel::builder(format!("file:{}", file.display()))
        .register_resolver(Arc::new(resolver))
        .build()?;
    let mut client = GreeterClient::new(channel);

    println!("the file has 1 line:  {}", shares(&mut client, 30).await?);
    // A new file under the old name: a reader sees the old list or the new one, never a part.
    let new = file.with_extension("new");
    fs::write(&new, addresses)?;
    fs::rename(&new, &file)?;
    while !shares(&mut client, 1).await?.contains("greeter 3") {}
    println!("the file has 3 lines: {}", shares(&mut client, 30).await?);

    fs::remove_file(&file)?;
    println!("the file is gone:     {}", shares(&mut client, 30).await?);
    for backend in backends {
        backend.stop().await?;
    }
    Ok(())
}

/// How many of `count` calls each greeter answered.
async fn shares(client: &mut GreeterClient<Channel>, count: u32) -> Result<String, tonic::Status> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let reply = client.say_hello(HelloRequest { name: "you".to_owned() }).await?;
        *shares.entry(reply.into_inner().message).or_insert(0) += 1;
    }
    let shown: Vec<String> = shares.iter().map(|(k, v)| format!("greeter {k}: {v}")).collect();
    Ok(shown.join(", "))
}
