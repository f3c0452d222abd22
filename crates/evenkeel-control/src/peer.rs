//! Who is at the other end of a stream, whatever protocol it speaks: limits, access rules, views
//! and the status page ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use evenkeel_server::tls::{PeerNames, TlsConnectInfo};
use http::Request;
use tonic::transport::server::TcpConnectInfo;

/// Who is at the other end.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Peer {
    /// Where it comes from; not set over a Unix socket.
    pub address: Option<SocketAddr>,
    /// The names in its certificate, which the server has verified; not set without mTLS.
    pub names: Option<PeerNames>,
}

impl Peer {
    /// The peer of a request that evenkeel-server has accepted.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let extensions = request.extensions();
        let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let names = extensions.get::<TlsConnectInfo>().and_then(TlsConnectInfo::peer_names);
        Self { address, names: names.cloned() }
    }

    /// Peers without address count as one.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip().to_canonical())
    }
}
