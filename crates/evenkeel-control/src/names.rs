//! From the name that a client asks with to a service. Clients ask with what their own target says
//! (`greeter.default.svc.cluster.local:8000`, grpc-go and C-core with the port), with a short name,
//! or, as the example of 2018 does, with the name of the balancer itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::Config,
    key::{Port, ServiceKey, check_label, shown},
};

/// The longest name that is looked at: the protocol says less than 256 bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// How many names a refusal lists.
const LISTED_MAX: usize = 20;

/// How names are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Where a name without namespace is.
    pub default_namespace: String,
    /// What follows `.svc.` in a full name.
    pub cluster_domain: String,
    /// Names of the balancer itself; who asks with one gets `default_service`.
    pub own: BTreeSet<String>,
    /// `BACKEND_SERVICE_NAME`.
    pub default_service: Option<ServiceKey>,
    /// Namespaces of which every Service is served to who asks for it.
    pub namespaces: BTreeSet<String>,
}

impl Default for NameRules {
    fn default() -> Self {
        Self {
            default_namespace: "default".into(),
            cluster_domain: "cluster.local".into(),
            own: BTreeSet::new(),
            default_service: None,
            namespaces: BTreeSet::new(),
        }
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It can't be a name.
    Bad(String),
    /// Nothing is served under it.
    Unknown(String),
}

/// All names there are.
#[derive(Clone, Debug, Default)]
pub struct Names {
    rules: NameRules,
    aliases: BTreeMap<String, ServiceKey>,
    /// The services of one name and namespace, which differ in their ports.
    services: BTreeMap<(String, String), Vec<ServiceKey>>,
}

impl Names {
    /// The names of these services.
    #[must_use]
    pub fn new(rules: NameRules, config: &Config) -> Self {
        let mut names = Self { rules, ..Self::default() };
        for (key, service) in &config.services {
            let place = (key.namespace.clone(), key.name.clone());
            names.services.entry(place).or_default().push(key.clone());
            for alias in &service.aliases {
                names.aliases.entry(alias.clone()).or_insert_with(|| key.clone());
            }
        }
        names
    }

    /// Finds the service.
    ///
    /// # Errors
    ///
    /// The name is empty, too long or malformed, or nothing is served under it.
    pub fn resolve(&self, name: &str) -> Result<&ServiceKey, NameError> {
        let asked = normal(name).map_err(NameError::Bad)?;
        let (host, port) = split_port(&asked);
        if let Some(key) = self.aliases.get(&asked).or_else(|| self.aliases.get(host)) {
            return Ok(key);
        }
        let found = self.of_service(host, port);
        // A service that is really called so comes before the balancer's own name.
        match (found, &self.rules.default_service) {
            (Some(key), _) => Ok(key),
            (None, Some(default)) if self.is_own(&asked, host) => self.default_of(default, name),
            (None, _) => Err(self.unknown(name)),
        }
    }

    /// What a name that leads nowhere means, if all of its namespace is served. The port is left
    /// open: what clients name may be the Service's.
    pub(crate) fn on_demand(&self, name: &str) -> Option<ServiceKey> {
        let asked = normal(name).ok()?;
        let (service, namespace) = self.split_host(split_port(&asked).0)?;
        let is_served = self.rules.namespaces.contains(namespace) && check_label(service).is_ok();
        let (namespace, name) = (namespace.to_owned(), service.to_owned());
        is_served.then_some(ServiceKey { namespace, name, port: None })
    }

    /// All names without a foreign port that lead to a service: what clients can ask for that is
    /// known beforehand.
    pub(crate) fn of(&self, key: &ServiceKey) -> BTreeSet<String> {
        let ServiceKey { namespace, name, port } = key;
        let domain = &self.rules.cluster_domain;
        let aliases = self.aliases.iter().filter(|(_, of)| *of == key).map(|(alias, _)| alias);
        let hosts = aliases.chain(&self.rules.own).cloned().chain([
            name.clone(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
        ]);
        let with_port = |host: String| match port {
            Some(port) if !host.contains(':') => [Some(format!("{host}:{port}")), Some(host)],
            _ => [Some(host), None],
        };
        let names = hosts.flat_map(with_port).flatten();
        names.filter(|name| self.resolve(name) == Ok(key)).collect()
    }

    fn of_service(&self, host: &str, port: Option<&str>) -> Option<&ServiceKey> {
        let (name, namespace) = self.split_host(host)?;
        let keys = self.services.get(&(namespace.to_owned(), name.to_owned()))?;
        let port = port.and_then(|port| port.parse::<Port>().ok());
        let exact = keys.iter().find(|key| port.is_some() && key.port == port);
        // With one port there is no choice: what the client names may be the Service's port.
        exact.or(match &keys[..] {
            [only] => Some(only),
            _ => keys.iter().find(|key| key.port.is_none()),
        })
    }

    fn split_host<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let mut parts = host.splitn(3, '.');
        let name = parts.next()?;
        let namespace = parts.next().unwrap_or(&self.rules.default_namespace);
        let full = match parts.next() {
            None | Some("svc") => true,
            Some(rest) => rest.strip_prefix("svc.") == Some(&self.rules.cluster_domain),
        };
        full.then_some((name, namespace))
    }

    fn is_own(&self, asked: &str, host: &str) -> bool {
        let first = host.split('.').next().unwrap_or_default();
        let names = [asked, host];
        names.iter().any(|name| self.rules.own.contains(*name))
            || (self.split_host(host).is_some() && self.rules.own.contains(first))
    }

