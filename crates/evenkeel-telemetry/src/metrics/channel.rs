//! What is counted of a channel beside its calls: connections (gRFC A94, and A78's older names),
//! its resolver, its balancer. A channel's recorder hears of them; when the channel goes, so does
//! what it had open. Not read from the channel's snapshot: that has what is, and not what was.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use evenkeel::core::{
    BalancerNews, ConnectivityState,
    observe::{Event, Recorder},
};

use super::{
    client::Client,
    family::{Families, Labels},
    instruments as names,
};

/// The numbers of all channels to one target. All of it happens on cold paths.
#[derive(Default)]
pub(super) struct ChannelNumbers {
    /// There was a channel.
    is_used: AtomicBool,
    connected: AtomicU64,
    failed: AtomicU64,
    disconnected: AtomicU64,
    updates: AtomicU64,
    errors: AtomicU64,
    endpoints: AtomicI64,
    /// Channels whose resolver can't renew its list.
    failing: AtomicI64,
    throttled: AtomicU64,
    drops: AtomicU64,
    /// Some channel had a balancer.
    has_balancer: AtomicBool,
    balanced: AtomicI64,
    lost: AtomicU64,
    lists: AtomicU64,
    fallback: AtomicI64,
}

impl ChannelNumbers {
    pub(super) fn collect(&self, target: &str, out: &mut Families) {
        if !self.is_used.load(Ordering::Relaxed) {
            return;
        }
        let labels: Labels<'_> = &[("grpc.target", target)];
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        // In this order, so that a connection that ends in between is not counted twice.
        let (ended, made) = (read(&self.disconnected), read(&self.connected));
        out.count(&names::DISCONNECTIONS, labels, ended);
        out.count(&names::CONNECTS_SUCCEEDED, labels, made);
        out.count(&names::CONNECTS_FAILED, labels, read(&self.failed));
        out.level(&names::CONNECTIONS, labels, made.saturating_sub(ended) as i64);
        out.count(&names::PICK_FIRST_DISCONNECTIONS, labels, ended);
        out.count(&names::PICK_FIRST_SUCCEEDED, labels, made);
        out.count(&names::PICK_FIRST_FAILED, labels, read(&self.failed));
        out.count(&names::RESOLVER_UPDATES, labels, read(&self.updates));
        out.count(&names::RESOLVER_ERRORS, labels, read(&self.errors));
        let level = |number: &AtomicI64| number.load(Ordering::Relaxed);
        out.level(&names::RESOLVER_ENDPOINTS, labels, level(&self.endpoints));
        out.level(&names::RESOLVER_FAILING, labels, level(&self.failing));
        out.count(&names::RETRIES_THROTTLED, labels, read(&self.throttled));
        out.count(&names::DROPS, labels, read(&self.drops));
        if self.has_balancer.load(Ordering::Relaxed) {
            out.level(&names::BALANCER_CONNECTED, labels, level(&self.balanced));
            out.count(&names::BALANCER_LOST, labels, read(&self.lost));
            out.count(&names::BALANCER_LISTS, labels, read(&self.lists));
            out.level(&names::BALANCER_FALLBACK, labels, level(&self.fallback));
        }
    }
}

/// Hears of one channel.
pub(crate) struct ChannelRecorder {
    client: Arc<Client>,
    /// This channel's share of the levels.
    open: AtomicI64,
    endpoints: AtomicI64,
    fails: AtomicBool,
    is_balanced: AtomicBool,
    falls_back: AtomicBool,
}

impl ChannelRecorder {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        client.channels.is_used.store(true, Ordering::Relaxed);
        Self {
            client,
            open: AtomicI64::new(0),
            endpoints: AtomicI64::new(0),
            fails: AtomicBool::new(false),
            is_balanced: AtomicBool::new(false),
            falls_back: AtomicBool::new(false),
        }
    }

    fn resolved(&self, endpoints: i64) {
        let before = self.endpoints.swap(endpoints, Ordering::Relaxed);
        self.client.channels.endpoints.fetch_add(endpoints - before, Ordering::Relaxed);
    }

    fn balancer(&self, news: &BalancerNews) {
        let numbers = &self.client.channels;
        numbers.has_balancer.store(true, Ordering::Relaxed);
        match news {
            BalancerNews::Connected(_) => turn(&self.is_balanced, true, &numbers.balanced),
            BalancerNews::Lost(_) => {
                numbers.lost.fetch_add(1, Ordering::Relaxed);
                turn(&self.is_balanced, false, &numbers.balanced);
            }
            BalancerNews::List { .. } => {
                numbers.lists.fetch_add(1, Ordering::Relaxed);
            }
            BalancerNews::Fallback(_) => turn(&self.falls_back, true, &numbers.fallback),
            BalancerNews::FallbackOver => turn(&self.falls_back, false, &numbers.fallback),
            _ => {}
        }
    }
}

/// Turns one channel's state, and counts it if that changes it.
fn turn(own: &AtomicBool, to: bool, all: &AtomicI64) {
    if own.swap(to, Ordering::Relaxed) != to {
        all.fetch_add(if to { 1 } else { -1 }, Ordering::Relaxed);
    }
}

impl Recorder for ChannelRecorder {
    fn record(&self, event: &Event<'_>) {
        let numbers = &self.client.channels;
        let counted = match event {
            Event::ResolverUpdate { endpoints, .. } => {
                self.resolved(endpoints.len() as i64);
                &numbers.updates
            }
            Event::ResolverError(_) => &numbers.errors,
            Event::ResolverRenewal(error) => {
                return turn(&self.fails, error.is_some(), &numbers.failing);
            }
            Event::SubchannelState { state: ConnectivityState::Ready, .. } => {
                self.open.fetch_add(1, Ordering::Relaxed);
                &numbers.connected
            }
            Event::SubchannelState { state: ConnectivityState::TransientFailure, .. } => {
                &numbers.failed
            }
            Event::Disconnected { .. } => {
                self.open.fetch_sub(1, Ordering::Relaxed);
                &numbers.disconnected
            }
            Event::Dropped { .. } => &numbers.drops,
            Event::RetryThrottled { .. } => &numbers.throttled,
            Event::Balancer(news) => return self.balancer(news),
            _ => return,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for ChannelRecorder {
    /// A channel that is dropped lets its connections drain, and hears of them no more.
    fn drop(&mut self) {
        let numbers = &self.client.channels;
        let open = u64::try_from(*self.open.get_mut()).unwrap_or(0);
        numbers.disconnected.fetch_add(open, Ordering::Relaxed);
        self.resolved(0);
        turn(&self.fails, false, &numbers.failing);
        turn(&self.is_balanced, false, &numbers.balanced);
        turn(&self.falls_back, false, &numbers.fallback);
    }
}
