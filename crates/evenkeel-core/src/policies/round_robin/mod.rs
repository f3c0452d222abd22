//! `round_robin`: every READY endpoint in turn.
//!
//! It is the child manager over `pick_first` and a turn, nothing else; an endpoint with several
//! addresses (gRFC A61) is one turn, as its child takes care of the addresses.

mod config;
mod picker;
#[cfg(test)]
mod tests;

use std::sync::{Arc, atomic::AtomicUsize};

pub use config::Factory;
use picker::RoundRobinPicker;

use super::{children::Children, pick_first};
use crate::{
    ConnectivityState, Ctx, Input, LbPolicy, Picker, PolicyConfig, picker::waiting_picker,
};

/// See the module's head.
pub struct RoundRobin {
    children: Children,
    turn: Option<Arc<AtomicUsize>>,
}

impl RoundRobin {
    pub(crate) fn new() -> Self {
        let settings = Arc::new(pick_first::Settings::of_a_child());
        let child = PolicyConfig::new(Arc::new(pick_first::Factory), settings);
        Self { children: Children::new(child), turn: None }
    }
}

impl LbPolicy for RoundRobin {
    fn handle(&mut self, input: Input<'_>, ctx: &mut Ctx<'_>) {
        // A random start: many clients that start together must not all begin with one endpoint.
        let rng = ctx.rng();
        self.turn.get_or_insert_with(|| Arc::new(AtomicUsize::new(rng.u32(..) as usize)));
        match input {
            Input::ResolverUpdate { endpoints, .. } => self.children.update(endpoints, ctx),
            other => self.children.handle(other, ctx),
        }
    }

    fn state(&self) -> ConnectivityState {
        self.children.state()
    }

    fn picker(&self) -> Arc<dyn Picker> {
        match (self.state(), &self.turn) {
            (ConnectivityState::Ready, Some(turn)) => Arc::new(RoundRobinPicker {
                children: self.children.ready_pickers(),
                turn: turn.clone(),
            }),
            (state, _) => waiting_picker(state, || self.children.failure()),
        }
    }
}
