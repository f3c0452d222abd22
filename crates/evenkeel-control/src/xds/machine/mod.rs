//! One client's stream without the stream: requests and resources go in, responses come out, `now`
//! comes along. Both variants of the protocol run through it, because they differ in how things
//! are said and not in what a client should have next. go-control-plane's behaviour is the model;
//! where we do more, `docs/adr/0021` says why.
//!
//! - At most one response of a kind waits for its answer. What happens meanwhile is in the next.
//! - What is named goes before what names it: clusters, endpoints, secrets, listeners, routes.
//!   Listeners and routes wait until what came before is answered; endpoints and secrets do not,
//!   because Envoy answers for clusters when they are warm, and these are what warms them. What is
//!   taken away goes last, in the opposite order.
//! - What a client has refused is not sent to it again; what it took last stays in force for it.

mod kind;
#[cfg(test)]
mod model;
mod refused;
mod subscription;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use evenkeel_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use serde::Serialize;
use tokio::time::Instant;

use self::{
    kind::{Answer, KindState},
    subscription::TooMany,
};
use super::{Kind, Resource, Resources, hash::Hash};

/// Names of one kind that a client may ask for.
pub const NAMES_MAX: usize = 5_000;
/// How long what comes later waits for the answer to what comes before it.
pub const ACK_WAIT_MAX: Duration = Duration::from_secs(5);
/// The size of a response from which on the rest goes into the next one, where the protocol allows
/// that; clients of gRPC refuse messages over 4 MiB.
pub const RESPONSE_BYTES_SOFT_MAX: usize = 2 * 1024 * 1024;
/// What is kept of a client's reason to refuse.
pub const DETAIL_BYTES_MAX: usize = 2_000;
/// Names of a kind that are shown.
const NAMES_SHOWN_MAX: usize = 20;

/// The variants of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Each response has all, of kinds for which that matters.
    StateOfTheWorld,
    /// Each response has what has changed.
    Delta,
}

/// Why a request can't be taken; the stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Type(String),
    Names(Kind, usize),
}

/// What a request did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// It answered an older response: what it said of what is wanted does not count in the state
    /// of the world, because its client says it again when it answers the newest one.
    pub(super) stale: bool,
    pub(super) acked: Option<Kind>,
    pub(super) nacked: Option<Kind>,
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) nonce: String,
    /// Of what the client has of the kind when it has taken this.
    pub(super) version: Arc<str>,
    pub(super) resources: Vec<Arc<Resource>>,
    /// In delta.
    pub(super) removed: Vec<Arc<str>>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Machine {
    variant: Variant,
    kinds: [KindState; Kind::ALL.len()],
    resources: Option<Arc<Resources>>,
    nonces: u64,
    wakes_at: Option<Instant>,
}

impl Machine {
    pub(super) fn new(variant: Variant) -> Self {
        let kinds = Kind::ALL.map(KindState::new);
        Self { variant, kinds, resources: None, nonces: 0, wakes_at: None }
    }

    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    fn of(&mut self, kind: Kind) -> &mut KindState {
        &mut self.kinds[kind as usize]
    }

    /// From now on there is this.
    pub(super) fn resources(&mut self, resources: Arc<Resources>) {
        self.resources = Some(resources);
    }

    /// Takes a request of the state of the world.
    pub(super) fn request(&mut self, request: &DiscoveryRequest) -> Result<Heard, Bad> {
        let kind = kind_of(&request.type_url)?;
        let nonce = &request.response_nonce;
        let state = self.of(kind);
        let first = !state.wanted.has_started();
        if !first && !state.is_current(nonce) {
            state.gave_up(&request.resource_names);
            return Ok(Heard { stale: true, ..Heard::default() });
        }
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let answer = state.answer(nonce, error);
        let asked = state.wanted.set(kind, &request.resource_names);
        let asked = asked.map_err(|TooMany(names)| Bad::Names(kind, names))?;
        state.asked_for_all(&asked, first, &request.version_info);
        Ok(Self::heard(kind, answer))
    }

