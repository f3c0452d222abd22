//! When a channel that nobody uses goes IDLE (gRFC A9, A18). Calls note nothing for it: what the
//! connections have sent by themselves tells whether there were any.

use std::time::Duration;

use tokio::time::Instant;

/// Looks per idle time-out. A channel goes IDLE after the time-out, at most this part of it late.
const LOOKS: u32 = 8;

/// Watches for a time without calls.
pub(crate) struct Idleness {
    timeout: Option<Duration>,
    look_at: Option<Instant>,
    /// Calls that were sent on connections that are gone.
    sent_before: u64,
    /// All that were sent, by the last look.
    sent: u64,
    quiet_since: Instant,
}

impl Idleness {
    /// `None`: the channel never goes IDLE by itself.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let quiet_since = Instant::now();
        Self { timeout, look_at: None, sent_before: 0, sent: 0, quiet_since }
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

    /// A connection takes no more calls; so many were sent on it.
    pub(crate) fn let_go(&mut self, sent: u32) {
        self.sent_before += u64::from(sent);
    }

    /// Looks: `sent` calls in all were sent on the connections that there are; `busy` when a call
    /// is open or waits. True when the channel is to go IDLE, and then there is no next look. A
    /// connection that comes or goes is no call: servers end them by age, and a channel without
    /// calls must not stay up by connecting again.
    pub(crate) fn look(&mut self, now: Instant, sent: u64, busy: bool) -> bool {
        let Some(timeout) = self.timeout else { return false };
        let sent = self.sent_before + sent;
        if std::mem::replace(&mut self.sent, sent) != sent || busy {
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
    fn idle_at(mut each: impl FnMut(&mut Idleness, u64) -> (u64, bool)) -> Option<u64> {
        let begun = Instant::now();
        let mut idleness = Idleness::new(Some(TIMEOUT));
        idleness.begin(begun);
        for _ in 0..100 {
            let now = idleness.look_at()?;
            let second = (now - begun).as_secs();
            let (sent, busy) = each(&mut idleness, second);
            if idleness.look(now, sent, busy) {
                assert_eq!(idleness.look_at(), None);
                return Some(second);
            }
        }
        None
    }

    #[test]
    fn a_channel_without_calls_goes_idle_after_the_timeout() {
        assert_eq!(idle_at(|_, _| (0, false)), Some(80));
    }

    #[test]
    fn calls_open_calls_and_waiting_calls_keep_it_up() {
        assert_eq!(idle_at(|_, second| (second.min(50), false)), Some(130));
        assert_eq!(idle_at(|_, second| (0, second <= 200)), Some(280));
        assert_eq!(idle_at(|_, second| (second, false)), None);
    }

    #[test]
    fn a_connection_that_is_replaced_is_no_call_and_its_calls_are_counted_once() {
        let replaced_at = |gone: u64| {
            move |idleness: &mut Idleness, second| {
                if second == gone {
                    idleness.let_go(7);
                }
                (if second < gone { 7 } else { 0 }, false)
            }
        };
        assert_eq!(idle_at(replaced_at(50)), Some(90), "the last call was before the look at 10 s");
    }

    #[test]
    fn without_a_timeout_there_is_no_look() {
        let mut idleness = Idleness::new(None);
        idleness.begin(Instant::now());
        assert_eq!(idleness.look_at(), None);
        assert!(!idleness.look(Instant::now(), 0, false));
    }
}
