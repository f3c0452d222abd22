//! When a channel that nobody uses goes IDLE (gRFC A9, A18). Calls note nothing for it: what the
//! connections have sent by themselves tells whether there were any.

use std::time::Duration;

use tokio::time::Instant;

/// Looks per idle time-out. A channel goes IDLE after the time-out, at most this part of it late.
const LOOKS: u32 = 8;

/// What has changed when a call was made: connections and requests sent, in all.
pub(crate) type Activity = (u64, u64);

/// Watches for a time without calls.
pub(crate) struct Idleness {
    timeout: Option<Duration>,
    look_at: Option<Instant>,
    seen: Activity,
    quiet_since: Instant,
}

impl Idleness {
    /// `None`: the channel never goes IDLE by itself.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let quiet_since = Instant::now();
        Self { timeout, look_at: None, seen: (0, 0), quiet_since }
    }

    /// The channel was woken.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.quiet_since = now;
        self.look_at = self.timeout.map(|timeout| now + timeout / LOOKS);
    }

    /// When to look next.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Since when there was no call, as far as the last look tells.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.quiet_since
    }

    /// Looks; `busy` when a call is open or waits. True when the channel is to go IDLE, and then
    /// there is no next look.
    pub(crate) fn look(&mut self, now: Instant, activity: Activity, busy: bool) -> bool {
        let Some(timeout) = self.timeout else { return false };
        if busy || std::mem::replace(&mut self.seen, activity) != activity {
            self.quiet_since = now;
        }
        let idle = now.saturating_duration_since(self.quiet_since) >= timeout;
        self.look_at = (!idle).then(|| now + timeout / LOOKS);
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(80);

    /// Looks at the due times; returns the second of the look that says IDLE.
    fn idle_at(mut each: impl FnMut(u64) -> (Activity, bool)) -> Option<u64> {
        let begun = Instant::now();
        let mut idleness = Idleness::new(Some(TIMEOUT));
        idleness.begin(begun);
        for _ in 0..100 {
            let now = idleness.look_at()?;
            let second = (now - begun).as_secs();
            let (activity, busy) = each(second);
            if idleness.look(now, activity, busy) {
                assert_eq!(idleness.look_at(), None);
                return Some(second);
            }
        }
        None
    }

    #[test]
    fn a_channel_without_calls_goes_idle_after_the_timeout() {
        assert_eq!(idle_at(|_| ((0, 0), false)), Some(80));
    }

    #[test]
    fn calls_open_calls_and_waiting_calls_keep_it_up() {
        assert_eq!(idle_at(|second| ((1, second.min(50)), false)), Some(130));
        assert_eq!(idle_at(|second| ((0, 0), second <= 200)), Some(280));
        assert_eq!(idle_at(|second| ((0, second), false)), None);
    }

    #[test]
    fn without_a_timeout_there_is_no_look() {
        let mut idleness = Idleness::new(None);
        idleness.begin(Instant::now());
        assert_eq!(idleness.look_at(), None);
        assert!(!idleness.look(Instant::now(), (0, 0), false));
    }
}