    fn default_of<'a>(
        &'a self,
        default: &ServiceKey,
        name: &str,
    ) -> Result<&'a ServiceKey, NameError> {
        let port = default.port.as_ref().map(Port::to_string);
        let host = format!("{}.{}", default.name, default.namespace);
        self.of_service(&host, port.as_deref()).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> NameError {
        let served: Vec<String> =
            self.services.values().flatten().take(LISTED_MAX).map(ToString::to_string).collect();
        let more = match self.services.values().map(Vec::len).sum::<usize>() {
            0 => "nothing".to_owned(),
            all if all > LISTED_MAX => {
                format!("{} and {} more", served.join(", "), all - LISTED_MAX)
            }
            _ => served.join(", "),
        };
        NameError::Unknown(format!(
            "expected the name of a service that is served here ({more}), got {name:?}"
        ))
    }
}

/// A name in the form in which names are compared: lower case, no dot at the end.
pub(crate) fn normal(name: &str) -> Result<String, String> {
    let expected = "expected a service's name such as greeter.default.svc.cluster.local:8000";
    if name.is_empty() {
        return Err(format!("{expected}, got an empty name"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("{expected} of at most {NAME_BYTES_MAX} bytes, {}", shown(name)));
    }
    let printable = |c: char| c.is_ascii_graphic();
    if !name.chars().all(printable) {
        return Err(format!("{expected}, got {name:?}"));
    }
    let (host, port) = split_port(name);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    Ok(port.map_or(host.clone(), |port| format!("{host}:{port}")))
}

fn split_port(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        // More colons are an IPv6 address.
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (name, None),
    }
}

/// Reads `BACKEND_SERVICE_NAME`, which people write in each of the forms that clients use.
///
/// # Errors
///
/// It names no service.
pub fn service_of(name: &str, rules: &NameRules) -> Result<ServiceKey, String> {
    let normal = normal(name)?;
    let (host, port) = split_port(&normal);
    let names = Names { rules: rules.clone(), ..Names::default() };
    let (service, namespace) = names.split_host(host).ok_or_else(|| {
        let domain = &rules.cluster_domain;
        format!("expected name, name.namespace or name.namespace.svc.{domain}, got {name:?}")
    })?;
    check_label(service).and_then(|()| check_label(namespace)).map_err(|e| {
        format!("expected a service's name such as greeter.default.svc.cluster.local:8000: {e}")
    })?;
    let port = port.map(str::parse).transpose()?;
    Ok(ServiceKey { namespace: namespace.to_owned(), name: service.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let yaml = "
services:
- {name: greeter, port: 8000, aliases: [greeter.test, hello.example.com:443]}
- {name: two, namespace: other, port: 1}
- {name: two, namespace: other, port: 2}
";
        let config = Config::from_yaml(yaml, "test", "default").expect("good");
        let rules = NameRules {
            own: ["grpclb".into(), "lb.test".into()].into(),
            default_service: Some(service_of("greeter", &NameRules::default()).expect("a name")),
            ..NameRules::default()
        };
        Names::new(rules, &config)
    }

    #[test]
    fn every_form_of_a_name_leads_to_its_service() {
        let names = names();
        for (asked, key) in [
            ("greeter", "greeter.default:8000"),
            ("GREETER.default", "greeter.default:8000"),
            ("greeter:80", "greeter.default:8000"),
            ("greeter.default.svc", "greeter.default:8000"),
            ("greeter.default.svc.cluster.local", "greeter.default:8000"),
            ("greeter.default.svc.cluster.local.:8000", "greeter.default:8000"),
            ("greeter.test:9999", "greeter.default:8000"),
            ("hello.example.com:443", "greeter.default:8000"),
            ("two.other:1", "two.other:1"),
            ("two.other.svc.cluster.local:2", "two.other:2"),
            ("grpclb", "greeter.default:8000"),
            ("grpclb.anywhere.svc.cluster.local:9000", "greeter.default:8000"),
            ("lb.test:9000", "greeter.default:8000"),
        ] {
            let found = names.resolve(asked).map(ToString::to_string);
            assert_eq!(found.as_deref(), Ok(key), "{asked}");
        }
    }

    #[test]
    fn the_names_of_a_service_are_those_that_lead_to_it_and_to_no_other() {
        let names = names();
        let of = |key: &str| {
            let names = names.of(&ServiceKey::parse(key, "default").expect("a key"));
            names.into_iter().collect::<Vec<_>>().join(" ")
        };
        let greeter = of("greeter:8000");
        for name in ["greeter", "greeter.test:8000", "hello.example.com:443", "grpclb"] {
            assert!(greeter.split(' ').any(|one| one == name), "{name}: {greeter}");
        }
        let full = "two.other.svc.cluster.local:1 two.other.svc:1 two.other:1";
        assert_eq!(of("two.other:1"), full, "without its port it might be the other one");
    }

    #[test]
    fn what_leads_nowhere_is_refused_with_what_there_is() {
        let names = names();
        for asked in [
            "two.other",
            "two.other:3",
            "greeter.elsewhere",
            "greeter.default.svc.other.domain",
            "hello.example.com",
            "no-such",
            "10.0.0.1:80",
            "[::1]:80",
            "a.b.c.d.e",
            ":8000",
            ".",
        ] {
            match names.resolve(asked) {
                Err(NameError::Unknown(message)) => {
                    assert!(message.contains("greeter.default:8000, two.other:1"), "{message}");
                    assert!(message.contains(asked), "{message}");
                }
                other => panic!("{asked}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_name_is_told_apart() {
        let long = "a".repeat(256);
        for (asked, reason) in [("", "an empty name"), (&long[..], "256 bytes"), ("a b", "a b")] {
            match names().resolve(asked) {
                Err(NameError::Bad(message)) => assert!(message.contains(reason), "{message}"),
                other => panic!("{asked}: {other:?}"),
            }
        }
    }
}
