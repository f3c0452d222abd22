//! What the flags say about the server, and channels to it.

use std::net::IpAddr;

use evenkeel::{BuildError, Channel, tls::ClientTls};

use super::case::Case;

/// A server, and how the channel to it is configured.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Target of the channel, e.g. `ipv4:127.0.0.1:10000`.
    pub uri: String,
    /// `:authority` instead of the target's.
    pub authority: Option<String>,
    /// Service config as JSON.
    pub service_config: Option<String>,
    /// Plaintext without.
    pub tls: Option<ClientTls>,
}

impl Target {
    /// The target of a host, name or address, and a port.
    #[must_use]
    pub fn of(host: &str, port: u16) -> Self {
        let uri = match host.parse() {
            Ok(IpAddr::V4(ip)) => format!("ipv4:{ip}:{port}"),
            Ok(IpAddr::V6(ip)) => format!("ipv6:[{ip}]:{port}"),
            Err(_) => format!("dns:///{host}:{port}"),
        };
        Self { uri, ..Self::default() }
    }

    /// A new channel. `pick_first_unary` is about that policy; the others take the channel's own,
    /// unless a service config names one.
    ///
    /// # Errors
    ///
    /// Those of [`evenkeel::ChannelBuilder::build`].
    pub fn channel(&self, case: Case) -> Result<Channel, BuildError> {
        let mut builder = Channel::builder(&self.uri);
        if case == Case::PickFirstUnary {
            builder = builder.lb_policy("pick_first");
        }
        if let Some(authority) = &self.authority {
            builder = builder.authority(authority);
        }
        if let Some(json) = &self.service_config {
            builder = builder.service_config(json);
        }
        if let Some(tls) = &self.tls {
            builder = builder.tls(tls.clone());
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_looked_up() {
        assert_eq!(Target::of("127.0.0.1", 80).uri, "ipv4:127.0.0.1:80");
        assert_eq!(Target::of("::1", 80).uri, "ipv6:[::1]:80");
        assert_eq!(Target::of("localhost", 80).uri, "dns:///localhost:80");
    }
}
