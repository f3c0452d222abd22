//! How a service of yours may make its client of the greeter.

use std::{error::Error, time::Duration};

use helloworld::greeter_client::GreeterClient;
use tonic::transport::{Channel, Endpoint};

/// `server` is `greeter.default:8000`, say.
pub async fn client(server: &str) -> Result<GreeterClient<Channel>, Box<dyn Error>> {
    let channel = Endpoint::from_shared(format!("http://{server}"))?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .connect()
        .await?;
    Ok(GreeterClient::new(channel))
}
