//! What a `dns:` target says: `dns:[//server[:port]/]host[:port]`. It is read when the channel is
//! built, so that a bad name fails there and not at the first call.

use std::net::{IpAddr, SocketAddr};

use evenkeel_core::{Target, TargetError};
use hickory_resolver::proto::rr::Name;

use crate::literal::{PORT_DEFAULT, read_address, split_port};

/// The port of a DNS server that is named without one.
const DNS_PORT: u16 = 53;

/// A target of the scheme `dns`, read.
#[derive(Debug, PartialEq)]
pub(super) struct DnsTarget {
    pub(super) host: Host,
    /// The DNS server to ask instead of the system's.
    pub(super) server: Option<SocketAddr>,
    /// The `:authority` of calls.
    pub(super) authority: String,
}

/// Whose addresses are wanted.
#[derive(Debug, PartialEq)]
pub(super) enum Host {
    /// An address already: nobody is asked.
    Address(SocketAddr),
    /// A name, and the port that all its addresses get. With a trailing dot it is absolute.
    Name(Name, u16),
}

impl DnsTarget {
    pub(super) fn read(target: &Target) -> Result<Self, TargetError> {
        let bad = |reason: String| TargetError::new(&target.to_string(), reason);
        let server = read_server(target.authority()).map_err(bad)?;
        let path = target.path().strip_prefix('/').unwrap_or(target.path());
        let (host, port) = split_port(path).map_err(bad)?;
        if host.parse::<IpAddr>().is_ok() || host.contains('%') {
            let address = read_address(path, PORT_DEFAULT).map_err(bad)?;
            let authority = SocketAddr::new(address.ip(), address.port()).to_string();
            return Ok(Self { host: Host::Address(address), server, authority });
        }
        let name = read_name(host, path).map_err(bad)?;
        // The name as DNS writes it: an authority has no letters beyond ASCII.
        let shown = if host.is_ascii() { host.to_owned() } else { name.to_ascii() };
        let authority = match port {
            Some(port) => format!("{shown}:{port}"),
            None => shown,
        };
        Ok(Self { host: Host::Name(name, port.unwrap_or(PORT_DEFAULT)), server, authority })
    }
}

fn read_server(authority: &str) -> Result<Option<SocketAddr>, String> {
    if authority.is_empty() {
        return Ok(None);
    }
    read_address(authority, DNS_PORT).map(Some).map_err(|reason| {
        format!(
            "the DNS server between // and / must be an IP address, e.g. 10.96.0.10 or \
             [fd00::a]:53, because there is nobody to ask for its name: {reason}"
        )
    })
}

fn read_name(host: &str, path: &str) -> Result<Name, String> {
    if host.is_empty() {
        return Err(format!("no host before {path:?}; did you mean localhost{path}?"));
    }
    // The reader of names also takes escapes, wildcards and what not; no Service is called that.
    let strange = |c: &char| !(c.is_alphanumeric() || "-_.".contains(*c));
    if let Some(c) = host.chars().find(strange) {
        return Err(format!(
            "the name {host:?} contains {c:?}; expected letters, digits, '-', '_' and dots"
        ));
    }
    let name = Name::from_str_relaxed(host).map_err(|e| {
        format!(
            "{host:?} is not a DNS name ({e}); expected labels of 1 to 63 bytes, joined by dots"
        )
    })?;
    // A top-level domain is never a number, so this is an address with a slip of the pen.
    let last = name.iter().next_back().unwrap_or_default();
    if last.iter().all(u8::is_ascii_digit) {
        return Err(format!("{host:?} is neither a name nor a whole IPv4 address"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DnsTarget, String> {
        let target = Target::parse(text, &["dns"]).map_err(|e| e.to_string())?;
        DnsTarget::read(&target).map_err(|e| e.to_string())
    }

    fn name(text: &str, port: u16) -> Host {
        Host::Name(Name::from_ascii(text).unwrap(), port)
    }

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    #[test]
    fn reads_hosts_ports_and_servers() {
        let server = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        for (text, host, asked, authority) in [
            (
                "dns:///greeter.default:8000",
                name("greeter.default", 8000),
                None,
                "greeter.default:8000",
            ),
            ("greeter.default:8000", name("greeter.default", 8000), None, "greeter.default:8000"),
            ("dns:greeter", name("greeter", 443), None, "greeter"),
            ("dns:/greeter:1", name("greeter", 1), None, "greeter:1"),
            ("dns:///a_b.c-d.:80", name("a_b.c-d.", 80), None, "a_b.c-d.:80"),
            (
                "dns:///münchen.test:80",
                name("xn--mnchen-3ya.test", 80),
                None,
                "xn--mnchen-3ya.test:80",
            ),
            ("dns://10.96.0.10/a:80", name("a", 80), server("10.96.0.10:53"), "a:80"),
            ("dns://127.0.0.53:5353/a:80", name("a", 80), server("127.0.0.53:5353"), "a:80"),
            ("dns://[::1]:5353/a:80", name("a", 80), server("[::1]:5353"), "a:80"),
            ("dns://[::1]/a:80", name("a", 80), server("[::1]:53"), "a:80"),
            ("dns:///127.0.0.1:8000", address("127.0.0.1:8000"), None, "127.0.0.1:8000"),
            ("dns:///127.0.0.1", address("127.0.0.1:443"), None, "127.0.0.1:443"),
            ("dns:///[::1]:8000", address("[::1]:8000"), None, "[::1]:8000"),
            ("dns:///::1", address("[::1]:443"), None, "[::1]:443"),
            ("dns:///[fe80::1%2]:80", address("[fe80::1%2]:80"), None, "[fe80::1]:80"),
        ] {
            let expected = DnsTarget { host, server: asked, authority: authority.into() };
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_bad_targets_and_says_what_is_wrong() {
        let label = "a".repeat(64);
        let long = format!("{}:80", ["abcdefghi."; 26].concat());
        for (text, expected) in [
            ("dns:///greeter:0", "the port is \"0\"; expected a number from 1 to 65535"),
            ("dns:///greeter:65536", "the port is \"65536\""),
            ("dns:///greeter:http", "the port is \"http\""),
            ("dns:///greeter:", "the port is \"\""),
            ("dns:///greeter:+1", "the port is \"+1\""),
            ("dns:///:8000", "did you mean localhost:8000?"),
            ("dns:///a:b:c", "has more than one colon"),
            ("dns:///[::1", "has no ] after its ["),
            ("dns:///[greeter]:80", "\"greeter\" in brackets is not an IPv6 address"),
            ("dns:///[fe80::1%eth0]:80", "has a scope; expected its number"),
            ("dns:///a/b:80", "contains '/'"),
            ("dns:///a?b:80", "contains '?'"),
            ("dns:///*.test:80", "contains '*'"),
            ("dns:///a..b:80", "is not a DNS name"),
            ("dns:///.:80", "is neither a name nor"),
            (&format!("dns:///{label}:80"), "is not a DNS name"),
            (&format!("dns:///{long}"), "is not a DNS name"),
            ("dns:///256.1.1.1:80", "is neither a name nor a whole IPv4 address"),
            ("dns:///10.0.0:80", "is neither a name nor a whole IPv4 address"),
            ("dns://kube-dns/greeter:80", "must be an IP address, e.g. 10.96.0.10"),
            ("dns://kube-dns:53/greeter:80", "\"kube-dns\" is not an IP address"),
            ("dns://10.0.0.1:0/greeter:80", "the port is \"0\""),
            ("dns://10.0.0.1:53", "expected a path"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
