//! The engine's part of watches: whose each one is, that it ends with its subchannel's connection,
//! and the health checks that the engine itself makes of them.

use std::sync::Arc;

use super::{Effects, Engine, Output, Undelivered};
use crate::{
    ConnectivityState, Input, Nanos, Status, SubchannelId, Watch, WatchEvent, WatchId,
    WatchMessage,
    health::{Again, Health},
    policy::Owned,
    timers::Wakes,
};

/// A watch that runs.
pub(super) struct Running {
    subchannel: SubchannelId,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Policy,
    /// The subchannel's health check.
    Health,
}

impl Effects {
    /// Starts a watch for a policy. On a subchannel that is not READY it ends at once.
    pub(crate) fn watch(&mut self, subchannel: SubchannelId, watch: Watch) -> WatchId {
        let is_ready = self.get(subchannel).is_some_and(|s| s.state == ConnectivityState::Ready);
        let id = self.start_watch(subchannel, watch, Owner::Policy, is_ready);
        if !is_ready {
            let status = Status::unavailable("expected a READY subchannel to watch");
            self.undelivered.push_back(Undelivered::WatchEnded(id, status));
        }
        id
    }

    fn start_watch(
        &mut self,
        subchannel: SubchannelId,
        watch: Watch,
        owner: Owner,
        runs: bool,
    ) -> WatchId {
        let id = WatchId(self.next_watch);
        self.next_watch += 1;
        self.watches.insert(id, Running { subchannel, owner });
        if runs && let Some(s) = self.get(subchannel) {
            s.watches.push(id);
            self.outputs.push_back(Output::Watch { id, subchannel, watch });
        }
        id
    }

    /// Says something on a watch that runs.
    pub(crate) fn send(&mut self, id: WatchId, message: WatchMessage) {
        if self.watches.contains_key(&id) {
            self.outputs.push_back(Output::WatchSend { id, message });
        }
    }

    /// Ends a watch. True when it was there.
    pub(crate) fn unwatch(&mut self, id: WatchId) -> bool {
        let Some(Running { subchannel, .. }) = self.watches.remove(&id) else { return false };
        if let Some(s) = self.get(subchannel) {
            s.watches.retain(|w| *w != id);
        }
        self.outputs.push_back(Output::Unwatch { id });
        true
    }

    /// Ends all watches and the health check of a subchannel whose connection is no longer for
    /// use. Returns the policies' ones, which are still to be told.
    pub(super) fn end_watches(&mut self, id: SubchannelId) -> Vec<WatchId> {
        let Some(subchannel) = self.get(id) else { return Vec::new() };
        let (watches, health) = (std::mem::take(&mut subchannel.watches), subchannel.health.take());
        if let Some(timer) = health.and_then(|health| health.timer) {
            self.timers.cancel(timer);
        }
        let outputs = watches.iter().map(|id| Output::Unwatch { id: *id });
        self.outputs.extend(outputs);
        let is_policys =
            |id: &WatchId| self.watches.get(id).is_some_and(|w| w.owner == Owner::Policy);
        let (told, silent): (Vec<_>, Vec<_>) = watches.into_iter().partition(is_policys);
        for id in silent {
            self.watches.remove(&id);
        }
        told
    }

    /// The same for a subchannel that its policy shuts down, which nobody is told of.
    pub(super) fn drop_watches(&mut self, id: SubchannelId) {
        for watch in self.end_watches(id) {
            self.watches.remove(&watch);
            self.owned.push(Owned::WatchGone(watch));
        }
    }

    /// Begins to check a READY subchannel's health, if it is not checked already, and returns the
    /// state that follows.
    pub(crate) fn check_health(&mut self, id: SubchannelId, now: Nanos) -> ConnectivityState {
        let service = self.health_service.clone();
        let Some(subchannel) = self.get(id) else { return ConnectivityState::Shutdown };
        if subchannel.state != ConnectivityState::Ready {
            return subchannel.state;
        }
        if let Some(health) = &subchannel.health {
            return health.state;
        }
        let checked = service.is_some();
        let state = subchannel.health.insert(Health::new(service)).state;
        if checked {
            self.report_health(id);
            self.attempt_health(id, now);
        }
        state
    }

    /// Opens a health check's stream.
    fn attempt_health(&mut self, id: SubchannelId, now: Nanos) {
        let Some(health) = self.health(id) else { return };
        let Some(service) = health.service.clone() else { return };
        health.started(now);
        let watch = self.start_watch(id, Watch::Health { service }, Owner::Health, true);
        if let Some(health) = self.health(id) {
            health.watch = Some(watch);
        }
    }

