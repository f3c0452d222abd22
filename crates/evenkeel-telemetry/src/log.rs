//! Log lines with the ids of the trace that they belong to, for people and for programs. The
//! formats are those of tracing-subscriber; all that is added are the two ids, because a bridge
//! between its spans and OpenTelemetry's would make a second span for each that we have.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, Writer},
        time::SystemTime,
    },
    registry::LookupSpan,
};

use crate::span;

/// The variable that chooses a format.
pub const FORMAT_VARIABLE: &str = "LOG_FORMAT";

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// Reads `text` or `json`; nothing is text.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("" | "text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(format!("{FORMAT_VARIABLE}: expected text or json, got {other:?}")),
        }
    }
}

/// Formats a line, with the ids of the current span if there is one.
pub struct WithTraceIds {
    format: LogFormat,
    text: Format<Full, SystemTime>,
    json: Format<Json, SystemTime>,
}

impl WithTraceIds {
    /// Lines of this format; `ansi` says whether those for people have colours.
    #[must_use]
    pub fn new(format: LogFormat, ansi: bool) -> Self {
        let text = Format::default().with_ansi(ansi);
        // Spans of tracing are those of h2, and a line has enough with its own fields.
        let json = Format::default().json().flatten_event(true);
        let json = json.with_current_span(false).with_span_list(false);
        Self { format, text, json }
    }
}

impl<S, N> FormatEvent<S, N> for WithTraceIds
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let current = span::current();
        match (self.format, current) {
            (LogFormat::Text, None) => self.text.format_event(ctx, writer, event),
            (LogFormat::Json, None) => self.json.format_event(ctx, writer, event),
            (LogFormat::Text, Some(span)) => {
                let mut line = String::new();
                self.text.format_event(ctx, Writer::new(&mut line), event)?;
                let (trace, id) = (span.trace_id(), span.span_id());
                writeln!(writer, "{} trace_id={trace} span_id={id}", line.trim_end())
            }
            (LogFormat::Json, Some(span)) => {
                let mut line = String::new();
                self.json.format_event(ctx, Writer::new(&mut line), event)?;
                let (trace, id) = (span.trace_id(), span.span_id());
                let fields = line.trim_end().strip_prefix('{').unwrap_or("}");
                let comma = if fields == "}" { "" } else { "," };
                writeln!(writer, r#"{{"trace_id":"{trace}","span_id":"{id}"{comma}{fields}"#)
            }
        }
    }
}
