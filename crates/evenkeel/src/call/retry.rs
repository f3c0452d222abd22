//! Retries by policy (gRFC A6): whether a failed attempt is worth another, when, and the throttle
//! that stops retries while most calls of the channel fail. Retries of what the server never saw
//! are another matter, and need no policy: see `failure`.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    ServiceConfig,
    service_config::{MethodConfig, MethodConfigs, RetryThrottling},
};
use http::{HeaderMap, HeaderName};

use crate::sync::atomic::{AtomicU64, Ordering};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const FAILURE_MILLITOKENS: u64 = 1_000;

/// What calls need of the service config.
#[derive(Default)]
pub(crate) struct CallConfig {
    methods: MethodConfigs,
    throttle: Option<Arc<Throttle>>,
}

impl CallConfig {
    pub(crate) fn new(config: &ServiceConfig) -> Self {
        let throttle = config.retry_throttling.map(|t| Arc::new(Throttle::new(t)));
        Self { methods: config.methods.clone(), throttle }
    }

    /// The settings for a call's path.
    pub(crate) fn method(&self, path: &str) -> Option<&MethodConfig> {
        self.methods.of(path)
    }

    /// How many entries the service config has for methods.
    pub(crate) fn methods_len(&self) -> usize {
        self.methods.len()
    }

    /// The throttle, if there is one.
    pub(crate) fn throttle(&self) -> Option<&Arc<Throttle>> {
        self.throttle.as_ref()
    }
}

/// A bucket of tokens: failures take one, successes give a part of one back, and retries need it to
/// be more than half full.
pub(crate) struct Throttle {
    settings: RetryThrottling,
    millitokens: AtomicU64,
}

impl Throttle {
    fn new(settings: RetryThrottling) -> Self {
        Self { settings, millitokens: AtomicU64::new(settings.max_millitokens) }
    }

    /// Its settings, and the thousandths of tokens that are left.
    pub(crate) fn level(&self) -> (RetryThrottling, u64) {
        (self.settings, self.millitokens.load(Ordering::Relaxed))
    }

    /// A call succeeded.
    pub(crate) fn success(&self) {
        let RetryThrottling { max_millitokens, ratio_millitokens } = self.settings;
        let more = |n: u64| Some((n + ratio_millitokens).min(max_millitokens));
        let _ = self.millitokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// An attempt failed. True when it may be repeated.
    fn failure(&self) -> bool {
        let less = |n: u64| Some(n.saturating_sub(FAILURE_MILLITOKENS));
        let before = self.millitokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let left = before.unwrap_or_default().saturating_sub(FAILURE_MILLITOKENS);
        left > self.settings.max_millitokens / 2
    }
}

/// What the server says about a retry in its trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Nothing.
    None,
    /// Not before this.
    After(Duration),
    /// Never: a negative number, or one that can't be read.
    Never,
}

impl Pushback {
    pub(crate) fn of(trailers: &HeaderMap) -> Self {
        let Some(value) = trailers.get(PUSHBACK) else { return Self::None };
        match value.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
            Some(ms) => Self::After(Duration::from_millis(ms.into())),
            None => Self::Never,
        }
    }
}

/// The retries of one call so far.
#[derive(Default)]
pub(crate) struct Retries {
    /// Attempts before the present one that the server may have seen.
    pub(crate) count: u32,
    /// Those since the server last said when.
    since_pushback: u32,
    /// Whom to tell of a success.
    pub(crate) throttle: Option<Arc<Throttle>>,
    /// The throttle alone kept the latest failure from being repeated.
    pub(crate) is_throttled: bool,
}

