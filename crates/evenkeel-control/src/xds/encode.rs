//! Responses as bytes. What differs between clients (nonce, version) is small and goes in front;
//! the resources, which protobuf lets come behind, are encoded once for all clients that are sent
//! the same ones, and are one buffer of which each stream has a reference.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use evenkeel_proto::envoy::{
    config::core::v3::ControlPlane,
    service::discovery::v3::{
        DeltaDiscoveryResponse, DiscoveryResponse, Resource as DeltaResource,
    },
};
use prost::Message as _;
use prost_types::Any;

use super::{
    Kind, Resource,
    hash::Hash,
    machine::{Outgoing, Variant},
};
use crate::{control::lock, wire::framed_before};

/// Encoded resources that are kept for the next client, in bytes; streams that still send what has
/// gone from here have it for themselves.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// And how many.
const KEPT_MAX: usize = 256;

type Key = (Variant, Kind, u128);

/// See the module's head.
pub(super) struct Encoder {
    identifier: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bodies: BTreeMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Encoder {
    /// Clients are told this name of the control plane.
    pub(super) fn new(identifier: String) -> Self {
        Self { identifier, kept: Mutex::default() }
    }

    /// A response in gRPC's framing; its pieces in their order.
    pub(super) fn encode(&self, variant: Variant, outgoing: &Outgoing) -> [Bytes; 2] {
        let body = self.body(variant, outgoing);
        let Outgoing { kind, nonce, version, removed, .. } = outgoing;
        let control_plane = Some(ControlPlane { identifier: self.identifier.clone() });
        let (type_url, nonce) = (kind.type_url().to_owned(), nonce.clone());
        let head = match variant {
            Variant::StateOfTheWorld => {
                let version_info = version.to_string();
                let resources = Vec::new();
                let head =
                    DiscoveryResponse { version_info, resources, type_url, nonce, control_plane };
                framed_before(&head, body.len())
            }
            Variant::Delta => {
                let head = DeltaDiscoveryResponse {
                    system_version_info: version.to_string(),
                    resources: Vec::new(),
                    type_url,
                    nonce,
                    removed_resources: removed.iter().map(ToString::to_string).collect(),
                    control_plane,
                };
                framed_before(&head, body.len())
            }
        };
        [head, body]
    }

    /// The resources, as fields of the response's message.
    fn body(&self, variant: Variant, outgoing: &Outgoing) -> Bytes {
        let pairs = outgoing.resources.iter().map(|one| (&*one.name, &*one.version));
        let key = (variant, outgoing.kind, Hash::of_versions(pairs).value());
        if let Some(body) = lock(&self.kept).bodies.get(&key) {
            return body.clone();
        }
        // Not under the lock: other kinds need not wait. Two streams may do the same work once.
        let body = encoded(variant, outgoing.kind, &outgoing.resources);
        lock(&self.kept).keep(key, body.clone());
        body
    }
}

impl Kept {
    fn keep(&mut self, key: Key, body: Bytes) {
        if body.len() > KEPT_BYTES_MAX || self.bodies.contains_key(&key) {
            return;
        }
        self.bytes += body.len();
        self.bodies.insert(key, body);
        self.order.push_back(key);
        while self.bytes > KEPT_BYTES_MAX || self.order.len() > KEPT_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.bodies.remove(&oldest).map_or(0, |body| body.len());
        }
    }
}

