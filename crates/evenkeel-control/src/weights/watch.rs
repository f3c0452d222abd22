//! The streams behind the weights: one connection to each endpoint of a service whose weights
//! follow the load, and on it `StreamCoreMetrics`. What ends is tried again, later and later; what
//! says nothing is forgotten by the weights themselves. Where clients report instead, there are no
//! streams, and what they said is looked at when the weights are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use evenkeel::{Channel, Keepalive};
use evenkeel_proto::xds::service::orca::v3::{
    OrcaLoadReportRequest, open_rca_service_client::OpenRcaServiceClient,
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::{Factors, Load, LoadAware, Source, Weights};
use crate::{control::Control, key::ServiceKey, snapshot::Published};

/// Endpoints of one service that are asked; those behind them keep the mean weight.
pub const STREAMS_MAX: usize = 10_000;
/// Reports that wait to be taken up; then streams wait, and HTTP/2 keeps the newest for them.
const REPORTS_MAX: usize = 1_024;
/// Between the end of a stream and the next one: twice as long each time, ± 20 %.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An endpoint without the service may be updated one day.
const UNIMPLEMENTED_PAUSE: Duration = Duration::from_secs(300);
/// New endpoints are asked within this time, not all at once.
const SPREAD: Duration = Duration::from_millis(500);
/// A host that is gone without a word is noticed in a minute or so.
const KEEPALIVE: Keepalive = Keepalive {
    time: Duration::from_secs(60),
    timeout: Duration::from_secs(20),
    permit_without_calls: false,
};

/// A task that ends with this.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(task).abort_handle())
}

/// Follows the load of every service whose configuration says so, until it is dropped.
pub async fn run(control: Control) {
    let mut wanted = control.load_aware();
    let mut running: BTreeMap<ServiceKey, (LoadAware, Task)> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        running.retain(|key, (settings, _)| now.get(key) == Some(&*settings));
        control.client_loads().retain(|key| by_clients(now.get(key)));
        for (key, settings) in now.iter() {
            if running.contains_key(key) {
                continue;
            }
            if let Some(published) = control.follow(key) {
                let service = service(control.clone(), key.clone(), *settings, published);
                running.insert(key.clone(), (*settings, spawn(service)));
            }
        }
        // Its sender is in `control`.
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a service has settings in which its clients' word counts.
pub(crate) fn by_clients(settings: Option<&LoadAware>) -> bool {
    settings.is_some_and(|settings| settings.source == Source::Clients)
}

/// One service: its endpoints' streams and its weights.
async fn service(
    control: Control,
    key: ServiceKey,
    settings: LoadAware,
    mut published: watch::Receiver<Published>,
) {
    let epoch = Instant::now();
    let now = || u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut weights = Weights::new(settings);
    let (mut there, mut seen) = (BTreeSet::new(), 0);
    let mut streams: BTreeMap<SocketAddr, Task> = BTreeMap::new();
    let (sender, mut reports) = mpsc::channel::<(SocketAddr, Load)>(REPORTS_MAX);
    let mut updates = interval(Duration::from_nanos(settings.update_interval_ns));
    updates.set_missed_tick_behavior(MissedTickBehavior::Delay);
    control.weigh(&key, Factors::new());
    published.mark_changed();
    loop {
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                there = endpoints(&key, &published.borrow_and_update());
                streams.retain(|address, _| there.contains(address));
                weights.retain(|address| there.contains(address));
                for address in there.iter().filter(|_| settings.source == Source::Endpoints) {
                    streams.entry(*address).or_insert_with(|| {
                        spawn(follow(*address, settings, sender.clone()))
                    });
                }
            }
            // `sender` is held here.
            Some((address, load)) = reports.recv() => {
                if streams.contains_key(&address) {
                    weights.report(now(), address, &load);
                }
            }
            _ = updates.tick() => {
                let loads = control.client_loads().newer(&key, Instant::now(), &mut seen);
                for (address, load) in loads.into_iter().flatten() {
                    if there.contains(&address) {
                        weights.report(now(), address, &load);
                    }
                }
                if let Some(factors) = weights.update(now()) {
                    debug!(service = %key, ?factors, "weights have moved");
                    control.weigh(&key, factors);
                }
            }
        }
    }
}

fn endpoints(key: &ServiceKey, published: &Published) -> BTreeSet<SocketAddr> {
    let Some(snapshot) = published.snapshot() else { return BTreeSet::new() };
    let all: BTreeSet<_> = snapshot.serving().map(|endpoint| endpoint.address).collect();
    if all.len() > STREAMS_MAX {
        warn!(service = %key, endpoints = all.len(), "only {STREAMS_MAX} have weights by load");
    }
    all.into_iter().take(STREAMS_MAX).collect()
}

/// One endpoint, for as long as it is there.
async fn follow(
    address: SocketAddr,
    settings: LoadAware,
    sender: mpsc::Sender<(SocketAddr, Load)>,
) {
    sleep(SPREAD.mul_f64(fastrand::f64())).await;
    let scheme = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let channel = Channel::builder(format!("{scheme}:{address}"))
        .wait_for_ready(true)
        .keepalive(KEEPALIVE)
        .build();
    let channel = match channel {
        Ok(channel) => channel,
        Err(error) => return warn!(%address, %error, "its load can't be asked for"),
    };
    let mut pause = PAUSE_MIN;
    loop {
        let (status, had_reports) = stream(&channel, address, settings, &sender).await;
        debug!(%address, %status, "its reports of load ended");
        if had_reports {
            pause = PAUSE_MIN;
        }
        let wait = if status.code() == Code::Unimplemented { UNIMPLEMENTED_PAUSE } else { pause };
        sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One stream to its end, and whether it brought anything.
async fn stream(
    channel: &Channel,
    address: SocketAddr,
    settings: LoadAware,
    sender: &mpsc::Sender<(SocketAddr, Load)>,
) -> (Status, bool) {
    let every = Duration::from_nanos(settings.report_interval_ns);
    // At most a day, which fits.
    let report_interval = every.try_into().ok();
    let request = OrcaLoadReportRequest { report_interval, ..OrcaLoadReportRequest::default() };
    let mut client = OpenRcaServiceClient::new(channel.clone());
    let mut reports = match client.stream_core_metrics(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (status, false),
    };
    let mut had_reports = false;
    loop {
        match reports.message().await {
            Ok(Some(report)) => {
                had_reports = true;
                if sender.send((address, Load::from(&report))).await.is_err() {
                    return (Status::cancelled("nobody wants them any more"), true);
                }
            }
            Ok(None) => return (Status::ok("the endpoint ended them"), had_reports),
            Err(status) => return (status, had_reports),
        }
    }
}
