//! `sticky`: calls that carry the same value in a header go to the same backend, for as long as it
//! is READY. Rendezvous hashing over the endpoints and not a table of who went where: every client
//! of the service comes to the same choice without a word between them, and when a backend comes
//! or goes, only the calls that belong to it move.
//!
//! One file for the policy (`Sticky`: what happens), one for the picker (what a call sees), one
//! for the hash. All of it is the public API of `evenkeel::core`; copy the folder and go on from
//! there.

mod hash;
mod picker;

use std::{any::Any, collections::BTreeMap, sync::Arc};

use evenkeel::core::{
    ConfigError, ConnectivityState, Ctx, Endpoint, Input, LbPolicy, Picker, PolicyConfig,
    PolicyFactory, PolicyRegistry, Status,
    picker::waiting_picker,
    policies::{pick_first, router::Router},
};
use http::HeaderName;
use serde_json::Value;

use crate::picker::{Backend, StickyPicker};

/// The policy's name in a service config.
pub const NAME: &str = "sticky";

/// Registers the policy: `ChannelBuilder::register_policy(Arc::new(own_policy::Factory))`, and then
/// `{"loadBalancingConfig": [{"sticky": {"header": "x-session"}}]}` in the service config.
pub struct Factory;

struct Settings {
    header: HeaderName,
}

impl PolicyFactory for Factory {
    fn name(&self) -> &str {
        NAME
    }

    fn parse_config(
        &self,
        json: &Value,
        _registry: &PolicyRegistry,
    ) -> Result<Arc<dyn Any + Send + Sync>, ConfigError> {
        let header = json["header"].as_str().and_then(|text| text.parse().ok());
        let header =
            header.ok_or_else(|| ConfigError::new("header", "a header's name", &json["header"]))?;
        Ok(Arc::new(Settings { header }))
    }

    fn build(&self) -> Box<dyn LbPolicy> {
        Box::new(Sticky {
            header: None,
            children: BTreeMap::new(),
            router: Router::default(),
            last_error: None,
            expired: false,
        })
    }
}

/// One `pick_first` for each endpoint, which takes care of its addresses and of reconnecting. The
/// key is the hash of the endpoint's addresses, so it is the same in every client.
struct Sticky {
    /// Known from the first resolver update on.
    header: Option<HeaderName>,
    children: BTreeMap<u64, Box<dyn LbPolicy>>,
    /// Knows which subchannel and which timer belongs to which child.
    router: Router<u64>,
    last_error: Option<Status>,
    /// The resolver's list is too old: what is connected serves on, nothing else is tried.
    expired: bool,
}

impl Sticky {
    fn update(&mut self, endpoints: &[Endpoint], ctx: &mut Ctx<'_>) {
        let wanted: BTreeMap<u64, &Endpoint> =
            endpoints.iter().map(|e| (hash::of_endpoint(e), e)).collect();
        self.expired = false;
        self.last_error = None;
        self.keep(|key, _| wanted.contains_key(&key), ctx);
        let settings = Arc::new(pick_first::Settings::default());
        let config = PolicyConfig::new(Arc::new(pick_first::Factory), settings);
        for (key, endpoint) in wanted {
            self.children.entry(key).or_insert_with(|| config.build());
            let endpoints = std::slice::from_ref(endpoint);
            self.deliver(key, Input::ResolverUpdate { endpoints, config: &config }, ctx);
        }
        if endpoints.is_empty() {
            ctx.request_resolution();
        }
        ctx.publish();
    }

    /// Hands an input to one child. One that is IDLE then connects at once: a policy that waits for
    /// the first call would make that call wait.
    fn deliver(&mut self, key: u64, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let mut changed = self.router.deliver(key, &mut **child, input, ctx);
        if child.state() == ConnectivityState::Idle && !self.expired {
            changed |= self.router.deliver(key, &mut **child, Input::ExitIdle, ctx);
        }
        if changed {
            ctx.publish();
        }
    }

    /// Ends the children that are not wanted, with their subchannels and timers.
    fn keep(&mut self, wanted: impl Fn(u64, &dyn LbPolicy) -> bool, ctx: &mut Ctx<'_>) {
        self.children.retain(|key, child| wanted(*key, &**child));
        let children = &self.children;
        self.router.retain(|key| children.contains_key(&key), ctx);
    }

    fn failure(&self) -> Status {
        let last = self.last_error.as_ref().map_or("no error yet", |e| e.message.as_str());
        let count = self.children.len();
        Status::unavailable(format!("sticky: none of {count} endpoints is reachable; last: {last}"))
    }
}

impl LbPolicy for Sticky {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverUpdate { endpoints, config } => {
                self.header = config.settings::<Settings>().map(|s| s.header.clone());
                self.update(endpoints, ctx);
            }
            Input::ResolverError(error) => {
                // Without endpoints the error is all there is to say; with them it is of no use to
                // a caller, unless the list is too old to be trusted.
                if error.expired {
                    self.expired = true;
                    self.keep(|_, child| child.state() == ConnectivityState::Ready, ctx);
                }
                if self.children.is_empty() {
                    self.last_error = Some(error.status.clone());
                    ctx.publish();
                }
            }
            Input::ExitIdle => {
                for key in self.children.keys().copied().collect::<Vec<_>>() {
                    self.deliver(key, input, ctx);
                }
            }
            // About one subchannel or one timer.
            other => {
                if let Input::SubchannelState { error: Some(error), .. } = other {
                    self.last_error = Some(error.clone());
                }
                if let Some(key) = self.router.owner(&other) {
                    self.deliver(key, other, ctx);
                }
            }
        }
    }

    /// As good as the best child; without any it is a failure as soon as that is known.
    fn state(&self) -> ConnectivityState {
        let any = |wanted| self.children.values().any(|child| child.state() == wanted);
        if any(ConnectivityState::Ready) {
            ConnectivityState::Ready
        } else if any(ConnectivityState::Connecting) || any(ConnectivityState::Idle) {
            ConnectivityState::Connecting
        } else if self.header.is_none() && self.last_error.is_none() {
            ConnectivityState::Idle
        } else {
            ConnectivityState::TransientFailure
        }
    }

    fn picker(&self) -> Arc<dyn Picker> {
        let ready = |child: &dyn LbPolicy| child.state() == ConnectivityState::Ready;
        let backends: Vec<Backend> = (self.children.iter())
            .filter(|(_, child)| ready(&***child))
            .map(|(key, child)| Backend { key: *key, picker: child.picker() })
            .collect();
        match &self.header {
            Some(header) if !backends.is_empty() => {
                Arc::new(StickyPicker { header: header.clone(), backends })
            }
            _ => waiting_picker(self.state(), || self.failure()),
        }
    }
}
