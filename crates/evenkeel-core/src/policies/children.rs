//! The child manager: one child policy per endpoint, kept across resolver updates so that an
//! unchanged endpoint keeps its connection. `round_robin` and its relatives are a way to choose
//! among these children; they never see a subchannel.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{router::Router, unreachable::unreachable};
use crate::{
    Address, ConnectivityState, Ctx, Endpoint, Input, LbPolicy, Picker, PolicyConfig,
    ResolverError, Status, connectivity::StateCounts,
};

/// What makes two endpoints the same one: their addresses, in whatever order (gRFC A61).
type Identity = Vec<Address>;

struct Child {
    identity: Identity,
    /// For messages.
    first_address: Address,
    policy: Box<dyn LbPolicy>,
    state: ConnectivityState,
}

/// Children by endpoint. IDLE children are told to connect at once.
pub struct Children {
    child_config: PolicyConfig,
    children: BTreeMap<u64, Child>,
    by_identity: BTreeMap<Identity, u64>,
    order: Vec<u64>,
    counts: StateCounts,
    router: Router<u64>,
    next_key: u64,
    expired: bool,
    last_error: Option<Status>,
}

impl Children {
    /// No children yet; each will be of the policy that `child_config` names.
    pub fn new(child_config: PolicyConfig) -> Self {
        Self {
            child_config,
            children: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            order: Vec::new(),
            counts: StateCounts::default(),
            router: Router::default(),
            next_key: 0,
            expired: false,
            last_error: None,
        }
    }

    /// Makes one child per distinct endpoint, in the order of the list; children of endpoints that
    /// are gone end, the others stay as they are.
    pub fn update(&mut self, endpoints: &[Endpoint], ctx: &mut Ctx<'_>) {
        self.expired = false;
        if endpoints.is_empty() {
            self.last_error = None;
        }
        let identities: Vec<Identity> = endpoints.iter().map(identity).collect();
        let wanted: BTreeSet<&Identity> = identities.iter().collect();
        self.retain(|child| wanted.contains(&child.identity), ctx);
        self.order.clear();
        let mut seen = BTreeSet::new();
        for (endpoint, identity) in endpoints.iter().zip(&identities) {
            if !seen.insert(identity) {
                continue;
            }
            let key = match self.by_identity.get(identity) {
                Some(&key) => key,
                None => self.insert(identity, endpoint),
            };
            self.order.push(key);
            let config = self.child_config.clone();
            let one = std::slice::from_ref(endpoint);
            self.deliver(key, Input::ResolverUpdate { endpoints: one, config: &config }, ctx);
        }
        if endpoints.is_empty() {
            ctx.request_resolution();
        }
        ctx.publish();
    }

    /// Takes any input but a resolver update.
    pub fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverError(error) => self.resolver_error(error, ctx),
            Input::ExitIdle => {
                for key in self.order.clone() {
                    self.deliver(key, input, ctx);
                }
            }
            _ => {
                if let Some(key) = self.router.owner(&input) {
                    if let Input::SubchannelState { error: Some(error), .. }
                    | Input::SubchannelHealth { error: Some(error), .. } = input
                    {
                        self.last_error = Some(error.clone());
                    }
                    self.deliver(key, input, ctx);
                }
            }
        }
    }

    /// The state that follows from the children's.
    pub fn state(&self) -> ConnectivityState {
        self.counts.aggregate()
    }

    /// The pickers of the READY children, in the order of the resolver's list.
    pub fn ready_pickers(&self) -> Vec<Arc<dyn Picker>> {
        let mut pickers = Vec::with_capacity(self.counts.ready());
        let children = self.order.iter().filter_map(|key| self.children.get(key));
        pickers.extend(
            children.filter(|c| c.state == ConnectivityState::Ready).map(|c| c.policy.picker()),
        );
        pickers
    }

    /// The first address of each READY child with its picker, in the order of the resolver's list.
    pub fn ready(&self) -> impl Iterator<Item = (&Address, Arc<dyn Picker>)> {
        let children = self.order.iter().filter_map(|key| self.children.get(key));
        let ready = children.filter(|c| c.state == ConnectivityState::Ready);
        ready.map(|c| (&c.first_address, c.policy.picker()))
    }

    /// Why no call can be sent: how many endpoints, which, and the last error.
    pub fn failure(&self) -> Status {
        let last = self.last_error.as_ref().map(|e| e.message.as_str());
        if self.children.is_empty() {
            return Status::unavailable(last.unwrap_or("the resolver found no endpoints"));
        }
        let children = self.order.iter().filter_map(|key| self.children.get(key));
        let names = children.map(|c| c.first_address.to_string());
        unreachable("endpoints", self.children.len(), names, last.unwrap_or("none yet"))
    }

    fn insert(&mut self, identity: &Identity, endpoint: &Endpoint) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        let policy = self.child_config.build();
        let state = policy.state();
        let first_address = endpoint.addresses()[0].clone();
        self.children
            .insert(key, Child { identity: identity.clone(), first_address, policy, state });
        self.by_identity.insert(identity.clone(), key);
        self.counts.add(state);
        key
    }

    fn deliver(&mut self, key: u64, input: Input<'_>, ctx: &mut Ctx<'_>) {
        let all_before = self.state();
        let Some(child) = self.children.get_mut(&key) else { return };
        let mut publishes = self.router.deliver(key, &mut *child.policy, input, ctx);
        if child.policy.state() == ConnectivityState::Idle && !self.expired {
            publishes |= self.router.deliver(key, &mut *child.policy, Input::ExitIdle, ctx);
        }
        let (before, after) = (child.state, child.policy.state());
        if after != before {
            self.counts.remove(before);
            self.counts.add(after);
            child.state = after;
            publishes = true;
        }
        if self.expired && !child.policy.is_connected() {
            self.retain(|c| c.policy.is_connected(), ctx);
        }
        // A picker costs O(children): a dead one among live ones must not cause one per attempt.
        let seen = [before, after].contains(&ConnectivityState::Ready)
            || all_before != self.state()
            || self.state() == ConnectivityState::TransientFailure;
        if publishes && seen {
            ctx.publish();
        }
    }

    fn resolver_error(&mut self, error: &ResolverError, ctx: &mut Ctx<'_>) {
        if error.expired {
            self.expired = true;
            self.retain(|c| c.policy.is_connected(), ctx);
        }
        if self.children.is_empty() || error.expired {
            self.last_error = Some(error.status.clone());
            ctx.publish();
        }
    }

    fn retain(&mut self, keep: impl Fn(&Child) -> bool, ctx: &mut Ctx<'_>) {
        let before = self.children.len();
        self.children.retain(|_, child| {
            let kept = keep(child);
            if !kept {
                self.counts.remove(child.state);
                self.by_identity.remove(&child.identity);
            }
            kept
        });
        if self.children.len() != before {
            let children = &self.children;
            self.router.retain(|key| children.contains_key(&key), ctx);
            self.order.retain(|key| children.contains_key(key));
        }
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    let mut addresses = endpoint.addresses().to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
