//! `lab bench`: what each way to balance costs, in one run, under one load.
//!
//! An example shows that a way works; here all of them carry the same calls to the same greeters in
//! turn (A, B, C, A, B, C, …), so that a machine that is busy for a while is busy for all. Every
//! figure is compared within its round.
//!
//! What a way *adds* needs a floor. It is `bare`: the same program with the same generated client
//! over HTTP/2 connections to the same backends, taken in turn, without any gRPC channel. Our
//! channel adds what `direct` costs beyond it; a proxy adds what the same bare client costs beyond
//! it when it calls through the proxy (docs/adr/0024).

use std::{sync::Arc, time::Duration};

use clap::{Args, value_parser};
use tokio::time::sleep;

use crate::{
    clock::unix_s,
    error::LabError,
    run::{Run, cpus},
};

pub(crate) mod caller;
mod child;
mod command;
mod floor;
mod report;
mod scene;
mod statistics;
mod text;

use caller::Work;
pub(crate) use command::{BenchArgs, execute};
pub(crate) use report::SCHEMA;
use report::{BenchReport, LoadReport, NotMeasured, Rounds, Slice, WayReport};
use scene::{Scene, WAYS, WITH_ENVOY};
use statistics::{Spread, confidence};
use text::print;

/// Calls in flight when the most calls a second are sought.
const WORKERS: u32 = 64;
/// Rounds and length of that search; a measurement that is shorter has a shorter search.
const SEARCH_ROUNDS_MAX: u16 = 3;
const SEARCH_S_MAX: u16 = 2;
/// Between two slices: what the last one left behind ends.
const SETTLE: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Amount {
    /// Rounds that count; one more before them warms up
    #[arg(long, value_name = "N", default_value_t = 7)]
    #[arg(value_parser = value_parser!(u16).range(1..=101))]
    rounds: u16,
    /// Length of a slice: each way gets one in each round
    #[arg(long, value_name = "S", default_value_t = 4)]
    #[arg(value_parser = value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Calls a second of the first load; the second load is half of what the slowest way carries
    #[arg(long, value_name = "PER_S", default_value_t = 1000)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// A way to leave out; may be repeated
    #[arg(long, value_name = "WAY", value_parser = WITH_ENVOY)]
    without: Vec<String>,
}

impl Amount {
    /// Whether a way that is to be measured needs an Envoy.
    pub(crate) fn needs_envoy(&self) -> bool {
        WITH_ENVOY.iter().any(|way| self.wants(way))
    }

    fn wants(&self, way: &str) -> bool {
        !self.without.iter().any(|without| without == way)
    }
}

/// Measures. Without an Envoy, the ways that need one are reported as not run, with `no_envoy`.
///
/// # Errors
///
/// When a process can't be started or ends.
pub(crate) async fn measure(
    run: &Arc<Run>,
    amount: &Amount,
    envoy: Option<String>,
    no_envoy: &str,
) -> Result<BenchReport, LabError> {
    let started_unix_s = unix_s();
    let wanted = WAYS.iter().map(|(way, _)| *way).filter(|way| amount.wants(way));
    let (names, missing): (Vec<_>, Vec<_>) =
        wanted.partition(|way| envoy.is_some() || !WITH_ENVOY.contains(way));
    run.progress().say("bench", &format!("starting {}", names.join(", ")));
    let mut bench = Bench { run, scene: Scene::open(run, &names).await?, names, clean: true };
    let most = bench.most(amount).await?;
    let second = half(&most).unwrap_or(f64::from(amount.rate));
    let why = "half of what the slowest way carries";
    let mut loads = Vec::new();
    for (calls_per_s, why) in [(f64::from(amount.rate), "open loop"), (second, why)] {
        let rounds = bench.load(amount, calls_per_s).await?;
        loads.push(LoadReport::of(calls_per_s, why.to_owned(), &bench.names, &rounds));
    }
    let Bench { names, clean, .. } = bench;
    let way = |(name, what): &(&'static str, &'static str)| {
        names.contains(name).then(|| WayReport {
            name,
            what,
            calls_per_s_max: most.iter().find(|(of, _)| of == name).map(|(_, most)| *most),
        })
    };
    let not_run = missing.into_iter().map(|name| NotMeasured { name, why: no_envoy.to_owned() });
    Ok(BenchReport {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_s,
        wall_s: run.progress().elapsed_s(),
        cpus: cpus(),
        debug_build: cfg!(debug_assertions),
        envoy,
        rounds: amount.rounds.into(),
        confidence: confidence(amount.rounds.into()),
        ways: WAYS.iter().filter_map(way).collect(),
        not_run: not_run.collect(),
        loads,
        holds: clean,
    })
}

/// Half of what the slowest way carries, in whole tens of calls a second.
fn half(most: &[(&'static str, Spread)]) -> Option<f64> {
    let least = most.iter().map(|(_, most)| most.median).min_by(f64::total_cmp)?;
    Some(((least / 20.0).floor() * 10.0).max(10.0))
}

struct Bench<'a> {
    run: &'a Run,
    scene: Scene,
    names: Vec<&'static str>,
    /// Every slice was.
    clean: bool,
}

impl Bench<'_> {
    /// The most calls a second of each way, in a closed loop.
    async fn most(&mut self, amount: &Amount) -> Result<Vec<(&'static str, Spread)>, LabError> {
        let seconds = amount.seconds.min(SEARCH_S_MAX);
        let work = Work::Closed { workers: WORKERS, seconds: seconds.into() };
        let (length, count) =
            (Duration::from_secs(seconds.into()), amount.rounds.min(SEARCH_ROUNDS_MAX));
        let rounds = self.rounds("most calls a second", count.into(), work, length).await?;
        let rate = |slice: &Slice| slice.seen.ok as f64 / slice.seen.wall_s;
        let most =
            |name: &&'static str| Some((*name, Spread::of(rounds.get(name)?.iter().map(rate))?));
        Ok(self.names.iter().filter_map(most).collect())
    }

    /// Each way under the same load.
    async fn load(&mut self, amount: &Amount, calls_per_s: f64) -> Result<Rounds, LabError> {
        let calls = (calls_per_s * f64::from(amount.seconds)).round() as u64;
        let work = Work::Open { calls_per_s, calls };
        let length = Duration::from_secs(amount.seconds.into());
        let what = format!("{calls_per_s:.0} calls a second");
        self.rounds(&what, amount.rounds.into(), work, length).await
    }

    async fn rounds(
        &mut self,
        what: &str,
        count: usize,
        work: Work,
        length: Duration,
    ) -> Result<Rounds, LabError> {
        let mut rounds = Rounds::new();
        for round in 0..=count {
            let which =
                if round == 0 { "warming up".to_owned() } else { format!("{round} of {count}") };
            self.run.progress().say("bench", &format!("{what}: {which}"));
            for name in self.names.clone() {
                sleep(SETTLE).await;
                let slice = self.scene.slice(name, work, length).await?;
                if round > 0 {
                    self.clean &= slice.is_clean();
                    rounds.entry(name).or_default().push(slice);
                }
            }
        }
        Ok(rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_load_is_one_that_every_way_carries() {
        let most = |median| Spread { median, least: 0.0, greatest: 1e6 };
        let ways = [("bare", most(20_000.0)), ("sidecar", most(5_190.0)), ("direct", most(9e3))];
        assert_eq!(half(&ways), Some(2_590.0));
        assert_eq!(half(&[("bare", most(3.0))]), Some(10.0));
        assert_eq!(half(&[]), None);
    }
}
