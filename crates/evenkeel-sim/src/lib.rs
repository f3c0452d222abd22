//! Load in simulated time: backends that are queues with servers, calls that come at random, and a
//! client that is evenkeel-core's own engine and pickers. Minutes of a fleet take a second, and the
//! same seed gives the same run, so that a weight loop can be judged by its tail latency and its
//! swings; with real processes either is the machine's noise.
//!
//! The fleet of evenkeel-core's own tests asks whether the engine keeps its contract. This one has
//! what that lacks: time that calls take.
//!
//! ```
//! use evenkeel_core::{MILLISECOND_NS, SECOND_NS};
//! use evenkeel_sim::{Backend, Channel, Simulation};
//!
//! let backends = (0..3).map(|_| Backend::new(4, 10 * MILLISECOND_NS));
//! let mut simulation = Simulation::new(backends, 600.0, 1);
//! let mut channel = Channel::round_robin(3, 1);
//! simulation.run(&mut channel, 10 * SECOND_NS);
//! let p99 = simulation.latencies().percentile(0.99).expect("calls ended");
//! assert!(p99 < 80 * MILLISECOND_NS, "{p99}");
//! ```

mod backend;
mod channel;
mod latencies;
mod simulation;

pub use backend::{Backend, Sums, WAITING_MAX};
pub use channel::{Channel, Picked, address, token};
pub use latencies::Latencies;
pub use simulation::Simulation;
