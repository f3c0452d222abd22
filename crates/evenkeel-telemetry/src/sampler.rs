//! Which calls are traced, by the names of `OTEL_TRACES_SAMPLER`. The decision is made once, where
//! a trace begins, and everybody else heeds it: a trace with parts missing tells nothing.

use opentelemetry::trace::{SpanContext, TraceId};

/// The names that [`Sampler::parse`] knows.
const NAMES: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
                     parentbased_always_off, parentbased_traceidratio";

/// Decides for each span whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    root: Root,
    heeds_parent: bool,
}

/// What becomes of a span without a parent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    On,
    Off,
    /// This share of them, 0 to 1.
    Ratio(f64),
}

impl Default for Sampler {
    /// `parentbased_always_on`, OpenTelemetry's default.
    fn default() -> Self {
        Self { root: Root::On, heeds_parent: true }
    }
}

impl Sampler {
    /// Everything that nobody decided against: `parentbased_traceidratio` with this share, 0 to 1.
    #[must_use]
    pub fn ratio(share: f64) -> Self {
        Self { root: Root::Ratio(share.clamp(0.0, 1.0)), heeds_parent: true }
    }

    /// Reads a sampler's name and its argument, which only ratios have.
    ///
    /// # Errors
    ///
    /// What was expected, and what came.
    pub(crate) fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let (heeds_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::Ratio(share(argument.unwrap_or("1"))?),
            _ => return Err(format!("OTEL_TRACES_SAMPLER: expected one of {NAMES}; got {name:?}")),
        };
        Ok(Self { root, heeds_parent })
    }

    /// Whether a span of this trace, with this parent if any, is recorded.
    pub(crate) fn samples(&self, trace: TraceId, parent: Option<&SpanContext>) -> bool {
        if let Some(parent) = parent.filter(|_| self.heeds_parent) {
            return parent.is_sampled();
        }
        match self.root {
            Root::On => true,
            Root::Off => false,
            // By the id, so that all who are asked about one trace answer alike.
            Root::Ratio(share) => fraction(trace) < share,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| {
        format!("OTEL_TRACES_SAMPLER_ARG: expected a share from 0 to 1, such as 0.01; got {text:?}")
    })
}

/// A number from 0 to below 1 that the id's last 8 bytes make. They are the random ones (W3C Trace
/// Context, "Considerations for trace-id").
fn fraction(trace: TraceId) -> f64 {
    const BITS: u32 = 53; // as many as an f64 holds exactly
    let low = u128::from_be_bytes(trace.to_bytes()) as u64;
    (low >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceState};

    use super::*;

    fn parent(is_sampled: bool) -> SpanContext {
        let flags = TraceFlags::NOT_SAMPLED.with_sampled(is_sampled);
        let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
        SpanContext::new(trace, span, flags, true, TraceState::NONE)
    }

    fn trace(low: u64) -> TraceId {
        TraceId::from_bytes(((7_u128 << 64) | u128::from(low)).to_be_bytes())
    }

    #[test]
    fn a_parents_decision_counts_where_the_name_says_so() {
        let (yes, no) = (parent(true), parent(false));
        for (name, without, with_yes, with_no) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
        ] {
            let sampler = Sampler::parse(name, None).expect(name);
            let got = [None, Some(&yes), Some(&no)].map(|p| sampler.samples(trace(1), p));
            assert_eq!(got, [without, with_yes, with_no], "{name}");
        }
        assert_eq!(Sampler::parse("parentbased_always_on", None), Ok(Sampler::default()));
    }

    #[test]
    fn a_ratio_is_the_share_of_ids_that_lie_below_it() {
        let sampler = Sampler::parse("traceidratio", Some("0.25")).expect("good");
        assert!(sampler.samples(trace(0), None));
        assert!(sampler.samples(trace((1 << 62) - 1), None));
        assert!(!sampler.samples(trace(1 << 62), None));
        let all = Sampler::parse("traceidratio", None).expect("good");
        assert!(all.samples(trace(u64::MAX), None));
        let none = Sampler::ratio(0.0);
        assert!(!none.samples(trace(0), None));
    }

    #[test]
    fn other_names_and_shares_are_refused_with_what_is_expected() {
        let error = Sampler::parse("sometimes", None).expect_err("no sampler");
        assert!(error.contains("parentbased_traceidratio; got \"sometimes\""), "{error}");
        for text in ["-0.1", "1.1", "10%", "", "NaN"] {
            let error = Sampler::parse("traceidratio", Some(text)).expect_err(text);
            assert!(error.contains("from 0 to 1") && error.contains(text), "{error}");
        }
    }
}
