//! How a service of yours may make its client of the greeter.

use std::{error::Error, time::Duration};

use evenkeel::{Channel, ConnectivityState, dns::DnsOptions};
use helloworld::greeter_client::GreeterClient;

/// `host` is `greeter.default`, say.
pub async fn client(
    host: &str,
    port: u16,
) -> Result<GreeterClient<Channel>, Box<dyn Error + Send + Sync>> {
    let channel = Channel::builder(format!("dns:///{host}:{port}"))
        .dns(DnsOptions { interval_max: Duration::from_secs(5), ..DnsOptions::default() })
        .connect_timeout(Duration::from_secs(5))
        .service_config(r#"{"methodConfig": [{"name": [{}], "timeout": "10s"}]}"#)
        .build()?;
    channel.connect();
    tokio::time::timeout(Duration::from_secs(20), async {
        let mut state = channel.state();
        while state != ConnectivityState::Ready {
            state = channel.wait_for_state_change(state).await;
        }
    })
    .await?;
    Ok(GreeterClient::new(channel))
}
