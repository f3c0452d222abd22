//! A balancer's list as it came, made into one that can be used: what is no address, no port or no
//! token is left out and counted, so that one bad entry costs its own share of the calls and no
//! more.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::HeaderValue;

use crate::{Address, Endpoint, ServerEntry};

/// The entries of a list that are read; those behind them are ignored. With weights as repeated
/// entries this is 1,024 backends in 64 steps of weight.
pub const ENTRIES_MAX: usize = 65_536;
/// The longest token of an entry, in bytes. The protocol wants less than 50; a longer one is
/// tolerated while it is no burden as a header of each call.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// Entries of a list that were left out, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ignored {
    /// The address has neither 4 nor 16 bytes.
    pub address: usize,
    /// The port is not from 1 to 65,535.
    pub port: usize,
    /// The token is longer than [`TOKEN_BYTES_MAX`] or has bytes that no header can carry.
    pub token: usize,
    /// They came after the first [`ENTRIES_MAX`].
    pub surplus: usize,
}

impl Ignored {
    /// All of them.
    pub fn total(&self) -> usize {
        self.address + self.port + self.token + self.surplus
    }
}

/// One turn of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Drop { token: Arc<str> },
    Server { address: Address, token: Option<HeaderValue> },
}

/// A list that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
}

impl List {
    pub(super) fn read(raw: &[ServerEntry]) -> (Self, Ignored) {
        let mut ignored =
            Ignored { surplus: raw.len().saturating_sub(ENTRIES_MAX), ..Ignored::default() };
        let mut entries = Vec::with_capacity(raw.len().min(ENTRIES_MAX));
        for entry in raw.iter().take(ENTRIES_MAX) {
            match read_entry(entry) {
                Ok(entry) => entries.push(entry),
                Err(Bad::Address) => ignored.address += 1,
                Err(Bad::Port) => ignored.port += 1,
                Err(Bad::Token) => ignored.token += 1,
            }
        }
        (Self { entries }, ignored)
    }

    /// Each address once, in the order of its first entry.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let mut seen = BTreeSet::new();
        let addresses = self.entries.iter().filter_map(|entry| match entry {
            Entry::Server { address, .. } => seen.insert(address).then_some(address),
            Entry::Drop { .. } => None,
        });
        addresses.map(|address| Endpoint::new(address.clone())).collect()
    }

    /// How many entries are drops.
    pub(super) fn drops(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Drop { .. })).count()
    }

    /// Every call is to be dropped.
    pub(super) fn only_drops(&self) -> bool {
        !self.entries.is_empty() && self.drops() == self.entries.len()
    }
}

enum Bad {
    Address,
    Port,
    Token,
}

fn read_entry(entry: &ServerEntry) -> Result<Entry, Bad> {
    if entry.token.len() > TOKEN_BYTES_MAX {
        return Err(Bad::Token);
    }
    if entry.drop {
        return Ok(Entry::Drop { token: entry.token.as_str().into() });
    }
    let ip = read_ip(&entry.address).ok_or(Bad::Address)?;
    let port = u16::try_from(entry.port).ok().filter(|port| *port != 0).ok_or(Bad::Port)?;
    let token = match entry.token.as_str() {
        "" => None,
        text => Some(read_token(text).ok_or(Bad::Token)?),
    };
    Ok(Entry::Server { address: SocketAddr::new(ip, port).into(), token })
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    // ::ffff:10.0.0.1 is how some write an IPv4 address in 16 bytes.
    Some(Ipv6Addr::from(v6).to_canonical())
}

