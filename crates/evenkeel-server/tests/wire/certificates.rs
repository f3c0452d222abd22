//! Certificates for a test, made on the spot, and a TLS client that is rustls alone.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use evenkeel_server::tls::{Identity, Roots};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{BoxError, Client, within};

const NAME: &str = "greeter.test";

/// Who signs.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Signer {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut params = CertificateParams::default();
        // No other one has its name.
        let name = format!("signer {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(&self.pem).expect("roots")
    }

    /// A server's certificate.
    pub(crate) fn server(&self) -> Identity {
        let leaf = self.leaf(&[], NAME);
        Identity::from_pem(leaf.chain, leaf.key).expect("an identity")
    }

    /// With a DNS name and any URIs.
    pub(crate) fn leaf(&self, uris: &[&str], name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Leaf { chain, key: key.serialize_pem() }
    }

    /// A connection after its handshake, as the client sees it.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        alpn: &[&[u8]],
        leaf: Option<&Leaf>,
    ) -> Result<TlsStream<TcpStream>, BoxError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = vec![CertificateDer::from_pem_slice(leaf.chain.as_bytes())?];
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let socket = within(TcpStream::connect(address)).await?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(within(connector.connect(ServerName::try_from(NAME)?, socket)).await?)
    }

    /// A client over TLS.
    pub(crate) async fn client(
        &self,
        address: SocketAddr,
        leaf: Option<&Leaf>,
    ) -> Result<Client, BoxError> {
        let stream = self.connect(address, &[b"h2"], leaf).await?;
        let local = stream.get_ref().0.local_addr()?;
        Client::over(stream, local).await
    }
}
