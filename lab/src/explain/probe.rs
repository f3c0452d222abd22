//! The Service as this machine sees it: the DNS answer, and connections by our own channel.
//!
//! Both need the cluster's network, in which a pod is, and which a laptop mostly is not. A
//! port-forward would reach one pod through the API server; that says nothing of DNS, of the
//! Service or of the network between pods, so it is not taken for a probe.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::net::lookup_host;

use crate::{
    client::{Client, What},
    cluster::objects::PortRef,
    error::LabError,
    run::{Run, Settings},
};

use super::view::{Reach, View};

const DNS_LIMIT: Duration = Duration::from_secs(5);
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Endpoints that are connected to; the probe is no load test.
const PROBED_MAX: usize = 64;

/// Asks DNS, and opens a channel if the pods' addresses can be reached from here.
pub(super) async fn reach(view: &View) -> Reach {
    let ready = view.ready_addresses();
    let Some(service) = view.service().filter(|_| !ready.is_empty()) else {
        return Reach::default();
    };
    let name = format!("{}.{}.svc.cluster.local.", view.name, view.namespace);
    let dns = ask(&name).await;
    if dns.is_err() {
        let why = "this machine is not in the cluster's network; run the lab in a pod".to_owned();
        return Reach { dns: Some(dns), ready: Some(Err(why)) };
    }
    let ports = view.slices.iter().flat_map(|slice| slice.ports.iter().flatten());
    let port = ports.filter_map(|of| of.port).next();
    let port = port.or_else(|| match service.spec.ports.first()?.target_port {
        Some(PortRef::Number(number)) => Some(number),
        _ => None,
    });
    let Some(port) = port else {
        return Reach { dns: Some(dns), ready: Some(Err("no endpoint says its port".to_owned())) };
    };
    let addresses = ready.iter().take(PROBED_MAX).map(|address| match address.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{address}:{port}"),
    });
    let connected = connect(addresses.collect()).await.map_err(|error| error.to_string());
    Reach { dns: Some(dns), ready: Some(connected) }
}

async fn ask(name: &str) -> Result<Vec<String>, String> {
    let answer = tokio::time::timeout(DNS_LIMIT, lookup_host((name, 1))).await;
    let answer = answer.map_err(|_| format!("DNS gave no answer for {name} within 5 s"))?;
    let answer = answer.map_err(|error| format!("{name} does not resolve ({error})"))?;
    let mut addresses: Vec<String> = answer.map(|address| address.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// The addresses on which a channel becomes READY: they answered with HTTP/2 SETTINGS. Until all
/// are, a call a second may be made, which servers other than the greeter refuse as unknown.
async fn connect(addresses: Vec<String>) -> Result<Vec<String>, LabError> {
    let family = if addresses.iter().any(|of| of.starts_with('[')) { "ipv6" } else { "ipv4" };
    let run = Arc::new(Run::new(Settings::default())?);
    let target = format!("{family}:{}", addresses.join(","));
    let flags = ["--target", &target, "--count", "0", "--rate", "1", "--warmup", "10s"];
    let flags = flags.map(str::to_owned);
    let client = Client::start(&run, "probe", &flags, &[], None).await?;
    let mut reached = Vec::new();
    client
        .until(READY_LIMIT, |events| {
            let ready = events.iter().filter_map(|event| match &event.what {
                What::Subchannel { address, state } if state == "READY" => Some(address),
                _ => None,
            });
            addresses.iter().all(|address| ready.clone().any(|of| of == address))
        })
        .await?;
    for event in client.events() {
        if let What::Subchannel { address, state } = event.what
            && state == "READY"
            && !reached.contains(&address)
        {
            reached.push(address);
        }
    }
    drop(client);
    run.childless().await;
    reached.sort();
    Ok(reached)
}
