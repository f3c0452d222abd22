//! One client's stream of lists: its first request says which service it wants, and each snapshot
//! of that becomes a list of which the client is sent the pieces. What a stream is apart from that
//! is in [`crate::stream`]; what a slow one costs are references to the one list that it has begun.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use evenkeel_proto::grpc::lb::v1::{
    ClientStats, InitialLoadBalanceResponse, LoadBalanceRequest, LoadBalanceResponse,
    load_balance_request::LoadBalanceRequestType as Asked,
    load_balance_response::LoadBalanceResponseType as Told,
};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{
    encode::EncodedList,
    rate::{Bucket, Pace},
    service::Shared,
    slots::rotation,
};
use crate::{
    control::{Service, lock},
    names::NameError,
    observe::{Refusal, Warning},
    peer::Peer,
    snapshot::{Published, Snapshot},
    status::ClientStatus,
    stream::{End, Outgoing, Talk},
    wire::framed,
    zones::Places,
};

/// The largest request, in bytes; names have at most 255, and reports a few tokens.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A stream's client, once it has said what it wants.
pub(super) struct Client {
    shared: Arc<Shared>,
    service: Arc<Service>,
    published: watch::Receiver<Published>,
    /// What is published has not been told yet.
    is_new: bool,
    slot: u32,
    bucket: Bucket,
    /// The latest time that a report had.
    reported_at: Option<SystemTime>,
    status: Arc<ClientStatus>,
    peer: Peer,
    /// Where it is; once known it stays so, as a pod stays on its node.
    zone: Option<Arc<str>>,
    places: watch::Receiver<Places>,
}

impl Talk for Client {
    type Shared = Shared;
    type Request = LoadBalanceRequest;
    const FIRST_REQUEST: &'static str = "the initial request";
    const REQUEST_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

    fn begin(
        shared: &Arc<Shared>,
        peer: &Peer,
        request: LoadBalanceRequest,
        outgoing: &mut Outgoing,
    ) -> Result<Self, End> {
        let refuse = |why, status| shared.control.refuse(why, status);
        let got = match request.load_balance_request_type {
            Some(Asked::InitialRequest(request)) => {
                let name = &request.name;
                let service = shared.control.service(name).map_err(|error| match error {
                    NameError::Bad(text) => {
                        refuse(Refusal::BadName, Status::invalid_argument(text))
                    }
                    NameError::Unknown(text) => {
                        refuse(Refusal::UnknownName, Status::not_found(text))
                    }
                })?;
                outgoing.push_back(initial(shared));
                return Ok(Self::new(shared, service, peer, name));
            }
            Some(Asked::ClientStats(_)) => "client stats",
            None => "a message without content",
        };
        let text = format!("expected the initial request first, got {got}");
        Err(refuse(Refusal::NotInitial, Status::invalid_argument(text)))
    }

    fn hear(&mut self, request: LoadBalanceRequest) -> Result<(), End> {
        match request.load_balance_request_type {
            Some(Asked::ClientStats(report)) => self.report(Some(&report)),
            // It costs as much as a report, and counts as one.
            None => self.report(None),
            Some(Asked::InitialRequest(_)) => {
                let text = "expected client stats, got a second initial request";
                Err(self.refuse(Refusal::SecondInitial, Status::invalid_argument(text)))
            }
        }
    }

    /// Makes the newest list the next message, if there is one.
    fn speak(&mut self, outgoing: &mut Outgoing) -> Result<(), End> {
        if !std::mem::take(&mut self.is_new) {
            return Ok(());
        }
        let published = self.published.borrow_and_update().clone();
        let snapshot = match published {
            Published::Pending => return Ok(()),
            Published::Current(snapshot) => snapshot,
            Published::Gone => return Err(gone(&self.service)),
        };
        let allow = snapshot.policy.allow.as_ref();
        if allow.is_some_and(|allow| !allow.accepts(self.peer.names.as_ref())) {
            let who = self.peer.names.as_ref().map(ToString::to_string);
            let who = who.unwrap_or_else(|| "none".into());
            let text = format!(
                "{}: expected a certificate (mTLS) that may ask for it, got {who}",
                snapshot.service
            );
            return Err(self.refuse(Refusal::NotAllowed, Status::permission_denied(text)));
        }
        let list = self.list(&snapshot);
        outgoing.extend(list.rotated(rotation(self.slot, list.len(), self.shared.settings.phase)));
        self.service.lists_sent.fetch_add(1, Ordering::Relaxed);
        self.status.told(snapshot.version, list.len());
        Ok(())
    }

