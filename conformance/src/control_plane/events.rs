//! Lines on standard output, in the form of `peer xds`: one JSON object each, with `event` and `t`.

use std::{collections::BTreeMap, io::Write, time::Instant};

use evenkeel_control::{metrics::Page, xds::Xds};
use serde_json::{Map, Value, json};

/// The most clients that are looked at.
const CLIENTS_MAX: usize = 1_000;

/// What has been said of a client's kind of resources.
type Said = BTreeMap<(u64, &'static str), (u64, u64)>;

/// See the module's head.
pub(super) struct Events<W> {
    out: W,
    start: Instant,
    verbose: bool,
    said: Said,
}

impl<W: Write> Events<W> {
    pub(super) fn new(out: W, verbose: bool) -> Self {
        Self { out, start: Instant::now(), verbose, said: Said::new() }
    }

    pub(super) fn say(&mut self, event: &str, fields: Value) {
        let t = (self.start.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        let mut line = json!({"event": event, "t": t});
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
            line.extend(fields);
        }
        // Whoever does not read any more does not need it.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// Says what clients have refused since the last look, and what they were sent.
    pub(super) fn look(&mut self, xds: &Xds) {
        let (clients, _) = xds.clients(CLIENTS_MAX);
        let before = std::mem::take(&mut self.said);
        let mut said = Said::new();
        for client in clients {
            for kind in client.kinds {
                let key = (client.id, kind.kind);
                let (responses, nacks) = before.get(&key).copied().unwrap_or_default();
                said.insert(key, (kind.responses, kind.nacks));
                let name = short(kind.kind);
                if kind.nacks > nacks {
                    let error = &kind.last_nack;
                    let fields = json!({"stream": client.id, "type": name, "error": error});
                    self.say("nack", fields);
                }
                if self.verbose && kind.responses > responses {
                    let fields = json!({"stream": client.id, "type": name, "version": kind.sent,
                        "names": kind.names, "node": client.node, "view": client.view});
                    self.say("response", fields);
                }
            }
        }
        self.said = said;
    }

    /// Says how many responses were sent, accepted and refused, by type.
    pub(super) fn exit(&mut self, xds: &Xds) {
        let mut page = Page::default();
        xds.write_metrics(&mut page);
        let text = page.into_text();
        let of = |what: &str| by_type(&text, &format!("evenkeel_balancer_xds_{what}_total"));
        let (sent, acks, nacks) = (of("responses"), of("acks"), of("nacks"));
        self.say("exit", json!({"sent": sent, "acks": acks, "nacks": nacks}));
    }
}

/// A counter's samples, summed by the label `type`; those that are 0 are left out.
fn by_type(page: &str, metric: &str) -> Map<String, Value> {
    let mut sums = BTreeMap::<&str, u64>::new();
    for line in page.lines() {
        let Some((labels, value)) = line
            .strip_prefix(metric)
            .and_then(|rest| rest.strip_prefix('{'))
            .and_then(|rest| rest.split_once("} "))
        else {
            continue;
        };
        let kind = labels.split("type=\"").nth(1).and_then(|rest| rest.split('"').next());
        if let (Some(kind), Ok(count)) = (kind, value.parse::<f64>()) {
            *sums.entry(short(kind)).or_default() += count as u64;
        }
    }
    sums.into_iter()
        .filter(|(_, sum)| *sum > 0)
        .map(|(kind, sum)| (kind.to_owned(), sum.into()))
        .collect()
}

/// The type's last name, as `peer xds` says it.
fn short(kind: &str) -> &str {
    match kind {
        "CDS" => "Cluster",
        "EDS" => "ClusterLoadAssignment",
        "LDS" => "Listener",
        "RDS" => "RouteConfiguration",
        "SDS" => "Secret",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_by_type_and_zeros_are_left_out() {
        let page = "# HELP n_total x\nn_total{type=\"CDS\",variant=\"delta\"} 2\n\
                    n_total{type=\"CDS\",variant=\"state_of_the_world\"} 3\n\
                    n_total{type=\"EDS\",variant=\"delta\"} 0\nm_total{type=\"LDS\"} 9\n";
        assert_eq!(Value::Object(by_type(page, "n_total")), json!({"Cluster": 5}));
    }

    #[test]
    fn a_line_is_an_object_with_event_and_time() {
        let mut written = Vec::new();
        Events::new(&mut written, false).say("hup", json!({"version": 2}));
        let line: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!((&line["event"], &line["version"]), (&json!("hup"), &json!(2)));
        assert!(line["t"].is_number());
    }
}
