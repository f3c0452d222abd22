//! The retry throttle: calls that fail and succeed at the same time, each counted.

use std::sync::Arc;

use evenkeel_core::{PolicyRegistry, ServiceConfig};
use loom::thread;

use crate::call::{CallConfig, Pushback, Retries};

const UNAVAILABLE: u8 = 14;

/// Retries everything UNAVAILABLE while more than 2 of 4 tokens are left; a success is worth one.
fn config() -> Arc<CallConfig> {
    let json = r#"{"retryThrottling":{"maxTokens":4,"tokenRatio":1},
        "methodConfig":[{"name":[{"service":"s"}],"retryPolicy":{"maxAttempts":4,
        "initialBackoff":"1s","maxBackoff":"3s","backoffMultiplier":2,
        "retryableStatusCodes":["UNAVAILABLE"]}}]}"#;
    let config = ServiceConfig::parse(json, &PolicyRegistry::built_in());
    Arc::new(CallConfig::new(&config.expect("a service config of A6")))
}

/// A call fails; whether it is sent again.
fn fails(config: &CallConfig) -> bool {
    Retries::default().next(config, "/s/m", UNAVAILABLE, Pushback::None, 0).is_some()
}

/// With 3 tokens left to the first and 2 to the second, whichever that is.
pub fn one_of_two_failures_is_repeated() {
    loom::model(|| {
        let config = config();
        let other = thread::spawn({
            let config = config.clone();
            move || fails(&config)
        });
        let repeated = [fails(&config), other.join().expect("no panic")];
        assert_eq!(repeated.iter().filter(|again| **again).count(), 1);
        assert!(!fails(&config), "1 is left");
    });
}

/// Neither gets lost, and there is never more than a full bucket.
pub fn a_success_is_counted_beside_a_failure() {
    loom::model(|| {
        let config = config();
        assert!(fails(&config), "3 are left");
        let other = thread::spawn({
            let config = config.clone();
            move || config.throttle().expect("the config has one").success()
        });
        let repeated = fails(&config);
        other.join().expect("no panic");
        // 3 + 1 - 1, or 3 - 1 + 1.
        assert!(!fails(&config), "2 are left after this one");
        let throttle = config.throttle().expect("the config has one");
        (0..10).for_each(|_| throttle.success());
        assert!(fails(&config) && !fails(&config), "4 at most ({repeated})");
    });
}
