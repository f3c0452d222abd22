//! Client-side health checking of one connected subchannel (gRFC A17): what the answers of
//! `grpc.health.v1.Health/Watch` mean, and when the stream is tried again.
//!
//! ```text
//!                 SERVING, UNIMPLEMENTED
//!   CONNECTING ───────────────────────────▶ READY
//!    ▲   │  ▲                                │ ▲
//!    │   │  └── ended after an answer ───────┤ │ SERVING
//!    │   │ any other answer, ended            ▼ │
//!    │   └────────────────────▶ TRANSIENT_FAILURE
//!    └───── backoff ends ──────────┘
//! ```
//!
//! The connection stays as it is in all of these states. Where A17 leaves a gap we close it: an
//! answer makes the next attempt immediate, but only once per first wait of the backoff, since a
//! server that answers and ends each stream would else be asked as fast as the network allows.
//! `docs/adr/0012-health-checks-are-watches.md` has the reasons.

use std::sync::Arc;

use crate::{
    Backoff, Code, ConnectivityState, Nanos, ServingStatus, Status, TimerId, WatchEvent, WatchId,
};

/// The health of one subchannel, from the moment a policy asks for it to the connection's end.
pub(crate) struct Health {
    /// The service that is asked for; `None`: nothing is checked and the subchannel is READY.
    pub(crate) service: Option<Arc<str>>,
    pub(crate) state: ConnectivityState,
    /// Why the state is TRANSIENT_FAILURE.
    pub(crate) error: Option<Status>,
    /// The stream of the present attempt.
    pub(crate) watch: Option<WatchId>,
    /// Wakes for the next attempt.
    pub(crate) timer: Option<TimerId>,
    failures: u32,
    started_at: Nanos,
    /// The present attempt got an answer.
    answered: bool,
    /// When an attempt was last made without a wait because the one before had got an answer.
    spared_at: Option<Nanos>,
}

/// When the stream is to be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    AtOnce,
    At(Nanos),
}

impl Health {
    /// The health of a subchannel that just connected. With a service, its first attempt is due.
    pub(crate) fn new(service: Option<Arc<str>>) -> Self {
        let state = match service {
            Some(_) => ConnectivityState::Connecting,
            None => ConnectivityState::Ready,
        };
        Self {
            service,
            state,
            error: None,
            watch: None,
            timer: None,
            failures: 0,
            started_at: 0,
            answered: false,
            spared_at: None,
        }
    }

    /// Another service is asked for from now on, or none. The state stays what it was until the
    /// first answer, as a new name alone says nothing against a backend that serves; without a
    /// service there will be no answer and the subchannel is READY.
    pub(crate) fn ask_for(&mut self, service: Option<Arc<str>>) {
        let (state, error) = (self.state, self.error.take());
        *self = Self::new(service);
        if self.service.is_some() {
            (self.state, self.error) = (state, error);
        }
    }

    /// An attempt begins.
    pub(crate) fn started(&mut self, now: Nanos) {
        self.started_at = now;
        self.answered = false;
    }

    /// The backoff is over: the next attempt is due.
    pub(crate) fn waited(&mut self) {
        self.timer = None;
        self.state = ConnectivityState::Connecting;
        self.error = None;
    }

    /// What the present attempt's stream told.
    pub(crate) fn event(
        &mut self,
        event: &WatchEvent,
        now: Nanos,
        backoff: &Backoff,
        rng: &mut fastrand::Rng,
    ) -> Again {
        match event {
            WatchEvent::Health(status) => {
                self.answered = true;
                match status {
                    ServingStatus::Serving => self.set(ConnectivityState::Ready, None),
                    other => self.fail(&format!("says {other}")),
                }
                Again::Never
            }
            // Of another kind of stream.
            WatchEvent::Balancer(_) => Again::Never,
            WatchEvent::Ended(status) => {
                self.watch = None;
                if status.code == Code::Unimplemented {
                    self.set(ConnectivityState::Ready, None);
                    return Again::Never;
                }
                self.ended(status, now, backoff, rng)
            }
        }
    }

    fn ended(
        &mut self,
        status: &Status,
        now: Nanos,
        backoff: &Backoff,
        rng: &mut fastrand::Rng,
    ) -> Again {
        let spared_lately =
            self.spared_at.is_some_and(|at| now.saturating_sub(at) < backoff.initial_ns);
        if self.answered && !spared_lately {
            self.failures = 0;
            self.spared_at = Some(now);
            self.set(ConnectivityState::Connecting, None);
            return Again::AtOnce;
        }
        self.failures = self.failures.saturating_add(1);
        self.fail(&format!("failed: {status}"));
        let wait = backoff.wait_ns(self.failures, rng);
        Again::At(self.started_at.saturating_add(wait).max(now.saturating_add(1)))
    }

    fn fail(&mut self, what: &str) {
        let service = self.service.as_deref().unwrap_or_default();
        let text = format!("connected, but the health check of {service:?} {what}");
        self.set(ConnectivityState::TransientFailure, Some(Status::unavailable(text)));
    }

    fn set(&mut self, state: ConnectivityState, error: Option<Status>) {
        (self.state, self.error) = (state, error);
    }
}

#[cfg(test)]
mod tests {
    use ConnectivityState::{Connecting, Ready, TransientFailure};

