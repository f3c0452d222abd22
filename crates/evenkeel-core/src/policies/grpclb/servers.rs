//! The servers of the balancer's list: what is connected for it, and the picker over it. The child
//! knows distinct addresses; duplicates and tokens are the list's.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Child,
    list::{Entry, List},
    picker::{ListPicker, Ready, Step, Turns},
    stats::{Calls, DropCounter, Stats},
};
use crate::{
    Address, ConnectivityState, Ctx, Input, LbPolicy, Picker, PolicyConfig, Status,
    picker::waiting_picker,
    policies::{
        children::Children,
        pick_first::{self, PickFirst},
    },
};

enum Connections {
    Each(Children),
    One(PickFirst),
}

/// See the module's head.
pub(super) struct Servers {
    list: List,
    /// Of the list's drop entries, in their order.
    drops: Vec<Arc<DropCounter>>,
    connections: Connections,
    turns: Arc<Turns>,
    calls: Arc<Calls>,
    /// One of them was READY since the list came.
    served: bool,
}

impl Servers {
    pub(super) fn new(child: Child, list: List, stats: &mut Stats) -> Self {
        // No health checks: the balancer knows better which of its servers are well.
        let settings = Arc::new(pick_first::Settings::default());
        let pick_first = PolicyConfig::new(Arc::new(pick_first::Factory), settings);
        let connections = match child {
            Child::RoundRobin => Connections::Each(Children::new(pick_first)),
            Child::PickFirst => Connections::One(PickFirst::default()),
        };
        let (turns, calls) = (Arc::default(), stats.calls.clone());
        let (drops, served) = (Vec::new(), false);
        let mut servers = Self { list: List::default(), drops, connections, turns, calls, served };
        servers.set_list(list, stats);
        servers
    }

    /// Takes a new list; the child is to be told its endpoints next.
    pub(super) fn set_list(&mut self, list: List, stats: &mut Stats) {
        let tokens = list.entries.iter().filter_map(|entry| match entry {
            Entry::Drop { token } => Some(token),
            Entry::Server { .. } => None,
        });
        self.drops = tokens.map(|token| stats.drop_counter(token)).collect();
        self.list = list;
        self.served = false;
    }

    pub(super) fn list(&self) -> &List {
        &self.list
    }

    pub(super) fn into_list(self) -> List {
        self.list
    }

    pub(super) fn note_state(&mut self) {
        self.served |= self.child_state() == ConnectivityState::Ready;
    }

    /// None of them can take a call, though one did or all were tried.
    pub(super) fn are_lost(&self) -> bool {
        match self.child_state() {
            _ if self.list.only_drops() => false,
            ConnectivityState::Ready => false,
            ConnectivityState::TransientFailure => true,
            _ => self.served,
        }
    }

    /// The list is new, and the first connection to one of its servers is not there yet.
    pub(super) fn connects(&self) -> bool {
        let state = self.child_state();
        let waits = [ConnectivityState::Connecting, ConnectivityState::Idle].contains(&state);
        waits && !self.list.only_drops()
    }

    /// Why no call can be sent to them.
    fn failure(&self) -> Status {
        if self.list.entries.is_empty() {
            return Status::unavailable("the balancer's list has no servers");
        }
        match &self.connections {
            Connections::Each(children) => children.failure(),
            Connections::One(pick_first) => pick_first.failure(),
        }
    }

    fn child_state(&self) -> ConnectivityState {
        match &self.connections {
            Connections::Each(children) => children.state(),
            Connections::One(pick_first) => pick_first.state(),
        }
    }

    fn list_picker(&self) -> ListPicker {
        let by_address: BTreeMap<&Address, Arc<dyn Picker>> = match &self.connections {
            Connections::Each(children) => children.ready().collect(),
            Connections::One(pick_first) => {
                let connected = pick_first.connected_to().into_iter();
                connected.map(|address| (address, pick_first.picker())).collect()
            }
        };
        let mut drops = self.drops.iter();
        let (mut steps, mut ready) = (Vec::with_capacity(self.list.entries.len()), Vec::new());
        for entry in &self.list.entries {
            steps.push(match entry {
                Entry::Drop { .. } => match drops.next() {
                    Some(counter) => Step::Drop(counter.clone()),
                    None => continue,
                },
                Entry::Server { address, token } => match by_address.get(address) {
                    Some(picker) => {
                        ready.push(Ready { picker: picker.clone(), token: token.clone() });
                        Step::Ready(ready.len() - 1)
                    }
                    None => Step::Spare,
                },
            });
        }
        let (turns, calls) = (self.turns.clone(), self.calls.clone());
        ListPicker { steps, ready, turns, calls }
    }
}

impl LbPolicy for Servers {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match (&mut self.connections, input) {
            (Connections::Each(children), Input::ResolverUpdate { endpoints, .. }) => {
                children.update(endpoints, ctx);
            }
            (Connections::Each(children), other) => children.handle(other, ctx),
            (Connections::One(pick_first), input) => {
                let is_list = matches!(input, Input::ResolverUpdate { .. });
                pick_first.handle(input, ctx);
                if is_list && pick_first.state() == ConnectivityState::Idle {
                    pick_first.handle(Input::ExitIdle, ctx);
                }
            }
        }
    }

    fn state(&self) -> ConnectivityState {
        match self.list.only_drops() {
            true => ConnectivityState::Ready,
            false => self.child_state(),
        }
    }

    fn picker(&self) -> Arc<dyn Picker> {
        match self.state() {
            ConnectivityState::Ready => Arc::new(self.list_picker()),
            state => waiting_picker(state, || self.failure()),
        }
    }
}
