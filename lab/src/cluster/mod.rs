//! A real cluster, as far as the lab looks at one or plays on one.
//!
//! Everything goes through `kubectl` as a child process (ADR 0027): it knows every way to prove who
//! the user is, and it is what the user would type. What it prints is read as JSON. `play` runs
//! examples there: `overlay` says which, `stage` is where they play, `pods` what was seen of the
//! backends, `phases` what is done to them.

use std::path::PathBuf;

use clap::ValueEnum;

mod consent;
pub(crate) mod doctor;
mod driver;
mod istio;
pub(crate) mod kubectl;
mod mesh;
pub(crate) mod objects;
mod overlay;
mod phases;
mod play;
pub(crate) mod pods;
mod reports;
mod stage;
mod time;
mod watch;

pub(crate) use play::plan;

/// Where examples run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// On this machine, as processes
    #[default]
    Machine,
    /// On a Kubernetes cluster, as pods
    Cluster,
}

/// How to get to the cluster.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// Where to run
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on: Place,
    /// The context of your kubeconfig, with --on cluster; there is no default
    #[arg(long, value_name = "NAME", required_if_eq("on", "cluster"))]
    pub(crate) context: Option<String>,
    /// kubectl, when it is not on PATH
    #[arg(long, value_name = "FILE")]
    pub(crate) kubectl: Option<PathBuf>,
    /// The folder kustomize/ of this repository, when the lab is started outside of it
    #[arg(long, value_name = "DIR")]
    pub(crate) kustomize: Option<PathBuf>,
}
