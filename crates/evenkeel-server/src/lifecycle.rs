//! When a connection is told to go away and when it is closed: pure decisions on a clock that comes
//! in, so that they are tested without sockets.

use std::time::Duration;

use tokio::time::Instant;

/// How long after GOAWAY a connection without calls may stay open. hyper closes it by itself once
/// the client has answered the PING behind the GOAWAY; a hung client never does.
pub(crate) const GOAWAY_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The times at which one connection needs a decision.
pub(crate) struct Lifecycle {
    handshake_until: Option<Instant>,
    age_until: Option<Instant>,
    grace: Option<Duration>,
    grace_until: Option<Instant>,
    answer_until: Option<Instant>,
}

/// What to do with the connection now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing is due.
    Wait,
    /// Send GOAWAY: the age is reached.
    GoAway,
    /// Close the connection, for this reason.
    Close(&'static str),
}

impl Lifecycle {
    pub(crate) fn new(
        now: Instant,
        handshake: Duration,
        age: Option<Duration>,
        grace: Option<Duration>,
    ) -> Self {
        Self {
            handshake_until: Some(now + handshake),
            age_until: age.map(|age| now + age),
            grace,
            grace_until: None,
            answer_until: None,
        }
    }

    /// The next time at which `due` has something to decide.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.handshake_until, self.age_until, self.grace_until, self.answer_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// GOAWAY was sent for a drain; the grace of the drain is counted by the server.
    pub(crate) fn drained(&mut self, now: Instant) {
        self.age_until = None;
        self.answer_until = Some(now + GOAWAY_ANSWER_TIMEOUT);
    }

    /// Decides what is due at `now`. `greeted`: the client has sent HTTP/2's preface.
    pub(crate) fn due(&mut self, now: Instant, greeted: bool, streams_open: usize) -> Action {
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.handshake_until) {
            self.handshake_until = None;
            if !greeted {
                return Action::Close("no HTTP/2 preface within the handshake timeout");
            }
        }
        if is_due(self.grace_until) {
            return Action::Close("calls ran longer than the connection age's grace");
        }
        if is_due(self.answer_until) {
            if streams_open == 0 {
                return Action::Close("the client did not answer GOAWAY");
            }
            self.answer_until = Some(now + GOAWAY_ANSWER_TIMEOUT);
        }
        if is_due(self.age_until) {
            self.drained(now);
            self.grace_until = self.grace.map(|grace| now + grace);
            return Action::GoAway;
        }
        Action::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: Duration = Duration::from_secs(20);
    const AGE: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(5);

    #[test]
    fn age_brings_goaway_and_grace_closes() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, HANDSHAKE, Some(AGE), Some(GRACE));
        assert_eq!(life.next(), Some(start + HANDSHAKE));
        assert_eq!(life.due(start + HANDSHAKE, true, 1), Action::Wait);
        assert_eq!(life.next(), Some(start + AGE));
        assert_eq!(life.due(start + AGE, true, 1), Action::GoAway);
        assert_eq!(life.next(), Some(start + AGE + GRACE));
        assert_eq!(life.due(start + AGE, true, 1), Action::Wait);
        assert!(matches!(life.due(start + AGE + GRACE, true, 1), Action::Close(_)));
    }

    #[test]
    fn a_silent_client_is_closed_after_the_handshake_timeout() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, HANDSHAKE, None, None);
        assert!(matches!(life.due(start + HANDSHAKE, false, 0), Action::Close(_)));
    }

    #[test]
    fn without_grace_calls_have_all_the_time_they_take() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, HANDSHAKE, Some(AGE), None);
        assert_eq!(life.due(start + AGE, true, 1), Action::GoAway);
        let mut now = start + AGE;
        for _ in 0..100 {
            now += GOAWAY_ANSWER_TIMEOUT;
            assert_eq!(life.due(now, true, 1), Action::Wait);
        }
        // The call has ended, and the client still has not answered.
        now += GOAWAY_ANSWER_TIMEOUT;
        assert!(matches!(life.due(now, true, 0), Action::Close(_)));
    }

    #[test]
    fn a_drain_takes_the_age_away() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, HANDSHAKE, Some(AGE), Some(GRACE));
        life.drained(start);
        assert_eq!(life.due(start + HANDSHAKE, true, 1), Action::Wait);
        assert_eq!(life.due(start + AGE, true, 1), Action::Wait);
    }
}
