//! One client's stream of load reports: the client says who it is, is told what to report and how
//! often, and reports. The response's body, like every stream here.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use evenkeel_proto::envoy::{
    config::core::v3::Node,
    service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse},
};
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body, codec::Streaming};
use tracing::debug;

use super::{
    Kind, Resources,
    machine::NAMES_MAX,
    service::Shared,
    stream::{FIRST_REQUEST_WAIT, NODE_BYTES_MAX},
};
use crate::{
    drain::{Turn, drained},
    grpclb::{Bucket, Pace},
    observe::{Refusal, Warning},
    peer::Peer,
    room::Permit,
    wire::{framed, trailers},
};

/// Clients with this feature can be asked for all their clusters, without naming them.
const SEND_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// The response's body.
pub(super) fn respond(
    shared: Arc<Shared>,
    inbound: Streaming<LoadStatsRequest>,
    peer: Peer,
    permit: Permit,
) -> Body {
    let stream = Stream {
        turn: shared.drain.turn(),
        bucket: Bucket::new(shared.settings.load_report_interval),
        shared,
        inbound,
        peer,
        outgoing: VecDeque::new(),
        phase: Phase::Waiting { until: Instant::now() + FIRST_REQUEST_WAIT },
        permit: Some(permit),
    };
    let frames = unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Status>(frame), stream))
    });
    Body::new(StreamBody::new(frames))
}

struct Stream {
    shared: Arc<Shared>,
    inbound: Streaming<LoadStatsRequest>,
    peer: Peer,
    outgoing: VecDeque<Bytes>,
    phase: Phase,
    bucket: Bucket,
    turn: Turn,
    permit: Option<Permit>,
}

enum Phase {
    Waiting {
        until: Instant,
    },
    /// With the resources whose clusters are to be named, for clients that need them named.
    Serving {
        named: Option<Named>,
    },
    Ended,
}

struct Named {
    resources: watch::Receiver<Option<Arc<Resources>>>,
    told: Option<Vec<String>>,
}

/// What ended a stream.
type End = Status;

impl Stream {
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if let Some(bytes) = self.outgoing.pop_front() {
                return Some(Frame::data(bytes));
            }
            let step = match &mut self.phase {
                Phase::Ended => return None,
                Phase::Waiting { until } => {
                    let until = *until;
                    self.wait(until).await
                }
                Phase::Serving { .. } => self.serve().await,
            };
            if let Err(end) = step {
                debug!(peer = ?self.peer.address, code = ?end.code(), why = end.message(), "ends");
                self.phase = Phase::Ended;
                self.permit = None;
                return Some(trailers(&end));
            }
        }
    }

    async fn wait(&mut self, until: Instant) -> Result<(), End> {
        let request = tokio::select! {
            biased;
            request = self.inbound.message() => request,
            () = sleep_until(until) => {
                let wait = FIRST_REQUEST_WAIT;
                let text = format!("expected the first request within {wait:?}, got nothing");
                return Err(self.refuse(Refusal::NoInitial, Status::deadline_exceeded(text)));
            }
            () = self.turn.comes() => return Err(drained()),
        };
        let request = self.arrived(request)?;
        let Some(node) = &request.node else {
            let text = "expected node in the first request, got none; it says who asks";
            return Err(self.refuse(Refusal::XdsNoNode, Status::invalid_argument(text)));
        };
        let named = self.admit(node)?;
        if named.is_none() {
            self.ask(Vec::new(), true);
        }
        self.phase = Phase::Serving { named };
        self.add(&request);
        self.name_clusters();
        Ok(())
    }

    async fn serve(&mut self) -> Result<(), End> {
        let Phase::Serving { named } = &mut self.phase else { return Ok(()) };
        let changed = async {
            match named {
                Some(named) => named.resources.changed().await,
                None => std::future::pending().await,
            }
        };
        let request = tokio::select! {
            biased;
            () = self.turn.comes() => return Err(drained()),
            request = self.inbound.message() => request,
            changed = changed => {
                changed.map_err(|_| drained())?;
                self.name_clusters();
                return Ok(());
            }
        };
        let request = self.arrived(request)?;
        self.add(&request);
        Ok(())
    }

    fn arrived(
        &mut self,
        request: Result<Option<LoadStatsRequest>, Status>,
    ) -> Result<LoadStatsRequest, End> {
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return Err(Status::ok("")),
            Err(error) => return Err(self.refuse(Refusal::BadMessage, error)),
        };
        match self.bucket.take(Instant::now()) {
            Pace::Good => {}
            Pace::Early => self.shared.control.inner.warnings.add(Warning::StatsEarly),
            Pace::Flood => {
                let interval = self.shared.settings.load_report_interval;
                let text = format!("expected load reports every {interval:?}, got a flood of them");
                return Err(self.refuse(Refusal::StatsFlood, Status::resource_exhausted(text)));
            }
        }
        Ok(request)
    }

    /// Whether this client may report, and which clusters have to be named to it.
    fn admit(&self, node: &Node) -> Result<Option<Named>, End> {
        let bytes = node.encoded_len();
        if bytes > NODE_BYTES_MAX {
            let text = format!("expected a node of at most {NODE_BYTES_MAX} bytes, got {bytes}");
            return Err(self.refuse(Refusal::XdsNodeBytes, Status::invalid_argument(text)));
        }
        let followed = self.shared.views.follow(node, &self.peer);
        let followed = followed.map_err(|status| self.refuse(Refusal::XdsNoView, status))?;
        let all = node.client_features.iter().any(|feature| feature == SEND_ALL_CLUSTERS);
        Ok((!all).then_some(Named { resources: followed.resources, told: None }))
    }

    /// A first request without reports says only who reports.
    fn add(&self, request: &LoadStatsRequest) {
        if !request.cluster_stats.is_empty() {
            self.shared.loads.add(request, &self.shared.control.inner.warnings);
        }
    }

    /// Asks for the clusters that there are, when they are others than before.
    fn name_clusters(&mut self) {
        let Phase::Serving { named: Some(named) } = &mut self.phase else { return };
        let Some(resources) = named.resources.borrow_and_update().clone() else { return };
        let clusters = resources.kind(Kind::Cluster).into_iter().flat_map(|all| all.by_name.keys());
        let clusters: Vec<String> = clusters.take(NAMES_MAX).map(ToString::to_string).collect();
        if named.told.as_ref() != Some(&clusters) {
            named.told = Some(clusters.clone());
            self.ask(clusters, false);
        }
    }

    fn ask(&mut self, clusters: Vec<String>, send_all_clusters: bool) {
        let interval = self.shared.settings.load_report_interval;
        self.outgoing.push_back(framed(&LoadStatsResponse {
            clusters,
            load_reporting_interval: interval.try_into().ok(),
            report_endpoint_granularity: false,
            send_all_clusters,
        }));
    }

    fn refuse(&self, why: Refusal, status: Status) -> End {
        self.shared.control.inner.refusals.add(why);
        status
    }
}
