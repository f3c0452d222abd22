//! TLS for a channel (feature `tls`), by rustls: between the connector's bytes and HTTP/2.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel::tls::{ClientTls, Identity, Roots};
//!
//! // Files of a mounted Secret; both are followed when they change.
//! let roots = Roots::watch("/etc/tls/ca.crt")?;
//! let identity = Identity::watch("/etc/tls/tls.crt", "/etc/tls/tls.key")?;
//! let channel = evenkeel::Channel::builder("dns:///greeter.default:8443")
//!     .tls(ClientTls::new(roots).identity(identity))
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! The handshake belongs to the channel's connect timeout. A server that does not choose HTTP/2 by
//! ALPN is refused, as gRPC demands. Sessions are not resumed: every connection's peer is verified
//! anew, against the roots of that moment. What stands when files change goes on; give the server
//! a connection age when a revoked root has to end connections too.

mod explain;
mod spiffe;

use std::sync::Arc;

use ::rustls::{
    ClientConfig, RootCertStore,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::ServerName,
    sign::SingleCertAndKey,
};
use evenkeel_tls::{ALPN_H2, Material, Rotating, SpiffeRules};
pub use evenkeel_tls::{
    FILE_BYTES_MAX, Identity, PeerNames, Refused, Roots, SpiffeRule, TlsError, WATCH_INTERVAL,
    WatchStatus, provider, rustls,
};
use http::uri::Authority;
use tokio_rustls::TlsConnector;

use crate::{
    BuildError, ChannelBuilder,
    connector::{BoxedIo, Secure, Securing},
};

/// How a channel secures its connections; see [`ChannelBuilder::tls`].
#[derive(Clone, Debug)]
pub struct ClientTls {
    trust: Trust,
    identity: Option<Identity>,
    server_name: Option<String>,
    spiffe: Option<SpiffeRules>,
    provider: Option<Arc<CryptoProvider>>,
}

#[derive(Clone, Debug)]
enum Trust {
    Roots(Roots),
    Config(Box<ClientConfig>),
}

impl ClientTls {
    /// Trusts servers whose certificate ends in these roots and has the server's name: the host of
    /// the target's authority, or [`ClientTls::server_name`].
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self::with(Trust::Roots(roots))
    }

    /// Uses rustls's own configuration as it is, but for ALPN, which becomes HTTP/2. Certificates,
    /// verification and provider are then its business alone.
    #[must_use]
    pub fn from_config(config: ClientConfig) -> Self {
        Self::with(Trust::Config(Box::new(config)))
    }

    fn with(trust: Trust) -> Self {
        Self { trust, identity: None, server_name: None, spiffe: None, provider: None }
    }

    /// The client's own certificate, for servers that ask for one (mTLS).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The name to ask for (SNI) and to find in the certificate, instead of the authority's host:
    /// a DNS name or an IP address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Wants one of these SPIFFE IDs in the server's certificate, and no DNS name. The chain is
    /// verified as ever.
    #[must_use]
    pub fn spiffe(mut self, rules: impl IntoIterator<Item = SpiffeRule>) -> Self {
        self.spiffe = Some(SpiffeRules::new(rules));
        self
    }

    /// The crypto provider, instead of the installed or the only linked one.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    fn start(self, authority: &Authority) -> Result<Arc<dyn Secure>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or_else(|| host(authority));
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            TlsError::Name(format!(
                "expected a DNS name or an IP address as the server's name, got {name:?}; give \
                 one with ClientTls::server_name"
            ))
        })?;
        let own = self.identity.is_some() || self.spiffe.is_some() || self.provider.is_some();
        let configs = match self.trust {
            Trust::Config(_) if own => {
                return Err(TlsError::Config(
                    "expected identity, SPIFFE rules and provider within the rustls::ClientConfig \
                     that was given, got them beside it"
                        .into(),
                ));
            }
            Trust::Config(mut config) => {
                config.alpn_protocols = vec![ALPN_H2.to_vec()];
                Rotating::fixed(*config)
            }
            Trust::Roots(roots) => {
                let provider = provider(self.provider)?;
                let spiffe = self.spiffe;
                Rotating::new(provider, self.identity, Some(roots), move |material| {
                    config(material, spiffe.as_ref())
                })?
            }
        };
        Ok(Arc::new(Handshakes { name, configs: Arc::new(configs) }))
    }
}

impl ChannelBuilder {
    /// Secures every connection with TLS (feature `tls`); without it the channel speaks plaintext.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.secure = Some(Box::new(move |authority| {
            tls.clone().start(authority).map_err(|e| BuildError::Tls(e.to_string()))
        }));
        self
    }
}

/// The authority's host; an IPv6 address without its brackets.
fn host(authority: &Authority) -> &str {
    let host = authority.host();
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

fn config(material: Material, spiffe: Option<&SpiffeRules>) -> Result<ClientConfig, TlsError> {
    let Material { provider, identity, roots } = material;
    let roots = roots.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    let verifier: Arc<dyn ServerCertVerifier> = match spiffe {
        Some(rules) => Arc::new(spiffe::Verifier::new(roots, &provider, rules.clone())),
        None => WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| TlsError::Config(e.to_string()))?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // Not what it sounds like: both verifiers check the chain; one of them is our own.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => {
            let identity: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
            builder.with_client_cert_resolver(identity)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// All handshakes of a channel.
struct Handshakes {
    name: ServerName<'static>,
    configs: Arc<Rotating<ClientConfig>>,
}

impl Secure for Handshakes {
    fn secure(&self, socket: BoxedIo) -> Securing {
        let (name, configs) = (self.name.clone(), self.configs.clone());
        Box::pin(async move {
            let connector = TlsConnector::from(configs.current().await);
            let connecting = connector.connect(name, socket);
            let stream = connecting.await.map_err(|e| explain::handshake(&e))?;
            match stream.get_ref().1.alpn_protocol() {
                Some(ALPN_H2) => Ok(Box::pin(stream) as BoxedIo),
                other => Err(explain::no_http2(other)),
            }
        })
    }

    fn named(&self, name: &str) -> Result<Arc<dyn Secure>, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("expected a DNS name or an IP address as the server's name, got {name:?}")
        })?;
        Ok(Arc::new(Self { name, configs: self.configs.clone() }))
    }

    fn explain(&self, error: String) -> String {
        explain::greeting(error)
    }
}
