//! The scheme `static`: a list of endpoints that commands replace, as grpc-go's manual resolver
//! does. It is registered from outside through the builder, which also shows that anybody can.

use std::{net::SocketAddr, sync::Arc};

use evenkeel::core::{
    Address, Balancer, Balancers, Endpoint, ResolverError, ResolverFactory, ResolverSink,
    ResolverTask, ResolverUpdate, Status, Target, TargetError,
};
use tokio::sync::watch;

/// What the channel is told to resolve: the list itself is no valid target when it is empty.
pub(super) const TARGET: &str = "static:///greeter";
/// The scheme and the slashes before a list.
pub(super) const PREFIX: &str = "static:///";
/// The most addresses of a list.
pub(super) const ADDRESSES_MAX: usize = 10_000;

/// A list of endpoints. Clones are the same list.
#[derive(Clone, Debug)]
pub(super) struct StaticList {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    endpoints: Vec<Endpoint>,
    balancers: Vec<SocketAddr>,
    /// Grows with each list, so that an error is not mistaken for a new list.
    generation: u64,
    error: Option<String>,
}

impl StaticList {
    /// A list to start with.
    pub(super) fn new(endpoints: Vec<Endpoint>, balancers: Vec<SocketAddr>) -> Self {
        let state = State { endpoints, balancers, ..State::default() };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// Replaces the list, and the balancers beside it.
    pub(super) fn set(&self, endpoints: Vec<Endpoint>, balancers: Vec<SocketAddr>) {
        self.state.send_modify(|state| {
            state.endpoints = endpoints;
            state.balancers = balancers;
            state.generation += 1;
            state.error = None;
        });
    }

    /// Reports that resolving failed.
    pub(super) fn fail(&self, text: &str) {
        self.state.send_modify(|state| state.error = Some(text.into()));
    }
}

impl ResolverFactory for StaticList {
    fn schemes(&self) -> &[&str] {
        &["static"]
    }

    fn default_authority(&self, target: &Target) -> Result<String, TargetError> {
        Ok(target.path().into())
    }

    fn start(
        &self,
        _target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        // The list never ends by itself: the task holds its own handle.
        let list = self.clone();
        Ok(Box::pin(async move {
            let mut changes = list.state.subscribe();
            let mut sent = None;
            loop {
                let State { endpoints, balancers, generation, error } =
                    changes.borrow_and_update().clone();
                if sent.replace(generation) != Some(generation) {
                    let mut update = ResolverUpdate::new(endpoints);
                    let balancer =
                        |address: SocketAddr| Balancer { address: address.into(), name: None };
                    if !balancers.is_empty() {
                        let found = balancers.into_iter().map(balancer).collect();
                        update.balancers = Balancers::Found(found);
                    }
                    sink.update(update);
                }
                if let Some(text) = error {
                    sink.error(ResolverError { status: Status::unavailable(text), expired: false });
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }))
    }
}

/// Reads `a:p,b:p`; `a:p|b:p` is one endpoint with two addresses.
///
/// # Errors
///
/// An address that is no IP:port, an endpoint without one, or more than [`ADDRESSES_MAX`].
pub(super) fn parse_endpoints(list: &str) -> Result<Vec<Endpoint>, String> {
    let mut endpoints = Vec::new();
    let mut count = 0;
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let mut addresses = Vec::new();
        for text in entry.split('|') {
            let address: SocketAddr = text.trim().parse().map_err(|_| {
                format!("expected IP:port, IP:port|IP:port or [IPv6]:port, got {text:?}")
            })?;
            addresses.push(Address::from(address));
        }
        count += addresses.len();
        if count > ADDRESSES_MAX {
            return Err(format!("expected at most {ADDRESSES_MAX} addresses, got more"));
        }
        endpoints.extend(Endpoint::with_addresses(addresses));
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Mutex,
        task::{Context, Poll},
    };

    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<String>>);

    impl ResolverSink for Sink {
        fn update(&self, update: ResolverUpdate) {
            self.0.lock().unwrap().push(shown(&update.endpoints));
        }
        fn error(&self, error: ResolverError) {
            assert!(!error.expired);
            self.0.lock().unwrap().push(format!("error {}", error.status.message));
        }
        fn poll_requested(&self, _cx: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    fn shown(endpoints: &[Endpoint]) -> String {
        let endpoint = |endpoint: &Endpoint| {
            let addresses: Vec<String> =
                endpoint.addresses().iter().map(ToString::to_string).collect();
            addresses.join("|")
        };
        endpoints.iter().map(endpoint).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn reads_endpoints_of_one_and_of_several_addresses() {
        for (list, want) in [
            ("", ""),
            ("127.0.0.2:8000", "127.0.0.2:8000"),
            (" 127.0.0.2:1 ,, 127.0.0.3:2 ", "127.0.0.2:1,127.0.0.3:2"),
            ("127.0.0.2:1|[::1]:1,127.0.0.3:2", "127.0.0.2:1|[::1]:1,127.0.0.3:2"),
        ] {
            assert_eq!(parse_endpoints(list).map(|endpoints| shown(&endpoints)), Ok(want.into()));
        }
        for list in ["localhost:1", "127.0.0.2", "127.0.0.2:1|", "127.0.0.2:99999", "::1:1"] {
            assert!(parse_endpoints(list).unwrap_err().contains("expected IP:port"), "{list}");
        }
        let long = "127.0.0.2:1,".repeat(ADDRESSES_MAX + 1);
        assert!(parse_endpoints(&long).unwrap_err().contains("at most 10000"));
    }

    #[test]
    fn each_list_and_each_error_reaches_the_channel_once() {
        let list = StaticList::new(parse_endpoints("127.0.0.2:1").unwrap(), vec![]);
        let sink = Arc::new(Sink::default());
        let target = Target::parse(TARGET, &["static"]).unwrap();
        assert_eq!(list.default_authority(&target).unwrap(), "greeter");
        let mut task = list.start(&target, sink.clone()).unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut seen = || {
            assert!(task.as_mut().poll(&mut cx).is_pending(), "the task goes on");
            std::mem::take(&mut *sink.0.lock().unwrap())
        };
        assert_eq!(seen(), ["127.0.0.2:1"]);
        assert!(seen().is_empty());
        list.fail("no such host");
        assert_eq!(seen(), ["error no such host"]);
        list.set(vec![], vec![]);
        assert_eq!(seen(), [""]);
        list.set(parse_endpoints("127.0.0.3:1").unwrap(), vec![]);
        list.fail("gone");
        assert_eq!(seen(), ["127.0.0.3:1", "error gone"]);
    }

    #[test]
    fn a_channel_that_wakes_again_gets_the_newest_list() {
        let list = StaticList::new(vec![], vec![]);
        list.set(parse_endpoints("127.0.0.3:1").unwrap(), vec![]);
        let sink = Arc::new(Sink::default());
        let target = Target::parse(TARGET, &["static"]).unwrap();
        let mut task = list.start(&target, sink.clone()).unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert_eq!(*sink.0.lock().unwrap(), ["127.0.0.3:1"]);
    }
}
