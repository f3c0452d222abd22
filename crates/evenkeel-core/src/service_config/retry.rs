//! Retry policies and the throttle that keeps them from making an outage worse (gRFC A6).

use serde_json::{Map, Value};

use super::duration;
use crate::{Code, ConfigError, Nanos};

/// More attempts than this are cut to it, as gRFC A6 asks of every client.
pub const ATTEMPTS_MAX: u32 = 5;
/// The backoff is drawn from ± this fraction of itself.
const JITTER: f64 = 0.2;
/// `maxTokens` may be at most this.
const TOKENS_MAX: u64 = 1000;

/// A set of status codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeSet(u32);

impl CodeSet {
    /// Whether a code is in the set; numbers that gRPC does not define never are.
    pub fn contains(self, code: u8) -> bool {
        code <= Code::Unauthenticated as u8 && self.0 & (1 << code) != 0
    }

    fn insert(&mut self, code: Code) {
        self.0 |= 1 << code as u8;
    }
}

/// How a method's failed attempts are repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included: 2 to [`ATTEMPTS_MAX`].
    pub attempts_max: u32,
    /// The wait before the first retry, before jitter.
    pub initial_backoff_ns: Nanos,
    /// The longest wait, before jitter.
    pub max_backoff_ns: Nanos,
    /// Factor from one wait to the next.
    pub backoff_multiplier: f64,
    /// The statuses that are worth a retry.
    pub retryable: CodeSet,
}

impl RetryPolicy {
    pub(super) fn parse(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
        let (field, value) = get(object, "maxAttempts")?;
        let attempts = value.as_u64().filter(|n| *n >= 2);
        let attempts =
            attempts.ok_or_else(|| ConfigError::new(field, "a whole number from 2", value))?;
        let (field, value) = get(object, "backoffMultiplier")?;
        let multiplier = value.as_f64().filter(|m| *m > 0.0 && m.is_finite());
        let backoff_multiplier =
            multiplier.ok_or_else(|| ConfigError::new(field, "a number above 0", value))?;
        let (field, value) = get(object, "retryableStatusCodes")?;
        let codes = value.as_array().filter(|codes| !codes.is_empty());
        let codes = codes.ok_or_else(|| {
            ConfigError::new(field, "a list of codes like [\"UNAVAILABLE\"], not empty", value)
        })?;
        let mut retryable = CodeSet::default();
        for (i, code) in codes.iter().enumerate() {
            retryable.insert(parse_code(&format!("{field}[{i}]"), code)?);
        }
        let wait = |name| get(object, name).and_then(|(f, v)| duration::parse_positive(f, v));
        Ok(Self {
            attempts_max: u32::try_from(attempts).unwrap_or(u32::MAX).min(ATTEMPTS_MAX),
            initial_backoff_ns: wait("initialBackoff")?,
            max_backoff_ns: wait("maxBackoff")?,
            backoff_multiplier,
            retryable,
        })
    }

    /// The wait before retry number `retry` (1 for the first), in nanoseconds. `random` is fresh.
    pub fn wait_ns(&self, retry: u32, random: u64) -> Nanos {
        let exponent = retry.saturating_sub(1).min(ATTEMPTS_MAX) as i32;
        let grown = self.initial_backoff_ns as f64 * self.backoff_multiplier.powi(exponent);
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let spread = 1.0 + JITTER * (2.0 * unit - 1.0);
        (grown.min(self.max_backoff_ns as f64) * spread) as Nanos
    }
}

/// The settings of the throttle, in thousandths of a token: that many decimals count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryThrottling {
    /// The bucket's size.
    pub max_millitokens: u64,
    /// What a success gives back; a failure costs 1,000.
    pub ratio_millitokens: u64,
}

impl RetryThrottling {
    pub(super) fn parse(json: &Value) -> Result<Self, ConfigError> {
        let object = json.as_object().ok_or_else(|| ConfigError::new("", "an object", json))?;
        let (field, value) = get(object, "maxTokens")?;
        let max = value.as_u64().filter(|n| (1..=TOKENS_MAX).contains(n));
        let max = max.ok_or_else(|| {
            ConfigError::new(field, format!("a whole number from 1 to {TOKENS_MAX}"), value)
        })?;
        let (field, value) = get(object, "tokenRatio")?;
        let ratio = value.as_f64().map(|r| (r * 1000.0) as u64).filter(|r| *r > 0);
        let ratio = ratio.ok_or_else(|| ConfigError::new(field, "a number from 0.001", value))?;
        let max_millitokens = max * 1000;
        // A full bucket takes no more, and a sum with it never overflows.
        Ok(Self { max_millitokens, ratio_millitokens: ratio.min(max_millitokens) })
    }
}

