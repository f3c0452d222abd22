//! Example 0: a plain ClusterIP Service. The problem that all other examples solve.

use std::{sync::Arc, time::Duration};

use super::{Example, Phase, Playing};
use crate::{
    checks::one_gets_all,
    error::LabError,
    l4::L4,
    report::{Distribution, PhaseReport},
    run::Run,
    stage::Stage,
};

pub(crate) static EXAMPLE: Example = Example {
    number: 0,
    name: "baseline",
    title: "a ClusterIP Service: Kubernetes balances connections, and gRPC keeps one",
    control_plane: "none that the client sees: DNS answers the ClusterIP",
    policy: "round_robin and pick_first, over one address",
    real: &["3 greeter processes", "the client", "every DNS message", "every TCP connection"],
    doubles: &[
        "CoreDNS (an authoritative hickory server)",
        "ClusterIP and kube-proxy (an L4 proxy: a random backend per connection)",
    ],
    picture: "\
\x20 client ---- one HTTP/2 connection ----> ClusterIP ---- the same bytes ----> greeter 1   100 %
    |                                     (L4 proxy)                          greeter 2     0 %
    | A greeter? one address: the ClusterIP                                   greeter 3     0 %
    v
   DNS

  knows the endpoints: kube-proxy        picks: kube-proxy, once per connection
  HTTP/2 ends: client and greeter        survives: losing DNS, once connected
                                         loses: all calls in flight with greeter 1; then all
                                         calls move to one other greeter",
    needs_envoy: false,
    phases: &[
        Phase {
            name: "round_robin",
            what: "3 backends behind a ClusterIP, 1 client with round_robin",
            calls_per_s: RATE,
            seconds: 5,
            play: |run, name| play(run, name, 0, "round_robin"),
        },
        Phase {
            name: "pick_first",
            what: "3 backends behind a ClusterIP, 1 client with pick_first",
            calls_per_s: RATE,
            seconds: 5,
            play: |run, name| play(run, name, 1, "pick_first"),
        },
    ],
};

const RATE: u32 = 100;
const CALLS: u64 = 300;
const BACKENDS: [u8; 3] = [1, 2, 3];
const BREAKS: &str = "a headless Service (clusterIP: None), as in example 1";

fn play(run: Arc<Run>, name: String, index: usize, policy: &'static str) -> Playing {
    Box::pin(async move { one_connection(run, &name, &EXAMPLE.phases[index], policy).await })
}

async fn one_connection(
    run: Arc<Run>,
    name: &str,
    phase: &'static Phase,
    policy: &'static str,
) -> Result<PhaseReport, LabError> {
    let mut stage = Stage::open(run, name, &[]).await?;
    stage.fleet.start(&BACKENDS).await?;
    let backends = BACKENDS.iter().map(|host| stage.fleet.address(*host)).collect();
    let proxy = L4::start(stage.block.cluster_ip(), backends).await?;
    stage.dns.publish(&[*proxy.address().ip()]).await;
    let few = ["--lb-policy", policy, "--count", "4", "--rate", "100"];
    let lines = stage.original_lines(&few).await?;
    let flags = ["--lb-policy", policy, "--count", "300", "--rate", "100", "--warmup", "5s"];
    let client = stage.client(&flags).await?;
    let report = client.wait(Duration::from_secs(30)).await?.report;
    stage.fleet.all_alive()?;
    let mut found = PhaseReport::new(phase.name, phase.what, &report).set(&flags, &[]);
    found.lines = lines;
    found.distributions.push(Distribution::whole("all calls", &report));
    let connections: u64 = proxy.connections().values().sum();
    found.figures.insert("proxy_connections", connections as f64);
    let id = match policy {
        "round_robin" => "baseline.round_robin.one_gets_all",
        _ => "baseline.pick_first.one_gets_all",
    };
    found.checks.push(one_gets_all(id, &report, BACKENDS.len(), CALLS, BREAKS));
    Ok(found)
}
