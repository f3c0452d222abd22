//! How a service of yours may make its client of the greeter.

use std::error::Error;

use evenkeel::Channel;
use helloworld::greeter_client::GreeterClient;

/// `servers` is `10.0.2.95:8000,10.0.3.17:8000`, say.
pub fn client(servers: &str) -> Result<GreeterClient<Channel>, Box<dyn Error>> {
    let channel = Channel::builder(format!("ipv4:{servers}")).build()?;
    Ok(GreeterClient::new(channel))
}
