//! The report as a person reads it: a line per backend, then what failed and why.

use std::fmt::{self, Write as _};

use crate::report::Report;

/// Writes the final table.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a String takes everything");
    text
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let names = report.by_backend.keys().map(|name| name.chars().count());
    let width = names.chain(["backend".len()]).max().unwrap_or_default();
    writeln!(
        out,
        "{:<width$} {:>9} {:>8} {:>12} {:>12} {:>12}",
        "backend", "calls", "share", "p50", "p99", "max"
    )?;
    for (name, backend) in &report.by_backend {
        let share = format!("{:.1} %", backend.share * 100.0);
        let latency = [backend.p50_ms, backend.p99_ms, backend.max_ms];
        row(out, name, width, backend.calls, &share, latency)?;
    }
    let latency = &report.latency_ms;
    row(out, "all", width, report.ok, "", [latency.p50, latency.p99, latency.max])?;
    write!(out, "failed {}", report.fail)?;
    for (index, (code, n)) in report.by_code.iter().enumerate() {
        write!(out, "{}{code} {n}", if index == 0 { ": " } else { ", " })?;
    }
    writeln!(out)?;
    if report.shed > 0 {
        let shed = report.shed;
        writeln!(out, "shed {shed}: too many calls in flight, see --concurrency")?;
    }
    writeln!(out, "{:.1} calls/s over {} s", report.rate, report.wall_s)
}

fn row(
    out: &mut String,
    name: &str,
    width: usize,
    calls: u64,
    share: &str,
    latency_ms: [Option<f64>; 3],
) -> fmt::Result {
    write!(out, "{name:<width$} {calls:>9} {share:>8}")?;
    for ms in latency_ms {
        let cell = ms.map_or("-".into(), |ms| format!("{ms:.3} ms"));
        write!(out, " {cell:>12}")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::*;
    use crate::{
        events::EventLog,
        load::{Outcome, Sample},
        tally::{Epoch, Tally},
    };

    fn report(results: Vec<Result<String, Status>>, shed: u64) -> Report {
        let mut tally = Tally::new(Epoch::now(), None);
        let intended = tally.epoch.begin;
        for (k, result) in (1..).zip(results) {
            // Below 256 µs quantiles are exact.
            let done = intended + Duration::from_micros(50 * k);
            tally.add(Sample { intended, done, result });
        }
        let outcome = Outcome { started: tally.calls(), shed, wall: Duration::from_secs(2) };
        Report::new("x", "y", tally, &outcome, &EventLog::counting(), 0.0)
    }

    #[test]
    fn shows_each_backend_and_every_code() {
        let results = vec![
            Ok("127.0.0.2".into()),
            Ok("127.0.0.3".into()),
            Ok("127.0.0.2".into()),
            Err(Status::unavailable("gone")),
            Err(Status::deadline_exceeded("late")),
        ];
        let want = "\
backend       calls    share          p50          p99          max
127.0.0.2         2   66.7 %     0.150 ms     0.150 ms     0.150 ms
127.0.0.3         1   33.3 %     0.100 ms     0.100 ms     0.100 ms
all               3              0.100 ms     0.150 ms     0.150 ms
failed 2: DEADLINE_EXCEEDED 1, UNAVAILABLE 1
shed 7: too many calls in flight, see --concurrency
2.5 calls/s over 2 s
";
        assert_eq!(render(&report(results, 7)), want);
    }

    #[test]
    fn a_run_without_answers_has_no_latency() {
        let text = render(&report(vec![], 0));
        assert!(text.contains("all             0"), "{text}");
        assert!(text.contains("failed 0\n"), "{text}");
    }
}
