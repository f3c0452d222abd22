//! How a service of yours may make its client of the greeter.

use std::{error::Error, time::Duration};

use evenkeel::{Channel, Keepalive};
use helloworld::greeter_client::GreeterClient;

/// `server` is `greeter.default:8000`, say.
pub async fn client(server: &str) -> Result<GreeterClient<Channel>, Box<dyn Error>> {
    let channel = Channel::builder(format!("dns:///{server}"))
        .connect_timeout(Duration::from_secs(5))
        .service_config(r#"{"methodConfig": [{"name": [{}], "timeout": "10s"}]}"#)
        .keepalive(Keepalive {
            time: Duration::from_secs(30),
            timeout: Duration::from_secs(20),
            permit_without_calls: false,
        })
        .build()?;
    Ok(GreeterClient::new(channel))
}
