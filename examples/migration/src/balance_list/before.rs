//! How a service of yours may make its client of the greeter.

use std::error::Error;

use helloworld::greeter_client::GreeterClient;
use tonic::transport::{Channel, Endpoint};

/// `servers` is `10.0.2.95:8000,10.0.3.17:8000`, say.
pub fn client(servers: &str) -> Result<GreeterClient<Channel>, Box<dyn Error>> {
    let mut endpoints = Vec::new();
    for server in servers.split(',') {
        endpoints.push(Endpoint::from_shared(format!("http://{server}"))?);
    }
    let channel = Channel::balance_list(endpoints.into_iter());
    Ok(GreeterClient::new(channel))
}
