//! Which of the machine's cores a process may have.

use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A side of a run whose sides have cores of their own, as client and server have in production: on
/// shared ones each finds its caches full of the other, which costs more than what is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Side {
    /// The first core.
    Client,
    /// All others.
    Servers,
}

impl Side {
    /// How it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Servers => "servers",
        }
    }

    /// Leaves this thread, and those that it starts from now on, the side's cores.
    ///
    /// # Errors
    ///
    /// There are not two cores, or the system refuses.
    pub fn take(self) -> Result<(), String> {
        let text = |error| format!("the cores of this process: {error}");
        let all = sched_getaffinity(None).map_err(text)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        let Some((first, others)) = cores.split_first().filter(|(_, others)| !others.is_empty())
        else {
            return Err("expected two cores or more, one for the client, and found one: \
                        --shared lets both sides have it"
                .to_owned());
        };
        let mut own = CpuSet::new();
        match self {
            Self::Client => own.set(*first),
            Self::Servers => others.iter().for_each(|core| own.set(*core)),
        }
        sched_setaffinity(None, &own).map_err(text)
    }
}
