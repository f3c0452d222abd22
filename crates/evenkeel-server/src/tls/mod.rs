//! TLS for a server (feature `tls`), by rustls: between the accepted socket and HTTP/2.
//!
//! ```no_run
//! # fn example(routes: tonic::service::Routes) -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel_server::{Server, tls::{ClientAuth, Identity, Roots, ServerTls}};
//!
//! // Files of a mounted Secret; both are followed when they change.
//! let identity = Identity::watch("/etc/tls/tls.crt", "/etc/tls/tls.key")?;
//! let clients = Roots::watch("/etc/tls/ca.crt")?;
//! let tls = ServerTls::new(identity).client_auth(ClientAuth::Required(clients));
//! let server = Server::builder().tls(tls)?.build(routes)?;
//! # Ok(()) }
//! ```
//!
//! TLS handshake and HTTP/2 preface have one [`Builder::handshake_timeout`] together, and a
//! connection that shakes hands counts against [`Builder::max_connections`]. Each connection has a
//! task of its own from the beginning, so a slow handshake keeps nobody from being accepted. What
//! fails is counted (`tls_handshakes_failed`, `handshake_timeouts`). Clients have to offer HTTP/2
//! by ALPN. Sessions are not resumed: a client's certificate is verified on every connection,
//! against the roots of that moment. What stands when files change goes on; with
//! [`Builder::max_connection_age`] it ends in time.
//!
//! A handler finds the client in its request's extensions: [`TlsConnectInfo`].

mod client;
mod handshake;
mod info;

use std::sync::Arc;

use ::rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use evenkeel_tls::{ALPN_H2, Material, Rotating, SpiffeRules};
pub use evenkeel_tls::{
    FILE_BYTES_MAX, Identity, PeerNames, Refused, Roots, SpiffeRule, TlsError, WATCH_INTERVAL,
    WatchStatus, provider, rustls,
};
pub use info::TlsConnectInfo;

use crate::{Builder, ConfigError};

/// Whether clients have to show a certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; who has none is served, who has one that does not end in these roots is not.
    Optional(Roots),
    /// Only who has one that ends in these roots is served.
    Required(Roots),
}

/// How a server secures its connections; see [`Builder::tls`].
#[derive(Clone, Debug)]
pub struct ServerTls {
    own: Own,
    client_auth: ClientAuth,
    spiffe: Option<SpiffeRules>,
    provider: Option<Arc<CryptoProvider>>,
}

#[derive(Clone, Debug)]
enum Own {
    Identity(Identity),
    Config(Arc<ServerConfig>),
}

impl ServerTls {
    /// Serves with this certificate, to whoever comes.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self::with(Own::Identity(identity))
    }

    /// Uses rustls's own configuration as it is, but for ALPN, which becomes HTTP/2. Certificates,
    /// verification and provider are then its business alone.
    #[must_use]
    pub fn from_config(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Self::with(Own::Config(Arc::new(config)))
    }

    fn with(own: Own) -> Self {
        Self { own, client_auth: ClientAuth::None, spiffe: None, provider: None }
    }

    /// Whether clients have to show a certificate ([`ClientAuth::None`]).
    #[must_use]
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.client_auth = auth;
        self
    }

    /// Serves only clients whose certificate has one of these SPIFFE IDs; who has no certificate is
    /// the business of [`ServerTls::client_auth`].
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

    fn start(self) -> Result<Rotating<ServerConfig>, TlsError> {
        let (roots, required) = match self.client_auth {
            ClientAuth::None => (None, false),
            ClientAuth::Optional(roots) => (Some(roots), false),
            ClientAuth::Required(roots) => (Some(roots), true),
        };
        let asks = roots.is_some();
        let identity = match self.own {
            Own::Config(_) if asks || self.spiffe.is_some() || self.provider.is_some() => {
                return Err(TlsError::Config(
                    "expected client roots, SPIFFE rules and provider within the \
                     rustls::ServerConfig that was given, got them beside it"
                        .into(),
                ));
            }
            Own::Config(config) => return Ok(Rotating::fixed(ServerConfig::clone(&config))),
            Own::Identity(identity) => identity,
        };
        if self.spiffe.is_some() && !asks {
            return Err(TlsError::Config(
                "expected ServerTls::client_auth with roots beside SPIFFE rules, got no roots; \
                 without them nobody is asked for a certificate"
                    .into(),
            ));
        }
        let (provider, spiffe) = (provider(self.provider)?, self.spiffe);
        Rotating::new(provider, Some(identity), roots, move |material| {
            config(material, required, spiffe.as_ref())
        })
    }
}

impl Builder {
    /// Serves over TLS instead of plaintext (feature `tls`).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tls`], when certificate, roots or provider can't be used.
    pub fn tls(mut self, tls: ServerTls) -> Result<Self, ConfigError> {
        let configs = tls.start().map_err(|e| ConfigError::Tls(e.to_string()))?;
        self.secure = Some(Arc::new(handshake::Handshakes { configs }));
        Ok(self)
    }
}

fn config(
    material: Material,
    required: bool,
    spiffe: Option<&SpiffeRules>,
) -> Result<ServerConfig, TlsError> {
    let Material { provider, identity, roots } = material;
    let identity = identity.ok_or_else(|| TlsError::Config("expected a certificate".into()))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|e| TlsError::Config(e.to_string()))?;
            let verifier: Arc<dyn ClientCertVerifier> = match spiffe {
                Some(rules) => Arc::new(client::Verifier { chain: verifier, rules: rules.clone() }),
                None => verifier,
            };
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
