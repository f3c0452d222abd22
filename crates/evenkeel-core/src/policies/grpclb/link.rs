//! The stream to a balancer: which balancer, when the next one, when again.
//!
//! ```text
//!            connect, in order         first message
//!  (round) ───────────────────▶ TRY ──────────────────▶ ANSWERED
//!     ▲      refused, ended,     │                          │ ended
//!     │      silent: the next    │ all tried                │
//!     └──────── backoff ─────────┴──── at once, or what ◀───┘
//!                                      is left of its wait
//! ```
//!
//! A stream that lived longer than the wait that it would cost is followed by the next round at
//! once; one that did not is followed when that wait is over. So a balancer that ends each stream
//! after its list is asked ever more seldom, where gRPC's other clients open thousands of streams a
//! second, and one whose connections have an age is not missed for a moment.

use std::sync::Arc;

use crate::{
    Address, BALANCERS_MAX, Balancer, BalancerMessage, ConnectivityState, Ctx, Nanos, SECOND_NS,
    Status, SubchannelId, TimerId, Watch, WatchEvent, WatchId, WatchMessage,
};

/// A balancer that says nothing for so long is given up, if there is another one to try.
pub const ANSWER_NEXT_NS: Nanos = 5 * SECOND_NS;
/// The last balancer of a round is given up after this time, and a new round begins.
pub const ANSWER_LAST_NS: Nanos = 30 * SECOND_NS;
/// The longest wait after a stream that brought something.
pub const ANSWERED_WAIT_MAX_NS: Nanos = 10 * SECOND_NS;

/// What an input about the stream meant.
pub(super) enum Change<'a> {
    /// Nothing to anybody else.
    None,
    /// The balancer said something.
    Message(&'a BalancerMessage),
    /// A balancer that had answered is lost; the search for one goes on.
    Lost,
    /// Every balancer was tried, and none answered.
    Exhausted(Status),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is nobody to ask.
    Off,
    Connecting {
        id: SubchannelId,
    },
    Open {
        id: SubchannelId,
        watch: WatchId,
        answered: bool,
    },
    /// Between two rounds.
    Waiting,
}

/// See the module's head.
pub(super) struct Link {
    service: Arc<str>,
    balancers: Vec<Balancer>,
    phase: Phase,
    /// The balancer of the present try.
    at: usize,
    /// Ends the present try, or the wait.
    timer: Option<TimerId>,
    /// Rounds and short streams in a row that were of no use.
    failures: u32,
    round_at: Nanos,
    opened_at: Nanos,
    last_error: Status,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            service: "".into(),
            balancers: Vec::new(),
            phase: Phase::Off,
            at: 0,
            timer: None,
            failures: 0,
            round_at: 0,
            opened_at: 0,
            last_error: Status::unavailable("there is no balancer"),
        }
    }
}