    /// Takes a request of delta.
    pub(super) fn delta(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, Bad> {
        let kind = kind_of(&request.type_url)?;
        let state = self.of(kind);
        let error = request.error_detail.as_ref().map(|error| error.message.as_str());
        let answer = state.answer(&request.response_nonce, error);
        let first = !state.wanted.has_started();
        let (subscribe, unsubscribe) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        let asked = state.wanted.update(kind, subscribe, unsubscribe);
        let mut asked = asked.map_err(|TooMany(names)| Bad::Names(kind, names))?;
        let initial = request.initial_resource_versions;
        if first {
            asked.named.retain(|name| !initial.contains_key(&**name));
        }
        let initial = initial.into_iter().filter(|_| first);
        state.asked_for_changes(asked, initial);
        Ok(Self::heard(kind, answer))
    }

    fn heard(kind: Kind, answer: Answer) -> Heard {
        let heard = Heard::default();
        match answer {
            Answer::None => heard,
            Answer::Stale => Heard { stale: true, ..heard },
            Answer::Refused => Heard { nacked: Some(kind), ..heard },
            Answer::Accepted => Heard { acked: Some(kind), ..heard },
        }
    }

    /// The next response, if there is something to say. What is taken out is taken as sent.
    pub(super) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        let resources = self.resources.clone()?;
        self.wakes_at = None;
        let variant = self.variant;
        for kind in Kind::ALL {
            // Everything before these has been looked at.
            if self.wakes_at.is_some() && matches!(kind, Kind::Listener | Kind::Route) {
                return None;
            }
            let state = self.of(kind);
            let pending = (kind == Kind::Endpoint).then(|| resources.pending());
            state.see(resources.kind(kind), pending);
            if let Some(outgoing) = state.additions(variant, now) {
                // A cluster that Envoy is sent again waits for its endpoints again, even where they
                // are what they were. They are named like it.
                if kind == Kind::Cluster {
                    let names = state.sent_names();
                    self.of(Kind::Endpoint).say_again(names);
                }
                return Some(self.signed(outgoing));
            }
            if let Some(until) = state.holds_until(now) {
                self.wakes_at = Some(self.wakes_at.map_or(until, |before| before.min(until)));
            }
        }
        if self.wakes_at.is_some() {
            return None;
        }
        let mut kinds = Kind::ALL.into_iter().rev();
        let outgoing = kinds.find_map(|kind| self.of(kind).removals(variant, now))?;
        Some(self.signed(outgoing))
    }

    /// When [`Machine::next`] has to be asked again though nothing has happened.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.wakes_at
    }

    fn signed(&mut self, mut outgoing: Outgoing) -> Outgoing {
        self.nonces += 1;
        outgoing.nonce = self.nonces.to_string();
        self.of(outgoing.kind).sign(&outgoing.nonce);
        outgoing
    }

    /// Whether the client asks for this name, and not because it wants everything.
    pub(super) fn names(&self, kind: Kind, name: &str) -> bool {
        self.kinds[kind as usize].wanted.names().contains(name)
    }

    pub(super) fn is_wildcard(&self, kind: Kind) -> bool {
        self.kinds[kind as usize].wanted.is_wildcard()
    }

    pub(super) fn is_refusing(&self, kind: Kind) -> bool {
        self.kinds[kind as usize].refusing().next().is_some()
    }

    /// What there is to show of each kind that the client has asked for.
    pub(super) fn views(&self) -> Vec<KindView> {
        let kinds = Kind::ALL.iter().zip(&self.kinds);
        let started = kinds.filter(|(_, state)| state.wanted.has_started());
        started.map(|(kind, state)| KindView::of(*kind, state)).collect()
    }
}

/// One kind of a client's, as it is shown.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KindView {
    /// The discovery service.
    pub kind: &'static str,
    /// It wants all there are.
    pub wildcard: bool,
    /// How many it has asked for by name.
    pub names: usize,
    /// The first of them.
    pub first_names: Vec<String>,
    /// The version of the last response.
    pub sent: Option<String>,
    /// The version of the last response that it took.
    pub accepted: Option<String>,
    /// A response waits for its answer.
    pub unanswered: bool,
    /// Responses so far.
    pub responses: u64,
    /// Those of them that it refused.
    pub nacks: u64,
    /// Why it refused the last of those.
    pub last_nack: Option<String>,
    /// What there is and it has refused, the first of it; it runs on what it took before.
    pub refusing: Vec<String>,
}

impl KindView {
    fn of(kind: Kind, state: &KindState) -> Self {
        let (names, notes) = (state.wanted.names(), &state.notes);
        let text = |version: &Option<Arc<str>>| version.as_ref().map(ToString::to_string);
        Self {
            kind: kind.name(),
            wildcard: state.wanted.is_wildcard(),
            names: names.len(),
            first_names: names.iter().take(NAMES_SHOWN_MAX).map(ToString::to_string).collect(),
            sent: text(&notes.sent),
            accepted: text(&notes.accepted),
            unanswered: !state.is_answered(),
            responses: notes.responses,
            nacks: notes.nacks,
            last_nack: notes.last_nack.clone(),
            refusing: state.refusing().take(NAMES_SHOWN_MAX).map(ToString::to_string).collect(),
        }
    }
}

fn kind_of(type_url: &str) -> Result<Kind, Bad> {
    Kind::of_type_url(type_url).ok_or_else(|| Bad::Type(type_url.to_owned()))
}

/// The version of a set of resources, made of their names and versions.
fn version<'a>(resources: impl Iterator<Item = &'a Resource>) -> Arc<str> {
    version_of(resources.map(|resource| (&*resource.name, &*resource.version)))
}

/// The same of names and versions.
fn version_of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<str> {
    Hash::of_versions(pairs).version()
}
