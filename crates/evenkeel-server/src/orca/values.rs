//! One source's values: what may be recorded, and within which limits.

use std::collections::BTreeMap;

/// Names that one recorder takes, of all kinds together. With [`NAME_BYTES_MAX`] it keeps a report
/// within the 8 KiB of metadata that gRPC's clients accept.
pub const NAMES_MAX: usize = 32;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;

/// The values without names, in the order of [`Scalars`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar {
    Cpu,
    Memory,
    Application,
    Qps,
    Eps,
}

/// The number of [`Scalar`]s.
pub(super) const SCALARS: usize = 5;

/// A value for each [`Scalar`] that was recorded.
pub(super) type Scalars = [Option<f64>; SCALARS];

/// The values with names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Utilization,
    RequestCost,
    NamedMetric,
}

/// A source's values by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) utilization: BTreeMap<String, f64>,
    pub(super) request_cost: BTreeMap<String, f64>,
    pub(super) named_metrics: BTreeMap<String, f64>,
}

/// Out of its range, or over a limit: the caller counts it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ignored;

impl Scalar {
    /// Utilisation of CPU and application may be over 1, where it is of a soft limit.
    pub(super) fn check(self, value: f64) -> Result<(), Ignored> {
        let max = match self {
            Self::Memory => 1.0,
            Self::Cpu | Self::Application | Self::Qps | Self::Eps => f64::MAX,
        };
        within(value, 0.0, max)
    }
}

impl Kind {
    fn check(self, value: f64) -> Result<(), Ignored> {
        match self {
            Self::Utilization => within(value, 0.0, 1.0),
            Self::RequestCost => within(value, 0.0, f64::MAX),
            Self::NamedMetric => within(value, f64::MIN, f64::MAX),
        }
    }
}

/// NaN and the infinities are in no range.
fn within(value: f64, min: f64, max: f64) -> Result<(), Ignored> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Ignored) }
}

impl Named {
    /// Records the value, or forgets it for `None`.
    pub(super) fn set(
        &mut self,
        kind: Kind,
        name: &str,
        value: Option<f64>,
    ) -> Result<(), Ignored> {
        let names = self.len();
        let map = match kind {
            Kind::Utilization => &mut self.utilization,
            Kind::RequestCost => &mut self.request_cost,
            Kind::NamedMetric => &mut self.named_metrics,
        };
        let Some(value) = value else {
            map.remove(name);
            return Ok(());
        };
        kind.check(value)?;
        if let Some(known) = map.get_mut(name) {
            *known = value;
            return Ok(());
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX || names >= NAMES_MAX {
            return Err(Ignored);
        }
        map.insert(name.to_owned(), value);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.utilization.len() + self.request_cost.len() + self.named_metrics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Result<(), Ignored> = Ok(());

    #[test]
    fn a_value_outside_its_range_is_ignored() {
        for scalar in [Scalar::Cpu, Scalar::Application, Scalar::Qps, Scalar::Eps, Scalar::Memory] {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.001] {
                assert_eq!(scalar.check(bad), Err(Ignored), "{scalar:?} {bad}");
            }
            assert_eq!(scalar.check(0.0), OK);
            assert_eq!(scalar.check(1.0), OK);
        }
        assert_eq!(Scalar::Memory.check(1.01), Err(Ignored));
        assert_eq!(Scalar::Cpu.check(1.01), OK, "of a soft limit");
        assert_eq!(Scalar::Qps.check(1e9), OK);
        let mut named = Named::default();
        assert_eq!(named.set(Kind::Utilization, "disk", Some(1.01)), Err(Ignored));
        assert_eq!(named.set(Kind::RequestCost, "rows", Some(-1.0)), Err(Ignored));
        assert_eq!(named.set(Kind::NamedMetric, "celsius", Some(-1.0)), OK);
        assert_eq!(named.set(Kind::NamedMetric, "celsius", Some(f64::NAN)), Err(Ignored));
        assert_eq!(named.named_metrics["celsius"], -1.0, "the last good value stays");
    }

    #[test]
    fn names_have_limits_and_can_be_forgotten() {
        let mut named = Named::default();
        for n in 0..NAMES_MAX {
            assert_eq!(named.set(Kind::Utilization, &format!("u{n}"), Some(0.5)), OK);
        }
        assert_eq!(named.set(Kind::RequestCost, "one too many", Some(1.0)), Err(Ignored));
        assert_eq!(named.set(Kind::Utilization, "u0", Some(0.6)), OK, "a known name has a place");
        assert_eq!(named.set(Kind::Utilization, "u0", None), OK);
        for bad in [String::new(), "x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(named.set(Kind::RequestCost, &bad, Some(1.0)), Err(Ignored));
        }
        assert_eq!(named.set(Kind::RequestCost, &"x".repeat(NAME_BYTES_MAX), Some(1.0)), OK);
    }
}
