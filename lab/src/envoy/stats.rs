//! Envoy's own counters and gauges, by name.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What one Envoy counts, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    values: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Document {
    stats: Vec<Row>,
}

/// Histograms and texts have no number under `value`; they are no counters.
#[derive(Deserialize)]
struct Row {
    name: Option<String>,
    value: Option<serde_json::Value>,
}

impl Stats {
    /// Reads the answer to `/stats?format=json`.
    ///
    /// # Errors
    ///
    /// When it is not such a document.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_str(text)?;
        let numbers = document.stats.into_iter().filter_map(|row| {
            let value = row.value?.as_u64()?;
            Some((row.name?, value))
        });
        Ok(Self { values: numbers.collect() })
    }

    /// The value of `name`, if Envoy has it: most counters exist from the start, those of a cluster
    /// or listener as long as it does.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }

    /// The names that have a `.suffix`, without it.
    pub(crate) fn owners(&self, suffix: &str) -> impl Iterator<Item = &str> {
        self.values.keys().filter_map(move |name| name.strip_suffix(suffix)?.strip_suffix('.'))
    }

    /// The sum of all whose name ends with `.suffix`.
    pub(crate) fn sum(&self, suffix: &str) -> u64 {
        let of = |owner| self.values.get(&format!("{owner}.{suffix}"));
        self.owners(suffix).filter_map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"stats": [
        {"name": "cluster.greeter.upstream_rq_total", "value": 7},
        {"name": "cluster.greeter.update_rejected", "value": 1},
        {"name": "listener_manager.lds.update_rejected", "value": 2},
        {"name": "not_update_rejected", "value": 64},
        {"name": "version_text", "value": "7.1"},
        {"histograms": {"supported_quantiles": [0.0, 50.0]}}
    ]}"#;

    #[test]
    fn numbers_are_found_by_name_and_summed_by_their_last_words() {
        let stats = Stats::parse(TEXT).unwrap();
        assert_eq!(stats.get("cluster.greeter.upstream_rq_total"), Some(7));
        assert_eq!(stats.get("cluster.other.upstream_rq_total"), None);
        assert_eq!(stats.get("version_text"), None);
        assert_eq!(stats.sum("update_rejected"), 3);
        let owners: Vec<&str> = stats.owners("update_rejected").collect();
        assert_eq!(owners, ["cluster.greeter", "listener_manager.lds"]);
        assert_eq!(stats.sum("no_such_counter"), 0);
    }

    #[test]
    fn another_document_is_refused() {
        Stats::parse(r#"{"counters": []}"#).expect_err("no stats");
        Stats::parse("LIVE").expect_err("no JSON");
    }
}
