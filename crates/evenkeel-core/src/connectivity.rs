//! Connectivity states and the rule by which a parent's state follows from its children's
//! (<https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md>).

use std::fmt;

/// What a channel or subchannel can do for a call right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectivityState {
    /// No connection, and none is being made until somebody wants one.
    Idle,
    /// A connection is being made.
    Connecting,
    /// Calls can be sent.
    Ready,
    /// The last attempt failed; the next one waits for its backoff.
    TransientFailure,
    /// Closed for good.
    Shutdown,
}

impl fmt::Display for ConnectivityState {
    /// The name in gRPC's documents, e.g. `TRANSIENT_FAILURE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
            Self::Shutdown => "SHUTDOWN",
        })
    }
}

/// Counts children by state, so that one child's change costs O(1) however many there are.
#[derive(Clone, Debug, Default)]
pub struct StateCounts {
    idle: usize,
    connecting: usize,
    ready: usize,
    transient_failure: usize,
}

impl StateCounts {
    /// A child in `state` appears.
    pub fn add(&mut self, state: ConnectivityState) {
        if let Some(n) = self.slot(state) {
            *n += 1;
        }
    }

    /// A child in `state` goes.
    pub fn remove(&mut self, state: ConnectivityState) {
        if let Some(n) = self.slot(state) {
            *n -= 1;
        }
    }

    /// The number of READY children.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// READY if any child is, else CONNECTING if any is, else IDLE if any is, else
    /// TRANSIENT_FAILURE (also without children).
    pub fn aggregate(&self) -> ConnectivityState {
        if self.ready > 0 {
            ConnectivityState::Ready
        } else if self.connecting > 0 {
            ConnectivityState::Connecting
        } else if self.idle > 0 {
            ConnectivityState::Idle
        } else {
            ConnectivityState::TransientFailure
        }
    }

    fn slot(&mut self, state: ConnectivityState) -> Option<&mut usize> {
        match state {
            ConnectivityState::Idle => Some(&mut self.idle),
            ConnectivityState::Connecting => Some(&mut self.connecting),
            ConnectivityState::Ready => Some(&mut self.ready),
            ConnectivityState::TransientFailure => Some(&mut self.transient_failure),
            ConnectivityState::Shutdown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectivityState::*, *};

    #[test]
    fn a_parent_is_in_the_best_state_of_its_children() {
        let cases: [(&[ConnectivityState], ConnectivityState); 7] = [
            (&[], TransientFailure),
            (&[TransientFailure, Ready, Connecting, Idle], Ready),
            (&[TransientFailure, Connecting, Idle], Connecting),
            (&[TransientFailure, Idle], Idle),
            (&[TransientFailure, TransientFailure], TransientFailure),
            (&[Shutdown], TransientFailure),
            (&[Shutdown, Idle], Idle),
        ];
        for (children, want) in cases {
            let mut counts = StateCounts::default();
            children.iter().for_each(|state| counts.add(*state));
            assert_eq!(counts.aggregate(), want, "{children:?}");
            children.iter().for_each(|state| counts.remove(*state));
            assert_eq!((counts.aggregate(), counts.ready()), (TransientFailure, 0));
        }
    }

    #[test]
    fn states_have_the_names_of_the_documents() {
        let names = [Idle, Connecting, Ready, TransientFailure, Shutdown].map(|s| s.to_string());
        assert_eq!(names, ["IDLE", "CONNECTING", "READY", "TRANSIENT_FAILURE", "SHUTDOWN"]);
    }
}
