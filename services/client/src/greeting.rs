//! One greeting over our channel, and the name of the backend that gave it. The reply's own text
//! comes first: behind a proxy it names the pod, while the connection's address is the proxy's.

use std::time::Duration;

use evenkeel::{CallOptions, Channel, ConnectivityState, core::Address};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataKey},
};

/// After the channel is READY its other connections get this long to be made as well.
pub const SETTLE: Duration = Duration::from_millis(50);

/// What every call of a run has in common.
#[derive(Clone)]
pub struct Greeter {
    /// The stub over the channel.
    pub client: GreeterClient<Channel>,
    /// The name in the request.
    pub name: String,
    /// Each call's deadline; `None` for none.
    pub timeout: Option<Duration>,
    /// Wait for READY instead of failing in TRANSIENT_FAILURE.
    pub wait_for_ready: bool,
    /// A header whose value differs from call to call, for policies that hash.
    pub hash_header: Option<HashHeader>,
}

/// A header that runs through a number of values.
#[derive(Clone, Debug)]
pub struct HashHeader {
    /// The header's name.
    pub name: MetadataKey<Ascii>,
    /// How many values it has, at least 1: `key-0`, `key-1`, …
    pub keys: u64,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The reply's text.
    pub message: String,
    address: Option<Address>,
}

impl Greeter {
    /// Makes call number `k` (from 0).
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub async fn say_hello(&self, k: u64) -> Result<Greeting, Status> {
        let mut request = Request::new(HelloRequest { name: self.name.clone() });
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        if self.wait_for_ready {
            request.extensions_mut().insert(CallOptions::default().wait_for_ready(true));
        }
        if let Some(HashHeader { name, keys }) = &self.hash_header {
            let value = format!("key-{}", k.wrapping_add(1) % keys);
            let value = value.parse().expect("letters and digits are a valid header value");
            request.metadata_mut().insert(name.clone(), value);
        }
        let response = self.client.clone().say_hello(request).await?;
        let backend = response.extensions().get::<evenkeel::Backend>();
        let address = backend.map(|backend| backend.address.clone());
        Ok(Greeting { message: response.into_inner().message, address })
    }
}

impl Greeting {
    /// The backend: what the reply names between `(Backend IP: ` and `)`, else the address that
    /// the call was sent to, else `?`.
    pub fn into_backend(self) -> String {
        match (named_backend(&self.message), self.address) {
            (Some(name), _) => name.to_owned(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "?".to_owned(),
        }
    }
}

fn named_backend(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("(Backend IP: ")?;
    Some(after.split_once(')')?.0)
}

/// Connects and waits at most `limit` for READY, then gives the other connections [`SETTLE`].
/// Returns how long READY took, `None` when it did not come.
pub async fn warm_up(channel: &Channel, limit: Duration) -> Option<Duration> {
    let begin = tokio::time::Instant::now();
    channel.connect();
    let ready = async {
        let mut state = channel.state();
        while state != ConnectivityState::Ready {
            state = channel.wait_for_state_change(state).await;
        }
        begin.elapsed()
    };
    let took = tokio::time::timeout(limit, ready).await.ok();
    // The channel's state does not tell when the others are READY, nor whether they ever will be.
    tokio::time::sleep(SETTLE).await;
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(message: &str, address: Option<&str>) -> Greeting {
        let address = address.map(|text| text.parse::<std::net::SocketAddr>().unwrap().into());
        Greeting { message: message.into(), address }
    }

    #[test]
    fn the_reply_names_the_backend() {
        for (message, address, want) in [
            ("Hello you (Backend IP: 10.0.2.95)", Some("10.0.0.1:80"), "10.0.2.95"),
            ("Hello you (Backend IP: ::1)", None, "::1"),
            ("Hello (Backend IP: ) x)", None, ""),
            ("Hello you", Some("10.0.0.1:80"), "10.0.0.1:80"),
            ("Hello (Backend IP: 10.0.0.1", None, "?"),
            ("", None, "?"),
        ] {
            assert_eq!(greeting(message, address).into_backend(), want, "{message}");
        }
    }
}