    use super::*;
    use crate::{MILLISECOND_NS, SECOND_NS};

    const S: Nanos = SECOND_NS;
    const MS: Nanos = MILLISECOND_NS;

    /// One event at one time, then state and when to try again.
    type Row = (Nanos, WatchEvent, ConnectivityState, Again);

    fn says(status: ServingStatus) -> WatchEvent {
        WatchEvent::Health(status)
    }

    fn ended(code: Code) -> WatchEvent {
        WatchEvent::Ended(Status::new(code, "so it is"))
    }

    /// Plays the events; each attempt starts when it is due.
    fn play(rows: &[Row]) -> Health {
        let (backoff, mut rng) =
            (Backoff { jitter: 0.0, ..Backoff::default() }, fastrand::Rng::with_seed(1));
        let mut health = Health::new(Some("greeter".into()));
        assert_eq!(health.state, Connecting, "before the first answer");
        health.started(0);
        for (i, (now, event, state, again)) in rows.iter().enumerate() {
            assert_eq!(health.event(event, *now, &backoff, &mut rng), *again, "row {i}: {event:?}");
            assert_eq!(health.state, *state, "row {i}: {event:?}");
            let failed = health.state == TransientFailure;
            assert_eq!(health.error.is_some(), failed, "row {i}: {:?}", health.error);
            match again {
                Again::Never => {}
                Again::AtOnce => health.started(*now),
                Again::At(at) => {
                    health.waited();
                    assert_eq!(health.state, Connecting, "row {i}: the next attempt");
                    health.started(*at);
                }
            }
        }
        health
    }

    #[test]
    fn an_answer_is_a_state() {
        use ServingStatus::*;
        let health = play(&[
            (MS, says(NotServing), TransientFailure, Again::Never),
            (2 * MS, says(Serving), Ready, Again::Never),
            (3 * MS, says(ServiceUnknown), TransientFailure, Again::Never),
            (4 * MS, says(Serving), Ready, Again::Never),
            (5 * MS, says(Unknown), TransientFailure, Again::Never),
        ]);
        let want = "connected, but the health check of \"greeter\" says UNKNOWN";
        assert_eq!(health.error.unwrap().message, want);
    }

    #[test]
    fn a_server_without_health_is_healthy_and_is_not_asked_again() {
        play(&[(MS, ended(Code::Unimplemented), Ready, Again::Never)]);
        play(&[
            (MS, says(ServingStatus::NotServing), TransientFailure, Again::Never),
            (2 * MS, ended(Code::Unimplemented), Ready, Again::Never),
        ]);
    }

    #[test]
    fn streams_without_an_answer_back_off_from_their_start() {
        let health = play(&[
            (MS, ended(Code::Unavailable), TransientFailure, Again::At(S)),
            (S + MS, ended(Code::NotFound), TransientFailure, Again::At(S + 1_600 * MS)),
            // One that hung for longer than its wait is followed soon, but never at once.
            (60 * S, ended(Code::Ok), TransientFailure, Again::At(60 * S + 1)),
            (60 * S + 2, ended(Code::Ok), TransientFailure, Again::At(64_096 * MS + 1)),
        ]);
        assert_eq!(health.failures, 4);
        assert_eq!(health.state, Connecting);
    }

    #[test]
    fn an_answer_starts_the_backoff_anew_but_does_not_lift_it() {
        let serving = || says(ServingStatus::Serving);
        play(&[
            (MS, ended(Code::Internal), TransientFailure, Again::At(S)),
            (S + MS, ended(Code::Internal), TransientFailure, Again::At(2_600 * MS)),
            (3 * S, serving(), Ready, Again::Never),
            (4 * S, ended(Code::Internal), Connecting, Again::AtOnce),
            // The next one too has its answer and breaks at once: that is a loop.
            (4 * S + MS, serving(), Ready, Again::Never),
            (4 * S + 2 * MS, ended(Code::Internal), TransientFailure, Again::At(5 * S)),
            (5 * S + MS, serving(), Ready, Again::Never),
            (5 * S + 2 * MS, ended(Code::Internal), Connecting, Again::AtOnce),
            // Without an answer it is a failure like any first one.
            (5 * S + 3 * MS, ended(Code::Internal), TransientFailure, Again::At(6_002 * MS)),
        ]);
    }

    #[test]
    fn another_name_leaves_the_state_until_it_is_answered() {
        let mut health = play(&[(MS, says(ServingStatus::Serving), Ready, Again::Never)]);
        health.ask_for(Some("other".into()));
        assert_eq!(health.state, Ready);
        let mut health =
            play(&[(MS, says(ServingStatus::NotServing), TransientFailure, Again::Never)]);
        health.ask_for(Some("other".into()));
        assert_eq!(health.state, TransientFailure);
        assert!(health.error.unwrap().message.contains("\"greeter\" says NOT_SERVING"));
    }

    #[test]
    fn without_a_name_it_is_healthy() {
        assert_eq!(Health::new(None).state, Ready);
        let mut health =
            play(&[(MS, says(ServingStatus::NotServing), TransientFailure, Again::Never)]);
        health.ask_for(None);
        assert_eq!((health.state, health.error), (Ready, None));
    }
}
