//! Who the client is, for handlers. tonic's type of this name can be made by tonic alone, and only
//! with a feature of its that brings a second TLS stack's wiring; the meaning is the same.

use std::sync::Arc;

use evenkeel_tls::PeerNames;
use rustls::pki_types::CertificateDer;

/// In the extensions of every request that came over TLS:
/// `request.extensions().get::<TlsConnectInfo>()`.
#[derive(Clone, Debug)]
pub struct TlsConnectInfo {
    peer: Option<Arc<Peer>>,
}

#[derive(Debug)]
struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    names: PeerNames,
}

impl TlsConnectInfo {
    /// `certificates` have been verified in the handshake.
    pub(super) fn new(certificates: Option<&[CertificateDer<'static>]>) -> Self {
        let peer = certificates.map(|list| {
            // A certificate that was verified can be read.
            let names = list.first().and_then(|leaf| PeerNames::of(leaf).ok()).unwrap_or_default();
            Arc::new(Peer { certificates: list.to_vec(), names })
        });
        Self { peer }
    }

    /// The client's chain, leaf first, if it showed one; it was verified.
    #[must_use]
    pub fn peer_certs(&self) -> Option<&[CertificateDer<'static>]> {
        self.peer.as_deref().map(|peer| &peer.certificates[..])
    }

    /// The names in the client's certificate.
    #[must_use]
    pub fn peer_names(&self) -> Option<&PeerNames> {
        self.peer.as_deref().map(|peer| &peer.names)
    }

    /// The client's SPIFFE ID.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&str> {
        self.peer_names()?.spiffe_id()
    }
}
