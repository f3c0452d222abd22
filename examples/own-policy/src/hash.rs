//! The hash that makes all clients agree. Not the standard library's: its values may change with
//! the next Rust release, and then clients of two builds would send one session to two backends.

use evenkeel::core::Endpoint;

/// FNV-1a, 64 bits, with [`mix`] at its end because FNV's high bits are weak for short inputs.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The same for the same addresses in any order.
pub(crate) fn of_endpoint(endpoint: &Endpoint) -> u64 {
    let address = |a: &evenkeel::core::Address| of_bytes(a.to_string().as_bytes());
    mix(endpoint.addresses().iter().map(address).fold(0, u64::wrapping_add))
}

/// How much a backend wants a call.
pub(crate) fn score(backend: u64, call: u64) -> u64 {
    mix(backend ^ call)
}

/// The finalizer of MurmurHash3: every bit of the input reaches every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_hash_from_build_to_build() {
        // Written down: another number here would move every session of a running system.
        assert_eq!(of_bytes(b"session-1"), 0xf267_abb3_2d45_0b1f);
    }

    #[test]
    fn the_order_of_an_endpoints_addresses_does_not_matter() {
        let address = |text: &str| evenkeel::core::Address::Named(text.to_owned());
        let of = |list: &[&str]| {
            let addresses = list.iter().map(|text| address(text)).collect();
            of_endpoint(&Endpoint::with_addresses(addresses).unwrap())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "c"]));
    }

    #[test]
    fn scores_spread_calls_evenly_over_three_backends() {
        let backends = ["a", "b", "c"].map(|name| of_bytes(name.as_bytes()));
        let mut shares = [0_u32; 3];
        for call in 0..100_000_u32 {
            let call = of_bytes(&call.to_le_bytes());
            let best = (0..3).max_by_key(|n| score(backends[*n], call)).unwrap();
            shares[best] += 1;
        }
        // ± 1 percentage point, as for the built-in policies.
        assert!(shares.iter().all(|s| (32_333..=34_333).contains(s)), "{shares:?}");
    }
}
