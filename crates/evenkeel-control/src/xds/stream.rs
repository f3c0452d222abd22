//! One client's stream of aggregated resources. As with grpclb it is the response's body, without
//! task and queue: a client that does not read is not served, and finds the newest when it does.
//! What to say is the machine's business; here is what a machine can't have: bytes, time, the end.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
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
use tracing::{debug, warn};

use super::{
    Kind, Resources,
    clients::{Client, Entry},
    machine::{Bad, Heard, Machine, NAMES_MAX, Variant},
    service::Shared,
};
use crate::{
    control::lock,
    drain::{Turn, drained},
    observe::{Refusal, Warning},
    peer::Peer,
    room::Permit,
    wire::trailers,
};

/// How long a client may take for its first request.
pub const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(10);
/// The largest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// What a client may say of itself, in bytes, metadata and all.
pub const NODE_BYTES_MAX: usize = 64 * 1024;
/// Requests that may come at once: a client that begins asks for each name by itself.
pub const REQUESTS_BURST: u32 = 10_000;
/// Requests a second for long. Each response is answered by one.
pub const REQUESTS_PER_S_MAX: u32 = 500;

/// Requests of one variant.
pub(super) enum Inbound {
    StateOfTheWorld(Streaming<DiscoveryRequest>),
    Delta(Streaming<DeltaDiscoveryRequest>),
}

enum Request {
    StateOfTheWorld(DiscoveryRequest),
    Delta(DeltaDiscoveryRequest),
}

impl Inbound {
    fn variant(&self) -> Variant {
        match self {
            Self::StateOfTheWorld(_) => Variant::StateOfTheWorld,
            Self::Delta(_) => Variant::Delta,
        }
    }

    async fn next(&mut self) -> Result<Option<Request>, Status> {
        Ok(match self {
            Self::StateOfTheWorld(inbound) => {
                inbound.message().await?.map(Request::StateOfTheWorld)
            }
            Self::Delta(inbound) => inbound.message().await?.map(Request::Delta),
        })
    }
}

impl Request {
    fn node(&self) -> Option<&Node> {
        match self {
            Self::StateOfTheWorld(request) => request.node.as_ref(),
            Self::Delta(request) => request.node.as_ref(),
        }
    }

    /// Why a client refuses what it was sent, if it does.
    fn detail(&self) -> Option<&str> {
        let detail = match self {
            Self::StateOfTheWorld(request) => request.error_detail.as_ref(),
            Self::Delta(request) => request.error_detail.as_ref(),
        };
        detail.map(|status| status.message.as_str())
    }

    /// The listeners that it asks for by name.
    fn listeners(&self) -> &[String] {
        let (url, names) = match self {
            Self::StateOfTheWorld(request) => (&request.type_url, &request.resource_names),
            Self::Delta(request) => (&request.type_url, &request.resource_names_subscribe),
        };
        if *url == Kind::Listener.type_url() { names } else { &[] }
    }

    fn put_into(self, machine: &mut Machine) -> Result<Heard, Bad> {
        match self {
            Self::StateOfTheWorld(request) => machine.request(&request),
            Self::Delta(request) => machine.delta(request),
        }
    }
}

