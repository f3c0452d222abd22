//! Changes from one policy to another without a gap: the old one serves until the new one has
//! something better to offer (gRPC's "graceful switch"). The root of every tree.

use std::sync::Arc;

use super::router::Router;
use crate::{ConnectivityState, Ctx, Input, LbPolicy, Picker, PolicyConfig, picker::QueuePicker};

struct Node {
    key: u64,
    name: String,
    policy: Box<dyn LbPolicy>,
}

/// See the module's head.
#[derive(Default)]
pub struct Switch {
    router: Router<u64>,
    current: Option<Node>,
    pending: Option<Node>,
    next_key: u64,
}

impl Switch {
    /// True until the first resolver update.
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// The name of the policy that serves.
    pub fn name(&self) -> Option<&str> {
        self.current.as_ref().map(|node| node.name.as_str())
    }

    /// Lets go of everything, as before the first resolver update.
    pub fn clear(&mut self, ctx: &mut Ctx<'_>) {
        for node in [self.current.take(), self.pending.take()].into_iter().flatten() {
            self.retire(node, ctx);
        }
        self.drop_strangers(ctx);
    }

    fn update(&mut self, input: Input<'_>, config: &PolicyConfig, ctx: &mut Ctx<'_>) {
        let is_wanted = |node: &Node| node.name == config.name();
        if self.current.as_ref().is_some_and(is_wanted) {
            // Usually there is no other; else a change is taken back before it took effect.
            if let Some(pending) = self.pending.take() {
                self.retire(pending, ctx);
            }
        } else if !self.pending.as_ref().is_some_and(is_wanted) {
            let node =
                Node { key: self.next_key, name: config.name().into(), policy: config.build() };
            self.next_key += 1;
            let old = if self.state() == ConnectivityState::Ready {
                self.pending.replace(node)
            } else {
                ctx.publish();
                self.current.replace(node)
            };
            if let Some(old) = old {
                self.retire(old, ctx);
            }
        }
        self.drop_strangers(ctx);
        if let Some(node) = self.pending.as_mut().or(self.current.as_mut()) {
            let publishes = self.router.deliver(node.key, &mut *node.policy, input, ctx);
            if publishes && self.pending.is_none() {
                ctx.publish();
            }
        }
    }

    /// The new policy takes over when it no longer only connects, or when the old one stopped
    /// serving anyway.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        let (Some(current), Some(pending)) = (&self.current, &self.pending) else { return };
        let better = pending.policy.state() != ConnectivityState::Connecting;
        if better || current.policy.state() != ConnectivityState::Ready {
            let old = std::mem::replace(&mut self.current, self.pending.take());
            if let Some(old) = old {
                self.retire(old, ctx);
            }
            self.drop_strangers(ctx);
            ctx.publish();
        }
    }

    /// The last input of a policy; then it is dropped.
    fn retire(&mut self, mut node: Node, ctx: &mut Ctx<'_>) {
        self.router.deliver(node.key, &mut *node.policy, Input::Shutdown, ctx);
    }

    fn drop_strangers(&mut self, ctx: &mut Ctx<'_>) {
        let keys = [&self.current, &self.pending].map(|n| n.as_ref().map(|n| n.key));
        self.router.retain(|key| keys.contains(&Some(key)), ctx);
    }

    fn for_each(&mut self, input: Input<'_>, only: Option<u64>, ctx: &mut Ctx<'_>) {
        for (node, serves) in [(&mut self.current, true), (&mut self.pending, false)] {
            let Some(node) = node.as_mut().filter(|n| only.is_none_or(|key| n.key == key)) else {
                continue;
            };
            if self.router.deliver(node.key, &mut *node.policy, input, ctx) && serves {
                ctx.publish();
            }
        }
    }
}

impl LbPolicy for Switch {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        match input {
            Input::ResolverUpdate { config, .. } => self.update(input, config, ctx),
            Input::ResolverError(_) | Input::ExitIdle | Input::Shutdown => {
                self.for_each(input, None, ctx)
            }
            Input::SubchannelState { .. }
            | Input::SubchannelHealth { .. }
            | Input::WatchEvent { .. }
            | Input::Timer(_) => {
                let Some(owner) = self.router.owner(&input) else { return };
                self.for_each(input, Some(owner), ctx);
            }
        }
        self.settle(ctx);
    }

    fn state(&self) -> ConnectivityState {
        self.current.as_ref().map_or(ConnectivityState::Idle, |n| n.policy.state())
    }

    fn picker(&self) -> Arc<dyn Picker> {
        self.current.as_ref().map_or_else(|| Arc::new(QueuePicker) as _, |n| n.policy.picker())
    }
}
