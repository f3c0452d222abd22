//! What a `kubernetes:` target says: `kubernetes:///service[.namespace[.svc[.domain]]]:port`.

use evenkeel_core::{Target, TargetError};
use evenkeel_kubernetes::{Port, ServiceKey};

/// A target of the scheme `kubernetes`, read.
#[derive(Debug, PartialEq)]
pub(super) struct KubernetesTarget {
    service: String,
    /// `None`: the client's own.
    namespace: Option<String>,
    pub(super) port: Port,
    /// The `:authority` of calls: the name, and the port when it is a number.
    pub(super) authority: String,
}

impl KubernetesTarget {
    pub(super) fn read(target: &Target) -> Result<Self, TargetError> {
        let bad = |reason: String| TargetError::new(&target.to_string(), reason);
        if !target.authority().is_empty() {
            return Err(bad(format!(
                "expected nothing between // and /, got {:?}; the kubeconfig says which cluster, \
                 so write kubernetes:///{}",
                target.authority(),
                target.path()
            )));
        }
        let path = target.path().strip_prefix('/').unwrap_or(target.path());
        let example = "e.g. kubernetes:///greeter.default:8000";
        let (name, port) = path.rsplit_once(':').ok_or_else(|| {
            bad(format!("it names no port; expected the endpoints' number or name, {example}"))
        })?;
        let port: Port = port.parse().map_err(bad)?;
        let mut labels = name.split('.');
        let service = labels.next().unwrap_or_default().to_owned();
        let namespace = labels.next().map(str::to_owned);
        if labels.next().is_some_and(|label| label != "svc") {
            return Err(bad(format!(
                "the name is {name:?}; expected service, service.namespace or \
                 service.namespace.svc.…, {example}"
            )));
        }
        let authority = match port {
            Port::Number(number) => format!("{name}:{number}"),
            Port::Named(_) => name.to_owned(),
        };
        let read = Self { service, namespace, port, authority };
        // Whatever the client's own namespace will be.
        read.key(target, "default")?;
        Ok(read)
    }

    /// The Service, for a client in the namespace `own`.
    pub(super) fn key(&self, target: &Target, own: &str) -> Result<ServiceKey, TargetError> {
        let namespace = self.namespace.as_deref().unwrap_or(own);
        ServiceKey::new(namespace, self.service.as_str())
            .map_err(|reason| TargetError::new(&target.to_string(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String, String), String> {
        let target = Target::parse(text, &["kubernetes"]).map_err(|e| e.to_string())?;
        let read = KubernetesTarget::read(&target).map_err(|e| e.reason)?;
        let key = read.key(&target, "own").map_err(|e| e.reason)?;
        Ok((key.to_string(), read.port.to_string(), read.authority))
    }

    #[test]
    fn reads_services_namespaces_and_ports() {
        for (text, key, port, authority) in [
            ("kubernetes:///greeter.shop:8000", "greeter.shop", "8000", "greeter.shop:8000"),
            ("kubernetes:greeter.shop:8000", "greeter.shop", "8000", "greeter.shop:8000"),
            ("kubernetes:///greeter:grpc", "greeter.own", "grpc", "greeter"),
            ("kubernetes:///greeter.shop.svc:1", "greeter.shop", "1", "greeter.shop.svc:1"),
            (
                "kubernetes:///greeter.shop.svc.cluster.local:grpc",
                "greeter.shop",
                "grpc",
                "greeter.shop.svc.cluster.local",
            ),
        ] {
            let want = (key.to_owned(), port.to_owned(), authority.to_owned());
            assert_eq!(read(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_read_and_says_what_to_write() {
        for (text, want) in [
            ("kubernetes://dev/greeter.shop:80", "so write kubernetes:///greeter.shop:80"),
            ("kubernetes:///greeter.shop", "it names no port; expected the endpoints' number"),
            ("kubernetes:///greeter.shop:", "the port is \"\""),
            ("kubernetes:///greeter.shop:70000", "expected a number from 1 to 65535"),
            ("kubernetes:///greeter.shop.default:80", "expected service, service.namespace or"),
            ("kubernetes:///Greeter:80", "the Service's name is \"Greeter\""),
            ("kubernetes:///greeter.:80", "the namespace is \"\""),
            ("kubernetes:///:80", "the Service's name is \"\""),
            ("kubernetes:///greeter/x:80", "the Service's name is \"greeter/x\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