/// The response's body.
pub(super) fn respond(shared: Arc<Shared>, inbound: Inbound, peer: Peer, permit: Permit) -> Body {
    let stream = Stream {
        turn: shared.drain.turn(),
        shared,
        inbound,
        peer,
        outgoing: VecDeque::new(),
        phase: Phase::Waiting { until: Instant::now() + FIRST_REQUEST_WAIT },
        pace: Pace::new(Instant::now()),
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
    inbound: Inbound,
    peer: Peer,
    /// The rest of the message that is being sent.
    outgoing: VecDeque<Bytes>,
    phase: Phase,
    turn: Turn,
    pace: Pace,
    /// Until the end; who does not read it may keep the rest for long.
    permit: Option<Permit>,
}

enum Phase {
    /// For the first request, which says who asks.
    Waiting {
        until: Instant,
    },
    Serving(Serving),
    Ended,
}

struct Serving {
    entry: Entry,
    resources: watch::Receiver<Option<Arc<Resources>>>,
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
                // Gives its place among the clients back.
                self.phase = Phase::Ended;
                self.permit = None;
                return Some(trailers(&end));
            }
        }
    }

    async fn wait(&mut self, until: Instant) -> Result<(), End> {
        let request = tokio::select! {
            biased;
            request = self.inbound.next() => request,
            () = sleep_until(until) => {
                let wait = FIRST_REQUEST_WAIT;
                let text = format!("expected the first request within {wait:?}, got nothing");
                return Err(self.refuse(Refusal::NoInitial, Status::deadline_exceeded(text)));
            }
            () = self.turn.comes() => return Err(drained()),
        };
        let request = self.arrived(request)?;
        let serving = self.admit(&request)?;
        self.phase = Phase::Serving(serving);
        self.hear(request)
    }

    async fn serve(&mut self) -> Result<(), End> {
        let Phase::Serving(serving) = &mut self.phase else { return Ok(()) };
        if let Some(pieces) = serving.speak(&self.shared) {
            self.outgoing.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
            return Ok(());
        }
        let wakes_at = lock(&serving.entry.client.machine).wakes_at();
        let request = tokio::select! {
            biased;
            () = self.turn.comes() => return Err(drained()),
            request = self.inbound.next() => request,
            changed = serving.resources.changed() => {
                changed.map_err(|_| drained())?;
                serving.look();
                return Ok(());
            }
            () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => {
                return Ok(());
            }
        };
        let request = self.arrived(request)?;
        self.hear(request)
    }

    /// A request, and not the end or too many of them.
    fn arrived(&mut self, request: Result<Option<Request>, Status>) -> Result<Request, End> {
        let request = match request {
            Ok(Some(request)) => request,
            // The client has said that nothing more comes: it is done with us.
            Ok(None) => return Err(Status::ok("")),
            Err(error) => return Err(self.refuse(Refusal::BadMessage, error)),
        };
        if !self.pace.take(Instant::now()) {
            let text = format!("expected at most {REQUESTS_PER_S_MAX} requests a second, got more");
            return Err(self.refuse(Refusal::XdsFlood, Status::resource_exhausted(text)));
        }
        Ok(request)
    }

    fn admit(&self, request: &Request) -> Result<Serving, End> {
        let Some(node) = request.node() else {
            let text = "expected node in the first request, got none; it says who asks";
            return Err(self.refuse(Refusal::XdsNoNode, Status::invalid_argument(text)));
        };
        let bytes = node.encoded_len();
        if bytes > NODE_BYTES_MAX {
            let text = format!("expected a node of at most {NODE_BYTES_MAX} bytes, got {bytes}");
            return Err(self.refuse(Refusal::XdsNodeBytes, Status::invalid_argument(text)));
        }
        let followed = self.shared.views.follow(node, &self.peer);
        let followed = followed.map_err(|status| self.refuse(Refusal::XdsNoView, status))?;
        let (id, variant) = (self.shared.clients.new_id(), self.inbound.variant());
        let client = Client::new(id, &self.peer, node, followed.view, variant);
        let entry = self.shared.clients.enter(client);
        let mut serving = Serving { entry, resources: followed.resources };
        serving.look();
        Ok(serving)
    }

    fn hear(&mut self, request: Request) -> Result<(), End> {
        let Phase::Serving(serving) = &mut self.phase else { return Ok(()) };
        let listeners = request.listeners();
        // Many names are refused below, and not worth a look.
        if !listeners.is_empty() && listeners.len() <= NAMES_MAX {
            self.shared.views.asked(&serving.resources, listeners);
            serving.look();
        }
        let Phase::Serving(Serving { entry, .. }) = &self.phase else { return Ok(()) };
        let detail = request.detail().map(str::to_owned);
        let heard = request.put_into(&mut lock(&entry.client.machine));
        let heard = heard.map_err(|bad| match bad {
            Bad::Type(got) => {
                let known = Kind::ALL.map(Kind::type_url).join(", ");
                let text = format!("expected a type_url of {known}, got {got:?}");
                self.refuse(Refusal::XdsType, Status::invalid_argument(text))
            }
            Bad::Names(kind, got) => {
                let kind = kind.name();
                let text = format!("expected at most {NAMES_MAX} names of {kind}, got {got}");
                self.refuse(Refusal::XdsNames, Status::resource_exhausted(text))
            }
        })?;
        self.shared.counts.heard(self.inbound.variant(), heard);
        if heard.stale {
            self.shared.control.inner.warnings.add(Warning::XdsStaleNonce);
        }
        if let Some(kind) = heard.nacked {
            let client = &entry.client;
            let why = detail.unwrap_or_default();
            warn!(node = client.node(), kind = kind.name(), why, "a client refuses its resources");
        }
        Ok(())
    }

    fn refuse(&self, why: Refusal, status: Status) -> End {
        self.shared.control.inner.refusals.add(why);
        status
    }
}

impl Serving {
    /// Takes the newest resources, if there are any.
    fn look(&mut self) {
        let newest = self.resources.borrow_and_update().clone();
        if let Some(resources) = newest {
            lock(&self.entry.client.machine).resources(resources);
        }
    }

    /// The next message, if there is something to say.
    fn speak(&self, shared: &Shared) -> Option<[Bytes; 2]> {
        let mut machine = lock(&self.entry.client.machine);
        let outgoing = machine.next(Instant::now())?;
        let variant = machine.variant();
        drop(machine);
        let pieces = shared.encoder.encode(variant, &outgoing);
        shared.counts.sent(variant, outgoing.kind, pieces.iter().map(Bytes::len).sum());
        Some(pieces)
    }
}

/// How many requests may come: a bucket that fills with time.
struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { left: f64::from(REQUESTS_BURST), at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64();
        let filled = self.left + gained * f64::from(REQUESTS_PER_S_MAX);
        (self.left, self.at) = (filled.min(f64::from(REQUESTS_BURST)) - 1.0, now);
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_ends_after_its_burst_and_a_steady_client_never() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!((0..REQUESTS_BURST).all(|_| pace.take(now)));
        assert!(!pace.take(now));
        let mut pace = Pace::new(now);
        let apart = Duration::from_secs(1) / REQUESTS_PER_S_MAX;
        assert!((0..10 * REQUESTS_BURST).all(|n| pace.take(now + apart * n)));
    }
}
