//! What a channel tells about itself. Core defines the events; who counts, logs or traces them
//! implements [`Recorder`] (evenkeel-telemetry, the services, a test).

use std::sync::Arc;

use crate::{Address, BalancerNews, ConnectivityState, Endpoint, Status};

/// Something that happened in a channel. Times are the receiver's own clock's.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The channel's state changed.
    ChannelState(ConnectivityState),
    /// A resolver's answer was taken.
    ResolverUpdate {
        /// The first address of each endpoint.
        addresses: &'a [Address],
        /// The endpoints themselves, in the same order.
        endpoints: &'a [Endpoint],
    },
    /// A resolver had no answer.
    ResolverError(&'a Status),
    /// A resolver can't renew what it knows, and why, or (`None`) can again. A good list stays in
    /// use meanwhile.
    ResolverRenewal(Option<&'a Status>),
    /// A subchannel's state changed; `error` says why when it is TRANSIENT_FAILURE.
    SubchannelState {
        /// The subchannel's address.
        address: &'a Address,
        /// Its new state.
        state: ConnectivityState,
        /// The last error, if any.
        error: Option<&'a Status>,
    },
    /// What health checking says of a connected subchannel changed (gRFC A17); `error` says why
    /// when it is TRANSIENT_FAILURE. Without health checking there is none of these.
    SubchannelHealth {
        /// The subchannel's address.
        address: &'a Address,
        /// CONNECTING before the first answer, READY or TRANSIENT_FAILURE after it.
        state: ConnectivityState,
        /// Why the server is not asked for calls, if so.
        error: Option<&'a Status>,
    },
    /// A connection began to drain: GOAWAY came. Calls in flight go on.
    Draining {
        /// The connection's address.
        address: &'a Address,
    },
    /// A connection ended.
    Disconnected {
        /// The connection's address.
        address: &'a Address,
        /// Why.
        reason: &'a str,
        /// Calls that were open on it at that moment; they may have failed.
        streams_open: u64,
    },
    /// A call was dropped: a balancer or another policy decided so.
    Dropped {
        /// What drops of this kind are counted by, e.g. the balancer's token; may be empty.
        category: &'a str,
    },
    /// What became of the channel's balancer (`grpclb`).
    Balancer(&'a BalancerNews),
    /// An attempt was sent again on another stream because the server never processed it (A6).
    TransparentRetry {
        /// The address of the attempt that was lost.
        address: &'a Address,
    },
    /// An attempt failed and is repeated by the service config's retry policy (A6).
    Retry {
        /// The address of the attempt that failed.
        address: &'a Address,
        /// How many attempts there were so far.
        attempt: u32,
    },
    /// An attempt failed and would be repeated, but most calls of the channel fail: the retry
    /// throttle stopped it (A6).
    RetryThrottled {
        /// The address of the attempt that failed.
        address: &'a Address,
    },
}

/// Receives a channel's events, on the task where they happen: it must not block.
pub trait Recorder: Send + Sync {
    /// Takes note of one event.
    fn record(&self, event: &Event<'_>);
}

/// One recorder made of several, each of which hears every event, in their order.
pub fn all(mut recorders: Vec<Arc<dyn Recorder>>) -> Arc<dyn Recorder> {
    match recorders.len() {
        0 => Arc::new(NoRecorder),
        // The usual case pays for no list.
        1 => recorders.remove(0),
        _ => Arc::new(Recorders(recorders)),
    }
}

struct Recorders(Vec<Arc<dyn Recorder>>);

impl Recorder for Recorders {
    fn record(&self, event: &Event<'_>) {
        for recorder in &self.0 {
            recorder.record(event);
        }
    }
}

/// A recorder that drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn record(&self, _event: &Event<'_>) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Named(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Recorder for Named {
        fn record(&self, _event: &Event<'_>) {
            self.1.lock().expect("not poisoned").push(self.0);
        }
    }

    #[test]
    fn every_recorder_hears_every_event_in_order() {
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let named = |name| Arc::new(Named(name, heard.clone())) as Arc<dyn Recorder>;
        let event = Event::ChannelState(ConnectivityState::Ready);
        all(Vec::new()).record(&event);
        all(vec![named("alone")]).record(&event);
        all(vec![named("first"), named("second")]).record(&event);
        assert_eq!(*heard.lock().expect("not poisoned"), ["alone", "first", "second"]);
    }
}
