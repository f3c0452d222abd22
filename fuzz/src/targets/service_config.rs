//! A service config, which whoever may write a TXT record or a file decides.

use evenkeel_core::{PolicyRegistry, ServiceConfig};

use super::gist;
use crate::Target;

/// Jitter is ± 20 %.
const JITTER: f64 = 1.21;

pub(crate) const TARGET: Target = Target {
    name: "service-config",
    run,
    words: &[
        b"{}",
        b"[]",
        b"[{",
        b"}]",
        b"\"\"",
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e400",
        b"0.001",
        b"\"loadBalancingConfig\":",
        b"\"loadBalancingPolicy\":",
        b"\"methodConfig\":",
        b"\"name\":",
        b"\"service\":",
        b"\"method\":",
        b"\"timeout\":",
        b"\"waitForReady\":",
        b"\"retryPolicy\":",
        b"\"maxAttempts\":",
        b"\"initialBackoff\":",
        b"\"maxBackoff\":",
        b"\"backoffMultiplier\":",
        b"\"retryableStatusCodes\":",
        b"\"retryThrottling\":",
        b"\"maxTokens\":",
        b"\"tokenRatio\":",
        b"\"pick_first\"",
        b"\"round_robin\"",
        b"\"shuffleAddressList\":",
        b"\"UNAVAILABLE\"",
        b"\"315576000000.999999999s\"",
        b"\"1s\"",
        b"\"0.000000001s\"",
        b"\"-1s\"",
        b"99999999999999999999",
    ],
    frames_from: None,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(input) else { return "not UTF-8".into() };
    let registry = PolicyRegistry::built_in();
    let config = match ServiceConfig::parse(text, &registry) {
        Ok(config) => config,
        Err(error) => {
            let message = error.to_string();
            assert!(!error.field.is_empty() && !error.expected.is_empty(), "{message}");
            assert!(message.len() < 2_000, "as long as what it complains of: {message}");
            return format!("{} {}", gist(&error.field), gist(&error.expected));
        }
    };
    let policy = config.policy.as_ref().map(|policy| {
        // What was accepted can be made.
        drop(policy.build());
        policy.name().to_owned()
    });
    let methods = ["/s/m", "/s/other", "/other/m"].map(|path| {
        let method = config.methods.of(path)?;
        let retries = method.retry_policy.as_ref().map(|retry| {
            assert!((2..=5).contains(&retry.attempts_max), "{retry:?}");
            for (number, random) in [(1, 0), (1, u64::MAX), (5, u64::MAX), (u32::MAX, u64::MAX)] {
                let wait = retry.wait_ns(number, random);
                assert!(wait as f64 <= retry.max_backoff_ns as f64 * JITTER, "{wait}: {retry:?}");
            }
            retry.attempts_max
        });
        Some((method.timeout_ns.is_some(), method.wait_for_ready, retries))
    });
    if let Some(throttle) = config.retry_throttling {
        assert!((1..=1_000_000).contains(&throttle.max_millitokens), "{throttle:?}");
        let ratios = 1..=throttle.max_millitokens;
        assert!(ratios.contains(&throttle.ratio_millitokens), "{throttle:?}");
    }
    format!("{policy:?} {methods:?} {}", config.retry_throttling.is_some())
}