    async fn news(&mut self) -> Result<(), End> {
        tokio::select! {
            // Its sender lives as long as the service, which the client holds.
            changed = self.published.changed() => {
                changed.map_err(|_| gone(&self.service))?;
                self.is_new = true;
            }
            // Its sender lives as long as the control.
            changed = self.places.changed(), if self.zone.is_none() => {
                changed.map_err(|_| gone(&self.service))?;
                self.is_new |= self.is_found();
            }
        }
        Ok(())
    }
}

impl Client {
    fn new(shared: &Arc<Shared>, service: Arc<Service>, peer: &Peer, name: &str) -> Self {
        let slot = lock(&service.slots).take(peer.ip());
        service.streams.fetch_add(1, Ordering::Relaxed);
        service.streams_total.fetch_add(1, Ordering::Relaxed);
        let key = service.key.clone();
        let status = Arc::new(ClientStatus::new(shared.new_id(), peer, name, key, slot));
        shared.enter(status.clone());
        let places = shared.control.places();
        let mut client = Self {
            shared: shared.clone(),
            published: service.follow(),
            is_new: true,
            service,
            slot,
            bucket: Bucket::new(shared.settings.client_stats_interval),
            reported_at: None,
            status,
            peer: peer.clone(),
            zone: None,
            places,
        };
        client.is_found();
        client
    }

    /// Looks where it is; true when that makes another list of what is known of the service.
    fn is_found(&mut self) -> bool {
        self.zone = self.places.borrow_and_update().zone_of(self.peer.ip());
        let Some(zone) = &self.zone else { return false };
        self.status.found(zone);
        let published = self.published.borrow();
        published.snapshot().is_some_and(|snapshot| snapshot.part(Some(zone)).is_some())
    }

    fn list(&self, snapshot: &Snapshot) -> Arc<EncodedList> {
        let part = snapshot.part(self.zone.as_ref());
        let Some(size) = snapshot.policy.subset else { return self.service.list(snapshot, part) };
        if snapshot.serving_for(part.map(|zone| &**zone)).count() <= size {
            return self.service.list(snapshot, part);
        }
        let ring = self.service.ring(snapshot, part);
        let own = ring.window(size, self.slot);
        Arc::new(EncodedList::new(&own, &snapshot.policy.drops))
    }

    fn report(&mut self, report: Option<&ClientStats>) -> Result<(), End> {
        let warnings = &self.shared.control.inner.warnings;
        match self.bucket.take(Instant::now()) {
            Pace::Good => {}
            Pace::Early => warnings.add(Warning::StatsEarly),
            Pace::Flood => {
                let interval = self.shared.settings.client_stats_interval;
                let text = format!("expected client stats every {interval:?}, got a flood of them");
                return Err(self.refuse(Refusal::StatsFlood, Status::resource_exhausted(text)));
            }
        }
        let Some(report) = report else {
            warnings.add(Warning::EmptyMessage);
            return Ok(());
        };
        if self.shared.settings.client_stats_interval.is_zero() {
            warnings.add(Warning::StatsUnasked);
        }
        let at = report.timestamp.and_then(|at| SystemTime::try_from(at).ok());
        if at.is_some() && at < self.reported_at {
            warnings.add(Warning::StatsBackwards);
        }
        self.reported_at = at.max(self.reported_at);
        lock(&self.service.totals).add(report, warnings);
        self.status.reports.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&self, why: Refusal, status: Status) -> End {
        self.shared.control.refuse(why, status)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        lock(&self.service.slots).give_back(self.slot, self.peer.ip());
        self.service.streams.fetch_sub(1, Ordering::Relaxed);
        self.shared.leave(self.status.id);
    }
}

fn gone(service: &Service) -> Status {
    Status::not_found(format!("{} is not served here", service.key))
}

fn initial(shared: &Shared) -> bytes::Bytes {
    let interval = shared.settings.client_stats_interval;
    let interval = (!interval.is_zero()).then(|| interval.try_into().ok()).flatten();
    let initial = InitialLoadBalanceResponse { client_stats_report_interval: interval };
    let told = Some(Told::InitialResponse(initial));
    framed(&LoadBalanceResponse { load_balance_response_type: told })
}
