//! `grpclb`: backends by the word of a balancer (gRPC's grpclb.md, `grpc.lb.v1`).
//!
//! The policy keeps a stream to one balancer (`link`), takes its lists (`list`), connects to
//! the servers in them by a child manager of `pick_first` keyed by address, or by one `pick_first`,
//! walks the list for each call (`picker`) and reports what came of the calls (`stats`). A list
//! stays in use while the balancer is away. Without one, or when the balancer says so, or when
//! balancer and servers are lost together, calls go to the resolver's own backends (fallback).
//!
//! Where it goes beyond grpc-go and C-core: balancers that cannot be reached mean fallback at once;
//! the fallback serves until a server of the new list is READY; an entry whose server is away does
//! not shift the share of drops; see docs/adr/0019.

mod config;
mod link;
mod list;
mod picker;
mod servers;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::{Child, FALLBACK_TIMEOUT_NS, Factory, SERVICE_NAME_BYTES_MAX, Settings};
pub use link::{ANSWER_LAST_NS, ANSWER_NEXT_NS, ANSWERED_WAIT_MAX_NS};
use link::{Change, Link};
use list::List;
pub use list::{ENTRIES_MAX, Ignored, TOKEN_BYTES_MAX};
pub use picker::LB_TOKEN;
use servers::Servers;
pub use stats::DROP_TOKENS_MAX;
use stats::Stats;

use super::router::Router;
use crate::{
    Address, BalancerMessage, Balancers, ConnectivityState, Ctx, Endpoint, Input, LbPolicy,
    MILLISECOND_NS, Nanos, Picker, SECOND_NS, ServerEntry, Status, TimerId, WatchMessage,
    picker::QueuePicker,
};

/// The shortest time between two reports, whatever the balancer asks for: a report has no news in
/// less, and costs the driver a turn.
pub const REPORT_INTERVAL_MIN_NS: Nanos = 100 * MILLISECOND_NS;
/// How long calls wait for the look-up of balancers before they go to the resolver's backends.
pub const PENDING_MAX_NS: Nanos = SECOND_NS;

/// What became of a channel's balancer, for observers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BalancerNews {
    /// A balancer answered for the first time on a stream.
    Connected(Address),
    /// The stream to a balancer that had answered ended, or no balancer answered at all.
    Lost(Status),
    /// A list came that differs from the one before.
    List {
        /// Its entries with a server, duplicates included.
        servers: usize,
        /// Its drop entries.
        drops: usize,
        /// Entries that were left out of it.
        ignored: Ignored,
    },
    /// Calls go to the resolver's backends from now on, and why.
    Fallback(&'static str),
    /// Calls go to the balancer's list again.
    FallbackOver,
}

/// Whose a subchannel or timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Servers,
    Fallback,
}

/// When and what is reported.
#[derive(Default)]
struct Reports {
    /// As the balancer of the present stream wants it.
    interval_ns: Option<Nanos>,
    timer: Option<TimerId>,
    /// The last report was all zero: another one like it says nothing.
    last_was_zero: bool,
    /// The present stream had its initial response.
    initial: bool,
}

/// See the module's head.
#[derive(Default)]
pub struct GrpcLb {
    settings: Settings,
    endpoints: Vec<Endpoint>,
    updated: bool,
    link: Link,
    /// The balancer's last list, and what is connected for it.
    servers: Option<Servers>,
    stats: Stats,
    reports: Reports,
    fallback: Option<Box<dyn LbPolicy>>,
    /// Fallback is what is wanted, not only what still serves.
    falls_back: bool,
    fallback_timer: Option<TimerId>,
    router: Router<Side>,
}

impl GrpcLb {
    fn update(&mut self, endpoints: &[Endpoint], settings: Settings, ctx: &mut Ctx<'_>) {
        let other_child = self.settings.child != settings.child;
        self.settings = settings;
        self.endpoints = endpoints.to_vec();
        if other_child {
            self.replace_children(ctx);
        } else {
            self.update_fallback(ctx);
        }
        let balancers = ctx.balancers();
        let service = self.settings.service_name.clone().unwrap_or_else(|| ctx.service_name());
        match &balancers {
            Balancers::Found(found) if !found.is_empty() => {
                let was_off = self.link.is_off();
                if self.link.update(service, found, ctx) {
                    self.stop_reports(ctx);
                }
                if was_off && self.servers.is_none() && !self.falls_back {
                    self.set_fallback_timer(self.settings.fallback_timeout_ns, ctx);
                }
            }
            Balancers::Pending => {
                if !self.updated {
                    self.set_fallback_timer(PENDING_MAX_NS, ctx);
                }
            }
            _ => {
                self.stop_reports(ctx);
                self.link.update(service, &[], ctx);
                if self.servers.is_none() {
                    self.fall_back("there is no balancer", ctx);
                }
            }
        }
        self.updated = true;
        ctx.publish();
    }

