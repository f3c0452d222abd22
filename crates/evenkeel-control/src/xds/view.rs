//! Which view a client gets, from its node and its certificate. What two clients tell alike they
//! get alike, encoded once for both; so a view is what decides, and nothing else of the node.

use std::{net::IpAddr, sync::Arc};

use evenkeel_proto::envoy::config::core::v3::Node;
use evenkeel_server::tls::PeerNames;
use prost_types::value::Kind as ValueKind;
use tonic::Status;

use super::say::Dialect;
use crate::{key::shown, peer::Peer};

/// The longest text that a node may say of itself.
const TEXT_BYTES_MAX: usize = 255;

/// Region and zone of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) zone: String,
}

/// What a client does with what it gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// It calls services for the application beside it (Envoy) or for itself (gRPC).
    Client(Dialect),
    /// It takes calls for the application beside it.
    Ingress {
        /// Of which service the application is a server, by one of its names.
        service: String,
        /// The node's own address.
        address: Option<IpAddr>,
    },
}

/// What decides what a client gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) place: Option<Place>,
    /// The identity with which it calls others, if its node names one.
    pub(crate) identity: Option<String>,
    pub(crate) caller: Caller,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) names: Option<PeerNames>,
    /// On this machine: over loopback or a Unix socket.
    pub(crate) is_local: bool,
}

impl Caller {
    fn key(&self) -> (Option<[&[String]; 2]>, bool) {
        (self.names.as_ref().map(|names| [names.uris(), names.dns_names()]), self.is_local)
    }
}

impl Ord for Caller {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Caller {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl View {
    /// The view of a client.
    pub(crate) fn of(node: &Node, peer: &Peer) -> Result<Self, Status> {
        let role = text(node, "role")?;
        let is_envoy = node.user_agent_name.starts_with("envoy");
        let role = match role.as_deref() {
            Some("ingress") => ingress(node)?,
            Some("sidecar") => Role::Client(Dialect::Envoy),
            Some("grpc") => Role::Client(Dialect::Grpc),
            Some(other) => {
                let message = format!(
                    "node.metadata.role: expected sidecar, ingress or grpc, got {other:?}; without \
                     it Envoys are sidecars and all others gRPC clients"
                );
                return Err(Status::invalid_argument(message));
            }
            None if is_envoy => Role::Client(Dialect::Envoy),
            None => Role::Client(Dialect::Grpc),
        };
        let place = node
            .locality
            .as_ref()
            .map(|locality| Place { region: locality.region.clone(), zone: locality.zone.clone() });
        for (what, text) in place.iter().flat_map(|p| [("region", &p.region), ("zone", &p.zone)]) {
            short(&format!("node.locality.{what}"), text)?;
        }
        let is_local = peer.address.is_none_or(|address| address.ip().to_canonical().is_loopback());
        let caller = Caller { names: peer.names.clone(), is_local };
        Ok(Self { role, place, identity: text(node, "identity")?, caller })
    }

    /// For people.
    pub(crate) fn name(&self) -> Arc<str> {
        let mut name = match &self.role {
            Role::Client(Dialect::Envoy) => "sidecar".to_owned(),
            Role::Client(Dialect::Grpc) => "grpc".to_owned(),
            Role::Ingress { service, .. } => format!("ingress of {service}"),
        };
        if let Some(place) = &self.place {
            name += &format!(" in {}/{}", place.region, place.zone);
        }
        if let Some(identity) = &self.identity {
            name += &format!(" as {identity}");
        }
        name.into()
    }
}

fn ingress(node: &Node) -> Result<Role, Status> {
    let Some(service) = text(node, "service")? else {
        let message = "node.metadata.service: expected the name of the service of which the \
                       application is a server, got none";
        return Err(Status::invalid_argument(message));
    };
    let address = text(node, "address")?.map(|text| {
        text.parse::<IpAddr>().map_err(|_| {
            let expected = "node.metadata.address: expected the node's own IP address";
            Status::invalid_argument(format!("{expected}, got {text:?}"))
        })
    });
    Ok(Role::Ingress { service, address: address.transpose()? })
}

/// A text of the node's metadata.
fn text(node: &Node, field: &str) -> Result<Option<String>, Status> {
    let Some(value) = node.metadata.as_ref().and_then(|all| all.fields.get(field)) else {
        return Ok(None);
    };
    let Some(ValueKind::StringValue(text)) = &value.kind else {
        return Err(Status::invalid_argument(format!("node.metadata.{field}: expected a text")));
    };
    short(&format!("node.metadata.{field}"), text)?;
    Ok(Some(text.clone()))
}

fn short(what: &str, text: &str) -> Result<(), Status> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let expected = format!("expected a text of at most {TEXT_BYTES_MAX} bytes");
    Err(Status::invalid_argument(format!("{what}: {expected}, {}", shown(text))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evenkeel_proto::envoy::config::core::v3::Locality;
    use prost_types::{Struct, Value};

    use super::*;

    fn node(agent: &str, metadata: &[(&str, &str)]) -> Node {
        let value = |text: &str| Value { kind: Some(ValueKind::StringValue(text.to_owned())) };
        let fields: BTreeMap<_, _> =
            metadata.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        let metadata = Some(Struct { fields });
        Node { user_agent_name: agent.to_owned(), metadata, ..Node::default() }
    }

    fn view(node: &Node) -> Result<View, String> {
        View::of(node, &Peer::default()).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn envoys_are_sidecars_unless_they_say_otherwise_and_others_are_grpc() {
        let role = |node| view(&node).expect("good").role;
        assert_eq!(role(node("envoy", &[])), Role::Client(Dialect::Envoy));
        assert_eq!(role(node("gRPC Go", &[])), Role::Client(Dialect::Grpc));
        assert_eq!(role(node("", &[("role", "sidecar")])), Role::Client(Dialect::Envoy));
        let ingress = node("envoy", &[("role", "ingress"), ("service", "a"), ("address", "::1")]);
        let address = Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(role(ingress), Role::Ingress { service: "a".into(), address });
    }

    #[test]
    fn what_a_node_says_wrongly_is_refused_with_what_was_expected() {
        let long = "a".repeat(256);
        for (metadata, reason) in [
            (vec![("role", "server")], "expected sidecar, ingress or grpc, got \"server\""),
            (vec![("role", "ingress")], "expected the name of the service"),
            (vec![("role", "ingress"), ("service", "a"), ("address", "b")], "own IP address"),
            (vec![("identity", &long)], "at most 255 bytes"),
        ] {
            let error = view(&node("envoy", &metadata)).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        }
        let mut far = node("envoy", &[]);
        far.locality = Some(Locality { zone: long, ..Locality::default() });
        assert!(view(&far).expect_err("long").contains("node.locality.zone"));
    }

    #[test]
    fn nodes_that_differ_in_what_does_not_matter_share_a_view() {
        let mut one = node("envoy", &[("pod", "a")]);
        let mut two = node("envoy", &[("pod", "b")]);
        (one.id, two.id) = ("1".into(), "2".into());
        assert_eq!(view(&one), view(&two));
        two.locality = Some(Locality { zone: "a".into(), ..Locality::default() });
        assert_ne!(view(&one), view(&two));
    }
}
