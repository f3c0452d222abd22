//! The ways to balance, side by side over three greeters: each with its caller and with the
//! processes that are there for its sake. All stay up and connected while one is measured. The mesh
//! has greeters of its own, because the addresses of pods are its Envoys'.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    caller::{Seen, Work},
    child::Child,
    report::Slice,
};
use crate::{
    costs::Cost,
    envoy::Envoy,
    error::LabError,
    examples::{Sidecar, Told, envoy_static::start_sidecar, mesh},
    faults::CallFault,
    run::Run,
    stage::Stage,
    usage::Usage,
};

const BACKENDS: [u8; 3] = [1, 2, 3];
const GREETERS: &str = "greeters";

/// Names and what they are, in the order of a round.
pub(super) const WAYS: [(&str, &str); 4] = [
    ("bare", "an HTTP/2 connection to each backend, taken in turn, no gRPC channel: the floor"),
    ("direct", "evenkeel::Channel with round_robin and DNS (example 1)"),
    ("sidecar", "one bare connection to an Envoy that takes turns (example 2)"),
    ("mesh", "the same, with mTLS to an Envoy before each backend (example 4)"),
];
/// Those that need an Envoy.
pub(super) const WITH_ENVOY: [&str; 2] = ["sidecar", "mesh"];

/// Everything that is measured.
pub(super) struct Scene {
    stage: Stage,
    sidecar: Option<Envoy>,
    mesh: Option<Told>,
    callers: BTreeMap<&'static str, Child>,
}

impl Scene {
    /// Starts greeters, proxies and callers of `ways`.
    ///
    /// # Errors
    ///
    /// When one of them can't be started.
    pub(super) async fn open(run: &Arc<Run>, ways: &[&'static str]) -> Result<Self, LabError> {
        let mut stage = Stage::open(Arc::clone(run), "bench", &[]).await?;
        stage.scale_up(&BACKENDS).await?;
        let mut scene = Self { stage, sidecar: None, mesh: None, callers: BTreeMap::new() };
        for way in ways {
            let flags = scene.raise(way).await?;
            let caller = Child::start(run, &format!("bench-{way}"), &flags).await?;
            scene.callers.insert(way, caller);
        }
        Ok(scene)
    }

    /// Starts what `way` needs, and returns its caller's flags.
    async fn raise(&mut self, way: &str) -> Result<Vec<String>, LabError> {
        let bare = |addresses: &[String]| vec!["--bare".to_owned(), addresses.join(",")];
        match way {
            "direct" => Ok(vec!["--target".to_owned(), self.stage.target()]),
            "sidecar" => {
                let envoy = start_sidecar(&self.stage, "sidecar", 1, None).await?;
                let address = self.stage.block.sidecar(1);
                self.sidecar = Some(envoy);
                Ok(bare(&[address.to_string()]))
            }
            "mesh" => {
                let run = Arc::clone(&self.stage.run);
                let (told, _) =
                    mesh::open(run, "bench-mesh", &[], (&BACKENDS, CallFault::None)).await?;
                let address = told.sidecar.stage.block.sidecar(1);
                self.mesh = Some(told);
                Ok(bare(&[address.to_string()]))
            }
            _ => Ok(bare(&self.stage.fleet.addresses(&BACKENDS))),
        }
    }

    /// Lets the caller of `way` do `work`, and notes what that cost everybody.
    ///
    /// # Errors
    ///
    /// When the caller does not answer, or a process is gone.
    pub(super) async fn slice(
        &mut self,
        way: &'static str,
        work: Work,
        length: Duration,
    ) -> Result<Slice, LabError> {
        let processes = self.processes(way);
        let before = usages(&processes)?;
        let caller = self.callers.get_mut(way).expect("each way has a caller");
        let seen: Seen = caller.work(work, length).await?;
        let (after, client) = (usages(&processes)?, usage(caller.pid())?);
        let mut costs = BTreeMap::new();
        // The caller reads its own clock, which has nanoseconds, within the work.
        let client = Cost { count: 1, cpu_s: seen.cpu_s, rss_kib: client.rss_kib };
        costs.insert("client", client);
        for (role, pids) in &processes {
            let sum = |of: fn(&Usage) -> f64, from: &BTreeMap<u32, Usage>| -> f64 {
                pids.iter().filter_map(|pid| from.get(pid)).map(of).sum()
            };
            let cpu_s = sum(|of| of.cpu_s, &after) - sum(|of| of.cpu_s, &before);
            let rss_kib = sum(|of| of.rss_kib as f64, &after) as u64;
            costs.insert(role, Cost { count: pids.len(), cpu_s, rss_kib });
        }
        Ok(Slice { seen, costs })
    }

    /// Whoever works for `way`, by role, but its caller.
    fn processes(&self, way: &str) -> BTreeMap<&'static str, Vec<u32>> {
        let pids = |envoys: &mut dyn Iterator<Item = &Envoy>| envoys.map(Envoy::pid).collect();
        match (way, &self.mesh) {
            ("mesh", Some(told)) => {
                let Sidecar { stage, envoy, .. } = &told.sidecar;
                BTreeMap::from([
                    (GREETERS, stage.fleet.pids()),
                    ("sidecar", vec![envoy.pid()]),
                    ("server sidecars", pids(&mut stage.fleet.fronts())),
                    ("balancer", told.plane_pids()),
                ])
            }
            ("sidecar", _) => BTreeMap::from([
                (GREETERS, self.stage.fleet.pids()),
                ("sidecar", pids(&mut self.sidecar.iter())),
            ]),
            _ => BTreeMap::from([(GREETERS, self.stage.fleet.pids())]),
        }
    }
}

fn usages(processes: &BTreeMap<&'static str, Vec<u32>>) -> Result<BTreeMap<u32, Usage>, LabError> {
    processes.values().flatten().map(|pid| Ok((*pid, usage(*pid)?))).collect()
}

fn usage(pid: u32) -> Result<Usage, LabError> {
    Usage::of(pid).map_err(LabError::io(format!("can't read what process {pid} costs")))
}
