//! `grpclb` on a simulated fleet: each case of grpclb.md, of the scenarios that measured grpc-go
//! and C-core, and of what both do badly.

mod balancers;
mod fallback;
mod lists;
mod model;
mod reports;
mod stage;
