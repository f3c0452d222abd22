//! How a service of yours may make its client of the greeter.

use std::{error::Error, time::Duration};

use ginepro::{LoadBalancedChannel, ResolutionStrategy};
use helloworld::greeter_client::GreeterClient;

/// `host` is `greeter.default`, say.
pub async fn client(
    host: &str,
    port: u16,
) -> Result<GreeterClient<LoadBalancedChannel>, Box<dyn Error + Send + Sync>> {
    let channel = LoadBalancedChannel::builder((host, port))
        .dns_probe_interval(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(10))
        .resolution_strategy(ResolutionStrategy::Eager { timeout: Duration::from_secs(20) })
        .channel()
        .await?;
    Ok(GreeterClient::new(channel))
}
