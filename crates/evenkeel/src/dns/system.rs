//! What the machine says about names: its hosts file, and which DNS servers to ask with which
//! search list. Both files are read at each look-up, because a laptop changes networks, and parsed
//! again only when they changed. hickory-resolver could read them too, but once and for all.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use hickory_resolver::{
    Hosts,
    config::{ResolverConfig, ResolverOpts},
    net::NetError,
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf,
};

/// As many servers as the C library asks.
const SERVERS_MAX: usize = 3;
/// Names that one look-up tries: an absolute one, and the search list of the C library doubled.
const NAMES_MAX: usize = 16;

/// Where the system's configuration is, and the last of it that was read.
pub(super) struct System {
    hosts_path: PathBuf,
    hosts: Parsed<Hosts>,
    resolv_path: PathBuf,
    resolv: Parsed<(ResolverConfig, ResolverOpts)>,
    /// The port of the servers, for which resolv.conf has no place.
    port: u16,
}

/// A file's content, and what it was parsed to.
type Parsed<T> = Option<(Vec<u8>, T)>;

/// The DNS servers, and how a name is completed before it is asked of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Servers {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    /// A name with at least this many dots is asked as it is before the search list is tried.
    pub(super) ndots: usize,
}

impl System {
    /// The system's own files.
    pub(super) fn new() -> Self {
        Self::at("/etc/hosts".into(), "/etc/resolv.conf".into(), 53)
    }

    /// Other files, with servers on another port.
    pub(super) fn at(hosts_path: PathBuf, resolv_path: PathBuf, port: u16) -> Self {
        Self { hosts_path, hosts: None, resolv_path, resolv: None, port }
    }

    /// The addresses that the hosts file has for a name: IPv4 ones if any, else IPv6; mostly none.
    pub(super) async fn hosts(&mut self, name: &Name) -> Vec<IpAddr> {
        // A machine without a readable hosts file is a machine without entries in it.
        let Ok(content) = tokio::fs::read(&self.hosts_path).await else {
            return Vec::new();
        };
        if self.hosts.as_ref().is_none_or(|(last, _)| *last != content) {
            let mut hosts = Hosts::default();
            if let Err(error) = hosts.read_hosts_conf(&content[..]) {
                tracing::warn!(%error, path = %self.hosts_path.display(), "unreadable hosts file");
            }
            self.hosts = Some((content, hosts));
        }
        let Some((_, hosts)) = &self.hosts else {
            return Vec::new();
        };
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Some(found) = hosts.lookup_static_host(&Query::query(name.clone(), kind)) {
                return found.answers().iter().filter_map(|r| r.data.ip_addr()).collect();
            }
        }
        Vec::new()
    }

    /// The DNS servers; at least one, else a text that says why there is none.
    pub(super) async fn servers(&mut self) -> Result<Servers, String> {
        let path = self.resolv_path.display();
        let advice = "name a DNS server in it, or in the target: dns://SERVER/NAME:PORT";
        let content = match tokio::fs::read(&self.resolv_path).await {
            Ok(content) => content,
            Err(error) if cfg!(target_os = "linux") => {
                return Err(format!("{path} can't be read: {error}; {advice}"));
            }
            // Elsewhere the file is a courtesy; the system is asked through its own interface.
            Err(_) => Vec::new(),
        };
        if self.resolv.as_ref().is_none_or(|(last, _)| *last != content) {
            let parsed =
                parse(&content).map_err(|e| format!("{path} names no server ({e}); {advice}"))?;
            self.resolv = Some((content, parsed));
        }
        let (config, options) = &self.resolv.as_ref().expect("it was parsed above").1;
        let mut addresses = Vec::new();
        for server in config.name_servers() {
            let address = SocketAddr::new(server.ip, self.port);
            if !addresses.contains(&address) && addresses.len() < SERVERS_MAX {
                addresses.push(address);
            }
        }
        let search = match config.search() {
            [] => config.domain().into_iter().cloned().collect(),
            list => list.to_vec(),
        };
        Ok(Servers { addresses, search, ndots: options.ndots })
    }
}

impl Servers {
    /// One server, of which a name is asked as it is: the search list belongs to the servers that
    /// stand beside it in resolv.conf.
    pub(super) fn only(server: SocketAddr) -> Self {
        Self { addresses: vec![server], search: Vec::new(), ndots: 0 }
    }

    /// The absolute names to ask for, in this order.
    pub(super) fn names(&self, name: &Name) -> Vec<Name> {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return vec![absolute];
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        // A name that becomes too long with a suffix can't exist.
        let mut names: Vec<Name> = (self.search.iter())
            .filter_map(|suffix| name.clone().append_domain(suffix).ok())
            .take(NAMES_MAX - 1)
            .collect();
        names.iter_mut().for_each(|n| n.set_fqdn(true));
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, absolute);
        let mut seen = Vec::with_capacity(names.len());
        names.retain(|n| {
            let new = !seen.contains(n);
            seen.push(n.clone());
            new
        });
        names
    }
}

#[cfg(all(unix, not(any(target_os = "android", target_vendor = "apple"))))]
fn parse(content: &[u8]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    system_conf::parse_resolv_conf(content)
}

#[cfg(not(all(unix, not(any(target_os = "android", target_vendor = "apple")))))]
fn parse(_content: &[u8]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    system_conf::read_system_conf()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ndots: usize, search: &[&str], name: &str) -> Vec<String> {
        let search = search.iter().map(|s| Name::from_ascii(s).unwrap()).collect();
        let servers = Servers { addresses: Vec::new(), search, ndots };
        let name = Name::from_ascii(name).unwrap();
        servers.names(&name).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn completes_names_as_the_c_library_does() {
        let pod = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"];
        assert_eq!(
            names(5, &pod, "greeter.default"),
            [
                "greeter.default.default.svc.cluster.local.",
                "greeter.default.svc.cluster.local.",
                "greeter.default.cluster.local.",
                "greeter.default."
            ]
        );
        assert_eq!(names(1, &["a.test"], "greeter.b"), ["greeter.b.", "greeter.b.a.test."]);
        assert_eq!(names(1, &["a.test"], "greeter"), ["greeter.a.test.", "greeter."]);
        assert_eq!(names(5, &pod, "greeter.default."), ["greeter.default."]);
        assert_eq!(names(1, &["a.test", "a.test.", "."], "b"), ["b.a.test.", "b."]);
        assert_eq!(names(1, &[], "b"), ["b."]);
    }
}
