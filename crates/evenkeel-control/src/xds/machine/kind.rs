//! One kind of resources of one client: what it wants, what it has, what it was sent and has not
//! answered yet. What it has is kept by resource and not as a version of all: after a refusal the
//! client has some of the new and some of the old, and what is next for it is the difference
//! between that and what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    ACK_WAIT_MAX, DETAIL_BYTES_MAX, Outgoing, RESPONSE_BYTES_SOFT_MAX, Variant,
    refused::Refused,
    subscription::{Asked, Subscription},
    version,
};
use crate::xds::{Kind, KindResources, Resource};

/// A resource as a client has it.
#[derive(Clone, Debug)]
struct Known {
    version: Arc<str>,
    /// `None` when only the client knows what is in it: it brought the version along.
    resource: Option<Arc<Resource>>,
}

/// A response that has not been answered.
#[derive(Debug)]
struct Sent {
    at: Instant,
    version: Arc<str>,
    puts: Vec<Arc<Resource>>,
    removes: Vec<Arc<str>>,
}

/// How a client's request answered what it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is no answer.
    None,
    /// It answers something older, or nothing that was ever sent.
    Stale,
    Accepted,
    Refused,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct KindState {
    kind: Kind,
    pub(super) wanted: Subscription,
    has: BTreeMap<Arc<str>, Known>,
    /// To be said again, or for the first time that it does not exist.
    again: BTreeSet<Arc<str>>,
    refused: Refused,
    sent: Option<Sent>,
    nonce: Option<String>,
    /// The client waits for a response, even one without content.
    owed: bool,
    /// The version that the client says it has of all, until it is compared.
    claimed: Option<String>,
    /// Something has happened since there was last nothing to say.
    dirty: bool,
    seen: Option<Arc<KindResources>>,
    /// What may be there, or not.
    pending: Option<Arc<BTreeSet<Arc<str>>>>,
    pub(super) notes: Notes,
}

/// What there is to show.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) sent: Option<Arc<str>>,
    pub(super) accepted: Option<Arc<str>>,
    pub(super) responses: u64,
    pub(super) nacks: u64,
    pub(super) last_nack: Option<String>,
}