impl Retries {
    /// The wait before the next attempt, if the one that ended with status `code` is to be
    /// repeated. Each failure must be told once: the throttle counts it.
    pub(crate) fn next(
        &mut self,
        config: &CallConfig,
        path: &str,
        code: u8,
        pushback: Pushback,
        random: u64,
    ) -> Option<Duration> {
        let policy = config.method(path)?.retry_policy.as_ref()?;
        if !policy.retryable.contains(code) && pushback != Pushback::Never {
            return None;
        }
        let is_throttled = config.throttle.as_ref().is_some_and(|throttle| !throttle.failure());
        if self.count + 1 >= policy.attempts_max {
            return None;
        }
        if is_throttled {
            self.is_throttled = pushback != Pushback::Never;
            return None;
        }
        let wait = match pushback {
            Pushback::Never => return None,
            Pushback::After(wait) => {
                self.since_pushback = 0;
                wait
            }
            Pushback::None => {
                self.since_pushback += 1;
                Duration::from_nanos(policy.wait_ns(self.since_pushback, random))
            }
        };
        self.count += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::PolicyRegistry;

    use super::*;

    const UNAVAILABLE: u8 = 14;

    fn config(extra: &str) -> CallConfig {
        let json = format!(
            r#"{{"methodConfig":[{{"name":[{{"service":"s"}}],"retryPolicy":{{"maxAttempts":4,
            "initialBackoff":"1s","maxBackoff":"3s","backoffMultiplier":2,
            "retryableStatusCodes":["UNAVAILABLE"]}}}}]{extra}}}"#
        );
        CallConfig::new(&ServiceConfig::parse(&json, &PolicyRegistry::default()).unwrap())
    }

    fn waits(config: &CallConfig, pushbacks: &[Pushback]) -> Vec<Option<u128>> {
        let mut retries = Retries::default();
        let middle = 1 << 63;
        let next = |p: &Pushback| retries.next(config, "/s/m", UNAVAILABLE, *p, middle);
        pushbacks.iter().map(next).map(|wait| wait.map(|w| w.as_millis())).collect()
    }

    #[test]
    fn waits_grow_until_the_attempts_are_used_up() {
        let nothing = [Pushback::None; 4];
        assert_eq!(waits(&config(""), &nothing), [Some(1000), Some(2000), Some(3000), None]);
    }

    #[test]
    fn the_servers_word_goes_before_the_policy() {
        let said = [Pushback::None, Pushback::After(Duration::from_millis(70)), Pushback::None];
        assert_eq!(waits(&config(""), &said), [Some(1000), Some(70), Some(1000)]);
        assert_eq!(waits(&config(""), &[Pushback::Never]), [None]);
    }

    #[test]
    fn other_codes_and_methods_are_not_repeated() {
        let (config, mut retries) = (config(""), Retries::default());
        assert_eq!(retries.next(&config, "/s/m", 4, Pushback::None, 0), None);
        assert_eq!(retries.next(&config, "/t/m", UNAVAILABLE, Pushback::None, 0), None);
        assert_eq!(retries.count, 0);
    }

    #[test]
    fn the_throttle_stops_retries_at_half_and_lets_them_go_on_above() {
        let config = config(r#","retryThrottling":{"maxTokens":4,"tokenRatio":0.6}"#);
        let allowed =
            || Retries::default().next(&config, "/s/m", UNAVAILABLE, Pushback::None, 0).is_some();
        assert!(allowed(), "3 of 4 tokens are left");
        assert!(!allowed(), "2 are not more than half");
        let throttle = config.throttle().unwrap();
        (0..10).for_each(|_| throttle.success());
        assert!(allowed(), "full again, and not more than full");
        assert!(!allowed());
    }

    #[test]
    fn a_success_fills_the_bucket_however_much_it_is_worth() {
        let config = config(r#","retryThrottling":{"maxTokens":3,"tokenRatio":1e300}"#);
        let fails =
            || Retries::default().next(&config, "/s/m", UNAVAILABLE, Pushback::None, 0).is_none();
        assert!(!fails() && fails());
        config.throttle().unwrap().success();
        assert!(!fails() && fails(), "3 again, and not more");
    }

    #[test]
    fn pushback_is_read_as_grfc_a6_writes_it() {
        let read = |text: &'static str| {
            let trailers = [(PUSHBACK, http::HeaderValue::from_static(text))];
            Pushback::of(&HeaderMap::from_iter(trailers))
        };
        assert_eq!(Pushback::of(&HeaderMap::new()), Pushback::None);
        assert_eq!(read("0"), Pushback::After(Duration::ZERO));
        assert_eq!(read("250"), Pushback::After(Duration::from_millis(250)));
        for text in ["-1", "soon", "", "1.5", "99999999999"] {
            assert_eq!(read(text), Pushback::Never, "{text:?}");
        }
    }
}
