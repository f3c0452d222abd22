//! What versions are made of. The hash is written out here, because a version has to be the same in
//! every build and on every replica, which the standard library's hasher does not promise.

use std::sync::Arc;

/// FNV-1a of 128 bits. Nobody gains by making two configurations look alike, so that no
/// cryptographic hash is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash(u128);

impl Hash {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    pub(super) fn new() -> Self {
        Self(Self::OFFSET)
    }

    /// Of names and versions, in their order. Neither has a zero byte, so that no two lists give
    /// the same bytes.
    pub(super) fn of_versions<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        pairs.fold(Self::new(), |hash, (name, version)| {
            hash.add(name.as_bytes()).add(&[0]).add(version.as_bytes()).add(&[0])
        })
    }

    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(Self::PRIME);
        }
        self
    }

    /// Half of it is enough, and shorter on every status page.
    pub(super) fn version(self) -> Arc<str> {
        let folded = (self.0 >> 64) as u64 ^ self.0 as u64;
        format!("{folded:016x}").into()
    }

    /// All of it.
    pub(super) fn value(self) -> u128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_that_it_says_it_is() {
        let known = 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18;
        assert_eq!(Hash::new().add(b"foobar").value(), known, "FNV's own test vector");
    }

    #[test]
    fn where_a_name_ends_counts() {
        let of = |pairs: &[(&str, &str)]| Hash::of_versions(pairs.iter().copied()).value();
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "b")]));
    }
}
