//! Whether settings can be meant, before anything is built with them: each refusal says what was
//! expected and what came.

use evenkeel_core::BALANCERS_MAX;

use super::{BuildError, ChannelBuilder, IDLE_TIMEOUT_MIN, KEEPALIVE_TIME_MIN};

impl ChannelBuilder {
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let bad = |text: String| Err(BuildError::Setting(text));
        if self.balancers.len() > BALANCERS_MAX {
            let got = self.balancers.len();
            return bad(format!("balancers: expected at most {BALANCERS_MAX}, got {got}"));
        }
        self.dns.check().map_err(BuildError::Setting)?;
        if let Some(k) = self.keepalive {
            if k.time < KEEPALIVE_TIME_MIN && !self.allow_aggressive_keepalive {
                return bad(format!(
                    "keepalive time: expected at least {KEEPALIVE_TIME_MIN:?}, got {:?}; servers \
                     answer faster pings with GOAWAY (allow_aggressive_keepalive lifts this)",
                    k.time
                ));
            }
            if k.time.is_zero() || k.timeout.is_zero() {
                return bad("keepalive time and timeout: expected more than 0".into());
            }
        }
        if let Some(timeout) = self.idle_timeout.filter(|t| *t < IDLE_TIMEOUT_MIN) {
            return bad(format!(
                "idle time-out: expected at least {IDLE_TIMEOUT_MIN:?}, got {timeout:?}"
            ));
        }
        if self.connect_timeout.is_zero() {
            return bad("connect timeout: expected more than 0".into());
        }
        let b = &self.backoff;
        if !(b.multiplier >= 1.0 && b.multiplier.is_finite()) {
            return bad(format!("backoff multiplier: expected 1 or more, got {}", b.multiplier));
        }
        if !(0.0..=1.0).contains(&b.jitter) {
            return bad(format!("backoff jitter: expected 0 to 1, got {}", b.jitter));
        }
        if b.initial.is_zero() || b.max < b.initial {
            return bad(format!(
                "backoff: expected 0 < initial ≤ max, got {:?} and {:?}",
                b.initial, b.max
            ));
        }
        Ok(())
    }
}
