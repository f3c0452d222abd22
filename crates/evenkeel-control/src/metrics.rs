//! Prometheus's text format (0.0.4), written by hand: a registry would keep a second copy of counts
//! that are here already, and a scrape is rare.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One metric with its samples.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What it says.
    pub help: String,
    /// Values, each with the names and values of its labels.
    pub samples: Vec<(Vec<(String, String)>, f64)>,
}

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub struct Page {
    metrics: Vec<Metric>,
}

impl Page {
    /// Adds one metric with its samples; the labels of a sample are names and values.
    ///
    /// Names have to be valid: they are ours. Values may be anything.
    pub fn metric<'a, L: AsRef<[(&'a str, &'a str)]>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels = |labels: L| labels.as_ref().iter().map(owned).collect();
        let samples = samples.into_iter().map(|(of, value)| (labels(of), value)).collect();
        let (name, help) = (name.to_owned(), help.to_owned());
        self.metrics.push(Metric { kind, name, help, samples });
    }

    /// The metrics, for who sends them in another form.
    #[must_use]
    pub fn into_metrics(self) -> Vec<Metric> {
        self.metrics
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut text = String::new();
        self.metrics.iter().for_each(|metric| metric.write(&mut text));
        text
    }
}

impl Metric {
    fn write(&self, text: &mut String) {
        let Self { kind, name, help, samples } = self;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            text.push_str(name);
            for (index, (label, value)) in labels.iter().enumerate() {
                let before = if index == 0 { '{' } else { ',' };
                let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
                let _ = write!(text, r#"{before}{label}="{value}""#);
            }
            let end = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{end} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        let samples = [(vec![("a", "x\"y\\z\nw"), ("b", "")], 2.0), (vec![], 0.5)];
        page.metric(Kind::Counter, "n_total", "One\nline \\ of it.", samples);
        page.metric(Kind::Gauge, "g", "None.", Vec::<(Vec<(&str, &str)>, f64)>::new());
        let expected = "# HELP n_total One\\nline \\\\ of it.\n# TYPE n_total counter\n\
                        n_total{a=\"x\\\"y\\\\z\\nw\",b=\"\"} 2\nn_total 0.5\n\
                        # HELP g None.\n# TYPE g gauge\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn large_counts_are_exact() {
        let mut page = Page::default();
        page.metric(Kind::Counter, "n", "N.", [([], 9_007_199_254_740_991.0)]);
        assert!(page.into_text().ends_with("n 9007199254740991\n"));
    }
}
