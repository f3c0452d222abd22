//! One client's stream of load reports: the client says who it is, is told what to report and how
//! often, and reports. What a stream is apart from that is in [`crate::stream`].

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_proto::envoy::{
    config::endpoint::v3::ClusterStats,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{
    Kind, Resources,
    machine::NAMES_MAX,
    service::Shared,
    shares::shares,
    stream::{REQUEST_BYTES_MAX, follow},
};
use crate::{
    drain::drained,
    grpclb::{Bucket, Pace},
    key::ServiceKey,
    observe::{Refusal, Warning},
    peer::Peer,
    stream::{End, Outgoing, Talk},
    weights::{LoadAware, Reporter, by_clients},
    wire::framed,
};

/// Clients with this feature can be asked for all their clusters, without naming them.
const SEND_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// Who reports, once it has said so.
pub(super) struct Reporting {
    shared: Arc<Shared>,
    bucket: Bucket,
    /// What the client knows: nobody's word counts for a service of which it is not told.
    resources: watch::Receiver<Option<Arc<Resources>>>,
    /// Its clusters have to be named to it.
    needs_names: bool,
    load_aware: watch::Receiver<Arc<BTreeMap<ServiceKey, LoadAware>>>,
    reporter: Reporter,
    /// What there is has not been looked at yet.
    is_new: bool,
    told: Option<LoadStatsResponse>,
}

impl Talk for Reporting {
    type Shared = Shared;
    type Request = LoadStatsRequest;
    const FIRST_REQUEST: &'static str = "the first request";
    const REQUEST_BYTES_MAX: usize = REQUEST_BYTES_MAX;

    fn begin(
        shared: &Arc<Shared>,
        peer: &Peer,
        request: LoadStatsRequest,
        _outgoing: &mut Outgoing,
    ) -> Result<Self, End> {
        let (node, followed) = follow(shared, request.node.as_ref(), peer)?;
        let mut features = node.client_features.iter();
        let mut reporting = Self {
            shared: shared.clone(),
            bucket: Bucket::new(shared.settings.load_report_interval),
            resources: followed.resources,
            needs_names: !features.any(|feature| feature == SEND_ALL_CLUSTERS),
            load_aware: shared.control.load_aware(),
            reporter: shared.control.client_loads().reporter(),
            is_new: true,
            told: None,
        };
        reporting.hear(request)?;
        Ok(reporting)
    }

    /// A first request without reports says only who reports.
    fn hear(&mut self, request: LoadStatsRequest) -> Result<(), End> {
        let (control, interval) = (&self.shared.control, self.shared.settings.load_report_interval);
        match self.bucket.take(Instant::now()) {
            Pace::Good => {}
            Pace::Early => control.inner.warnings.add(Warning::StatsEarly),
            Pace::Flood => {
                let text = format!("expected load reports every {interval:?}, got a flood of them");
                return Err(control.refuse(Refusal::StatsFlood, Status::resource_exhausted(text)));
            }
        }
        if !request.cluster_stats.is_empty() {
            self.shared.loads.add(&request, &control.inner.warnings);
            self.weigh(&request.cluster_stats);
        }
        Ok(())
    }

    /// Asks for what there is, when that is another question than before.
    fn speak(&mut self, outgoing: &mut Outgoing) -> Result<(), End> {
        if !std::mem::take(&mut self.is_new) {
            return Ok(());
        }
        let clusters = match self.resources.borrow_and_update().as_deref() {
            _ if !self.needs_names => Vec::new(),
            None => return Ok(()),
            Some(resources) => {
                let all = resources.kind(Kind::Cluster);
                let names = all.into_iter().flat_map(|all| all.by_name.keys());
                names.take(NAMES_MAX).map(ToString::to_string).collect()
            }
        };
        let load_aware = self.load_aware.borrow_and_update();
        let response = LoadStatsResponse {
            clusters,
            load_reporting_interval: self.shared.settings.load_report_interval.try_into().ok(),
            report_endpoint_granularity: load_aware.values().any(|one| by_clients(Some(one))),
            send_all_clusters: !self.needs_names,
        };
        drop(load_aware);
        if self.told.as_ref() != Some(&response) {
            outgoing.push_back(framed(&response));
            self.told = Some(response);
        }
        Ok(())
    }

    async fn news(&mut self) -> Result<(), End> {
        let changed = tokio::select! {
            // To the others a change of their clusters is no other question.
            changed = self.resources.changed(), if self.needs_names => changed,
            changed = self.load_aware.changed() => changed,
        };
        changed.map_err(|_| drained())?;
        self.is_new = true;
        Ok(())
    }
}

impl Reporting {
    /// Takes what is said of endpoints, where weights are made of it.
    fn weigh(&self, all: &[ClusterStats]) {
        let warnings = &self.shared.control.inner.warnings;
        let load_aware = self.load_aware.borrow().clone();
        let resources = self.resources.borrow().clone();
        let told = resources.as_deref().and_then(|all| all.kind(Kind::Cluster));
        let is_told = |name: &str| told.is_some_and(|told| told.by_name.contains_key(name));
        for stats in all.iter().filter(|stats| is_told(&stats.cluster_name)) {
            // Clusters are called like their services; the others are no service's.
            let Ok(service) = ServiceKey::parse(&stats.cluster_name, "") else { continue };
            if !by_clients(load_aware.get(&service)) {
                continue;
            }
            let Some((interval, shares)) = shares(stats, warnings) else { continue };
            if !self.reporter.report(&service, Instant::now(), interval, shares) {
                warnings.add(Warning::XdsLoadEndpoints);
            }
        }
    }
}
