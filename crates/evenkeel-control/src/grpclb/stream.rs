//! One client's stream. It is the response's body and nothing else: no task, no queue. Reading
//! requests, waiting for snapshots and writing lists happen when the connection asks for the next
//! bytes, so a client that does not read is not served either, and finds the newest list when it
//! does; what it costs meanwhile are references to the one list that it has begun.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use evenkeel_proto::grpc::lb::v1::{
    ClientStats, InitialLoadBalanceRequest, InitialLoadBalanceResponse, LoadBalanceRequest,
    LoadBalanceResponse, load_balance_request::LoadBalanceRequestType as Asked,
    load_balance_response::LoadBalanceResponseType as Told,
};
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body, codec::Streaming};
use tracing::debug;

use super::{
    encode::EncodedList,
    rate::{Bucket, Pace},
    service::Shared,
    slots::rotation,
};
use crate::{
    control::{Service, lock},
    drain::{Turn, drained},
    names::NameError,
    observe::{Refusal, Warning},
    peer::Peer,
    room::Permit,
    snapshot::{Published, Snapshot},
    status::ClientStatus,
    wire::{framed, trailers},
    zones::Places,
};

/// How long a client may take for its initial request.
pub const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(10);
/// The largest request, in bytes; names have at most 255, and reports a few tokens.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The response's body.
pub(super) fn respond(
    shared: Arc<Shared>,
    inbound: Streaming<LoadBalanceRequest>,
    peer: Peer,
    permit: Permit,
) -> Body {
    let stream = Stream {
        turn: shared.drain.turn(),
        shared,
        inbound,
        peer,
        outgoing: VecDeque::new(),
        phase: Phase::Waiting { until: Instant::now() + FIRST_MESSAGE_WAIT },
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
    inbound: Streaming<LoadBalanceRequest>,
    peer: Peer,
    /// The rest of the message that is being sent.
    outgoing: VecDeque<Bytes>,
    phase: Phase,
    turn: Turn,
    /// Until the end; who does not read it may keep the rest for long.
    permit: Option<Permit>,
}

enum Phase {
    /// For the initial request.
    Waiting {
        until: Instant,
    },
    Serving(Box<Client>),
    Ended,
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
                Phase::Serving(_) => self.serve().await,
            };
            if let Err(end) = step {
                debug!(peer = ?self.peer.address, code = ?end.code(), why = end.message(), "ends");
                // Gives its number back, and its place among the clients.
                self.phase = Phase::Ended;
                self.permit = None;
                return Some(trailers(&end));
            }
        }
    }

    async fn wait(&mut self, until: Instant) -> Result<(), End> {
        let message = tokio::select! {
            biased;
            message = self.inbound.message() => message,
            () = sleep_until(until) => {
                let wait = FIRST_MESSAGE_WAIT;
                let text = format!("expected the initial request within {wait:?}, got nothing");
                return Err(self.refuse(Refusal::NoInitial, Status::deadline_exceeded(text)));
            }
            () = self.turn.comes() => return Err(drained()),
        };
        let client = match self.asked(message)? {
            Some(Asked::InitialRequest(request)) => self.admit(&request)?,
            Some(Asked::ClientStats(_)) => {
                let text = "expected the initial request first, got client stats";
                return Err(self.refuse(Refusal::NotInitial, Status::invalid_argument(text)));
            }
            None => {
                let text = "expected the initial request first, got a message without content";
                return Err(self.refuse(Refusal::NotInitial, Status::invalid_argument(text)));
            }
        };
        let interval = self.shared.settings.client_stats_interval;
        let interval = (!interval.is_zero()).then(|| interval.try_into().ok()).flatten();
        let initial = InitialLoadBalanceResponse { client_stats_report_interval: interval };
        let told = Some(Told::InitialResponse(initial));
        self.outgoing.push_back(framed(&LoadBalanceResponse { load_balance_response_type: told }));
        self.phase = Phase::Serving(Box::new(client));
        self.tell()
    }

    async fn serve(&mut self) -> Result<(), End> {
        let Phase::Serving(client) = &mut self.phase else { return Ok(()) };
        let message = tokio::select! {
            biased;
            message = self.inbound.message() => message,
            changed = client.published.changed() => {
                // Its sender lives as long as the service, which the client holds.
                changed.map_err(|_| gone(&client.service))?;
                return self.tell();
            }
            changed = client.places.changed(), if client.zone.is_none() => {
                // Its sender lives as long as the control.
                changed.map_err(|_| gone(&client.service))?;
                return if client.is_found() { self.tell() } else { Ok(()) };
            }
            () = self.turn.comes() => return Err(drained()),
        };
        match self.asked(message)? {
            Some(Asked::ClientStats(report)) => self.report(Some(&report)),
            // It costs as much as a report, and counts as one.
            None => self.report(None),
            Some(Asked::InitialRequest(_)) => {
                let text = "expected client stats, got a second initial request";
                Err(self.refuse(Refusal::SecondInitial, Status::invalid_argument(text)))
            }
        }
    }

    fn asked(
        &self,
        message: Result<Option<LoadBalanceRequest>, Status>,
    ) -> Result<Option<Asked>, End> {
        match message {
            Ok(Some(message)) => Ok(message.load_balance_request_type),
            // The client has said that nothing more comes: it is done with us.
            Ok(None) => Err(Status::ok("")),
            Err(error) => Err(self.refuse(Refusal::BadMessage, error)),
        }
    }

    fn admit(&self, request: &InitialLoadBalanceRequest) -> Result<Client, End> {
        let name = &request.name;
        let service = self.shared.control.service(name).map_err(|error| match error {
            NameError::Bad(text) => self.refuse(Refusal::BadName, Status::invalid_argument(text)),
            NameError::Unknown(text) => self.refuse(Refusal::UnknownName, Status::not_found(text)),
        })?;
        Ok(Client::new(&self.shared, service, &self.peer, name))
    }

    /// Makes the newest list the next message, if there is one.
    fn tell(&mut self) -> Result<(), End> {
        let Phase::Serving(client) = &mut self.phase else { return Ok(()) };
        let published = client.published.borrow_and_update().clone();
        let snapshot = match published {
            Published::Pending => return Ok(()),
            Published::Current(snapshot) => snapshot,
            Published::Gone => return Err(gone(&client.service)),
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
        let list = client.list(&snapshot);
        let pieces = list.rotated(rotation(client.slot, list.len(), self.shared.settings.phase));
        self.outgoing.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        client.service.lists_sent.fetch_add(1, Ordering::Relaxed);
        client.status.told(snapshot.version, list.len());
        Ok(())
    }

    fn report(&mut self, report: Option<&ClientStats>) -> Result<(), End> {
        let Phase::Serving(client) = &mut self.phase else { return Ok(()) };
        let warnings = &self.shared.control.inner.warnings;
        match client.bucket.take(Instant::now()) {
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
        if at.is_some() && at < client.reported_at {
            warnings.add(Warning::StatsBackwards);
        }
        client.reported_at = at.max(client.reported_at);
        lock(&client.service.totals).add(report, warnings);
        client.status.reports.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refuse(&self, why: Refusal, status: Status) -> End {
        self.shared.control.inner.refusals.add(why);
        status
    }
}

/// A stream's client, once it has said what it wants.
struct Client {
    shared: Arc<Shared>,
    service: Arc<Service>,
    published: watch::Receiver<Published>,
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
