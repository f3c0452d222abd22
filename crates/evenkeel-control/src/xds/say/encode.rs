//! From messages to resources: bytes, and a version made of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use evenkeel_proto::envoy::{
    config::core::v3::{
        Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress,
        address::Address as AddressKind, config_source::ConfigSourceSpecifier,
        socket_address::PortSpecifier,
    },
    r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
};
use prost::Message;
use prost_types::Any;

use crate::xds::{
    hash::Hash,
    resource::{KindResources, Resource},
};

/// A message as a resource.
pub(super) fn resource(name: &str, message: &impl Message) -> Arc<Resource> {
    let body = message.encode_to_vec();
    let version = Hash::new().add(&body).version();
    Arc::new(Resource { name: name.into(), version, body: body.into() })
}

/// The resources of one kind; `before` itself if nothing is different.
pub(super) fn kind(
    resources: impl IntoIterator<Item = Arc<Resource>>,
    before: Option<&Arc<KindResources>>,
) -> Arc<KindResources> {
    let by_name: BTreeMap<_, _> =
        resources.into_iter().map(|one| (one.name.clone(), one)).collect();
    let hash = Hash::of_versions(by_name.values().map(|one| (&*one.name, &*one.version)));
    let made = KindResources { version: hash.version(), by_name };
    match before {
        Some(before) if **before == made => before.clone(),
        _ => Arc::new(made),
    }
}

/// A message within another one.
pub(super) fn any(type_name: &str, message: &impl Message) -> Any {
    let type_url = format!("type.googleapis.com/{type_name}");
    Any { type_url, value: message.encode_to_vec() }
}

/// From this balancer, on the stream that there is.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}

/// An address and its port.
pub(super) fn address(address: std::net::SocketAddr) -> Address {
    let port = PortSpecifier::PortValue(address.port().into());
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(port),
        ..SocketAddress::default()
    };
    Address { address: Some(AddressKind::SocketAddress(socket)) }
}

/// A time.
pub(super) fn duration(time: Duration) -> prost_types::Duration {
    // Times of the configuration are a day at most.
    prost_types::Duration { seconds: time.as_secs() as i64, nanos: time.subsec_nanos() as i32 }
}

/// A part of all calls, to the millionth.
pub(super) fn percent(percent: f64) -> FractionalPercent {
    let numerator = (percent * 10_000.0).round() as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_contents_and_is_the_same_in_every_build() {
        let hash = |bytes: &[u8]| Hash::new().add(bytes).version();
        // FNV-1a 128 of "" and "a" by its authors' tables, folded.
        assert_eq!(Hash::new().add(b"a").value(), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(hash(b"a"), hash(b"a"));
        assert_ne!(hash(b"a"), hash(b"b"));
    }

    #[test]
    fn a_kind_in_which_nothing_changed_is_the_same_one() {
        let one = |text: &str| resource("a", &text.to_owned());
        let first = kind([one("x"), resource("b", &1_u32)], None);
        let same = kind([resource("b", &1_u32), one("x")], Some(&first));
        assert!(Arc::ptr_eq(&first, &same));
        let other = kind([one("y"), resource("b", &1_u32)], Some(&first));
        assert_ne!(first.version, other.version);
        assert_eq!(first.by_name["b"].version, other.by_name["b"].version);
    }

    #[test]
    fn per_cents_are_exact_to_the_millionth() {
        assert_eq!(percent(30.0).numerator, 300_000);
        assert_eq!(percent(0.0001).numerator, 1);
        assert_eq!(percent(100.0).numerator, 1_000_000);
    }
}
