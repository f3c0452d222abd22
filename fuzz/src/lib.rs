//! Fuzzing: bytes from strangers, where strangers' bytes come in.
//!
//! | target | whose bytes | what reads them |
//! | --- | --- | --- |
//! | `dns` | a DNS server's answers, over UDP and TCP | evenkeel's look-up, over hickory |
//! | `service-config` | a service config as a resolver brings it | evenkeel-core |
//! | `http2-server` | all that a server sends on a connection | a channel with two calls |
//! | `http2-client` | all that a client sends on a connection | evenkeel-server |
//! | `grpclb-server` | what a grpclb client sends on its stream | the balancer |
//! | `xds-server` | what a client of xDS sends on its stream | the balancer |
//! | `grpclb-client` | a balancer's messages | evenkeel's decoding and evenkeel-core's `grpclb` |
//!
//! A panic, a call or look-up that outlives its deadline, a task that outlives its channel, and an
//! input that takes for ever are findings. Each target is a function of bytes, so that any fuzzer
//! can drive it; the runner here (`runner`) needs no nightly compiler, no sanitizer and no C++. It
//! runs in CI on a fresh machine, and is led by what a target says of its input instead of by
//! coverage (docs/adr/0015). `corpora/` has the inputs from which it starts; `cargo test` runs them
//! as well.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing as _; // for the files that are compiled by path

pub mod cli;
mod findings;
mod mutate;
pub mod runner;
mod targets;

/// What strangers' bytes reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// On the command line, and the folder of its corpus.
    pub name: &'static str,
    /// Gives the bytes to what reads them, and says in a few words what came of it, the same for
    /// the same bytes. It panics when something is wrong.
    pub run: fn(&[u8]) -> String,
    /// What is worth putting into an input.
    pub words: &'static [&'static [u8]],
    /// Where HTTP/2 frames begin in an input, if it is made of them.
    pub frames_from: Option<usize>,
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    targets::dns::TARGET,
    targets::service_config::TARGET,
    targets::http2_server::TARGET,
    targets::http2_client::TARGET,
    targets::grpclb_server::TARGET,
    targets::grpclb_client::TARGET,
    targets::xds::TARGET,
];

/// The committed inputs of a target with their paths, in the order of their names.
///
/// # Errors
///
/// The folder or a file can't be read.
pub fn corpus(target: &Target) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target.name);
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
}
