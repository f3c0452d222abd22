//! The order in which `pick_first` tries addresses (gRFC A61, RFC 8305 section 4).

use std::collections::BTreeSet;

use crate::{Address, Endpoint};

/// Flattens the endpoints, drops repeated addresses and interleaves the families, beginning with
/// the family of the first address: a broken IPv6 path then costs one attempt, not all of them.
pub(super) fn order(
    endpoints: &[Endpoint],
    shuffle: bool,
    rng: &mut fastrand::Rng,
) -> Vec<Address> {
    let mut endpoints: Vec<&Endpoint> = endpoints.iter().collect();
    if shuffle {
        rng.shuffle(&mut endpoints);
    }
    let mut seen = BTreeSet::new();
    let all: Vec<&Address> =
        endpoints.iter().flat_map(|e| e.addresses()).filter(|a| seen.insert(*a)).collect();
    let first_family = all.first().is_some_and(|a| a.is_ipv6());
    let (first, second): (Vec<&Address>, Vec<&Address>) =
        all.into_iter().partition(|a| a.is_ipv6() == first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            return ordered;
        }
        ordered.extend(a.into_iter().chain(b).cloned());
    }
}