impl Link {
    /// There is a balancer that answered.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Open { answered: true, .. })
    }

    /// Nobody is there to be asked.
    pub(super) fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    /// The address of the present try.
    pub(super) fn address(&self) -> Option<&Address> {
        self.balancers.get(self.at).map(|balancer| &balancer.address)
    }

    /// What went wrong last.
    pub(super) fn last_error(&self) -> &Status {
        &self.last_error
    }

    /// The balancers that there are from now on. A stream to one that stays goes on; true when
    /// there was another one, which is ended.
    pub(super) fn update(
        &mut self,
        service: Arc<str>,
        found: &[Balancer],
        ctx: &mut Ctx<'_>,
    ) -> bool {
        let found = &found[..found.len().min(BALANCERS_MAX)];
        let renamed = self.service != service;
        if !renamed && self.balancers == found {
            return false;
        }
        let was_up = self.is_up();
        self.service = service;
        let present = self.balancers.get(self.at).cloned();
        self.balancers = found.to_vec();
        let stays = present.and_then(|p| self.balancers.iter().position(|b| *b == p));
        match (self.phase, stays) {
            (Phase::Connecting { .. } | Phase::Open { .. }, Some(at)) if !renamed => {
                self.at = at;
                false
            }
            _ => {
                self.close(ctx);
                if !self.balancers.is_empty() {
                    // An answer to this try can only come later.
                    self.begin_round(ctx);
                }
                was_up
            }
        }
    }

    /// Ends the stream, after what was said on it, and the search for another.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>) {
        self.end_try(ctx);
        self.phase = Phase::Off;
    }

    /// Says something to the balancer, if there is one.
    pub(super) fn send(&self, message: WatchMessage, ctx: &mut Ctx<'_>) {
        if let Phase::Open { watch, .. } = self.phase {
            ctx.send(watch, message);
        }
    }

    pub(super) fn subchannel_state(
        &mut self,
        id: SubchannelId,
        state: ConnectivityState,
        error: Option<&Status>,
        ctx: &mut Ctx<'_>,
    ) -> Change<'static> {
        match (self.phase, state) {
            (Phase::Connecting { id: own }, ConnectivityState::Ready) if own == id => {
                self.open(id, ctx);
                Change::None
            }
            (Phase::Connecting { id: own }, ConnectivityState::TransientFailure) if own == id => {
                let error = error.cloned();
                self.fail(error.unwrap_or_else(|| Status::unavailable("cannot connect")), ctx)
            }
            (Phase::Open { id: own, .. }, _) if own == id && state != ConnectivityState::Ready => {
                let text = "the connection to the balancer ended or takes no new streams";
                self.ended(Status::unavailable(text), ctx)
            }
            _ => Change::None,
        }
    }

    pub(super) fn watch_event<'a>(
        &mut self,
        id: WatchId,
        event: &'a WatchEvent,
        ctx: &mut Ctx<'_>,
    ) -> Change<'a> {
        let Phase::Open { watch, answered, .. } = &mut self.phase else { return Change::None };
        if *watch != id {
            return Change::None;
        }
        match event {
            WatchEvent::Balancer(message) => {
                if !std::mem::replace(answered, true)
                    && let Some(timer) = self.timer.take()
                {
                    ctx.cancel_timer(timer);
                }
                Change::Message(message)
            }
            WatchEvent::Ended(status) => self.ended(status.clone(), ctx),
            WatchEvent::Health(_) => Change::None,
        }
    }

    /// True when the timer is this link's own.
    pub(super) fn owns(&self, timer: TimerId) -> bool {
        self.timer == Some(timer)
    }

    /// The try took too long, or the wait is over.
    pub(super) fn timer(&mut self, ctx: &mut Ctx<'_>) -> Change<'static> {
        self.timer = None;
        match self.phase {
            Phase::Off => Change::None,
            Phase::Waiting => self.begin_round(ctx),
            Phase::Connecting { .. } | Phase::Open { .. } => {
                self.fail(Status::unavailable("the balancer did not answer in time"), ctx)
            }
        }
    }

    fn begin_round(&mut self, ctx: &mut Ctx<'_>) -> Change<'static> {
        self.round_at = ctx.now();
        self.begin_try(0, ctx)
    }

    fn begin_try(&mut self, at: usize, ctx: &mut Ctx<'_>) -> Change<'static> {
        self.at = at;
        let Some(Balancer { address, name }) = self.balancers.get(at) else {
            self.failures = self.failures.saturating_add(1);
            let wait = ctx.backoff_ns(self.failures);
            self.wait_until(self.round_at.saturating_add(wait), ctx);
            ctx.request_resolution();
            return Change::Exhausted(self.last_error.clone());
        };
        let id = ctx.create_named_subchannel(address.clone(), name.clone());
        ctx.connect(id);
        let is_last = at + 1 == self.balancers.len();
        let patience = if is_last { ANSWER_LAST_NS } else { ANSWER_NEXT_NS };
        self.timer = Some(ctx.set_timer(ctx.now().saturating_add(patience)));
        self.phase = Phase::Connecting { id };
        Change::None
    }

    fn open(&mut self, id: SubchannelId, ctx: &mut Ctx<'_>) {
        let service = self.service.clone();
        let authority = self.balancers.get(self.at).and_then(|balancer| balancer.name.clone());
        let watch = ctx.watch(id, Watch::Balancer { service, authority });
        self.opened_at = ctx.now();
        self.phase = Phase::Open { id, watch, answered: false };
    }

    /// The present try is over: the next one.
    fn fail(&mut self, error: Status, ctx: &mut Ctx<'_>) -> Change<'static> {
        self.last_error = self.of_balancer(error);
        self.end_try(ctx);
        self.begin_try(self.at + 1, ctx)
    }

    fn ended(&mut self, error: Status, ctx: &mut Ctx<'_>) -> Change<'static> {
        if !self.is_up() {
            return self.fail(error, ctx);
        }
        self.last_error = self.of_balancer(error);
        self.end_try(ctx);
        let wait = ctx.backoff_ns(self.failures.saturating_add(1)).min(ANSWERED_WAIT_MAX_NS);
        let due = self.opened_at.saturating_add(wait);
        if due <= ctx.now() {
            self.failures = 0;
            self.begin_round(ctx);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.wait_until(due, ctx);
        }
        Change::Lost
    }

    /// Lets go of stream, connection and timer.
    fn end_try(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_timer(timer);
        }
        if let Phase::Open { watch, .. } = self.phase {
            ctx.unwatch(watch);
        }
        if let Phase::Connecting { id } | Phase::Open { id, .. } = self.phase {
            ctx.shutdown_subchannel(id);
        }
    }

    fn wait_until(&mut self, at: Nanos, ctx: &mut Ctx<'_>) {
        self.timer = Some(ctx.set_timer(at));
        self.phase = Phase::Waiting;
    }

    fn of_balancer(&self, mut error: Status) -> Status {
        if let Some(address) = self.address() {
            error.message = format!("balancer {address}: {}", error.message);
        }
        error
    }
}
