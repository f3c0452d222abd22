//! The files that docs/move-to-evenkeel.md shows as diffs, so that what it shows compiles and runs,
//! and the switch that goes back to tonic's channel without a new build. Each pair of files has the
//! same function before and after.

// What the text of a program that uses ginepro would find under this name; see the crate's head.
extern crate ginepro_standin as ginepro;

/// From one `tonic::transport::Channel`.
pub mod one_channel {
    pub mod after;
    pub mod before;
}

/// From `Channel::balance_list`.
pub mod balance_list {
    pub mod after;
    pub mod before;
}

/// From ginepro.
pub mod from_ginepro {
    pub mod after;
    pub mod before;
}

pub mod switch;
