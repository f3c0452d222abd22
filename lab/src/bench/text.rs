//! The measurement as text: what was compared, what each cost, and whether the aim is met.

use super::{
    report::{BenchReport, Figures, LoadReport, Part},
    statistics::Spread,
};

/// The whole report.
pub(crate) fn print(report: &BenchReport) -> String {
    let mut out = String::new();
    let head = "What each way to balance costs";
    out += &format!("{head}\n{}\n\n", "=".repeat(head.len()));
    for way in &report.ways {
        out += &format!("  {:<8} {}\n", way.name, way.what);
    }
    for not_run in &report.not_run {
        out += &format!("  {:<8} not run: {}\n", not_run.name, not_run.why);
    }
    let envoy = report.envoy.as_ref().map_or_else(String::new, |of| format!(", Envoy {of}"));
    out += &format!(
        "\n  {} rounds in turn, {} processors{envoy}; medians, and in parentheses the least and \
         the greatest\n  round, between which the true median lies with {:.1} %\n",
        report.rounds,
        report.cpus,
        report.confidence * 100.0
    );
    if report.debug_build {
        out +=
            "  this is a debug build: its figures say nothing about the programs; use --release\n";
    }
    out += "\nmost calls a second, closed loop\n";
    for way in &report.ways {
        let most = spread(way.calls_per_s_max, 0);
        out += &format!("  {:<8} {most}\n", way.name);
    }
    for load in &report.loads {
        print_load(&mut out, load);
    }
    out += if report.holds {
        "√ every call was answered\n"
    } else {
        "× calls failed or were shed: the figures above are of no worth\n"
    };
    for load in &report.loads {
        for figures in &load.ways {
            print_failures(&mut out, load, figures);
        }
    }
    out
}

fn print_load(out: &mut String, load: &LoadReport) {
    let title = format!("{} calls a second, {}", rounded(load.calls_per_s), load.why);
    *out += &format!("\n{title}\n{}\n", "-".repeat(title.chars().count()));
    let columns = ["p50 ms", "p99 ms", "p50 beyond direct", "p99 beyond direct"];
    let [p50, p99, more_p50, more_p99] = columns;
    *out += &format!("  {:<8} {p50:<24} {p99:<26} {more_p50:<26} {more_p99}\n", "");
    for figures in &load.ways {
        let row = format!(
            "  {:<8} {:<24} {:<26} {:<26} {}",
            figures.way,
            spread(figures.p50_ms, 3),
            spread(figures.p99_ms, 3),
            signed(figures.added_p50_ms),
            signed(figures.added_p99_ms)
        );
        *out += row.trim_end();
        *out += "\n";
    }
    *out += &format!(
        "\n  {:<8} {:<18} {:<26} {}\n",
        "", "process", "CPU ms per 1,000 calls", "resident MiB"
    );
    for figures in &load.ways {
        for (role, of) in &figures.processes {
            let name =
                if of.count == 1 { (*role).to_owned() } else { format!("{} {role}", of.count) };
            let (cpu, rss) = (spread(of.cpu_ms_per_1000_calls, 1), spread(of.rss_mib, 1));
            *out += &format!("  {:<8} {name:<18} {cpu:<26} {rss}\n", figures.way);
        }
    }
    if !load.parts.is_empty() {
        *out += "\n  what our channel adds to the floor, over what a proxy adds to it\n";
    }
    for part in &load.parts {
        print_part(out, part);
    }
    *out += "\n";
}

fn print_part(out: &mut String, part: &Part) {
    let Part { of, figure, unit, .. } = part;
    let verdict = if part.met { "met" } else { "NOT MET" };
    let median =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |of| format!("{:.3}", of.median));
    *out += &format!(
        "  {of:<8} {figure:<4} {} / {} {unit} = {}, aim <= {:.2}: {verdict}\n",
        median(part.ours),
        median(part.theirs),
        spread(part.part, 3),
        part.part_max
    );
}

fn print_failures(out: &mut String, load: &LoadReport, figures: &Figures) {
    for (round, slice) in figures.slices.iter().enumerate().filter(|(_, slice)| !slice.is_clean()) {
        let seen = &slice.seen;
        let first = seen.errors.keys().next().map_or("no message", String::as_str);
        *out += &format!(
            "  {} at {} calls/s, round {}: {} answered, {} failed, {} shed; {first}\n",
            figures.way,
            rounded(load.calls_per_s),
            round + 1,
            seen.ok,
            seen.failed,
            seen.shed
        );
    }
}

/// A whole number with commas.
fn rounded(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn spread(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("-".to_owned(), |Spread { median, least, greatest }| {
        format!("{median:.decimals$} ({least:.decimals$} to {greatest:.decimals$})")
    })
}

fn signed(spread: Option<Spread>) -> String {
    spread.map_or(String::new(), |Spread { median, least, greatest }| {
        format!("{median:+.3} ({least:+.3} to {greatest:+.3})")
    })
}
