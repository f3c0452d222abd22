//! All metrics at one moment as one request of OTLP. Always cumulative: who receives it can do
//! without any that was lost.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    cells::Distribution,
    family::{Family, Point, Value},
    instruments::Kind,
};
use crate::otlp::{
    ExportMetricsServiceRequest, InstrumentationScope, KeyValue, Resource, metrics as otlp, named,
    text,
};

const CUMULATIVE: i32 = otlp::AggregationTemporality::Cumulative as i32;

/// The times of a request.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) since: SystemTime,
    pub(super) until: SystemTime,
}

pub(super) fn request(
    families: Vec<Family>,
    resource: &Resource,
    span: Span,
) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let metrics = families.into_iter().map(|family| metric(family, span)).collect();
    let scope_metrics =
        vec![otlp::ScopeMetrics { scope: Some(scope), metrics, ..otlp::ScopeMetrics::default() }];
    let resource = Some(resource.clone());
    let of_resource =
        otlp::ResourceMetrics { resource, scope_metrics, ..otlp::ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

fn metric(family: Family, span: Span) -> otlp::Metric {
    let Family { name, kind, unit, description, points } = family;
    let data = match kind {
        Kind::Histogram => {
            let points = points.into_iter().filter_map(|point| histogram(point, span));
            otlp::Data::Histogram(otlp::Histogram {
                data_points: points.collect(),
                aggregation_temporality: CUMULATIVE,
            })
        }
        Kind::Gauge => otlp::Data::Gauge(otlp::Gauge { data_points: numbers(points, span) }),
        Kind::Counter | Kind::UpDownCounter => otlp::Data::Sum(otlp::Sum {
            data_points: numbers(points, span),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: kind == Kind::Counter,
        }),
    };
    otlp::Metric {
        name: name.into_owned(),
        unit: unit.into_owned(),
        description: description.into_owned(),
        data: Some(data),
        ..otlp::Metric::default()
    }
}

fn numbers(points: Vec<Point>, span: Span) -> Vec<otlp::NumberDataPoint> {
    let number = |Point { labels, value }: Point| {
        let value = match value {
            Value::Whole(number) => otlp::NumberValue::AsInt(number),
            Value::Number(number) => otlp::NumberValue::AsDouble(number),
            Value::Distribution(_) => return None,
        };
        Some(otlp::NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: unix_ns(span.since),
            time_unix_nano: unix_ns(span.until),
            value: Some(value),
            ..otlp::NumberDataPoint::default()
        })
    };
    points.into_iter().filter_map(number).collect()
}

fn histogram(Point { labels, value }: Point, span: Span) -> Option<otlp::HistogramDataPoint> {
    let Value::Distribution(seen) = value else { return None };
    let count = seen.count();
    let Distribution { bounds, counts, sum } = seen;
    Some(otlp::HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: unix_ns(span.since),
        time_unix_nano: unix_ns(span.until),
        count,
        sum: Some(sum),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..otlp::HistogramDataPoint::default()
    })
}

fn attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| named(name, text(value))).collect()
}

fn unix_ns(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
