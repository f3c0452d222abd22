//! Metrics: what the dashboard and the alerts ask for, against what the programs have, and the
//! alerts against their runbooks. Prometheus answers a question for a metric that does not exist
//! with nothing, and an alert on nothing never fires.

use std::collections::BTreeSet;

use super::Project;
use crate::Finding;

const TABLE: &str = "crates/evenkeel-telemetry/src/metrics/instruments.rs";
const ALERTS: &str = "docs/observability/alerts.yaml";
const DASHBOARD: &str = "docs/observability/dashboard.json";
const RUNBOOKS: &str = "docs/observability/README.md";
/// Where metrics are named as Prometheus has them.
const WRITTEN: [&str; 2] = ["crates/evenkeel-control/src/", "services/grpclb/src/"];
/// What names of ours begin with.
const OURS: [&str; 2] = ["grpc_", "evenkeel_"];
/// What labels begin with as well.
const LABELS: [&str; 3] = ["grpc_method", "grpc_status", "grpc_target"];

/// The rule.
pub(super) fn metrics(project: &Project<'_>, out: &mut Vec<Finding>) -> Result<(), String> {
    let known = known(project)?;
    let alerts = project.text(ALERTS)?;
    for (path, text) in [(ALERTS, alerts), (DASHBOARD, project.text(DASHBOARD)?)] {
        let named: BTreeSet<&str> = words(text).filter(|word| is_metric(word)).collect();
        if named.is_empty() {
            let message = "expected names of metrics, found none".to_owned();
            out.push(Finding::new(path, 0, "metrics", message));
        }
        for name in named.into_iter().filter(|name| !known.contains(*name)) {
            let message = format!("no program has a metric {name}; {TABLE} has those there are");
            out.push(Finding::new(path, 0, "metrics", message));
        }
    }
    let page = project.text(RUNBOOKS)?;
    let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
    let runbooks: BTreeSet<&str> = sections.collect();
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let link = format!("{RUNBOOKS}#{}", name.to_lowercase());
        if !runbooks.contains(name) || !alerts.contains(&link) {
            let message = format!("expected a section `## {name}` and the alert's link {link}");
            out.push(Finding::new(RUNBOOKS, 0, "metrics", message));
        }
    }
    Ok(())
}

/// All names that a page for Prometheus can have.
fn known(project: &Project<'_>) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    for line in project.text(TABLE)?.lines() {
        let Some((head, rest)) = line.trim().split_once(" \"") else { continue };
        let Some((_, kind)) = head.split_once(": ") else { continue };
        let mut parts = rest.split('"');
        let (Some(name), Some(unit)) = (parts.next(), parts.nth(1)) else { continue };
        names.extend(series(name, kind, unit));
    }
    let sources = project.tree.sources();
    for (_, source) in sources.filter(|(path, _)| WRITTEN.iter().any(|at| path.starts_with(at))) {
        for (_, line) in source.production() {
            let words = words(&line.raw).filter(|word| word.starts_with("evenkeel_"));
            names.extend(words.map(str::to_owned));
        }
    }
    if names.is_empty() {
        return Err(format!("{TABLE}: expected lines `NAME: Kind \"name\" \"unit\"`"));
    }
    Ok(names)
}

/// One metric's names, as OpenTelemetry's specification makes them for Prometheus.
fn series(name: &str, kind: &str, unit: &str) -> Vec<String> {
    let unit = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    let base = format!("{}{unit}", name.replace('.', "_"));
    match kind {
        "Counter" => vec![format!("{base}_total")],
        "Histogram" => ["bucket", "count", "sum"].map(|part| format!("{base}_{part}")).into(),
        _ => vec![base],
    }
}

fn is_metric(word: &str) -> bool {
    OURS.iter().any(|begins| word.starts_with(begins)) && !LABELS.contains(&word)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
}
