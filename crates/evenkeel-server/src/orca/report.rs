//! The report that a call's trailers carry: the server's values under the call's own.

use std::collections::{BTreeMap, HashMap};

use evenkeel_proto::xds::data::orca::v3::OrcaLoadReport;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::metadata::BinaryMetadataValue;

use super::{
    call::CallMetrics,
    metrics::ServerMetrics,
    values::{Named, Scalar, Scalars},
};

/// The key of A51.
const KEY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Puts the report into a call's trailers, if there is anything to report.
pub(crate) fn report(metrics: &CallMetrics, trailers: &mut HeaderMap) {
    let bytes = of_call(metrics).encode_to_vec();
    // Nothing, or zeros: the same on the wire.
    if bytes.is_empty() {
        return;
    }
    let value = BinaryMetadataValue::from_bytes(&bytes);
    // base64 is always a header value.
    if let Ok(value) = HeaderValue::from_bytes(value.as_encoded_bytes()) {
        trailers.insert(KEY, value);
    }
}

fn of_call(metrics: &CallMetrics) -> OrcaLoadReport {
    let own = metrics.own();
    let mut scalars = metrics.server().scalars();
    for (scalar, own) in scalars.iter_mut().zip(own.scalars) {
        *scalar = own.or(*scalar);
    }
    let mut named = metrics.server().named();
    named.utilization.extend(clones(&own.named.utilization));
    named.request_cost.extend(clones(&own.named.request_cost));
    named.named_metrics.extend(clones(&own.named.named_metrics));
    message(&scalars, named)
}

fn clones(map: &BTreeMap<String, f64>) -> impl Iterator<Item = (String, f64)> {
    map.iter().map(|(name, value)| (name.clone(), *value))
}

/// The report of the server's own values.
pub(super) fn of_server(metrics: &ServerMetrics) -> OrcaLoadReport {
    message(&metrics.scalars(), metrics.named())
}

fn message(scalars: &Scalars, named: Named) -> OrcaLoadReport {
    let scalar = |scalar: Scalar| scalars[scalar as usize].unwrap_or_default();
    let map = |named: BTreeMap<String, f64>| named.into_iter().collect::<HashMap<_, _>>();
    OrcaLoadReport {
        cpu_utilization: scalar(Scalar::Cpu),
        mem_utilization: scalar(Scalar::Memory),
        application_utilization: scalar(Scalar::Application),
        rps_fractional: scalar(Scalar::Qps),
        eps: scalar(Scalar::Eps),
        utilization: map(named.utilization),
        request_cost: map(named.request_cost),
        named_metrics: map(named.named_metrics),
        ..OrcaLoadReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(trailers: &HeaderMap) -> OrcaLoadReport {
        let value = trailers.get(KEY).expect("a report").as_bytes().to_vec();
        let encoded = tonic::metadata::MetadataMap::from_headers(
            [(KEY, HeaderValue::from_bytes(&value).expect("base64"))].into_iter().collect(),
        );
        let bytes = encoded.get_bin(KEY.as_str()).expect("binary").to_bytes().expect("base64");
        OrcaLoadReport::decode(bytes).expect("a report")
    }

    #[test]
    fn a_calls_values_take_the_place_of_the_servers() {
        let server = ServerMetrics::new();
        server.set_cpu_utilization(0.2);
        server.set_qps(100.0);
        server.set_utilization("disk", 0.3);
        server.set_utilization("queue", 0.4);
        let call = CallMetrics::new(&server);
        call.set_cpu_utilization(0.9);
        call.set_utilization("disk", 0.8);
        call.set_request_cost("rows", 12.0);
        call.set_named_metric("celsius", -3.0);
        call.set_eps(f64::NAN);
        let mut trailers = HeaderMap::new();
        report(&call, &mut trailers);
        let report = decoded(&trailers);
        assert_eq!((report.cpu_utilization, report.rps_fractional, report.eps), (0.9, 100.0, 0.0));
        assert_eq!((report.utilization["disk"], report.utilization["queue"]), (0.8, 0.4));
        assert_eq!((report.request_cost["rows"], report.named_metrics["celsius"]), (12.0, -3.0));
        assert_eq!(server.ignored(), 1);
        assert_eq!(of_server(&server).request_cost.len(), 0, "a call's values stay its own");
    }

    #[test]
    fn without_values_there_is_no_report() {
        let server = ServerMetrics::new();
        let call = CallMetrics::new(&server);
        server.set_qps(5.0);
        server.set_qps(None);
        call.set_request_cost("rows", 1.0);
        call.set_request_cost("rows", None);
        let mut trailers = HeaderMap::new();
        report(&call, &mut trailers);
        assert!(trailers.is_empty(), "{trailers:?}");
    }

    #[test]
    fn the_largest_report_is_within_grpcs_limit_of_metadata() {
        let server = ServerMetrics::new();
        let call = CallMetrics::new(&server);
        let name = |n: usize, kind: &str| format!("{n:02}{kind:x<62}");
        for n in 0..super::super::NAMES_MAX {
            server.set_utilization(&name(n, "server"), 0.123);
            call.set_named_metric(&name(n, "call"), 0.123);
        }
        let mut trailers = HeaderMap::new();
        report(&call, &mut trailers);
        let length = trailers[KEY].len();
        assert!((6_000..8_000).contains(&length), "{length} bytes");
        assert_eq!(server.ignored(), 0);
    }
}
