//! Which endpoints a client gets when it gets not all of them. The endpoints stand on a ring in an
//! order that has nothing to do with zones or pods (a hash of the address); client number k takes
//! the `size` endpoints after number k × size. Clients with consecutive numbers tile the ring, so
//! that no endpoint has more than one client more than another; rendezvous hashing (A68) is even
//! only on average. A new endpoint moves a client's window by one place a turn of the ring.

use std::net::{IpAddr, SocketAddr};

use crate::snapshot::Endpoint;

/// See the module's head. Made once for a snapshot: sorting is what subsets cost.
pub(crate) struct Ring(Vec<Endpoint>);

impl Ring {
    /// The ring of these endpoints.
    pub(crate) fn new(mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_by_cached_key(|endpoint| (hash(endpoint.address), endpoint.address));
        Self(endpoints)
    }

    /// The endpoints of the client with this number, at most `size`, in the order of the ring.
    pub(super) fn window(&self, size: usize, client: u32) -> Vec<&Endpoint> {
        let Self(ring) = self;
        let size = size.min(ring.len());
        let start = (u64::from(client) * size as u64 % ring.len().max(1) as u64) as usize;
        (start..start + size).map(|at| &ring[at % ring.len()]).collect()
    }
}

/// FNV-1a with a last mix, the same on every machine and in every version of ours.
fn hash(address: SocketAddr) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let start = 0xcbf2_9ce4_8422_2325;
    let hash = match address.ip() {
        IpAddr::V4(ip) => ip.octets().iter().fold(start, fnv),
        IpAddr::V6(ip) => ip.octets().iter().fold(start, fnv),
    };
    let hash = address.port().to_be_bytes().iter().fold(hash, fnv);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn endpoints(count: u32) -> Vec<Endpoint> {
        let address = |n: u32| SocketAddr::from((n.to_be_bytes(), 8000));
        (0..count).map(|n| Endpoint::new(address(0x0a00_0000 + n))).collect()
    }

    fn chosen(endpoints: &[Endpoint], size: usize, client: u32) -> BTreeSet<SocketAddr> {
        let ring = Ring::new(endpoints.to_vec());
        ring.window(size, client).iter().map(|endpoint| endpoint.address).collect()
    }

    #[test]
    fn every_endpoint_has_as_many_clients_as_another_give_or_take_one() {
        let endpoints = endpoints(47);
        for clients in [1, 5, 47, 300] {
            let mut load: BTreeMap<SocketAddr, u32> =
                endpoints.iter().map(|endpoint| (endpoint.address, 0)).collect();
            for client in 0..clients {
                let subset = chosen(&endpoints, 10, client);
                assert_eq!(subset.len(), 10);
                for address in subset {
                    *load.get_mut(&address).expect("known") += 1;
                }
            }
            let (min, max) = (load.values().min().expect("47"), load.values().max().expect("47"));
            assert!(max - min <= 1, "{clients} clients: {min} to {max}");
        }
    }

    #[test]
    fn a_new_endpoint_changes_little() {
        let (before, after) = (endpoints(100), endpoints(101));
        for client in 0..10 {
            let kept = chosen(&before, 10, client);
            let kept = kept.intersection(&chosen(&after, 10, client)).count();
            assert!(kept >= 9, "client {client} keeps {kept} of 10");
        }
    }

    #[test]
    fn few_endpoints_are_everybodys() {
        assert_eq!(chosen(&endpoints(3), 10, 7).len(), 3);
        assert_eq!(chosen(&[], 10, 7).len(), 0);
    }
}
