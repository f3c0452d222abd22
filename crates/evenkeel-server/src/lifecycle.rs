//! When a connection is told to go away and when it is closed: pure decisions on a clock that comes
//! in, so that they are tested without sockets.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::Event;

/// How long after GOAWAY a connection without calls may stay open. hyper closes it by itself once
/// the client has answered the PING behind the GOAWAY; a hung client never does.
pub(crate) const GOAWAY_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one connection may do what; `None` is for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    pub(crate) handshake: Duration,
    pub(crate) age: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) idle: Option<Duration>,
}

/// What a connection does at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    /// The client has sent HTTP/2's preface.
    pub(crate) greeted: bool,
    pub(crate) streams_open: usize,
    /// When the last call ended, or the connection began.
    pub(crate) idle_since: Instant,
}

/// The times at which one connection needs a decision.
pub(crate) struct Lifecycle {
    handshake_until: Option<Instant>,
    age_until: Option<Instant>,
    idle_until: Option<Instant>,
    idle: Option<Duration>,
    grace: Option<Duration>,
    grace_until: Option<Instant>,
    answer_until: Option<Instant>,
}

/// What to do with the connection now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing is due.
    Wait,
    /// Send GOAWAY: the age is reached, or no call came for too long.
    GoAway(Event),
    /// Close the connection, for this reason.
    Close(Event, &'static str),
}

impl Lifecycle {
    pub(crate) fn new(now: Instant, spans: Spans) -> Self {
        Self {
            handshake_until: Some(now + spans.handshake),
            age_until: spans.age.map(|age| now + age),
            idle_until: spans.idle.map(|idle| now + idle),
            idle: spans.idle,
            grace: spans.grace,
            grace_until: None,
            answer_until: None,
        }
    }

    /// The next time at which `due` has something to decide.
    pub(crate) fn next(&self) -> Option<Instant> {
        let times = [
            self.handshake_until,
            self.age_until,
            self.idle_until,
            self.grace_until,
            self.answer_until,
        ];
        times.into_iter().flatten().min()
    }

    /// GOAWAY was sent for a drain; the grace of the drain is counted by the server.
    pub(crate) fn drained(&mut self, now: Instant) {
        self.age_until = None;
        self.idle_until = None;
        self.answer_until = Some(now + GOAWAY_ANSWER_TIMEOUT);
    }

    /// Decides what is due at `now`.
    pub(crate) fn due(&mut self, now: Instant, activity: Activity) -> Action {
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.handshake_until) {
            self.handshake_until = None;
            if !activity.greeted {
                let reason = "no HTTP/2 preface within the handshake timeout";
                return Action::Close(Event::HandshakeTimeout, reason);
            }
        }
        if is_due(self.grace_until) {
            let reason = "calls ran longer than the connection age's grace";
            return Action::Close(Event::ConnectionCut, reason);
        }
        if is_due(self.answer_until) {
            if activity.streams_open == 0 {
                let reason = "the client did not answer GOAWAY";
                return Action::Close(Event::ConnectionCut, reason);
            }
            self.answer_until = Some(now + GOAWAY_ANSWER_TIMEOUT);
        }
        if is_due(self.age_until) {
            self.drained(now);
            self.grace_until = self.grace.map(|grace| now + grace);
            return Action::GoAway(Event::ConnectionAged);
        }
        if is_due(self.idle_until) {
            return self.idle_due(now, activity);
        }
        Action::Wait
    }

    /// Looks at idleness when it may be due, and not at each call: calls are frequent.
    fn idle_due(&mut self, now: Instant, activity: Activity) -> Action {
        let since = if activity.streams_open == 0 { activity.idle_since } else { now };
        self.idle_until = self.idle.map(|idle| since + idle);
        if self.idle_until.is_some_and(|until| until > now) {
            return Action::Wait;
        }
        self.drained(now);
        Action::GoAway(Event::ConnectionIdle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: Duration = Duration::from_secs(20);
    const AGE: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(30);
    const SPANS: Spans = Spans { handshake: HANDSHAKE, age: None, grace: None, idle: None };

    /// A connection that has greeted and never was idle.
    fn busy(streams_open: usize) -> Activity {
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        Activity { greeted: true, streams_open, idle_since: far }
    }

    #[test]
    fn age_brings_goaway_and_grace_closes() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, Spans { age: Some(AGE), grace: Some(GRACE), ..SPANS });
        assert_eq!(life.next(), Some(start + HANDSHAKE));
        assert_eq!(life.due(start + HANDSHAKE, busy(1)), Action::Wait);
        assert_eq!(life.next(), Some(start + AGE));
        assert_eq!(life.due(start + AGE, busy(1)), Action::GoAway(Event::ConnectionAged));
        assert_eq!(life.next(), Some(start + AGE + GRACE));
        assert_eq!(life.due(start + AGE, busy(1)), Action::Wait);
        let end = life.due(start + AGE + GRACE, busy(1));
        assert!(matches!(end, Action::Close(Event::ConnectionCut, _)), "{end:?}");
    }

    #[test]
    fn a_silent_client_is_closed_after_the_handshake_timeout() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, SPANS);
        let end = life.due(start + HANDSHAKE, Activity { greeted: false, ..busy(0) });
        assert!(matches!(end, Action::Close(Event::HandshakeTimeout, _)), "{end:?}");
    }

    #[test]
    fn without_grace_calls_have_all_the_time_they_take() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, Spans { age: Some(AGE), ..SPANS });
        assert_eq!(life.due(start + AGE, busy(1)), Action::GoAway(Event::ConnectionAged));
        let mut now = start + AGE;
        for _ in 0..100 {
            now += GOAWAY_ANSWER_TIMEOUT;
            assert_eq!(life.due(now, busy(1)), Action::Wait);
        }
        // The call has ended, and the client still has not answered.
        now += GOAWAY_ANSWER_TIMEOUT;
        assert!(matches!(life.due(now, busy(0)), Action::Close(Event::ConnectionCut, _)));
    }

    #[test]
    fn a_drain_takes_age_and_idleness_away() {
        let start = Instant::now();
        let spans = Spans { age: Some(AGE), grace: Some(GRACE), idle: Some(IDLE), ..SPANS };
        let mut life = Lifecycle::new(start, spans);
        life.drained(start);
        assert_eq!(life.due(start + HANDSHAKE, busy(1)), Action::Wait);
        assert_eq!(life.due(start + AGE, busy(1)), Action::Wait);
    }

    #[test]
    fn idleness_counts_from_the_end_of_the_last_call() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start, Spans { idle: Some(IDLE), ..SPANS });
        assert_eq!(life.due(start + HANDSHAKE, busy(0)), Action::Wait);
        // A call runs when the time is up, and then ends.
        assert_eq!(life.due(start + IDLE, busy(1)), Action::Wait);
        assert_eq!(life.next(), Some(start + 2 * IDLE));
        let ended = start + IDLE + Duration::from_secs(7);
        let idle = Activity { idle_since: ended, ..busy(0) };
        assert_eq!(life.due(start + 2 * IDLE, idle), Action::Wait);
        assert_eq!(life.next(), Some(ended + IDLE));
        assert_eq!(life.due(ended + IDLE, idle), Action::GoAway(Event::ConnectionIdle));
        // From here on it has to answer, like any connection that got GOAWAY.
        assert_eq!(life.next(), Some(ended + IDLE + GOAWAY_ANSWER_TIMEOUT));
    }
}
