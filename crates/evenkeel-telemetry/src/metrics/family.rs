//! All metrics at one moment, in a form that both ways out share: OTLP and the page for Prometheus.

use std::borrow::Cow;

use super::{
    cells::Distribution,
    instruments::{INSTRUMENTS, Instrument, Kind},
};

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// One metric and its values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Family {
    /// Its name.
    pub name: Cow<'static, str>,
    /// How its values behave.
    pub kind: Kind,
    /// Its unit, as UCUM writes it.
    pub unit: Cow<'static, str>,
    /// What it says.
    pub description: Cow<'static, str>,
    /// Its values, each with other labels.
    pub points: Vec<Point>,
}

impl Family {
    /// A metric without values.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        unit: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (name, unit, description) = (name.into(), unit.into(), description.into());
        Self { name, kind, unit, description, points: Vec::new() }
    }

    /// Adds a value with its labels.
    pub fn add(
        &mut self,
        labels: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        value: Value,
    ) {
        let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.points.push(Point { labels, value });
    }
}

/// One value of a metric.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Point {
    /// Names and values of labels.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number.
    Whole(i64),
    /// Any number.
    Number(f64),
    /// A histogram's.
    Distribution(Distribution),
}

/// The metrics of [`INSTRUMENTS`] as they are gathered.
pub(super) struct Families(Vec<Family>);

impl Families {
    pub(super) fn new() -> Self {
        let family =
            |known: &Instrument| Family::new(known.name, known.kind, known.unit, known.description);
        Self(INSTRUMENTS.iter().map(family).collect())
    }

    pub(super) fn count(&mut self, of: &Instrument, labels: Labels<'_>, count: u64) {
        self.add(of, labels, Value::Whole(i64::try_from(count).unwrap_or(i64::MAX)));
    }

    pub(super) fn level(&mut self, of: &Instrument, labels: Labels<'_>, level: i64) {
        self.add(of, labels, Value::Whole(level));
    }

    pub(super) fn distribution(&mut self, of: &Instrument, labels: Labels<'_>, seen: Distribution) {
        self.add(of, labels, Value::Distribution(seen));
    }

    fn add(&mut self, of: &Instrument, labels: Labels<'_>, value: Value) {
        if let Some(family) = self.0.iter_mut().find(|family| family.name == of.name) {
            family.add(labels.iter().copied(), value);
        }
    }

    /// Those that have values.
    pub(super) fn into_families(self) -> Vec<Family> {
        self.0.into_iter().filter(|family| !family.points.is_empty()).collect()
    }
}