    /// Another child policy: both sides begin anew with what they have.
    fn replace_children(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(servers) = self.servers.take() {
            self.router.retain(|side| side != Side::Servers, ctx);
            self.use_list(servers.into_list(), ctx);
        }
        if self.fallback.take().is_some() {
            self.router.retain(|side| side != Side::Fallback, ctx);
            self.build_fallback(ctx);
        }
    }

    fn build_fallback(&mut self, ctx: &mut Ctx<'_>) {
        self.fallback = Some(self.settings.child.config().build());
        self.update_fallback(ctx);
    }

    fn update_fallback(&mut self, ctx: &mut Ctx<'_>) {
        let config = self.settings.child.config();
        let endpoints = std::mem::take(&mut self.endpoints);
        let input = Input::ResolverUpdate { endpoints: &endpoints, config: &config };
        self.deliver(Side::Fallback, input, ctx);
        self.endpoints = endpoints;
    }

    fn deliver(&mut self, side: Side, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let child: &mut dyn LbPolicy = match side {
            Side::Servers => match &mut self.servers {
                Some(servers) => servers,
                None => return,
            },
            Side::Fallback => match &mut self.fallback {
                Some(fallback) => &mut **fallback,
                None => return,
            },
        };
        if self.router.deliver(side, child, input, ctx) {
            ctx.publish();
        }
    }

    fn set_fallback_timer(&mut self, wait: Nanos, ctx: &mut Ctx<'_>) {
        if let Some(timer) = self.fallback_timer.take() {
            ctx.cancel_timer(timer);
        }
        self.fallback_timer = Some(ctx.set_timer(ctx.now().saturating_add(wait)));
    }

    fn fall_back(&mut self, why: &'static str, ctx: &mut Ctx<'_>) {
        if let Some(timer) = self.fallback_timer.take() {
            ctx.cancel_timer(timer);
        }
        if std::mem::replace(&mut self.falls_back, true) {
            return;
        }
        ctx.tell(BalancerNews::Fallback(why));
        if self.fallback.is_none() {
            self.build_fallback(ctx);
        }
        ctx.publish();
    }

    fn changed(&mut self, change: Change<'_>, ctx: &mut Ctx<'_>) {
        match change {
            Change::None => {}
            Change::Message(message) => self.message(message, ctx),
            Change::Lost => {
                self.stop_reports(ctx);
                ctx.tell(BalancerNews::Lost(self.link.last_error().clone()));
                match &self.servers {
                    None => self.fall_back("the balancer ended its stream without a list", ctx),
                    Some(servers) if servers.connects() && !self.falls_back => {
                        self.set_fallback_timer(self.settings.fallback_timeout_ns, ctx);
                    }
                    Some(_) => {}
                }
            }
            Change::Exhausted(error) => {
                ctx.tell(BalancerNews::Lost(error));
                if self.servers.is_none() {
                    self.fall_back("no balancer can be reached", ctx);
                }
            }
        }
    }

    fn message(&mut self, message: &BalancerMessage, ctx: &mut Ctx<'_>) {
        match message {
            BalancerMessage::Initial { report_interval_ns } => {
                // Once a stream: a balancer that changes its mind is not gRPC's.
                if !std::mem::replace(&mut self.reports.initial, true) {
                    if let Some(address) = self.link.address() {
                        ctx.tell(BalancerNews::Connected(address.clone()));
                    }
                    let interval = report_interval_ns.filter(|ns| *ns > 0);
                    self.reports.interval_ns = interval.map(|ns| ns.max(REPORT_INTERVAL_MIN_NS));
                    self.reports.last_was_zero = false;
                    self.set_report_timer(ctx);
                }
            }
            BalancerMessage::List(raw) => self.take_list(raw, ctx),
            BalancerMessage::Fallback => self.fall_back("the balancer says so", ctx),
        }
    }

    fn take_list(&mut self, raw: &[ServerEntry], ctx: &mut Ctx<'_>) {
        let (list, ignored) = List::read(raw);
        if let Some(timer) = self.fallback_timer.take() {
            ctx.cancel_timer(timer);
        }
        self.falls_back = false;
        if self.servers.as_ref().is_some_and(|servers| *servers.list() == list) {
            // One that was let go of while it was not wanted.
            return self.deliver(Side::Servers, Input::ExitIdle, ctx);
        }
        let (drops, servers) = (list.drops(), list.entries.len() - list.drops());
        ctx.tell(BalancerNews::List { servers, drops, ignored });
        self.use_list(list, ctx);
    }

