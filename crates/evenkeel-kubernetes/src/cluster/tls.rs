//! TLS to the API server. HTTP/1.1 and not HTTP/2: a watch is a connection of its own, so that one
//! that stalls holds up no other.

use std::{io, sync::Arc};

use evenkeel_tls::{Identity, Material, Roots, Rotating, TlsError, provider};
use rustls::{
    ClientConfig, RootCertStore, client::ResolvesClientCert, pki_types::ServerName,
    sign::SingleCertAndKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Data, Settings};

/// How connections are secured; files are followed when they change.
pub(crate) struct Tls {
    name: ServerName<'static>,
    configs: Rotating<ClientConfig>,
}

impl Tls {
    pub(super) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let name = settings.tls_server_name.as_ref().unwrap_or(&settings.server.host);
        let name = ServerName::try_from(name.clone()).map_err(|_| {
            TlsError::Name(format!("expected a DNS name or an IP address, got {name:?}"))
        })?;
        let roots = match &settings.roots {
            Some(Data::File(path)) => Some(Roots::watch(path)?),
            Some(Data::Bytes(pem)) => Some(Roots::from_pem(pem)?),
            None => None,
        };
        let identity = match &settings.identity {
            Some((Data::File(chain), Data::File(key))) => Some(Identity::watch(chain, key)?),
            Some((Data::Bytes(chain), Data::Bytes(key))) => Some(Identity::from_pem(chain, key)?),
            Some(_) => {
                return Err(TlsError::Config("expected certificate and key of one kind".into()));
            }
            None => None,
        };
        let configs = Rotating::new(provider(None)?, identity, roots, config)?;
        Ok(Self { name, configs })
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.configs.current().await);
        connector.connect(self.name.clone(), socket).await
    }
}

fn config(material: Material) -> Result<ClientConfig, TlsError> {
    let Material { provider, identity, roots } = material;
    let roots = roots.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match identity {
        Some(identity) => {
            let identity: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
            builder.with_client_cert_resolver(identity)
        }
        None => builder.with_no_client_auth(),
    })
}
