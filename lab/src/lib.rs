//! The one-machine lab: real greeter and client processes, real DNS messages, real faults, and the
//! checks that say whether an example keeps its promises.
//!
//! It is a program, not a test harness: somebody who has never seen the project runs one command
//! and reads what happened. So every figure comes from outside the processes it judges or from the
//! client's own counters, and nothing is played but the cluster around them (DNS, the ClusterIP,
//! the API server).

mod balancers;
mod bench;
mod blocks;
mod checks;
mod cli;
mod client;
mod clock;
mod cluster;
mod costs;
mod dns;
mod doctor;
mod envoy;
mod error;
mod examples;
mod explain;
mod faults;
mod fleet;
mod fronts;
mod http;
mod identities;
mod istiod;
mod l4;
mod list;
mod process;
mod programs;
mod progress;
mod reexec;
mod report;
mod run;
mod serve;
mod service;
mod slices;
mod spans;
mod stage;
mod unharmed;
mod usage;

pub use cli::main_from;
