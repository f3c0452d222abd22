//! OTLP's messages, generated from `proto/opentelemetry`, under short names. Public, because who
//! receives what this crate sends (the lab, a test) reads the same messages.

mod generated {
    // The generator documents only what the .proto file comments, and of messages we use a part.
    #![allow(missing_docs, unused_qualifications, unreachable_pub, dead_code)]
    include!(concat!(env!("OUT_DIR"), "/otlp.rs"));
}

pub use generated::opentelemetry::proto::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status, span::Event, span::SpanKind, status::StatusCode,
    },
};

/// The messages of metrics, whose names are those of other things elsewhere.
pub mod metrics {
    pub use super::generated::opentelemetry::proto::metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as NumberValue,
    };
}

/// An attribute of a span, an event or a resource.
pub(crate) fn attribute(key: &'static str, value: Value) -> KeyValue {
    named(key.to_owned(), value)
}

/// An attribute whose name is not known beforehand.
pub(crate) fn named(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A text as a value.
pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::StringValue(text.into())
}
