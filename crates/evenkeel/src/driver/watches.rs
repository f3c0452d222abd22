//! The driver between the engine's watches and their streams.

use std::sync::Arc;

use evenkeel_core::{
    BalancerNews, ServiceConfig, Status, SubchannelId, Watch, WatchEvent, WatchId, observe::Event,
};

use super::Driver;
use crate::call::Pinned;

/// Events of watches in one turn; with more, calls and connections get their turn in between.
const EVENTS_PER_TURN_MAX: usize = 64;

/// Health checking, by the builder.
pub(crate) struct HealthOptions {
    /// What is checked while the resolver brings no service config.
    pub(crate) default_service: Option<Arc<str>>,
    /// Nothing is checked, whatever service configs say.
    pub(crate) disabled: bool,
}

impl HealthOptions {
    /// The service whose health is checked under the resolver's service config.
    pub(super) fn service(&self, config: Option<&ServiceConfig>) -> Option<Arc<str>> {
        let service = match config {
            Some(config) => &config.health_service,
            None => &self.default_service,
        };
        service.clone().filter(|_| !self.disabled)
    }
}

impl Driver {
    pub(super) fn watch(&mut self, id: WatchId, subchannel: SubchannelId, watch: Watch) {
        let link = self.links.get(&subchannel.index);
        let link = link.filter(|link| link.generation == subchannel.generation);
        match link.and_then(|link| link.transport.as_ref()) {
            Some(transport) => {
                let pinned = Pinned::new(self.shared.clone(), transport.clone());
                self.watches.start(id, watch, pinned);
            }
            None => {
                let ended = WatchEvent::Ended(Status::unavailable("the connection is gone"));
                self.engine.watch_event(self.shared.now_ns(), id, &ended);
            }
        }
    }

    /// Tells observers what became of the balancer; what is wrong with its list is logged too.
    pub(super) fn balancer_news(&self, news: &BalancerNews) {
        let target = &self.options.target;
        match news {
            BalancerNews::List { servers, drops, ignored } if ignored.total() > 0 => {
                tracing::warn!(
                    %target, servers, drops, ?ignored,
                    "the balancer's list has entries that can't be used"
                );
            }
            other => tracing::debug!(%target, ?other, "balancer"),
        }
        self.options.recorder.record(&Event::Balancer(news));
    }

    /// Hands in an event, and those that are there by now: they belong to one snapshot.
    pub(super) fn watch_events(&mut self, id: WatchId, event: &WatchEvent) {
        let now = self.shared.now_ns();
        self.engine.watch_event(now, id, event);
        for _ in 1..EVENTS_PER_TURN_MAX {
            let Some((id, event)) = self.watches.next_ready() else { return };
            self.engine.watch_event(now, id, &event);
        }
    }
}
