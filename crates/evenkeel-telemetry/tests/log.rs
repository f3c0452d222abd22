//! Log lines have the ids of the trace that they belong to, in both formats.

use std::{
    io,
    sync::{Arc, Mutex},
};

use evenkeel_telemetry::log::{LogFormat, WithTraceIds};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use serde_json::Value;
use tracing::warn;

#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const TRACE: &str = "07070707070707070707070707070707";
const SPAN: &str = "0909090909090909";

/// Two lines, the second inside a span.
fn lines(format: LogFormat) -> Vec<String> {
    let out = Out::default();
    let writer = out.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .event_format(WithTraceIds::new(format, false))
        .finish();
    tracing::subscriber::with_default(log, || {
        warn!(backend = "a", "outside");
        let (trace, span) = (TraceId::from_bytes([7; 16]), SpanId::from_bytes([9; 8]));
        let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
        let _current = Context::new().with_remote_span_context(span).attach();
        warn!(backend = "a", "inside {{");
    });
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_line_for_people_ends_with_the_ids() {
    let lines = lines(LogFormat::Text);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("WARN") && lines[0].ends_with("outside backend=\"a\""));
    assert!(lines[1].contains("inside {"), "{lines:?}");
    assert!(lines[1].ends_with(&format!("trace_id={TRACE} span_id={SPAN}")), "{lines:?}");
}

#[test]
fn a_line_for_programs_is_an_object_with_the_ids() {
    let lines = lines(LogFormat::Json);
    let parsed: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(parsed.len(), 2);
    assert_eq!((&parsed[0]["message"], &parsed[0]["trace_id"]), (&"outside".into(), &Value::Null));
    assert_eq!(parsed[1]["message"], "inside {");
    assert_eq!(parsed[1]["backend"], "a");
    assert_eq!(parsed[1]["level"], "WARN");
    assert_eq!((&parsed[1]["trace_id"], &parsed[1]["span_id"]), (&TRACE.into(), &SPAN.into()));
}

#[test]
fn other_formats_are_refused() {
    assert_eq!(LogFormat::parse(None), Ok(LogFormat::Text));
    assert_eq!(LogFormat::parse(Some("json")), Ok(LogFormat::Json));
    let error = LogFormat::parse(Some("xml")).unwrap_err();
    assert_eq!(error, "LOG_FORMAT: expected text or json, got \"xml\"");
}
