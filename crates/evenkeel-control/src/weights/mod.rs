//! Load-aware weights: what backends report of their load (ORCA, gRFC A51) becomes their shares of
//! the calls. They tell the balancer itself, or the clients with each answer, which tell the
//! balancer (LRS). grpclb's own ClientStats can't do that: they have no field for a backend.
//!
//! A weight is what a backend could serve: calls a second over utilisation (gRFC A58). Unlike
//! "least utilised" that does not depend on how much it gets now, so that following it does not
//! move it: a backend at half its speed reports half the weight with any share. What is left of the
//! loop is kept calm by smoothing, by a blackout for those that have just started, and by lists
//! that are only sent when weights have moved by more than they are sure of.
//!
//! [`Weights`] decides without I/O, `now` comes in; [`run`] has the streams.

mod clients;
mod load;
mod settings;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, net::SocketAddr};

pub(crate) use clients::{ClientLoads, Metric, Reporter, Share};
pub use clients::{REPORT_INTERVALS_MAX, REPORTED_ENDPOINTS_MAX};
pub use load::Load;
pub use settings::{LoadAware, Source};
pub(crate) use watch::by_clients;
pub use watch::{STREAMS_MAX, run};

/// Nanoseconds since some epoch of the caller's.
pub type Nanos = u64;

/// A factor of the mean weight. With it a list has about so many entries for each endpoint, and a
/// share is exact to half an entry.
pub const FACTOR_MEAN: u32 = 20;
/// The least share, as a fraction of the mean: a backend that gets nothing reports nothing, and
/// would never come back.
pub const FLOOR: f64 = 0.1;
/// The greatest weight over the least.
pub const RATIO_MAX: f64 = 10.0;
/// Nothing is published before some weight has moved by this fraction of what is published.
pub const CHANGE_MIN: f64 = 0.05;

/// What weights of a service's endpoints are multiplied by; [`FACTOR_MEAN`] where there is none.
pub type Factors = BTreeMap<SocketAddr, u32>;

/// The endpoints of one service and what they reported.
#[derive(Clone, Debug)]
pub struct Weights {
    settings: LoadAware,
    known: BTreeMap<SocketAddr, Known>,
    /// Relative to the mean, as published; without those that nothing is known of.
    published: BTreeMap<SocketAddr, f64>,
    next_update: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// When the unbroken row of reports began.
    since: Nanos,
    last: Nanos,
    /// Calls a second that it could serve, smoothed.
    weight: f64,
}

impl Weights {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: LoadAware) -> Self {
        let (known, published) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, known, published, next_update: 0 }
    }

    /// Takes a report. One without calls or without utilisation says nothing of what the backend
    /// could serve, and is left out (A58).
    pub fn report(&mut self, now: Nanos, address: SocketAddr, load: &Load) {
        let Some(weight) = load.weight(self.settings.error_penalty) else { return };
        let expired = self.settings.expiration_ns;
        match self.known.get_mut(&address) {
            Some(known) if now.saturating_sub(known.last) <= expired => {
                let span = now.saturating_sub(known.last) as f64;
                let kept = (-span / self.settings.smoothing_ns.max(1) as f64).exp();
                known.weight = known.weight * kept + weight * (1.0 - kept);
                known.last = known.last.max(now);
            }
            _ => {
                self.known.insert(address, Known { since: now, last: now, weight });
            }
        }
    }

    /// Forgets endpoints that are gone: what returns on the address may be another backend.
    pub fn retain(&mut self, is_there: impl Fn(&SocketAddr) -> bool) {
        self.known.retain(|address, _| is_there(address));
        self.published.retain(|address, _| is_there(address));
    }

    /// When [`Weights::update`] is wanted next.
    #[must_use]
    pub fn next_update(&self) -> Nanos {
        self.next_update
    }

    /// The factors, when there is something new to publish; at most every `update_interval_ns`.
    pub fn update(&mut self, now: Nanos) -> Option<Factors> {
        if now < self.next_update {
            return None;
        }
        self.next_update = now + self.settings.update_interval_ns;
        let relative = self.relative(now);
        if !self.has_moved(&relative) {
            return None;
        }
        let factor = |relative: f64| (relative * f64::from(FACTOR_MEAN)).round().max(1.0) as u32;
        let factors = relative.iter().map(|(address, value)| (*address, factor(*value))).collect();
        self.published = relative;
        Some(factors)
    }

    /// What each endpoint is worth, relative to the mean of those of which it is known; bounded.
    fn relative(&mut self, now: Nanos) -> BTreeMap<SocketAddr, f64> {
        let LoadAware { expiration_ns, blackout_ns, .. } = self.settings;
        self.known.retain(|_, known| now.saturating_sub(known.last) <= expiration_ns);
        let usable = |known: &&Known| now.saturating_sub(known.since) >= blackout_ns;
        let count = self.known.values().filter(usable).count();
        // One alone can't be compared.
        if count < 2 {
            return BTreeMap::new();
        }
        let sum: f64 = self.known.values().filter(usable).map(|known| known.weight).sum();
        let mean = sum / count as f64;
        let usable = self.known.iter().filter(|(_, known)| usable(known));
        let mut relative: BTreeMap<_, _> =
            usable.map(|(address, known)| (*address, (known.weight / mean).max(FLOOR))).collect();
        let least = relative.values().copied().fold(f64::INFINITY, f64::min);
        for value in relative.values_mut() {
            *value = value.min(least * RATIO_MAX);
        }
        relative
    }

    fn has_moved(&self, relative: &BTreeMap<SocketAddr, f64>) -> bool {
        let of =
            |map: &BTreeMap<SocketAddr, f64>, address| map.get(address).copied().unwrap_or(1.0);
        relative.keys().chain(self.published.keys()).any(|address| {
            let (new, old) = (of(relative, address), of(&self.published, address));
            (new / old - 1.0).abs() >= CHANGE_MIN
        })
    }
}