fn get<'a>(
    object: &'a Map<String, Value>,
    name: &'static str,
) -> Result<(&'static str, &'a Value), ConfigError> {
    let value = object.get(name);
    value.map(|v| (name, v)).ok_or_else(|| ConfigError {
        field: name.into(),
        expected: "a value".into(),
        got: "none".into(),
    })
}

/// A code's name in any case, or its number.
fn parse_code(field: &str, json: &Value) -> Result<Code, ConfigError> {
    let found = match json {
        Value::String(name) => {
            let wanted = name.to_uppercase();
            Code::ALL.into_iter().find(|code| code.name() == wanted)
        }
        other => {
            let number = other.as_u64();
            Code::ALL.into_iter().find(|code| Some(u64::from(*code as u8)) == number)
        }
    };
    found.ok_or_else(|| ConfigError::new(field, "a status code like \"UNAVAILABLE\" or 14", json))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", "aborted", 8],
        })
    }

    #[test]
    fn reads_a_policy() {
        let policy = RetryPolicy::parse(&good()).unwrap();
        assert_eq!((policy.attempts_max, policy.initial_backoff_ns), (3, 10_000_000));
        let codes: Vec<u8> = (0..=255).filter(|c| policy.retryable.contains(*c)).collect();
        assert_eq!(codes, [8, 10, 14]);
        let mut many = good();
        many["maxAttempts"] = 100.into();
        assert_eq!(RetryPolicy::parse(&many).unwrap().attempts_max, ATTEMPTS_MAX);
    }

    #[test]
    fn refuses_each_bad_value_by_its_field() {
        let cases = [
            ("maxAttempts", json!(1), "a whole number from 2, got 1"),
            ("maxAttempts", json!("3"), "a whole number from 2, got \"3\""),
            ("initialBackoff", json!("0s"), "more than 0, got \"0s\""),
            ("maxBackoff", json!(1), "seconds with an s"),
            ("backoffMultiplier", json!(0), "a number above 0, got 0"),
            ("retryableStatusCodes", json!([]), "a list of codes"),
            ("retryableStatusCodes[1]", json!(["OK", "NO"]), "a status code like"),
            ("retryableStatusCodes[0]", json!([17]), "a status code like"),
        ];
        for (field, value, expected) in cases {
            let mut bad = good();
            bad[field.split('[').next().unwrap()] = value.clone();
            let error = RetryPolicy::parse(&bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: expected {expected}")), "{error}");
            bad.as_object_mut().unwrap().remove(field.split('[').next().unwrap());
            assert!(RetryPolicy::parse(&bad).unwrap_err().to_string().contains("got none"));
        }
    }

    #[test]
    fn waits_grow_to_the_maximum_with_a_fifth_of_jitter() {
        let policy = RetryPolicy::parse(&good()).unwrap();
        let middle = 1_u64 << 63;
        let waits: Vec<Nanos> = (1..=6).map(|n| policy.wait_ns(n, middle)).collect();
        let ms = 1_000_000;
        assert_eq!(waits, [10 * ms, 20 * ms, 40 * ms, 80 * ms, 100 * ms, 100 * ms]);
        assert_eq!(policy.wait_ns(1, 0), 8 * ms);
        assert!((11_999_990..=12 * ms).contains(&policy.wait_ns(1, u64::MAX)));
    }

    #[test]
    fn reads_a_throttle() {
        let read = |max, ratio| {
            RetryThrottling::parse(&json!({ "maxTokens": max, "tokenRatio": ratio }))
                .map_err(|e| e.to_string())
        };
        let want = RetryThrottling { max_millitokens: 10_000, ratio_millitokens: 123 };
        assert_eq!(read(json!(10), json!(0.1239)), Ok(want));
        let full = RetryThrottling { max_millitokens: 10_000, ratio_millitokens: 10_000 };
        assert_eq!(read(json!(10), json!(1e300)), Ok(full), "a bucket takes no more");
        assert!(read(json!(0), json!(1)).unwrap_err().starts_with("maxTokens: expected a whole"));
        assert!(read(json!(1001), json!(1)).unwrap_err().contains("from 1 to 1000"));
        assert!(read(json!(10), json!(0.0001)).unwrap_err().starts_with("tokenRatio"));
    }
}
