//! Prometheus's text format (0.0.4), with the names that OpenTelemetry's specification gives its
//! metrics there. Written by hand: a client library would keep a second copy of counts that are
//! here already.

use std::fmt::Write as _;

use super::{
    cells::Distribution,
    family::{Family, Value},
    instruments::Kind,
};
use crate::otlp::{Resource, Value as Attribute};

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// OpenTelemetry's "Prometheus and OpenMetrics compatibility": other characters become `_`, the
/// unit and for counters `_total` come behind.
pub(super) fn name(name: &str, kind: Kind, unit: &str) -> String {
    let mut full: String = name.chars().map(allowed).collect();
    let unit = match unit {
        "s" => "_seconds",
        "ms" => "_milliseconds",
        "By" => "_bytes",
        "1" if kind == Kind::Gauge => "_ratio",
        // What is counted, in braces, and what we have no word for.
        _ => "",
    };
    if !full.ends_with(unit) {
        full.push_str(unit);
    }
    if kind == Kind::Counter && !full.ends_with("_total") {
        full.push_str("_total");
    }
    full
}

fn allowed(c: char) -> char {
    if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }
}

/// The page.
pub(super) fn page(families: &[Family], resource: &Resource) -> String {
    let mut text = String::new();
    about(&mut text, resource);
    for family in families {
        let name = name(&family.name, family.kind, &family.unit);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::UpDownCounter => "gauge",
            Kind::Histogram => "histogram",
        };
        head(&mut text, &name, &family.description, kind);
        for point in &family.points {
            let labels: Vec<(&str, &str)> =
                point.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            match &point.value {
                Value::Whole(number) => line(&mut text, &name, &labels, number),
                Value::Number(number) => line(&mut text, &name, &labels, &special(*number)),
                Value::Distribution(seen) => histogram(&mut text, &name, &labels, seen),
            }
        }
    }
    text
}

/// Who this is, as one more metric.
fn about(text: &mut String, resource: &Resource) {
    let mut labels: Vec<(String, String)> = Vec::new();
    for pair in &resource.attributes {
        let value = pair.value.as_ref().and_then(|any| any.value.as_ref());
        let value = match value {
            Some(Attribute::StringValue(text)) => text.clone(),
            Some(Attribute::IntValue(number)) => number.to_string(),
            _ => continue,
        };
        // Two names may become one, and a label must not be there twice.
        if !labels.iter().any(|(name, _)| label_name(name) == label_name(&pair.key)) {
            labels.push((pair.key.clone(), value));
        }
    }
    head(text, "target_info", "The process that these metrics are of.", "gauge");
    let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    line(text, "target_info", &labels, &1);
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', r"\\").replace('\n', r"\n");
    // Writing to a String does not fail; so below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: &dyn std::fmt::Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let _ = write!(text, r#"{before}{}="{value}""#, label_name(label));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{end} {value}");
}

fn label_name(name: &str) -> String {
    let plain: String = name.chars().map(allowed).collect();
    if plain.starts_with(|c: char| c.is_ascii_digit()) { format!("_{plain}") } else { plain }
}

/// Rust writes infinities in its own way.
fn special(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    number.to_string()
}

fn histogram(text: &mut String, name: &str, labels: &[(&str, &str)], seen: &Distribution) {
    let bounds = seen.bounds.iter().copied().chain([f64::INFINITY]).map(special);
    let mut below = 0;
    let bucket = format!("{name}_bucket");
    for (bound, count) in bounds.zip(&seen.counts) {
        below += count;
        let all: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
        line(text, &bucket, &all, &below);
    }
    line(text, &format!("{name}_sum"), labels, &special(seen.sum));
    line(text, &format!("{name}_count"), labels, &below);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::instruments::INSTRUMENTS,
        otlp::{attribute, named, text as text_value},
    };

    #[test]
    fn names_are_those_of_opentelemetrys_specification() {
        for (otlp, kind, unit, prometheus) in [
            (
                "grpc.client.attempt.started",
                Kind::Counter,
                "{attempt}",
                "grpc_client_attempt_started_total",
            ),
            (
                "grpc.client.call.duration",
                Kind::Histogram,
                "s",
                "grpc_client_call_duration_seconds",
            ),
            ("a.b-c", Kind::Gauge, "1", "a_b_c_ratio"),
            ("x.seconds", Kind::Gauge, "s", "x_seconds"),
            ("y_total", Kind::Counter, "", "y_total"),
        ] {
            assert_eq!(name(otlp, kind, unit), prometheus);
        }
        let sent = INSTRUMENTS.iter().find(|i| i.name.contains("client.attempt.sent"));
        let sent = sent.expect("A66 has it").prometheus_name();
        assert_eq!(sent, "grpc_client_attempt_sent_total_compressed_message_size_bytes");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_infinity() {
        let mut family = Family::new("t", Kind::Histogram, "s", "Time\nof \\ it.");
        let seen = Distribution { bounds: vec![0.00001, 1.0], counts: vec![1, 0, 2], sum: 7.5 };
        family.add([("a.b", "x\"y\\z\nw")], Value::Distribution(seen));
        let attributes =
            vec![attribute("service.name", text_value("x")), named("1st".into(), text_value("y"))];
        let page = page(&[family], &Resource { attributes, ..Resource::default() });
        let expected = r#"# HELP target_info The process that these metrics are of.
# TYPE target_info gauge
target_info{service_name="x",_1st="y"} 1
# HELP t_seconds Time\nof \\ it.
# TYPE t_seconds histogram
t_seconds_bucket{a_b="x\"y\\z\nw",le="0.00001"} 1
t_seconds_bucket{a_b="x\"y\\z\nw",le="1"} 1
t_seconds_bucket{a_b="x\"y\\z\nw",le="+Inf"} 3
t_seconds_sum{a_b="x\"y\\z\nw"} 7.5
t_seconds_count{a_b="x\"y\\z\nw"} 3
"#;
        assert_eq!(page, expected);
    }
}
