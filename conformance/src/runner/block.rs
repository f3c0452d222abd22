//! Free blocks of loopback addresses, so that runs do not meet each other on fixed ports.
//!
//! The scenarios need port 8000 on several addresses; port 0 would not do, since clients and DNS
//! records name the port.

use super::error::Error;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

/// Backends that a scenario uses at most.
const BACKENDS: u8 = 6;
const TRIES: u32 = 200;

/// Three octets: `127.93.17`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block(String);

impl Block {
    /// A block on which everything that a scenario listens on is free, and that is none of `taken`.
    pub(crate) fn free(taken: &[Self]) -> Result<Self, Error> {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Two runners that start together begin in different places.
        let seed = std::process::id().wrapping_mul(7919).wrapping_add(clock.subsec_micros());
        let mut last = None;
        for step in 0..TRIES {
            let at = seed.wrapping_add(step.wrapping_mul(37));
            let block = Self(format!("127.{}.{}", 128 + (at >> 8) % 96, 1 + at % 254));
            if taken.contains(&block) {
                continue;
            }
            match block.probe() {
                Ok(()) => return Ok(block),
                Err(error) => last = Some(error),
            }
        }
        Err(Error::Skip(format!(
            "expected a free block of addresses in 127.128.0.0/9, found none in {TRIES} tries \
             (last answer: {}); this machine may have 127.0.0.1 only",
            last.map_or_else(|| "none".to_owned(), |error| error.to_string())
        )))
    }

    /// The block on which the figures of ring_hash were measured: where a key goes depends on the
    /// endpoints' addresses.
    pub(crate) fn of_reference() -> Result<Self, Error> {
        let block = Self("127.0.84".to_owned());
        block.probe().map_err(Error::io(format!("listen on {}, which has to be free", block.0)))?;
        Ok(block)
    }

    /// The block as `PEERS_NET` wants it.
    pub(crate) fn net(&self) -> &str {
        &self.0
    }

    /// Address of backend `number`, from 1.
    pub(crate) fn backend(&self, number: u8) -> String {
        format!("{}.{number}:8000", self.0)
    }

    fn probe(&self) -> std::io::Result<()> {
        for number in 1..=BACKENDS {
            TcpListener::bind(self.backend(number))?;
        }
        let dns: SocketAddr = format!("{}.53:5353", self.0)
            .parse()
            .expect("three octets and .53:5353 are an address");
        TcpListener::bind(dns)?;
        UdpSocket::bind(dns)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_over_blocks_that_are_taken_or_in_use() {
        let first = Block::free(&[]).unwrap();
        let second = Block::free(std::slice::from_ref(&first)).unwrap();
        assert_ne!(first, second);
        let _in_use = TcpListener::bind(first.backend(3)).unwrap();
        assert!(first.probe().is_err());
    }
}
