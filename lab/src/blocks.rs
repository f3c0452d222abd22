//! Blocks of loopback addresses: one 127.x.y.0/24 for each phase.
//!
//! Every backend needs an address of its own, because a DNS answer carries addresses and no ports.
//! Phases run side by side, and so may two labs and anything else on this machine: a block is
//! taken by listening on its last address, which the kernel gives to one process only, and its
//! other addresses are probed before use.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
};

use crate::error::LabError;

/// The port of every backend: it is a part of the target's name, the same for all addresses.
pub(crate) const BACKEND_PORT: u16 = 8000;
/// The port of a backend behind an Envoy, which has the other one.
pub(crate) const APPLICATION_PORT: u16 = 8001;
/// The port of every page for Prometheus: the one that OpenTelemetry names for it.
pub(crate) const METRICS_PORT: u16 = 9464;
/// Backends are .1 to .32.
const BACKENDS_MAX: u8 = 32;
const DNS_HOST: u8 = 53;
const API_HOST: u8 = 60;
const CLUSTER_IP_HOST: u8 = 100;
/// The port of a sidecar that clients call: the one in the files of `envoy/`.
pub(crate) const SIDECAR_PORT: u16 = 10000;
/// Sidecars of clients are .201 and so on.
const SIDECAR_HOST: u8 = 200;
/// Balancers are .111 and so on.
const BALANCER_HOST: u8 = 110;
const CLIENT_HOST: u8 = 220;
const CLAIM_HOST: u8 = 254;
const TRIES_MAX: usize = 64;

/// A /24 of loopback addresses that this process holds until the value is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    second: u8,
    third: u8,
    _claim: TcpListener,
}

impl Block {
    /// Takes a free block.
    ///
    /// # Errors
    ///
    /// [`LabError::NoBlock`] when 64 random blocks are in use or unusable.
    pub(crate) fn claim() -> Result<Self, LabError> {
        let mut last = io::Error::other("nothing tried");
        for _ in 0..TRIES_MAX {
            match Self::claim_at(fastrand::u8(64..128), fastrand::u8(..)) {
                Ok(block) => return Ok(block),
                Err(error) => last = error,
            }
        }
        Err(LabError::NoBlock { tried: TRIES_MAX, port: BACKEND_PORT, last })
    }

    fn claim_at(second: u8, third: u8) -> io::Result<Self> {
        let at = |host| SocketAddrV4::new(Ipv4Addr::new(127, second, third, host), BACKEND_PORT);
        let claim = TcpListener::bind(at(CLAIM_HOST))?;
        for host in (1..=BACKENDS_MAX).chain([CLUSTER_IP_HOST]) {
            drop(TcpListener::bind(at(host))?);
        }
        Ok(Self { second, third, _claim: claim })
    }

    /// The address of backend `host`, 1 to 32: it plays a pod IP.
    pub(crate) fn backend(&self, host: u8) -> SocketAddrV4 {
        debug_assert!((1..=BACKENDS_MAX).contains(&host), "backends are 1 to {BACKENDS_MAX}");
        SocketAddrV4::new(self.ip(host), BACKEND_PORT)
    }

    /// The address of the DNS server.
    pub(crate) fn dns_ip(&self) -> Ipv4Addr {
        self.ip(DNS_HOST)
    }

    /// The address of the API server.
    pub(crate) fn api_ip(&self) -> Ipv4Addr {
        self.ip(API_HOST)
    }

    /// The address of balancer `number`, from 1: it plays a pod IP.
    pub(crate) fn balancer_ip(&self, number: u8) -> Ipv4Addr {
        self.ip(BALANCER_HOST + number)
    }

    /// The address at which sidecar `number`, from 1, is called: it plays a client pod's loopback.
    pub(crate) fn sidecar(&self, number: u8) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(SIDECAR_HOST + number), SIDECAR_PORT)
    }

    /// The address of the client's own pages: it plays a pod IP.
    pub(crate) fn client_ip(&self) -> Ipv4Addr {
        self.ip(CLIENT_HOST)
    }

    /// The address that plays the Service's ClusterIP.
    pub(crate) fn cluster_ip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(CLUSTER_IP_HOST), BACKEND_PORT)
    }

    fn ip(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_to_one_holder_at_a_time() {
        let held = Block::claim().unwrap();
        let again = Block::claim_at(held.second, held.third).expect_err("held");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let (second, third) = (held.second, held.third);
        drop(held);
        Block::claim_at(second, third).expect("free again");
    }

    #[test]
    fn a_block_with_a_busy_backend_address_is_refused() {
        let held = Block::claim().unwrap();
        let (second, third, busy) = (held.second, held.third, held.backend(7));
        drop(held);
        let _stranger = TcpListener::bind(busy).unwrap();
        let refused = Block::claim_at(second, third).expect_err("one address is busy");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
