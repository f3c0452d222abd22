//! Targets as they stand in environments and arguments. The lab does not know which variable of
//! somebody's program is a target, so it looks at every word, and takes what can be one: a scheme,
//! or a host with a port. A bare name is more often the name of something else.

use crate::cluster::objects::PortRef;

/// The port that gRPC takes for a `dns:` target without one.
const DNS_PORT: u16 = 443;

/// Who turns the name into endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `dns:`, a bare `host:port`, or a URL: some resolver that asks DNS.
    Dns,
    /// `kubernetes:`: it watches EndpointSlices.
    Kubernetes,
    /// `xds:`: a control plane says it.
    Xds,
}

/// A word that names a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As it was written.
    pub(super) text: String,
    pub(super) scheme: Scheme,
    pub(super) name: String,
    /// `None`: the namespace of who says it.
    pub(super) namespace: Option<String>,
    pub(super) port: Option<PortRef>,
}

impl Target {
    /// What `word` names, if it can be the name of a Service. With `bare` a name without scheme
    /// and port is one too.
    pub(super) fn parse(word: &str, bare: bool) -> Option<Self> {
        let (scheme, rest) = split_scheme(word)?;
        let explicit = rest.len() < word.len();
        let rest = rest.split('/').next()?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port_of(port)?)),
            None => (rest, None),
        };
        if !explicit && !bare && !matches!(port, Some(PortRef::Number(_))) {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let labels: Vec<&str> = host.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) || labels.iter().all(|l| is_number(l)) {
            return None;
        }
        // `greeter.shop.svc.cluster.local`; `greeter.example.org` is no Service.
        if labels.len() > 2 && labels[2] != "svc" {
            return None;
        }
        let default = (scheme == Scheme::Dns && !bare).then_some(PortRef::Number(DNS_PORT));
        Some(Self {
            text: word.to_owned(),
            scheme,
            name: labels[0].to_owned(),
            namespace: labels.get(1).map(|label| (*label).to_owned()),
            port: port.or(default),
        })
    }
}

/// The scheme, and what follows it and its authority. `None` for a scheme that names no Service.
fn split_scheme(word: &str) -> Option<(Scheme, &str)> {
    let Some((scheme, rest)) = word.split_once("://") else {
        return match word.split_once(':') {
            Some(("dns", rest)) if !is_number(rest) => Some((Scheme::Dns, rest)),
            _ => Some((Scheme::Dns, word)),
        };
    };
    let path = || rest.split_once('/').map(|(_, path)| path);
    match scheme {
        "dns" => Some((Scheme::Dns, path()?)),
        "kubernetes" => Some((Scheme::Kubernetes, path()?)),
        "xds" => Some((Scheme::Xds, path()?)),
        "http" | "https" | "grpc" | "grpcs" | "tcp" => Some((Scheme::Dns, rest)),
        "passthrough" => Some((Scheme::Dns, path()?)),
        _ => None,
    }
}

fn port_of(text: &str) -> Option<PortRef> {
    if let Ok(number) = text.parse() {
        return Some(PortRef::Number(number));
    }
    is_label(text).then(|| PortRef::Name(text.to_owned()))
}

fn is_label(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(letters)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(word: &str) -> Option<(Scheme, String, Option<String>, Option<String>)> {
        let target = Target::parse(word, false)?;
        let port = target.port.map(|port| port.to_string());
        Some((target.scheme, target.name, target.namespace, port))
    }

    #[test]
    fn names_of_services_are_found_in_every_form_that_clients_take() {
        let dns = |namespace: Option<&str>, port: &str| {
            let namespace = namespace.map(str::to_owned);
            Some((Scheme::Dns, "greeter".to_owned(), namespace, Some(port.to_owned())))
        };
        assert_eq!(seen("dns:///greeter:8000"), dns(None, "8000"));
        assert_eq!(seen("dns:///greeter.shop"), dns(Some("shop"), "443"));
        assert_eq!(seen("dns:greeter.shop:80"), dns(Some("shop"), "80"));
        assert_eq!(seen("dns://10.96.0.10:53/greeter.shop:80"), dns(Some("shop"), "80"));
        assert_eq!(seen("greeter.shop.svc.cluster.local.:80"), dns(Some("shop"), "80"));
        assert_eq!(seen("http://greeter:8000/path"), dns(None, "8000"));
        let (scheme, _, namespace, port) = seen("kubernetes:///greeter.shop:grpc").expect("one");
        assert_eq!((scheme, namespace.as_deref()), (Scheme::Kubernetes, Some("shop")));
        assert_eq!(port.as_deref(), Some("grpc"));
        assert_eq!(seen("xds:///greeter.shop:80").expect("one").0, Scheme::Xds);
    }

    #[test]
    fn other_words_are_no_services() {
        for word in [
            "greeter",
            "10.0.0.1:8000",
            "greeter.example.org:80",
            "ipv4:10.0.0.1:80",
            "unix:///run/a",
            "Hello",
            "--rate=1",
            "",
            "://",
            "a:b:c",
            "kubernetes://greeter",
        ] {
            assert_eq!(seen(word), None, "{word}");
        }
    }

    #[test]
    fn where_a_bare_name_is_expected_it_is_taken() {
        let target = Target::parse("greeter.shop", true).expect("a name");
        assert_eq!((target.name.as_str(), target.port), ("greeter", None));
    }
}