    fn health(&mut self, id: SubchannelId) -> Option<&mut Health> {
        self.get(id)?.health.as_mut()
    }

    /// Tells observers of a checked subchannel's health.
    fn report_health(&mut self, id: SubchannelId) {
        let Some(subchannel) = self.get(id) else { return };
        let Some(health) = &subchannel.health else { return };
        let (address, state) = (subchannel.address.clone(), health.state);
        let error = health.error.clone();
        self.outputs.push_back(Output::SubchannelHealth { address, state, error });
    }

    /// Tells the policy and the observers what a health check says now.
    fn health_changed(&mut self, id: SubchannelId) {
        let Some(health) = self.health(id) else { return };
        let (state, error) = (health.state, health.error.clone());
        self.report_health(id);
        self.undelivered.push_back(Undelivered::Health(id, state, error));
    }

    /// A message or the end of a health check's stream.
    fn health_event(&mut self, id: SubchannelId, event: &WatchEvent, now: Nanos) {
        let Self { slots, rng, backoff, .. } = self;
        let Some(slot) = slots.get_mut(id.index as usize) else { return };
        let Some(subchannel) = &mut slot.subchannel else { return };
        let Some(health) = &mut subchannel.health else { return };
        let before = (health.state, health.error.clone());
        let again = health.event(event, now, backoff, rng);
        if let Some(error) = &mut health.error {
            error.message = format!("{}: {}", subchannel.address, error.message);
        }
        if (health.state, &health.error) != (before.0, &before.1) {
            self.health_changed(id);
        }
        match again {
            Again::Never => {}
            Again::AtOnce => self.attempt_health(id, now),
            Again::At(at) => {
                let timer = self.timers.set(at, Wakes::Health(id));
                if let Some(health) = self.health(id) {
                    health.timer = Some(timer);
                }
            }
        }
    }

    /// A health check's backoff is over.
    pub(super) fn health_due(&mut self, id: SubchannelId, now: Nanos) {
        let Some(health) = self.health(id) else { return };
        health.waited();
        self.health_changed(id);
        self.attempt_health(id, now);
    }

    /// Another service, or none, is asked for on all subchannels that are checked.
    fn ask_health_for(&mut self, service: Option<Arc<str>>, now: Nanos) {
        if self.health_service == service {
            return;
        }
        self.health_service = service.clone();
        for index in 0..self.slots.len() {
            let generation = self.slots[index].generation;
            let id = SubchannelId { index: index as u32, generation };
            let Some(health) = self.health(id) else { continue };
            let (state, watch, timer) = (health.state, health.watch, health.timer);
            health.ask_for(service.clone());
            let changed = health.state != state;
            if let Some(timer) = timer {
                self.timers.cancel(timer);
            }
            if let Some(watch) = watch {
                self.unwatch(watch);
            }
            if changed {
                self.health_changed(id);
            }
            self.attempt_health(id, now);
        }
    }
}

impl Engine {
    /// The service whose health is asked for from now on (gRFC A17), or none. It concerns the
    /// subchannels whose policy asked for checks ([`Ctx::check_health`](crate::Ctx::check_health)),
    /// also those that are connected.
    pub fn set_health_service(&mut self, now: Nanos, service: Option<Arc<str>>) {
        self.effects.ask_health_for(service, now);
        self.deliver(now);
    }

    /// What came of an [`Output::Watch`]. [`WatchEvent::Ended`] is the last one; events of a watch
    /// that was taken back have no effect.
    pub fn watch_event(&mut self, now: Nanos, id: WatchId, event: &WatchEvent) {
        let Some(Running { subchannel, owner }) = self.effects.watches.get(&id) else { return };
        let (subchannel, owner) = (*subchannel, *owner);
        if let WatchEvent::Ended(_) = event {
            self.effects.watches.remove(&id);
            if let Some(s) = self.effects.get(subchannel) {
                s.watches.retain(|w| *w != id);
            }
        }
        match owner {
            Owner::Policy => self.drive(now, Input::WatchEvent { id, event }),
            Owner::Health => {
                self.effects.health_event(subchannel, event, now);
                self.deliver(now);
            }
        }
    }

    /// Tells a policy that its watch ended without its stream's word, unless it took it back.
    pub(super) fn deliver_watch_end(&mut self, now: Nanos, id: WatchId, status: Status) {
        if self.effects.watches.remove(&id).is_some() {
            let event = WatchEvent::Ended(status);
            self.hand_in(now, Input::WatchEvent { id, event: &event });
        }
    }
}
