//! TLS to a collector, for a channel (gRPC) and for hyper's connection (HTTP). Files are followed
//! when they change, as everywhere else here; the crypto provider is the program's.

use std::{env, path::PathBuf, sync::Arc};

use evenkeel::tls::{
    ClientTls, Identity, Roots, TlsError, provider,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName, sign::SingleCertAndKey},
};
use evenkeel_tls::{Material, Rotating};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::settings::PlaceTls;

/// Where systems keep the roots that they trust: OpenSSL's variable, then Debian and Alpine, Nix,
/// Fedora, SUSE, macOS.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";
const ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// For a channel.
pub(super) fn channel(tls: &PlaceTls) -> Result<ClientTls, String> {
    let client = ClientTls::new(roots(tls)?);
    Ok(match identity(tls)? {
        Some(identity) => client.identity(identity),
        None => client,
    })
}

/// For connections of HTTP/1.1 to one host.
pub(super) struct Handshakes {
    name: ServerName<'static>,
    configs: Rotating<ClientConfig>,
}

impl Handshakes {
    pub(super) fn new(tls: &PlaceTls, host: &str) -> Result<Self, String> {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            format!("expected a DNS name or an IP address as the collector's host, got {host:?}")
        })?;
        let says = |error: TlsError| error.to_string();
        let provider = provider(None).map_err(says)?;
        let configs = Rotating::new(provider, identity(tls)?, Some(roots(tls)?), config);
        Ok(Self { name, configs: configs.map_err(says)? })
    }

    pub(super) async fn shake(&self, socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.configs.current().await);
        connector.connect(self.name.clone(), socket).await
    }
}

fn config(material: Material) -> Result<ClientConfig, TlsError> {
    let Material { provider, identity, roots } = material;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.unwrap_or_else(|| Arc::new(RootCertStore::empty())));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(config)
}

fn roots(tls: &PlaceTls) -> Result<Roots, String> {
    let file = tls.roots.clone().or_else(of_the_system).ok_or_else(|| {
        format!(
            "no file with the system's roots, neither {ROOTS_VARIABLE} nor one of {ROOTS:?}; name \
             one with OTEL_EXPORTER_OTLP_CERTIFICATE"
        )
    })?;
    Roots::watch(file).map_err(|error| error.to_string())
}

fn of_the_system() -> Option<PathBuf> {
    let named = env::var_os(ROOTS_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from);
    named.or_else(|| ROOTS.iter().map(PathBuf::from).find(|file| file.exists()))
}

fn identity(tls: &PlaceTls) -> Result<Option<Identity>, String> {
    let Some((chain, key)) = &tls.identity else { return Ok(None) };
    Identity::watch(chain, key).map(Some).map_err(|error| error.to_string())
}