/// gRPC's ASCII header values: without the token its server can't be used, as it may refuse the
/// call; a value that is changed on the way is none.
fn read_token(text: &str) -> Option<HeaderValue> {
    let printable = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let whole = text.trim_ascii() == text;
    if printable && whole { HeaderValue::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &[u8], port: i32, token: &str) -> ServerEntry {
        ServerEntry { address: address.to_vec(), port, token: token.into(), drop: false }
    }

    fn drop(token: &str) -> ServerEntry {
        ServerEntry { token: token.into(), drop: true, ..ServerEntry::default() }
    }

    fn shown(list: &List) -> Vec<String> {
        let show = |entry: &Entry| match entry {
            Entry::Drop { token } => format!("drop@{token}"),
            Entry::Server { address, token: None } => address.to_string(),
            Entry::Server { address, token: Some(token) } => {
                format!("{address}@{}", token.to_str().unwrap())
            }
        };
        list.entries.iter().map(show).collect()
    }

    #[test]
    fn order_duplicates_and_tokens_survive() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        let mut loopback = [0; 16];
        loopback[15] = 1;
        let (list, ignored) = List::read(&[
            server(&[10, 0, 0, 1], 80, "a"),
            drop("lb"),
            server(&mapped, 80, "b"),
            server(&loopback, 65_535, ""),
            server(&[10, 0, 0, 1], 81, "two words"),
            server(&[10, 0, 0, 1], 80, "a"),
            drop(""),
        ]);
        assert_eq!(ignored, Ignored::default());
        let want =
            ["10.0.0.1:80@a", "drop@lb", "10.0.0.1:80@b", "[::1]:65535", "10.0.0.1:81@two words"];
        assert_eq!(shown(&list)[..5], want);
        assert_eq!(shown(&list)[5..], ["10.0.0.1:80@a", "drop@"]);
        let endpoints = list.endpoints();
        let firsts: Vec<String> = endpoints.iter().map(|e| e.addresses()[0].to_string()).collect();
        assert_eq!(firsts, ["10.0.0.1:80", "[::1]:65535", "10.0.0.1:81"]);
        assert_eq!((list.drops(), list.only_drops()), (2, false));
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_counted() {
        let good = [10, 0, 0, 1];
        for (entry, want) in [
            (server(&[], 80, ""), Ignored { address: 1, ..Ignored::default() }),
            (server(&[10, 0, 1], 80, ""), Ignored { address: 1, ..Ignored::default() }),
            (server(&[0; 17], 80, ""), Ignored { address: 1, ..Ignored::default() }),
            (server(&good, 0, ""), Ignored { port: 1, ..Ignored::default() }),
            (server(&good, -1, ""), Ignored { port: 1, ..Ignored::default() }),
            (server(&good, 70_000, ""), Ignored { port: 1, ..Ignored::default() }),
            (server(&good, 80, "a\nb"), Ignored { token: 1, ..Ignored::default() }),
            (server(&good, 80, "ü"), Ignored { token: 1, ..Ignored::default() }),
            (server(&good, 80, " a"), Ignored { token: 1, ..Ignored::default() }),
            (server(&good, 80, &"x".repeat(10_240)), Ignored { token: 1, ..Ignored::default() }),
            (drop(&"x".repeat(10_240)), Ignored { token: 1, ..Ignored::default() }),
        ] {
            let (list, ignored) = List::read(&[entry.clone(), server(&good, 80, "ok")]);
            assert_eq!(ignored, want, "{entry:?}");
            assert_eq!(shown(&list), ["10.0.0.1:80@ok"], "{entry:?}");
        }
    }

    #[test]
    fn a_million_entries_are_cut() {
        let raw = vec![server(&[10, 0, 0, 1], 80, ""); 1_000_000];
        let (list, ignored) = List::read(&raw);
        assert_eq!(list.entries.len(), ENTRIES_MAX);
        assert_eq!((ignored.surplus, ignored.total()), (934_464, 934_464));
        assert_eq!(list.endpoints().len(), 1);
    }

    #[test]
    fn an_empty_list_is_no_list_of_drops() {
        let (list, _) = List::read(&[]);
        assert!(!list.only_drops());
        let (list, _) = List::read(&[drop("x"), drop("y")]);
        assert!(list.only_drops());
    }
}