fn encoded(variant: Variant, kind: Kind, resources: &[Arc<Resource>]) -> Bytes {
    let any = |resource: &Resource| Any {
        type_url: kind.type_url().to_owned(),
        value: resource.body.to_vec(),
    };
    let bytes = match variant {
        Variant::StateOfTheWorld => {
            let resources = resources.iter().map(|resource| any(resource)).collect();
            DiscoveryResponse { resources, ..DiscoveryResponse::default() }.encode_to_vec()
        }
        Variant::Delta => {
            let resources = resources.iter().map(|resource| DeltaResource {
                version: resource.version.to_string(),
                resource: Some(any(resource)),
                name: resource.name.to_string(),
                ..DeltaResource::default()
            });
            let resources = resources.collect();
            DeltaDiscoveryResponse { resources, ..DeltaDiscoveryResponse::default() }
                .encode_to_vec()
        }
    };
    bytes.into()
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("identifier", &self.identifier).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FRAME_HEAD_LEN;

    fn outgoing(nonce: &str, names: &[&str]) -> Outgoing {
        let resource = |name: &&str| {
            let body = Bytes::from(format!("body of {name}"));
            Arc::new(Resource { name: (*name).into(), version: "v".into(), body })
        };
        Outgoing {
            kind: Kind::Cluster,
            nonce: nonce.into(),
            version: "of all".into(),
            resources: names.iter().map(resource).collect(),
            removed: vec!["gone".into()],
        }
    }

    fn message<M: prost::Message + Default>(pieces: &[Bytes; 2]) -> M {
        let bytes = pieces.concat();
        let len = u32::from_be_bytes(bytes[1..FRAME_HEAD_LEN].try_into().expect("four bytes"));
        assert_eq!((bytes[0], len as usize), (0, bytes.len() - FRAME_HEAD_LEN));
        M::decode(&bytes[FRAME_HEAD_LEN..]).expect("a message")
    }

    #[test]
    fn a_response_is_one_message_of_two_pieces() {
        let encoder = Encoder::new("test".into());
        let pieces = encoder.encode(Variant::StateOfTheWorld, &outgoing("7", &["a", "b"]));
        let response: DiscoveryResponse = message(&pieces);
        assert_eq!((&*response.version_info, &*response.nonce), ("of all", "7"));
        assert_eq!(response.type_url, Kind::Cluster.type_url());
        assert_eq!(response.control_plane.expect("set").identifier, "test");
        let bodies: Vec<_> = response.resources.iter().map(|any| &any.value[..]).collect();
        assert_eq!(bodies, [b"body of a", b"body of b"]);

        let pieces = encoder.encode(Variant::Delta, &outgoing("8", &["a"]));
        let response: DeltaDiscoveryResponse = message(&pieces);
        let resource = &response.resources[0];
        assert_eq!((&*resource.name, &*resource.version), ("a", "v"));
        let any = resource.resource.as_ref().expect("set");
        assert_eq!((&*any.type_url, &any.value[..]), (Kind::Cluster.type_url(), &b"body of a"[..]));
        assert_eq!(
            (&response.removed_resources[..], &*response.nonce),
            (&["gone".into()][..], "8")
        );
    }

    #[test]
    fn clients_that_are_sent_the_same_share_it() {
        let encoder = Encoder::new("test".into());
        let [_, one] = encoder.encode(Variant::Delta, &outgoing("1", &["a"]));
        let [_, two] = encoder.encode(Variant::Delta, &outgoing("2", &["a"]));
        assert_eq!(one.as_ptr(), two.as_ptr());
        let [_, other] = encoder.encode(Variant::Delta, &outgoing("2", &["b"]));
        assert_ne!(one.as_ptr(), other.as_ptr());
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let encoder = Encoder::new("test".into());
        for n in 0..KEPT_MAX + 10 {
            encoder.encode(Variant::Delta, &outgoing("1", &[&n.to_string()]));
        }
        let mut kept = lock(&encoder.kept);
        assert_eq!((kept.bodies.len(), kept.order.len()), (KEPT_MAX, KEPT_MAX));
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX / 2 + 1]);
        for n in 0..4 {
            kept.keep((Variant::Delta, Kind::Route, n), large.clone());
        }
        assert!(kept.bytes <= KEPT_BYTES_MAX);
        assert_eq!(kept.bytes, kept.bodies.values().map(Bytes::len).sum::<usize>());
    }
}
