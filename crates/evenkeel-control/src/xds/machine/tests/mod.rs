//! The rules of the protocol, one by one, on a client and what it is told. Resources are made by
//! hand: a name and a version are all that the machine knows of them.

mod answers;
mod order;
mod returning;
mod wanted;

use std::collections::BTreeMap;

use bytes::Bytes;
use evenkeel_proto::google::rpc::Status;

use super::*;
use crate::xds::KindResources;

/// A client and what it is told.
struct Stage {
    machine: Machine,
    resources: Resources,
    now: Instant,
}

fn resource(name: &str, version: &str) -> Arc<Resource> {
    let body = Bytes::from(format!("{name}={version}"));
    Arc::new(Resource { name: name.into(), version: version.into(), body })
}

pub(super) fn kind_resources(list: &[(&str, &str)]) -> Arc<KindResources> {
    let all = list.iter().map(|(name, version)| resource(name, version));
    let by_name: BTreeMap<_, _> = all.map(|one| (one.name.clone(), one)).collect();
    let version = version(by_name.values().map(AsRef::as_ref));
    Arc::new(KindResources { version, by_name })
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Stage {
    fn new(variant: Variant) -> Self {
        let resources = Resources::default();
        Self { machine: Machine::new(variant), resources, now: Instant::now() }
    }

    fn sotw() -> Self {
        Self::new(Variant::StateOfTheWorld)
    }

    fn delta() -> Self {
        Self::new(Variant::Delta)
    }

    fn set(&mut self, kind: Kind, list: &[(&str, &str)]) {
        self.resources.set(kind, kind_resources(list));
        self.machine.resources(Arc::new(self.resources.clone()));
    }

    fn next(&mut self) -> Option<Outgoing> {
        self.machine.next(self.now)
    }

    /// The next response; its kind and its resources as `name=version`.
    fn told(&mut self, kind: Kind) -> (Outgoing, Vec<String>) {
        let outgoing = self.next().expect("a response");
        assert_eq!(outgoing.kind, kind, "{outgoing:?}");
        let text = |r: &Arc<Resource>| format!("{}={}", r.name, r.version);
        let texts = outgoing.resources.iter().map(text).collect();
        (outgoing, texts)
    }

    fn quiet(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "{next:?}");
    }

    fn ask(&mut self, kind: Kind, names: &[&str], nonce: &str) -> Heard {
        self.ask_with(kind, names, nonce, "", None)
    }

    fn ask_with(
        &mut self,
        kind: Kind,
        names: &[&str],
        nonce: &str,
        version: &str,
        error: Option<&str>,
    ) -> Heard {
        let error_detail = error.map(|text| Status { message: text.into(), ..Status::default() });
        let request = DiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names: strings(names),
            response_nonce: nonce.into(),
            version_info: version.into(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.machine.request(&request).expect("a good request")
    }

    fn change(&mut self, kind: Kind, add: &[&str], remove: &[&str]) -> Heard {
        self.delta_with(kind, add, remove, "", None, &[])
    }

    fn ack(&mut self, outgoing: &Outgoing) {
        let heard = self.delta_with(outgoing.kind, &[], &[], &outgoing.nonce, None, &[]);
        assert_eq!(heard.acked, Some(outgoing.kind));
    }

    fn nack(&mut self, outgoing: &Outgoing, why: &str) {
        let heard = self.delta_with(outgoing.kind, &[], &[], &outgoing.nonce, Some(why), &[]);
        assert_eq!(heard.nacked, Some(outgoing.kind));
    }

    fn delta_with(
        &mut self,
        kind: Kind,
        add: &[&str],
        remove: &[&str],
        nonce: &str,
        error: Option<&str>,
        initial: &[(&str, &str)],
    ) -> Heard {
        let error_detail = error.map(|text| Status { message: text.into(), ..Status::default() });
        let initial = initial.iter().map(|(name, version)| (name.to_string(), version.to_string()));
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(add),
            resource_names_unsubscribe: strings(remove),
            response_nonce: nonce.into(),
            error_detail,
            initial_resource_versions: initial.collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.machine.delta(request).expect("a good request")
    }
}
