//! The text output: a story that reads top to bottom. What was run, what is a double, who answered
//! how much, what waited for what, and whether each promise holds.

use super::{Distribution, ExampleReport, PhaseReport, RunReport, Timeline};
use crate::{checks::Check, spans};

/// Lines of the original output that are shown.
const LINES_MAX: usize = 8;

/// The whole report.
pub(crate) fn print(run: &RunReport) -> String {
    let mut out = String::new();
    for example in &run.examples {
        print_example(&mut out, example);
    }
    let checks = || run.examples.iter().flat_map(|of| &of.phases).flat_map(|of| &of.checks);
    let failed: Vec<&Check> = checks().filter(|check| !check.holds).collect();
    for example in &run.not_run {
        out += &format!("- {} {} was not run: {}\n", example.number, example.name, example.why);
    }
    let (all, wall_s, cpus) = (checks().count(), run.wall_s, run.cpus);
    if failed.is_empty() {
        out += &format!("√ all {all} checks hold ({wall_s:.1} s on {cpus} processors)\n");
    } else {
        let many = failed.len();
        out += &format!("× {many} of {all} checks failed ({wall_s:.1} s on {cpus} processors):\n");
        for check in failed {
            out += &format!("  × {}: {}\n", check.id, check.seen);
        }
    }
    out
}

fn print_example(out: &mut String, example: &ExampleReport) {
    let head = format!("Example {} {}: {}", example.number, example.name, example.title);
    *out += &format!("{head}\n{}\n\n", "=".repeat(head.chars().count()));
    for line in example
        .phases
        .iter()
        .find(|phase| !phase.lines.is_empty())
        .iter()
        .flat_map(|p| p.lines.iter().take(LINES_MAX))
    {
        *out += &format!("  {line}\n");
    }
    *out += &format!("\n{}\n\n", example.picture);
    *out += &format!("  control plane: {}\n", example.control_plane);
    *out += &format!("  policy: {}\n", example.policy);
    *out += &format!("  real: {}\n", example.real.join(", "));
    for double in example.doubles {
        *out += &format!("  double: {double}\n");
    }
    if !example.phases_not_run.is_empty() {
        *out += &format!("  not run: {}\n", example.phases_not_run.join(", "));
    }
    for check in &example.checks_not_run {
        *out += &format!("  - {} was not run: {}\n", check.id, check.why);
    }
    *out += "\n";
    for phase in &example.phases {
        print_phase(out, phase);
    }
}

fn print_phase(out: &mut String, phase: &PhaseReport) {
    *out += &format!("{}: {}\n", phase.name, phase.what);
    for (key, value) in &phase.greeter_env {
        *out += &format!("  greeter {key}={value}\n");
    }
    // A phase may make its calls itself.
    if phase.client.calls > 0 {
        print_client(out, phase);
    }
    for distribution in &phase.distributions {
        print_distribution(out, distribution);
    }
    for timeline in &phase.timelines {
        print_timeline(out, timeline);
    }
    if let Some(figures) = &phase.spans {
        spans::print(out, figures);
    }
    for check in &phase.checks {
        print_check(out, check);
    }
    *out += "\n";
}

fn print_client(out: &mut String, phase: &PhaseReport) {
    *out += &format!("  client {}\n", phase.client_flags.join(" "));
    let client = &phase.client;
    *out += &format!(
        "  {} calls in {:.1} s, {} failed, {} retried transparently; p50 {} ms, p99 {} ms\n",
        client.calls,
        client.wall_s,
        client.fail,
        client.transparent_retries,
        latency(client.latency_ms.p50),
        latency(client.latency_ms.p99)
    );
    for (code, count) in client.by_code.iter().filter(|(_, count)| **count > 0) {
        *out += &format!("    {code} {count}\n");
    }
}

fn print_distribution(out: &mut String, distribution: &Distribution) {
    *out += &format!(
        "  {:<34} {:>8} {:>8} {:>9} {:>9} {:>9}\n",
        distribution.title, "calls", "share", "p50 ms", "p99 ms", "max ms"
    );
    for row in &distribution.rows {
        *out += &format!(
            "    {:<32} {:>8} {:>6.2} % {:>9} {:>9} {:>9}\n",
            row.backend,
            row.calls,
            row.share * 100.0,
            latency(row.p50_ms),
            latency(row.p99_ms),
            latency(row.max_ms)
        );
    }
}

fn latency(ms: Option<f64>) -> String {
    ms.map_or("-".to_owned(), |ms| format!("{ms:.2}"))
}

fn print_timeline(out: &mut String, timeline: &Timeline) {
    *out += &format!("  {}\n", timeline.title);
    for step in &timeline.steps {
        let at = step.at_s.map_or("not seen".to_owned(), |at| format!("{at:+.3} s"));
        let wait = step.wait_s.map_or(String::new(), |wait| format!("{wait:.3} s"));
        let line = format!("    {at:>10}  {:<22} {wait:>8}  {}", step.event, step.cause);
        *out += line.trim_end();
        *out += "\n";
    }
}

fn print_check(out: &mut String, check: &Check) {
    let mark = if check.holds { "√" } else { "×" };
    *out += &format!("  {mark} {}: {}\n", check.id, check.expected);
    *out += &format!("      seen: {}\n", check.seen);
    *out += &format!("      breaks it: {}\n", check.breaks);
}
