//! The spans' figures as text: some lines for each phase, and one trace as a tree.

use std::collections::BTreeMap;

use super::{
    example::{SpanRow, Trace},
    figures::{SpanFigures, SpansOverTime},
    record::GREETER,
};

/// Backends whose line over time is shown.
const ROWS_MAX: usize = 12;
/// Columns of a span's name with its indent.
const NAME_COLUMNS: usize = 30;
const COLUMNS_MAX: usize = 120;
/// From nothing to the most of all rows.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Adds them to `out`.
pub(crate) fn print(out: &mut String, of: &SpanFigures) {
    let processes = list(&of.by_process);
    line(out, 2, &format!("{} spans: {processes}", of.received));
    let kinds = &of.attempts;
    let attempts = kinds.first + kinds.retries + kinds.transparent;
    let mut said = format!(
        "{} calls, {attempts} attempts ({} retries, {} transparent)",
        of.calls, kinds.retries, kinds.transparent
    );
    if kinds.envoy_retries > 0 {
        said += &format!(", {} sent again by Envoy", kinds.envoy_retries);
    }
    if of.unsent > 0 {
        said += &format!(", {} calls without an attempt", of.unsent);
    }
    line(out, 4, &format!("{said}; picks: {}", list(&of.picks)));
    if let (Some(p50), Some(max)) = (of.queued.p50_ms, of.queued.max_ms) {
        let count = of.queued.attempts;
        line(out, 4, &format!("{count} waited for a pick: p50 {p50:.1} ms, max {max:.1} ms"));
    }
    for backend in &of.backends {
        if let Some(wait) = backend.first_call_s {
            let name = &backend.backend;
            line(out, 4, &format!("{name} got its first call {wait:.3} s after its publication"));
        }
    }
    print_over_time(out, &of.over_time);
    if let Some(trace) = &of.trace_example {
        print_trace(out, "the call of the median time", trace);
    }
    if let Some(trace) = &of.trace_failed {
        print_trace(out, "a call that failed", trace);
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn print_over_time(out: &mut String, of: &SpansOverTime) {
    let rows = of.rows.iter().map(|row| (row.backend.as_str(), &row.calls));
    let failed = of.fail.iter().any(|count| *count > 0).then_some(("failed", &of.fail));
    let rows: Vec<_> = rows.take(ROWS_MAX).chain(failed).collect();
    let most = rows.iter().flat_map(|(_, counts)| counts.iter()).max().copied().unwrap_or(0);
    if most == 0 {
        return;
    }
    let slot = of.slot_s;
    line(out, 4, &format!("calls that reached each backend, {slot:.1} s a column, █ is {most}"));
    for (name, counts) in rows {
        let level = |count: &u64| {
            // One call is seen, too.
            let level = (count * (LEVELS.len() as u64 - 1)).div_ceil(most);
            LEVELS[usize::try_from(level).unwrap_or(0).min(LEVELS.len() - 1)]
        };
        let bar: String = counts.iter().map(level).collect();
        line(out, 6, &format!("{name:<18}{bar}"));
    }
}

fn print_trace(out: &mut String, what: &str, trace: &Trace) {
    line(out, 4, &format!("{what}, {:.3} ms, is trace {}", trace.wall_ms, trace.trace_id));
    for span in &trace.spans {
        print_span(out, span);
    }
}

fn print_span(out: &mut String, span: &SpanRow) {
    let indent = span.depth * 2;
    let name: String = short(span).chars().take(NAME_COLUMNS.saturating_sub(indent)).collect();
    let name = format!("{}{name}", " ".repeat(indent));
    let (start, wall, process) = (span.start_ms, span.wall_ms, &span.process);
    let mut said = format!("{start:>8.3} {wall:>8.3} ms  {name:<NAME_COLUMNS$} {process:<13}");
    // A code is a word; why there is none is a sentence, below.
    let is_code = !span.status.contains(char::is_lowercase);
    if is_code {
        said += &format!(" {}", span.status);
    }
    // Which of the greeters; clients and Envoys are told apart by where they are in the tree.
    if process == GREETER {
        said += &format!(" at={}", span.instance);
    }
    let (to, others): (Vec<_>, Vec<_>) = span.attributes.iter().partition(|(key, _)| **key == "to");
    for (key, value) in to.into_iter().chain(others) {
        said += &format!(" {key}={value}");
    }
    line(out, 4, &said);
    if !is_code {
        line(out, 4, &format!("{:22}{}· {}", "", " ".repeat(indent + 2), span.status));
    }
    for event in &span.events {
        let name = format!("{}· {}", " ".repeat(indent + 2), event.event);
        line(out, 4, &format!("{:>8.3}              {name}", event.at_ms));
    }
}

/// Our own names without package and service, which are the same in all of them.
fn short(span: &SpanRow) -> String {
    let own = ["Sent", "Attempt", "Recv"];
    match (span.span.split_once('.'), span.span.rsplit_once('.')) {
        (Some((kind, _)), Some((_, method))) if own.contains(&kind) => format!("{kind}.{method}"),
        _ => span.span.clone(),
    }
}

/// One line, as wide as the page.
fn line(out: &mut String, indent: usize, text: &str) {
    let text: String = text.chars().take(COLUMNS_MAX - indent).collect();
    *out += &" ".repeat(indent);
    *out += text.trim_end();
    *out += "\n";
}
