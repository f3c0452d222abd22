//! What the processes of a phase cost while its client ran: from the client's start to its end, so
//! that no program's own start is charged to the calls.
//!
//! The client tells its own figures; a proxy is a program that we did not write, and is not asked.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use crate::{process::Nursery, usage::Usage};

/// What the processes of one role cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    pub(crate) count: usize,
    pub(crate) cpu_s: f64,
    pub(crate) rss_kib: u64,
}

/// The processes of a phase when its client starts.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    before: Vec<(&'static str, u32, Usage)>,
}

impl Costs {
    /// Looks at those whose names begin with `start`, the phase's own part of the name. One that
    /// ends meanwhile is left out.
    pub(crate) fn begin(nursery: &Nursery, start: &str) -> Self {
        let known = |(name, pid): (String, u32)| Some((role(&name)?, pid, Usage::of(pid).ok()?));
        Self { before: nursery.named(start).into_iter().filter_map(known).collect() }
    }

    /// What they cost since, by role. Those that are gone, and those that came, are left out:
    /// theirs would not be the price of the same calls.
    pub(crate) fn end(self) -> BTreeMap<&'static str, Cost> {
        let mut costs: BTreeMap<&'static str, Cost> = BTreeMap::new();
        for (role, pid, before) in self.before {
            let Ok(after) = Usage::of(pid) else { continue };
            let cost = costs.entry(role).or_default();
            cost.count += 1;
            // Less than before: another process has the pid by now.
            cost.cpu_s += (after.cpu_s - before.cpu_s).max(0.0);
            cost.rss_kib += after.rss_kib;
        }
        costs
    }
}

/// The role of a process by what its name has after the phase's: what `lab bench` calls it.
fn role(name: &str) -> Option<&'static str> {
    match name {
        "sidecar" | "envoy" => Some("sidecar"),
        _ if name.starts_with("envoy-") => Some("server sidecars"),
        _ if name.starts_with("balancer") => Some("balancer"),
        "istiod" => Some("istiod"),
        _ if name.parse::<IpAddr>().is_ok() => Some("greeters"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[test]
    fn a_role_is_known_by_the_rest_of_the_name() {
        let roles = ["sidecar", "envoy-127.0.0.2", "balancer-1", "istiod", "127.0.0.2", "client"];
        let known = roles.map(|name| role(name).unwrap_or("-"));
        assert_eq!(known, ["sidecar", "server sidecars", "balancer", "istiod", "greeters", "-"]);
    }

    #[tokio::test]
    async fn only_what_ran_all_the_time_is_counted() {
        let nursery = Nursery::new();
        let sleeper = |name: &str| {
            let mut command = Command::new("sleep");
            nursery.spawn(name, command.arg("60")).unwrap().process
        };
        let _stays = sleeper("a/b-127.0.0.2");
        let goes = sleeper("a/b-127.0.0.3");
        let _other = sleeper("a/c-127.0.0.4");
        let costs = Costs::begin(&nursery, "a/b-");
        assert!(goes.signal(rustix::process::Signal::KILL));
        goes.exited(std::time::Duration::from_secs(10)).await.expect("SIGKILL ends it");
        let _comes = sleeper("a/b-127.0.0.5");
        let costs = costs.end();
        assert_eq!(costs.keys().copied().collect::<Vec<_>>(), ["greeters"]);
        assert_eq!(costs["greeters"].count, 1);
        assert!(costs["greeters"].rss_kib > 0);
    }
}
