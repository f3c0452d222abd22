//! One client's stream of aggregated resources. What to say is the machine's business, and what a
//! stream is that of [`crate::stream`]; here is what is between them: who asks, how often, in which
//! variant, and the bytes.

use std::sync::Arc;

use evenkeel_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;
use tracing::warn;

use super::{
    Followed, Kind, Resources,
    clients::{Client, Entry},
    demand::{Demand, TooMany},
    machine::{Bad, Heard, Machine, NAMES_MAX, Variant},
    service::Shared,
};
use crate::{
    control::lock,
    drain::drained,
    observe::{Refusal, Warning},
    peer::Peer,
    stream::{End, Outgoing, Talk},
};

/// The largest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// What a client may say of itself, in bytes, metadata and all.
pub const NODE_BYTES_MAX: usize = 64 * 1024;
/// Requests that may come at once: a client that begins asks for each name by itself.
pub const REQUESTS_BURST: u32 = 10_000;
/// Requests a second for long. Each response is answered by one.
pub const REQUESTS_PER_S_MAX: u32 = 500;

/// A request of either variant.
pub(super) enum Request {
    StateOfTheWorld(DiscoveryRequest),
    Delta(DeltaDiscoveryRequest),
}

impl From<DiscoveryRequest> for Request {
    fn from(request: DiscoveryRequest) -> Self {
        Self::StateOfTheWorld(request)
    }
}

impl From<DeltaDiscoveryRequest> for Request {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self::Delta(request)
    }
}

impl Request {
    fn variant(&self) -> Variant {
        match self {
            Self::StateOfTheWorld(_) => Variant::StateOfTheWorld,
            Self::Delta(_) => Variant::Delta,
        }
    }

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

    /// What it asks for by name, if that is something.
    fn named(&self) -> Option<(Kind, &[String])> {
        let (url, names) = match self {
            Self::StateOfTheWorld(request) => (&request.type_url, &request.resource_names),
            Self::Delta(request) => (&request.type_url, &request.resource_names_subscribe),
        };
        let kind = Kind::of_type_url(url)?;
        (!names.is_empty()).then_some((kind, names.as_slice()))
    }

    fn put_into(self, machine: &mut Machine) -> Result<Heard, Bad> {
        match self {
            Self::StateOfTheWorld(request) => machine.request(&request),
            Self::Delta(request) => machine.delta(request),
        }
    }
}

/// Who asks, once it has said so, and what it gets. Its place among the clients is given back when
/// it is dropped.
pub(super) struct Serving {
    shared: Arc<Shared>,
    variant: Variant,
    pace: Pace,
    entry: Entry,
    demand: Demand,
    resources: watch::Receiver<Option<Arc<Resources>>>,
}

impl Talk for Serving {
    type Shared = Shared;
    type Request = Request;
    const FIRST_REQUEST: &'static str = "the first request";
    const REQUEST_BYTES_MAX: usize = REQUEST_BYTES_MAX;

    fn begin(
        shared: &Arc<Shared>,
        peer: &Peer,
        request: Request,
        _outgoing: &mut Outgoing,
    ) -> Result<Self, End> {
        let (node, followed) = follow(shared, request.node(), peer)?;
        let (id, variant) = (shared.clients.new_id(), request.variant());
        let client = Client::new(id, peer, node, followed.view, variant);
        let entry = shared.clients.enter(client);
        let (shared, resources) = (shared.clone(), followed.resources);
        let pace = Pace::new(Instant::now());
        let demand = Demand::default();
        let mut serving = Self { shared, variant, pace, entry, demand, resources };
        serving.look();
        serving.hear(request)?;
        Ok(serving)
    }

