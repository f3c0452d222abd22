//! What one pick of `round_robin`, or of `grpclb` over a balancer's list, costs, at a few and at
//! many endpoints, alone and with a second thread that uses the same picker.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use evenkeel_core::{
    Backoff, Balancer, BalancerMessage, Balancers, ConnectivityState, Endpoint, Engine,
    EngineOptions, Output, PickArgs, PickResult, Picker, PolicyRegistry, ServerEntry,
    ServiceConfig, WatchEvent,
};
use http::HeaderMap;
use serde::Serialize;

use crate::{allocations, statistics::median};

/// Picks of one round of one thread.
const PICKS: u64 = 1_000_000;
const PORT: u16 = 8000;

/// Picks with so many endpoints and threads.
#[derive(Debug, Serialize)]
pub struct PickCost {
    policy: &'static str,
    endpoints: u32,
    threads: usize,
    /// Wall time of one pick of one thread, in ns, the median of the rounds.
    pub ns: f64,
    /// Allocations of one pick.
    pub allocations: f64,
}

impl PickCost {
    /// A row of a table.
    pub fn row(&self) -> Vec<String> {
        let Self { policy, endpoints, threads, ns, allocations } = self;
        let numbers = [endpoints.to_string(), threads.to_string()];
        let [endpoints, threads] = numbers;
        let costs = [format!("{ns:.1}"), format!("{allocations:.3}")];
        [vec![(*policy).to_owned(), endpoints, threads], costs.into()].concat()
    }
}

/// All of them, `rounds` times in turn.
///
/// # Errors
///
/// The policy does not become READY or does not pick: then it is broken.
pub fn measure(rounds: u32) -> Result<Vec<PickCost>, String> {
    let mut pickers = Vec::new();
    for policy in ["round_robin", "grpclb"] {
        for endpoints in [3, 10_000] {
            pickers.push((policy, endpoints, ready_picker(policy, endpoints)?));
        }
    }
    let cases: Vec<_> = [1, 2]
        .into_iter()
        .flat_map(|threads| pickers.iter().map(move |(p, e, picker)| (*p, *e, picker, threads)))
        .collect();
    let mut ns: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let mut allocations = vec![0; cases.len()];
    for _ in 0..rounds {
        for (index, (_, _, picker, threads)) in cases.iter().enumerate() {
            let (time, allocated) = pick_on(picker, *threads)?;
            ns[index].push(time);
            allocations[index] += allocated;
        }
    }
    let costs = cases.iter().zip(ns.iter().zip(allocations));
    Ok(costs
        .map(|((policy, endpoints, _, threads), (ns, allocated))| PickCost {
            policy,
            endpoints: *endpoints,
            threads: *threads,
            ns: median(ns),
            allocations: allocated as f64 / (PICKS as f64 * *threads as f64 * f64::from(rounds)),
        })
        .collect())
}

/// A picker over so many READY endpoints, made as the channel makes it. A balancer's list has each
/// with a token of its own.
fn ready_picker(policy: &str, endpoints: u32) -> Result<Arc<dyn Picker>, String> {
    let config = ServiceConfig::for_policy(policy, &PolicyRegistry::built_in())
        .map_err(|e| e.to_string())?;
    let default_policy = config.policy.ok_or("no policy")?;
    let backoff = Backoff::default();
    let mut engine = Engine::new(EngineOptions { seed: 1, backoff, default_policy });
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let addresses = (first..first + endpoints).map(Ipv4Addr::from);
    let list: Vec<_> = addresses.map(|ip| Endpoint::new(SocketAddr::from((ip, PORT)))).collect();
    let balancer =
        Balancer { address: SocketAddr::from(([127, 0, 0, 100], PORT)).into(), name: None };
    engine.set_balancers(Balancers::Found([balancer].into()));
    engine.resolver_update(0, &list, None);
    let (mut latest, mut connected) = (None, 0);
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Connect { id, .. } => {
                engine.connected(0, id);
                connected += 1;
            }
            Output::Watch { id, .. } => {
                connected -= 1; // the balancer
                let entry = |n: u32| ServerEntry {
                    address: Ipv4Addr::from(first + n).octets().into(),
                    port: PORT.into(),
                    token: format!("token-{n}"),
                    drop: false,
                };
                let list = BalancerMessage::List((0..endpoints).map(entry).collect());
                engine.watch_event(0, id, &WatchEvent::Balancer(list));
            }
            Output::Publish { state: ConnectivityState::Ready, picker } => latest = Some(picker),
            _ => {}
        }
    }
    match latest {
        Some(picker) if connected == endpoints => Ok(picker),
        _ => Err(format!("{policy}: {connected} of {endpoints} endpoints are READY")),
    }
}

/// Nanoseconds of one pick of one thread, and allocations of all.
fn pick_on(picker: &Arc<dyn Picker>, threads: usize) -> Result<(f64, u64), String> {
    let start = Barrier::new(threads);
    let pick_all = || {
        let headers = HeaderMap::new();
        start.wait();
        let (before, began) = (allocations::count(), Instant::now());
        let mut picked: u64 = 0;
        for now in 0..PICKS {
            let args = PickArgs::new("/helloworld.Greeter/SayHello", &headers, now, now);
            picked += u64::from(matches!(black_box(picker.pick(&args)), PickResult::Complete(_)));
        }
        let ns = began.elapsed().as_nanos() as f64 / PICKS as f64;
        (picked, ns, allocations::count() - before)
    };
    let results = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(pick_all)).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a thread panicked")).collect::<Vec<_>>()
    });
    let (mut ns, mut allocated) = (0.0, 0);
    for result in results {
        let (picked, time, count) = result?;
        if picked != PICKS {
            return Err(format!("expected {PICKS} picks, got {picked}"));
        }
        (ns, allocated) = (ns + time / threads as f64, allocated + count);
    }
    Ok((ns, allocated))
}