    fn use_list(&mut self, list: List, ctx: &mut Ctx<'_>) {
        let config = self.settings.child.config();
        let endpoints = list.endpoints();
        match &mut self.servers {
            Some(servers) => servers.set_list(list, &mut self.stats),
            none => *none = Some(Servers::new(self.settings.child, list, &mut self.stats)),
        }
        let input = Input::ResolverUpdate { endpoints: &endpoints, config: &config };
        self.deliver(Side::Servers, input, ctx);
        ctx.publish();
    }

    /// Follows up on whatever an input changed: the sides' states decide who serves.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        let Some(servers) = &mut self.servers else { return };
        servers.note_state();
        if !self.falls_back && servers.are_lost() && !self.link.is_up() {
            self.fall_back("the balancer and its servers are lost", ctx);
            return;
        }
        let Some(fallback) = &self.fallback else { return };
        let bridges = fallback.state() == ConnectivityState::Ready && servers.connects();
        if !self.falls_back && !bridges {
            self.fallback = None;
            self.router.retain(|side| side != Side::Fallback, ctx);
            ctx.tell(BalancerNews::FallbackOver);
            ctx.publish();
        }
    }

    fn timer(&mut self, timer: TimerId, ctx: &mut Ctx<'_>) {
        if self.link.owns(timer) {
            let change = self.link.timer(ctx);
            self.changed(change, ctx);
        } else if self.reports.timer == Some(timer) {
            self.report(ctx);
            self.set_report_timer(ctx);
        } else if self.fallback_timer == Some(timer) {
            self.fallback_timer = None;
            match &self.servers {
                None if self.link.is_off() => self.fall_back("no balancer is known yet", ctx),
                None => self.fall_back("no list came in time", ctx),
                Some(servers) if servers.connects() && !self.link.is_up() => {
                    self.fall_back("the balancer is lost and its servers don't answer", ctx);
                }
                Some(_) => {}
            }
        }
    }

    fn set_report_timer(&mut self, ctx: &mut Ctx<'_>) {
        let interval = self.reports.interval_ns;
        self.reports.timer = interval.map(|ns| ctx.set_timer(ctx.now().saturating_add(ns)));
    }

    fn report(&mut self, ctx: &mut Ctx<'_>) {
        let report = self.stats.take();
        if !(report.is_zero() && self.reports.last_was_zero) {
            self.reports.last_was_zero = report.is_zero();
            self.link.send(WatchMessage::ClientStats(report), ctx);
        }
    }

    /// The stream is gone: counts wait for the next one.
    fn stop_reports(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(timer) = self.reports.timer.take() {
            ctx.cancel_timer(timer);
        }
        self.reports = Reports::default();
    }

    fn shutdown(&mut self, ctx: &mut Ctx<'_>) {
        if self.reports.interval_ns.is_some() {
            let last = self.stats.take();
            if !last.is_zero() {
                self.link.send(WatchMessage::ClientStats(last), ctx);
            }
        }
        self.stop_reports(ctx);
        self.link.close(ctx);
    }

    /// Which side serves calls.
    fn side(&self) -> Option<&dyn LbPolicy> {
        match (&self.fallback, &self.servers) {
            (Some(fallback), _) => Some(&**fallback),
            (None, Some(servers)) => Some(servers),
            (None, None) => None,
        }
    }
}

impl LbPolicy for GrpcLb {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let owner = self.router.owner(&input);
        match input {
            Input::ResolverUpdate { endpoints, config } => {
                let settings = config.settings::<Settings>().cloned().unwrap_or_default();
                self.update(endpoints, settings, ctx);
            }
            Input::ResolverError(_) => self.deliver(Side::Fallback, input, ctx),
            Input::ExitIdle => {
                self.deliver(Side::Servers, input, ctx);
                self.deliver(Side::Fallback, input, ctx);
            }
            Input::Shutdown => return self.shutdown(ctx),
            _ if owner.is_some() => {
                if let Some(side) = owner {
                    self.deliver(side, input, ctx);
                }
            }
            Input::SubchannelState { id, state, error } => {
                let change = self.link.subchannel_state(id, state, error, ctx);
                self.changed(change, ctx);
            }
            Input::WatchEvent { id, event } => {
                let change = self.link.watch_event(id, event, ctx);
                self.changed(change, ctx);
            }
            Input::Timer(timer) => self.timer(timer, ctx),
            Input::SubchannelHealth { .. } => {}
        }
        self.settle(ctx);
    }

    fn state(&self) -> ConnectivityState {
        self.side().map_or(ConnectivityState::Connecting, LbPolicy::state)
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.side().map_or_else(|| Arc::new(QueuePicker) as _, LbPolicy::picker)
    }
}
