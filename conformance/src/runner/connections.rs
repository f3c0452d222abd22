//! How many connections a listener has had, as the kernel's own table tells.
//!
//! Zero failed calls under connection age say nothing if the age was never applied. The greeter
//! keeps no count, and a witness beside it is better evidence anyway.

use std::collections::HashSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Closed connections stay in the table for a minute as TIME_WAIT on one of the two sides, so
/// that looking this often misses none.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A connection: the listener's end and the client's port.
type Seen = HashSet<(SocketAddrV4, u16)>;

/// Runs `work` and counts the connections to `listeners` that exist meanwhile and did not before.
pub(crate) async fn count_during<T>(
    listeners: &[SocketAddrV4],
    work: impl Future<Output = T>,
) -> (T, usize) {
    let before = look(listeners);
    let mut seen = Seen::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tokio::pin!(work);
    let output = loop {
        tokio::select! {
            output = &mut work => break output,
            _ = tick.tick() => seen.extend(look(listeners)),
        }
    };
    seen.extend(look(listeners));
    (output, seen.difference(&before).count())
}

fn look(listeners: &[SocketAddrV4]) -> Seen {
    // Without the table the count is 0, which no expectation takes for good.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    connections(&table, listeners)
}

fn connections(table: &str, listeners: &[SocketAddrV4]) -> Seen {
    let ends = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((address(words.next()?)?, address(words.next()?)?))
    });
    // A connection is in the table once from each side; a listening socket has no other port.
    ends.flat_map(|(local, remote)| [(local, remote.port()), (remote, local.port())])
        .filter(|(listener, port)| *port != 0 && listeners.contains(listener))
        .collect()
}

/// `0100007F:1F40`: the address as a number in this machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    #[tokio::test]
    async fn counts_connections_made_meanwhile_even_closed_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let _before = TcpStream::connect(address).unwrap();
        let work = async {
            let kept = TcpStream::connect(address).unwrap();
            drop(TcpStream::connect(address).unwrap());
            kept
        };
        let (_kept, count) = count_during(&[address], work).await;
        assert_eq!(count, 2);
        let ((), none) = count_during(&[address], async {}).await;
        assert_eq!(none, 0);
    }
}