    fn hear(&mut self, request: Request) -> Result<(), End> {
        if !self.pace.take(Instant::now()) {
            let text = format!("expected at most {REQUESTS_PER_S_MAX} requests a second, got more");
            return Err(self.refuse(Refusal::XdsFlood, Status::resource_exhausted(text)));
        }
        // Many names are refused below, and not worth a look.
        if let Some((kind, names)) = request.named().filter(|(_, all)| all.len() <= NAMES_MAX) {
            self.ask(kind, names);
        }
        let detail = request.detail().map(str::to_owned);
        let mut machine = lock(&self.entry.client.machine);
        let heard = request.put_into(&mut machine);
        self.demand.keep(&machine);
        drop(machine);
        let heard = heard.map_err(|bad| self.bad(bad))?;
        self.shared.counts.heard(self.variant, heard);
        if heard.stale {
            self.shared.control.inner.warnings.add(Warning::XdsStaleNonce);
        }
        if let Some(kind) = heard.nacked {
            let client = &self.entry.client;
            let why = detail.unwrap_or_default();
            warn!(node = client.node(), kind = kind.name(), why, "a client refuses its resources");
        }
        Ok(())
    }

    /// One response of a kind waits for its answer at a time, so there is an end to it.
    fn speak(&mut self, outgoing: &mut Outgoing) -> Result<(), End> {
        let mut machine = lock(&self.entry.client.machine);
        let Some(response) = machine.next(Instant::now()) else { return Ok(()) };
        drop(machine);
        let pieces = self.shared.encoder.encode(self.variant, &response);
        let bytes = pieces.iter().map(bytes::Bytes::len).sum();
        self.shared.counts.sent(self.variant, response.kind, bytes);
        outgoing.extend(pieces);
        Ok(())
    }

    async fn news(&mut self) -> Result<(), End> {
        let machine_at = lock(&self.entry.client.machine).wakes_at();
        let wakes_at = machine_at.into_iter().chain(self.demand.retry_at()).min();
        tokio::select! {
            biased;
            changed = self.resources.changed() => {
                changed.map_err(|_| drained())?;
                self.look();
            }
            () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => {
                for (kind, name) in self.demand.look_again(&self.shared.control, Instant::now()) {
                    self.shared.views.asked(&self.resources, kind, &[name]);
                }
                self.look();
            }
        }
        Ok(())
    }
}

impl Serving {
    /// Has what these names lead to be there before they are answered.
    fn ask(&mut self, kind: Kind, names: &[String]) {
        let control = &self.shared.control;
        let is_demand = match kind {
            Kind::Listener | Kind::Cluster => control.serves_on_demand(),
            // Who wants all clusters asks for endpoints of those that there are.
            Kind::Endpoint => {
                let wants_all = lock(&self.entry.client.machine).is_wildcard(Kind::Cluster);
                control.serves_on_demand() && !wants_all
            }
            Kind::Route | Kind::Secret => false,
        };
        if is_demand && self.demand.add(control, kind, names, Instant::now()) == Err(TooMany) {
            control.inner.warnings.add(Warning::XdsOnDemandMax);
        }
        if is_demand || kind == Kind::Listener {
            self.shared.views.asked(&self.resources, kind, names);
            self.look();
        }
    }

    /// Takes the newest resources, if there are any.
    fn look(&mut self) {
        let newest = self.resources.borrow_and_update().clone();
        if let Some(resources) = newest {
            lock(&self.entry.client.machine).resources(resources);
        }
    }

    fn bad(&self, bad: Bad) -> End {
        match bad {
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
        }
    }

    fn refuse(&self, why: Refusal, status: Status) -> End {
        self.shared.control.refuse(why, status)
    }
}

/// What a client gets, by the node of its first request.
pub(super) fn follow<'a>(
    shared: &Shared,
    node: Option<&'a Node>,
    peer: &Peer,
) -> Result<(&'a Node, Followed), End> {
    let refuse = |why, status| shared.control.refuse(why, status);
    let Some(node) = node else {
        let text = "expected node in the first request, got none; it says who asks";
        return Err(refuse(Refusal::XdsNoNode, Status::invalid_argument(text)));
    };
    let bytes = node.encoded_len();
    if bytes > NODE_BYTES_MAX {
        let text = format!("expected a node of at most {NODE_BYTES_MAX} bytes, got {bytes}");
        return Err(refuse(Refusal::XdsNodeBytes, Status::invalid_argument(text)));
    }
    let followed = shared.views.follow(node, peer);
    followed.map(|followed| (node, followed)).map_err(|end| refuse(Refusal::XdsNoView, end))
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
    use std::time::Duration;

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
