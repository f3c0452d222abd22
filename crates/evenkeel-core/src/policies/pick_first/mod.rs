//! `pick_first`: one connection, to the first address that answers.
//!
//! The first pass tries the addresses in order with happy eyeballs (gRFC A61, RFC 8305): the next
//! one starts when the one before failed or after 250 ms. When all failed, the policy is in
//! TRANSIENT_FAILURE until one connects (gRFC A62) and retries each address when its backoff ends.
//! The child of every other policy; as such it is READY only while the address that it is connected
//! to is healthy (gRFC A17, A61). An unhealthy one stays connected and no other is tried: happy
//! eyeballs look for a path to the backend, and that one was found.

mod config;
mod order;
mod picker;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use config::{Factory, Settings};
use picker::OnePicker;

use crate::{
    Address, ConnectivityState, Ctx, Input, LbPolicy, MILLISECOND_NS, Nanos, Picker, Status,
    SubchannelId, TimerId, picker::waiting_picker, policies::unreachable::unreachable,
};

/// The wait before the next address is tried beside the ones under way (RFC 8305 section 8).
pub const CONNECTION_ATTEMPT_DELAY_NS: Nanos = 250 * MILLISECOND_NS;

struct Attempt {
    address: Address,
    id: Option<SubchannelId>,
    state: ConnectivityState,
    /// Its latest attempt failed, so it is in backoff or waits for the end of the pass.
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody wants a connection.
    Idle,
    /// Trying the addresses in order; `next` is the latest one that was started.
    FirstPass { next: usize, timer: Option<TimerId> },
    /// All failed: each is retried by its own backoff.
    Retrying { failures: usize },
    /// Connected; `state` says whether also healthy.
    Ready(SubchannelId),
}

impl Attempt {
    fn new(address: Address) -> Self {
        Self { address, id: None, state: ConnectivityState::Idle, failed: false }
    }
}

/// See the module's head.
pub struct PickFirst {
    attempts: Vec<Attempt>,
    phase: Phase,
    state: ConnectivityState,
    last_error: Status,
    expired: bool,
    health_check: bool,
}

impl Default for PickFirst {
    fn default() -> Self {
        Self {
            attempts: Vec::new(),
            phase: Phase::Idle,
            state: ConnectivityState::Idle,
            last_error: Status::unavailable("the resolver found no endpoints"),
            expired: false,
            health_check: false,
        }
    }
}

impl PickFirst {
    /// The address that it is connected to.
    pub fn connected_to(&self) -> Option<&Address> {
        let Phase::Ready(id) = self.phase else { return None };
        self.attempts.iter().find(|a| a.id == Some(id)).map(|a| &a.address)
    }

    fn update(&mut self, addresses: Vec<Address>, ctx: &mut Ctx<'_>) {
        self.expired = false;
        let had_none = self.attempts.is_empty();
        let same_list = self.attempts.iter().map(|a| &a.address).eq(&addresses);
        let mut old: BTreeMap<Address, Attempt> =
            self.attempts.drain(..).map(|a| (a.address.clone(), a)).collect();
        let mut grew = false;
        for address in addresses {
            let known = old.remove(&address);
            grew |= known.is_none();
            self.attempts.push(known.unwrap_or_else(|| Attempt::new(address)));
        }
        for id in old.into_values().filter_map(|a| a.id) {
            ctx.shutdown_subchannel(id);
        }
        if self.attempts.is_empty() {
            ctx.request_resolution();
            self.fail(Status::unavailable("the resolver found no endpoints"), ctx);
            return;
        }
        if had_none {
            // Sticky is only a TRANSIENT_FAILURE that attempts to connect led to.
            self.state = ConnectivityState::Idle;
        }
        match self.phase {
            Phase::Ready(id) if self.attempts.iter().any(|a| a.id == Some(id)) => {}
            Phase::Ready(_) => {
                // Nor is the one that a connected but unhealthy address led to.
                self.state = ConnectivityState::Idle;
                self.start_pass(ctx);
            }
            Phase::Idle if !had_none => {}
            Phase::FirstPass { .. } if same_list => {}
            // A pass over addresses in backoff would end at once and ask for the next update.
            Phase::Retrying { .. } if !grew => {}
            _ => self.start_pass(ctx),
        }
    }

    fn start_pass(&mut self, ctx: &mut Ctx<'_>) {
        if self.state != ConnectivityState::TransientFailure {
            self.state = ConnectivityState::Connecting;
            ctx.publish();
        }
        self.try_from(0, ctx);
    }

    /// Starts the attempt `next`, or the first one after it that is not still in backoff.
    fn try_from(&mut self, mut next: usize, ctx: &mut Ctx<'_>) {
        self.stop_timer(ctx);
        let total = self.attempts.len();
        while let Some(attempt) = self.attempts.get_mut(next) {
            if attempt.state == ConnectivityState::TransientFailure {
                next += 1;
                continue;
            }
            let id =
                *attempt.id.get_or_insert_with(|| ctx.create_subchannel(attempt.address.clone()));
            attempt.failed = false;
            ctx.connect(id);
            let more = next + 1 < total;
            let timer = more.then(|| ctx.set_timer(ctx.now() + CONNECTION_ATTEMPT_DELAY_NS));
            self.phase = Phase::FirstPass { next, timer };
            return;
        }
        self.phase = Phase::FirstPass { next, timer: None };
        self.end_pass_if_all_failed(ctx);
    }

    fn end_pass_if_all_failed(&mut self, ctx: &mut Ctx<'_>) {
        if !self.attempts.iter().all(|a| a.failed) {
            return;
        }
        self.phase = Phase::Retrying { failures: 0 };
        self.state = ConnectivityState::TransientFailure;
        ctx.request_resolution();
        ctx.publish();
        for attempt in self.attempts.iter().filter(|a| a.state == ConnectivityState::Idle) {
            if let Some(id) = attempt.id {
                ctx.connect(id);
            }
        }
    }