impl KindState {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            wanted: Subscription::default(),
            has: BTreeMap::new(),
            again: BTreeSet::new(),
            refused: Refused::default(),
            sent: None,
            nonce: None,
            owed: false,
            claimed: None,
            dirty: false,
            seen: None,
            pending: None,
            notes: Notes::default(),
        }
    }

    /// Takes what a request answers.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<&str>) -> Answer {
        if self.nonce.as_deref() != Some(nonce) {
            return if nonce.is_empty() || self.nonce.is_none() {
                Answer::None
            } else {
                Answer::Stale
            };
        }
        let Some(sent) = self.sent.take() else { return Answer::None };
        self.dirty = true;
        for name in &sent.removes {
            self.has.remove(name);
        }
        if let Some(detail) = error {
            self.refused.add(sent.puts.iter().map(AsRef::as_ref), detail);
            self.notes.nacks += 1;
            self.notes.last_nack = Some(shortened(detail));
            return Answer::Refused;
        }
        self.notes.accepted = Some(sent.version);
        for resource in sent.puts {
            if self.wanted.covers(&resource.name) {
                self.has.insert(resource.name.clone(), Known::from(resource));
            }
        }
        Answer::Accepted
    }

    /// Whether a request with this nonce may still say what the client wants, in the variant in
    /// which it says all of it.
    pub(super) fn is_current(&self, nonce: &str) -> bool {
        self.nonce.as_deref().is_none_or(|last| last == nonce)
    }

    /// Takes what can be known from a request that does not count: what it does not name the client
    /// has dropped, and has to be told again if the next one that counts names it.
    pub(super) fn gave_up(&mut self, names: &[String]) {
        if !self.wanted.is_wildcard() {
            let named: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            self.has.retain(|name, _| named.contains(&**name));
        }
    }

    /// Takes what a request asked for, in the state of the world; `claimed` is the version that a
    /// first request brings along.
    pub(super) fn asked_for_all(&mut self, asked: &Asked, first: bool, claimed: &str) {
        self.forget_unwanted();
        let asks = !asked.named.is_empty() || asked.wildcard;
        self.owed |= self.kind.has_wildcard() && (asks || first);
        self.dirty |= asks || first;
        if first && self.wanted.is_wildcard() && !claimed.is_empty() {
            self.claimed = Some(claimed.to_owned());
        }
    }

    /// Takes what a request asked for, in delta; `initial` are the versions that a first request
    /// brings along.
    pub(super) fn asked_for_changes(
        &mut self,
        asked: Asked,
        initial: impl Iterator<Item = (String, String)>,
    ) {
        for (name, version) in initial.filter(|(name, _)| self.wanted.covers(name)) {
            self.has.insert(name.into(), Known { version: version.into(), resource: None });
        }
        let knows = self.has.len();
        self.forget_unwanted();
        self.owed |= asked.wildcard && knows == 0;
        self.dirty = true;
        self.again.extend(asked.released);
        self.again.extend(asked.named);
    }

    /// Says these again, as far as the client wants them.
    pub(super) fn say_again(&mut self, names: Vec<Arc<str>>) {
        for name in names {
            if self.wanted.covers(&name) {
                self.again.insert(name);
                self.dirty = true;
            }
        }
    }

    fn forget_unwanted(&mut self) {
        let Self { wanted, has, again, .. } = self;
        has.retain(|name, _| wanted.covers(name));
        again.retain(|name| wanted.covers(name));
    }

    /// Takes note of what there is now, and of what may be there.
    pub(super) fn see(
        &mut self,
        current: Option<&Arc<KindResources>>,
        pending: Option<&Arc<BTreeSet<Arc<str>>>>,
    ) {
        if self.pending.as_ref() != pending {
            self.pending = pending.cloned();
            self.dirty |= self.wanted.has_started();
        }
        let same = match (&self.seen, current) {
            (Some(seen), Some(current)) => Arc::ptr_eq(seen, current),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.seen = current.cloned();
            self.dirty |= self.wanted.has_started();
        }
    }

    /// Until when what comes after this kind waits for an answer.
    pub(super) fn holds_until(&self, now: Instant) -> Option<Instant> {
        let until = self.sent.as_ref()?.at + ACK_WAIT_MAX;
        (now < until).then_some(until)
    }

    /// What is new to the client in the response that it has not answered.
    pub(super) fn sent_names(&self) -> Vec<Arc<str>> {
        let sent = self.sent.iter().flat_map(|sent| &sent.puts);
        sent.map(|resource| resource.name.clone()).collect()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.sent.is_none()
    }

    /// What there is that the client wants and has refused.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.seen.iter().flat_map(|seen| seen.by_name.values());
        let refused = all.filter(|resource| self.refused.contains(resource));
        refused.map(|resource| &resource.name).filter(|name| self.wanted.covers(name))
    }

    fn current(&self, name: &str) -> Option<&Arc<Resource>> {
        self.seen.as_ref()?.by_name.get(name)
    }

    /// Whether it does not exist, for sure.
    fn is_gone(&self, name: &str) -> bool {
        let is_pending = self.pending.as_ref().is_some_and(|pending| pending.contains(name));
        self.current(name).is_none() && !is_pending
    }

    /// Compares the version that the client brought along, once.
    fn compare_claim(&mut self) {
        let (Some(claimed), Some(all)) = (self.claimed.take(), &self.seen) else { return };
        if self.owed && *claimed == *version(all.by_name.values().map(AsRef::as_ref)) {
            let known = all.by_name.iter().map(|(name, r)| (name.clone(), r.clone().into()));
            self.has = known.collect();
            self.owed = false;
            self.notes.accepted = Some(claimed.into());
        }
    }

    /// What this client should have of a resource beside what it has.
    fn put(&self, name: &str, resource: &Arc<Resource>) -> Option<Arc<Resource>> {
        let again = self.again.contains(name);
        let has = self.has.get(name);
        if self.refused.contains(resource) {
            // The last one that it took stays in force for it.
            return if again { has?.resource.clone() } else { None };
        }
        let same = has.is_some_and(|has| has.version == resource.version);
        (again || !same).then(|| resource.clone())
    }

    fn puts(&self) -> Vec<Arc<Resource>> {
        let Some(seen) = &self.seen else { return Vec::new() };
        if self.wanted.is_wildcard() {
            return seen.by_name.iter().filter_map(|(name, r)| self.put(name, r)).collect();
        }
        let named = self.wanted.names().iter();
        named.filter_map(|name| self.put(name, seen.by_name.get(name)?)).collect()
    }

    /// Names that the client asked for and that do not exist, where it can be told.
    fn absent(&self) -> Vec<Arc<str>> {
        let absent = self.again.iter().filter(|name| self.is_gone(name));
        absent.filter(|name| !self.has.contains_key(*name)).cloned().collect()
    }

    /// What is new for the client, as its next response.
    pub(super) fn additions(&mut self, variant: Variant, now: Instant) -> Option<Outgoing> {
        if self.sent.is_some() || !self.dirty {
            return None;
        }
        self.compare_claim();
        let mut puts = self.puts();
        let mut removes = Vec::new();
        match variant {
            Variant::Delta => {
                limit_bytes(&mut puts);
                removes = self.absent();
            }
            Variant::StateOfTheWorld if self.kind.has_wildcard() => {}
            Variant::StateOfTheWorld => {
                limit_bytes(&mut puts);
                for name in self.absent() {
                    self.again.remove(&name);
                }
            }
        }
        if puts.is_empty() && removes.is_empty() && !std::mem::take(&mut self.owed) {
            return None;
        }
        self.owed = false;
        Some(self.send(variant, now, puts, removes))
    }

    /// What the client has and what does not exist any more, as its next response. Where the
    /// variant has no words for it, the client finds out by what no longer names it.
    pub(super) fn removals(&mut self, variant: Variant, now: Instant) -> Option<Outgoing> {
        if self.sent.is_some() || !self.dirty {
            return None;
        }
        self.dirty = false;
        let gone = self.has.keys().filter(|name| self.is_gone(name));
        let gone: Vec<Arc<str>> = gone.cloned().collect();
        if gone.is_empty() {
            return None;
        }
        if variant == Variant::StateOfTheWorld && !self.kind.has_wildcard() {
            for name in &gone {
                self.has.remove(name);
            }
            return None;
        }
        Some(self.send(variant, now, Vec::new(), gone))
    }

    fn send(
        &mut self,
        variant: Variant,
        now: Instant,
        puts: Vec<Arc<Resource>>,
        removes: Vec<Arc<str>>,
    ) -> Outgoing {
        for name in puts.iter().map(|resource| &resource.name).chain(&removes) {
            self.again.remove(name);
        }
        // What the client has when it has taken the response.
        let mut after: BTreeMap<&str, Known> =
            self.has.iter().map(|(name, known)| (&**name, known.clone())).collect();
        for resource in &puts {
            after.insert(&resource.name, Known::from(resource.clone()));
        }
        for name in &removes {
            after.remove(&**name);
        }
        let version = super::version_of(after.iter().map(|(name, known)| (*name, &*known.version)));
        let whole = variant == Variant::StateOfTheWorld && self.kind.has_wildcard();
        let resources = match whole {
            true => after.into_values().filter_map(|known| known.resource).collect(),
            false => puts.clone(),
        };
        let removed = if variant == Variant::Delta { removes.clone() } else { Vec::new() };
        (self.notes.sent, self.notes.responses) = (Some(version.clone()), self.notes.responses + 1);
        self.sent = Some(Sent { at: now, version: version.clone(), puts, removes });
        Outgoing { kind: self.kind, nonce: String::new(), version, resources, removed }
    }

    /// Gives the response that has just been made its nonce.
    pub(super) fn sign(&mut self, nonce: &str) {
        self.nonce = Some(nonce.to_owned());
    }
}

impl From<Arc<Resource>> for Known {
    fn from(resource: Arc<Resource>) -> Self {
        Self { version: resource.version.clone(), resource: Some(resource) }
    }
}

/// Leaves as many as make a response that every client takes, and at least one; the others follow
/// when it is answered.
fn limit_bytes(puts: &mut Vec<Arc<Resource>>) {
    let mut bytes = 0;
    let fits = puts.iter().take_while(|resource| {
        bytes += resource.body.len() + resource.name.len();
        bytes <= RESPONSE_BYTES_SOFT_MAX
    });
    let count = fits.count().max(1);
    puts.truncate(count);
}

fn shortened(detail: &str) -> String {
    let end = detail.floor_char_boundary(DETAIL_BYTES_MAX.min(detail.len()));
    detail[..end].to_owned()
}
