//! A stand-in for ginepro 0.9, written from its public documentation: names and signatures that the
//! "before" of the migration calls, over a plain look-up. ginepro itself is banned from this
//! repository (deny.toml), so its text can't be compiled here; what ginepro does beyond this shape
//! (looking up again every interval) is not played.

use std::{
    error::Error,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{
    body::Body,
    transport::{
        Endpoint,
        channel::{Change, Channel, ResponseFuture},
    },
};
use tower_service::Service;

/// A host and a port.
pub struct ServiceDefinition {
    host: String,
    port: u16,
}

impl From<(&str, u16)> for ServiceDefinition {
    fn from((host, port): (&str, u16)) -> Self {
        Self { host: host.to_owned(), port }
    }
}

/// When the name is looked up first.
pub enum ResolutionStrategy {
    /// After the channel is made.
    Lazy,
    /// Before it is made, for at most `timeout`.
    Eager {
        /// The limit of the look-up.
        timeout: Duration,
    },
}

/// A channel that is balanced by tonic.
#[derive(Clone, Debug)]
pub struct LoadBalancedChannel(Channel);

impl LoadBalancedChannel {
    /// Starts to configure a channel.
    pub fn builder(service: impl Into<ServiceDefinition>) -> LoadBalancedChannelBuilder {
        LoadBalancedChannelBuilder {
            service: service.into(),
            strategy: ResolutionStrategy::Lazy,
            timeout: None,
            connect_timeout: None,
        }
    }
}

impl Service<tonic::codegen::http::Request<Body>> for LoadBalancedChannel {
    type Response = tonic::codegen::http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: tonic::codegen::http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// Configures a [`LoadBalancedChannel`].
pub struct LoadBalancedChannelBuilder {
    service: ServiceDefinition,
    strategy: ResolutionStrategy,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
}

impl LoadBalancedChannelBuilder {
    /// How often the name is looked up. The stand-in looks it up once.
    #[must_use]
    pub fn dns_probe_interval(self, _interval: Duration) -> Self {
        self
    }

    /// The limit of each call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The limit of each attempt to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// When the name is looked up first.
    #[must_use]
    pub fn resolution_strategy(mut self, strategy: ResolutionStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Makes the channel.
    ///
    /// # Errors
    ///
    /// The name has no address, or not within the strategy's time-out.
    pub async fn channel(self) -> Result<LoadBalancedChannel, Box<dyn Error + Send + Sync>> {
        let ServiceDefinition { host, port } = &self.service;
        let look_up = tokio::net::lookup_host((host.as_str(), *port));
        let addresses: Vec<_> = match self.strategy {
            ResolutionStrategy::Eager { timeout } => {
                tokio::time::timeout(timeout, look_up).await.map_err(io::Error::other)??.collect()
            }
            ResolutionStrategy::Lazy => look_up.await?.collect(),
        };
        let (channel, changes) = Channel::balance_channel(addresses.len().max(1));
        for address in addresses {
            let mut endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            if let Some(timeout) = self.timeout {
                endpoint = endpoint.timeout(timeout);
            }
            if let Some(timeout) = self.connect_timeout.or(self.timeout) {
                endpoint = endpoint.connect_timeout(timeout);
            }
            changes.send(Change::Insert(address, endpoint)).await?;
        }
        Ok(LoadBalancedChannel(channel))
    }
}
