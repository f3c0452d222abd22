//! Targets that are addresses already: `ipv4:1.2.3.4:80,5.6.7.8:80` and `ipv6:[::1]:80,[::2]:81`.
//! They are resolved once, without asking anybody. The readers of `address[:port]` at the end are
//! shared with the DNS resolver, so that both accept and refuse the same texts.

use std::{
    future,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use evenkeel_core::{
    Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Target, TargetError,
};

/// The port of a target that names none, as gRPC's naming document has it.
pub(crate) const PORT_DEFAULT: u16 = 443;

/// Serves the schemes `ipv4` and `ipv6`.
pub(crate) struct LiteralResolverFactory;

impl ResolverFactory for LiteralResolverFactory {
    fn schemes(&self) -> &[&str] {
        &["ipv4", "ipv6"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        let addresses = addresses(target)?;
        let first = addresses.first().expect("addresses() returns at least one");
        // Without the scope of a link-local address, which has no place in an authority.
        Ok(SocketAddr::new(first.ip(), first.port()).to_string())
    }

    fn start(
        &self,
        target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let endpoints = addresses(target)?.into_iter().map(Endpoint::new).collect();
        Ok(Box::pin(async move {
            sink.update(ResolverUpdate::new(endpoints));
            future::pending().await
        }))
    }
}

/// The addresses of a target, each once, in its order; at least one.
fn addresses(target: &Target) -> Result<Vec<SocketAddr>, TargetError> {
    let bad = |reason: String| TargetError::new(&target.to_string(), reason);
    let scheme = target.scheme();
    if !target.authority().is_empty() {
        let authority = target.authority();
        return Err(bad(format!(
            "{scheme} asks no server, but {authority:?} stands between // and /; \
             write {scheme}:{}",
            target.path()
        )));
    }
    let path = target.path().strip_prefix('/').unwrap_or(target.path());
    let mut addresses = Vec::new();
    for (index, item) in path.split(',').enumerate() {
        let number = index + 1;
        if item.is_empty() {
            return Err(bad(format!(
                "address {number} is empty; expected address:port, several of them joined by \
                 one comma each"
            )));
        }
        let address = read_address(item, PORT_DEFAULT)
            .map_err(|reason| bad(format!("address {number}: {reason}")))?;
        if address.is_ipv6() != (scheme == "ipv6") {
            let (is, other) =
                if address.is_ipv6() { ("an IPv6", "ipv6") } else { ("an IPv4", "ipv4") };
            return Err(bad(format!(
                "address {number}: {item} is {is} address; write it in a target of the scheme \
                 {other}:"
            )));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Reads `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`.
pub(crate) fn read_address(text: &str, port_default: u16) -> Result<SocketAddr, String> {
    let (host, port) = split_port(text)?;
    let port = port.unwrap_or(port_default);
    // With a numeric scope (`fe80::1%2`) only the standard library's reader of the whole works.
    if host.contains('%') {
        return format!("[{host}]:{port}").parse().map_err(|_| {
            format!("{host:?} has a scope; expected its number, e.g. [fe80::1%2]:{port}")
        });
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => Err(format!(
            "{host:?} is not an IP address; expected e.g. 10.0.2.95:8000 or [fd00::5]:8000"
        )),
    }
}

/// Splits `host[:port]`. A host with colons is an IPv6 address; its brackets are taken off.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(format!("{text:?} has no ] after its [; expected e.g. [::1]:8000"));
        };
        // In brackets there is an IPv6 address or nothing that anybody reads.
        let bare = host.split_once('%').map_or(host, |(bare, _)| bare);
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err(format!("{host:?} in brackets is not an IPv6 address"));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(read_port(port)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("{after:?} follows the ]; expected :port or nothing")),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) if !port.contains(':') => Ok((host, Some(read_port(port)?))),
        Some(_) if text.parse::<Ipv6Addr>().is_ok() => Ok((text, None)),
        Some(_) => Err(format!(
            "{text:?} has more than one colon; expected host:port, with an IPv6 address in \
             brackets: [::1]:8000"
        )),
    }
}

fn read_port(text: &str) -> Result<u16, String> {
    // `parse` alone would take a leading plus sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(format!("the port is {text:?}; expected a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Mutex,
        task::{Context, Poll},
    };

    use evenkeel_core::{Address, ResolverError};

    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text, &["dns", "ipv4", "ipv6"]).expect("core reads it")
    }

    fn listed(text: &str) -> Result<Vec<String>, String> {
        addresses(&target(text))
            .map(|list| list.iter().map(ToString::to_string).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn reads_lists_of_addresses() {
        for (text, expected) in [
            ("ipv4:1.2.3.4:80,5.6.7.8:81", &["1.2.3.4:80", "5.6.7.8:81"][..]),
            ("ipv4:1.2.3.4", &["1.2.3.4:443"]),
            ("ipv4:/1.2.3.4:80", &["1.2.3.4:80"]),
            ("ipv4:///1.2.3.4:80,1.2.3.4:80,1.2.3.4:81", &["1.2.3.4:80", "1.2.3.4:81"]),
            ("ipv6:[::1]:80,[::2]:81", &["[::1]:80", "[::2]:81"]),
            ("ipv6:[::1]", &["[::1]:443"]),
            ("ipv6:::1", &["[::1]:443"]),
            ("ipv6:/[::1]:65535", &["[::1]:65535"]),
            ("ipv6:[fe80::1%2]:80", &["[fe80::1%2]:80"]),
        ] {
            assert_eq!(listed(text).as_deref(), Ok(&expected.map_strings()[..]), "{text}");
        }
    }

    trait MapStrings {
        fn map_strings(&self) -> Vec<String>;
    }

    impl MapStrings for [&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn refuses_bad_lists_and_says_what_is_wrong() {
        for (text, expected) in [
            (
                "ipv4:[::1]:80",
                "[::1]:80 is an IPv6 address; write it in a target of the scheme ipv6:",
            ),
            ("ipv6:1.2.3.4:80", "address 1: 1.2.3.4:80 is an IPv4 address"),
            ("ipv4:1.2.3.4:80,", "address 2 is empty"),
            ("ipv4:,1.2.3.4:80", "address 1 is empty"),
            ("ipv4:1.2.3.4:80,,5.6.7.8:80", "address 2 is empty"),
            ("ipv4:/", "address 1 is empty"),
            ("ipv4:1.2.3.4:0", "the port is \"0\"; expected a number from 1 to 65535"),
            ("ipv4:1.2.3.4:65536", "the port is \"65536\""),
            ("ipv4:1.2.3.4:+80", "the port is \"+80\""),
            ("ipv4:1.2.3.4:http", "the port is \"http\""),
            ("ipv4:1.2.3.4:", "the port is \"\""),
            ("ipv4:1.2.3:80", "\"1.2.3\" is not an IP address"),
            ("ipv4:greeter:80", "\"greeter\" is not an IP address; expected e.g. 10.0.2.95:8000"),
            ("ipv6:[::1:80", "has no ] after its ["),
            ("ipv6:[::1]80", "\"80\" follows the ]; expected :port or nothing"),
            ("ipv6:[1.2.3.4]:80", "\"1.2.3.4\" in brackets is not an IPv6 address"),
            ("ipv6:::1::2", "has more than one colon"),
            ("ipv6:[fe80::1%eth0]:80", "has a scope; expected its number"),
            ("ipv4://10.0.0.1/1.2.3.4:80", "write ipv4:1.2.3.4:80"),
        ] {
            let error = listed(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn authority_is_the_first_address() {
        for (text, expected) in [
            ("ipv4:1.2.3.4:80,5.6.7.8:81", "1.2.3.4:80"),
            ("ipv6:[::1]", "[::1]:443"),
            ("ipv6:[fe80::1%2]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(
                LiteralResolverFactory.default_authority(&target(text)).as_deref(),
                Ok(expected)
            );
        }
    }

    #[derive(Default)]
    struct Updates(Mutex<Vec<ResolverUpdate>>);

    impl ResolverSink for Updates {
        fn update(&self, update: ResolverUpdate) {
            self.0.lock().unwrap().push(update);
        }

        fn error(&self, error: ResolverError) {
            panic!("a literal can't fail: {error:?}");
        }

        fn poll_requested(&self, _: &mut Context<'_>) -> Poll<()> {
            panic!("there is nothing to resolve again");
        }
    }

    #[test]
    fn reports_once_and_then_stays_pending() {
        let sink = Arc::new(Updates::default());
        let mut task = LiteralResolverFactory
            .start(&target("ipv4:1.2.3.4:80,5.6.7.8:81"), sink.clone())
            .unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..3 {
            assert!(task.as_mut().poll(&mut cx).is_pending());
        }
        let updates = sink.0.lock().unwrap();
        assert_eq!(updates.len(), 1);
        let found: Vec<&Address> =
            updates[0].endpoints.iter().flat_map(Endpoint::addresses).collect();
        let expected: [Address; 2] =
            ["1.2.3.4:80", "5.6.7.8:81"].map(|a| a.parse::<SocketAddr>().unwrap().into());
        assert_eq!(found, expected.iter().collect::<Vec<_>>());
    }
}