    fn subchannel_state(
        &mut self,
        id: SubchannelId,
        state: ConnectivityState,
        error: Option<&Status>,
        ctx: &mut Ctx<'_>,
    ) {
        let Some(index) = self.attempts.iter().position(|a| a.id == Some(id)) else { return };
        self.attempts[index].state = state;
        if let Some(error) = error {
            self.last_error = error.clone();
        }
        match (self.phase, state) {
            (Phase::Ready(selected), _) if selected == id => self.lost(state, ctx),
            (Phase::Ready(_) | Phase::Idle, _) => {}
            (_, ConnectivityState::Ready) => self.select(id, ctx),
            (_, ConnectivityState::TransientFailure) => self.attempt_failed(index, ctx),
            (Phase::Retrying { .. }, ConnectivityState::Idle) => ctx.connect(id),
            _ => {}
        }
    }

    fn attempt_failed(&mut self, index: usize, ctx: &mut Ctx<'_>) {
        self.attempts[index].failed = true;
        match &mut self.phase {
            Phase::FirstPass { next, .. } if *next == index => self.try_from(index + 1, ctx),
            Phase::FirstPass { .. } => self.end_pass_if_all_failed(ctx),
            Phase::Retrying { failures } => {
                *failures += 1;
                if *failures % self.attempts.len().max(1) == 0 {
                    ctx.request_resolution();
                }
                ctx.publish();
            }
            Phase::Idle | Phase::Ready(_) => {}
        }
    }

    fn select(&mut self, id: SubchannelId, ctx: &mut Ctx<'_>) {
        self.stop_timer(ctx);
        for attempt in self.attempts.iter_mut().filter(|a| a.id != Some(id)) {
            if let Some(other) = attempt.id.take() {
                ctx.shutdown_subchannel(other);
            }
            attempt.state = ConnectivityState::Idle;
        }
        self.phase = Phase::Ready(id);
        self.state = match self.health_check {
            true => ctx.check_health(id),
            false => ConnectivityState::Ready,
        };
        ctx.publish();
    }

    fn subchannel_health(
        &mut self,
        id: SubchannelId,
        state: ConnectivityState,
        error: Option<&Status>,
        ctx: &mut Ctx<'_>,
    ) {
        if self.phase != Phase::Ready(id) {
            return;
        }
        self.state = state;
        if let Some(error) = error {
            self.last_error = error.clone();
        }
        ctx.publish();
    }

    fn lost(&mut self, state: ConnectivityState, ctx: &mut Ctx<'_>) {
        if state == ConnectivityState::Ready {
            return;
        }
        if self.expired {
            self.fail(self.last_error.clone(), ctx);
            return;
        }
        self.phase = Phase::Idle;
        self.state = ConnectivityState::Idle;
        ctx.publish();
    }

    /// Lets go of everything: there is nothing to connect to.
    fn fail(&mut self, status: Status, ctx: &mut Ctx<'_>) {
        self.stop_timer(ctx);
        for id in self.attempts.drain(..).filter_map(|a| a.id) {
            ctx.shutdown_subchannel(id);
        }
        self.phase = Phase::Idle;
        self.state = ConnectivityState::TransientFailure;
        self.last_error = status;
        ctx.publish();
    }

    /// Why no call can be sent.
    pub(crate) fn failure(&self) -> Status {
        if self.attempts.is_empty() {
            return self.last_error.clone();
        }
        let names = self.attempts.iter().map(|a| a.address.to_string());
        unreachable("addresses", self.attempts.len(), names, &self.last_error.message)
    }

    fn stop_timer(&mut self, ctx: &mut Ctx<'_>) {
        if let Phase::FirstPass { timer, .. } = &mut self.phase
            && let Some(timer) = timer.take()
        {
            ctx.cancel_timer(timer);
        }
    }
}

impl LbPolicy for PickFirst {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverUpdate { endpoints, config } => {
                let settings = config.settings::<Settings>().copied().unwrap_or_default();
                self.health_check = settings.health_check;
                let addresses = order::order(endpoints, settings.shuffle_address_list, ctx.rng());
                self.update(addresses, ctx);
            }
            Input::ResolverError(error) if error.expired => match self.phase {
                Phase::Ready(_) => {
                    self.expired = true;
                    self.last_error = error.status.clone();
                }
                _ => self.fail(error.status.clone(), ctx),
            },
            Input::ResolverError(error) => {
                if self.attempts.is_empty() {
                    self.fail(error.status.clone(), ctx);
                }
            }
            Input::SubchannelState { id, state, error } => {
                self.subchannel_state(id, state, error, ctx);
            }
            Input::SubchannelHealth { id, state, error } => {
                self.subchannel_health(id, state, error, ctx);
            }
            // It begins no watch of its own.
            Input::WatchEvent { .. } | Input::Shutdown => {}
            Input::Timer(timer) => {
                if let Phase::FirstPass { next, timer: Some(set) } = self.phase
                    && set == timer
                {
                    self.try_from(next + 1, ctx);
                }
            }
            Input::ExitIdle => {
                if self.state == ConnectivityState::Idle && !self.attempts.is_empty() {
                    self.start_pass(ctx);
                }
            }
        }
    }

    fn state(&self) -> ConnectivityState {
        self.state
    }

    fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    fn picker(&self) -> Arc<dyn Picker> {
        match (self.phase, self.state) {
            (Phase::Ready(id), ConnectivityState::Ready) => Arc::new(OnePicker(id)),
            _ => waiting_picker(self.state, || self.failure()),
        }
    }
}
