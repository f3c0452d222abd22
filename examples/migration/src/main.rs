//! Greets a server once, over the channel that `GRPC_CHANNEL` names.

use helloworld::{HelloRequest, greeter_client::GreeterClient};
use migration::switch::{AnyChannel, VARIABLE};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let server = std::env::args().nth(1).ok_or("usage: migration HOST:PORT")?;
    let choice = std::env::var(VARIABLE).ok();
    let channel = AnyChannel::new(choice.as_deref(), &server)?;
    let name = match &channel {
        AnyChannel::Evenkeel(_) => "evenkeel",
        AnyChannel::Tonic(_) => "tonic",
    };
    let mut client = GreeterClient::new(channel);
    let reply = client.say_hello(HelloRequest { name: "you".to_owned() }).await?;
    println!("{name}: {}", reply.into_inner().message);
    Ok(())
}
