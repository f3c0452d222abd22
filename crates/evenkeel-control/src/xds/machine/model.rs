//! A client that does what the protocol says, and everything that can happen between it and the
//! machine, in any order: requests that cross responses, refusals, resources that change meanwhile.
//! Whatever happened, in the end the client has exactly what it should.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use evenkeel_proto::google::rpc::Status;
use proptest::{collection::vec, prelude::*};

use super::{tests::kind_resources, *};

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
/// The client refuses these versions.
const BAD: [u8; 2] = [4, 8];
/// Responses to a client that has nothing more to say; far more than it takes.
const ROUNDS_MAX: usize = 1_000;

#[derive(Clone, Debug)]
enum Step {
    /// 0: it does not exist.
    Set(Kind, usize, u8),
    Subscribe(Kind, usize),
    Unsubscribe(Kind, usize),
    /// The machine speaks.
    Speak,
    /// The client takes the oldest response that it has not seen.
    Hear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = || (0..Kind::ALL.len()).prop_map(|index| Kind::ALL[index]);
    let name = || 0..NAMES.len();
    let step = prop_oneof![
        3 => (kind(), name(), 0..10_u8).prop_map(|(kind, name, to)| Step::Set(kind, name, to)),
        2 => (kind(), name()).prop_map(|(kind, name)| Step::Subscribe(kind, name)),
        1 => (kind(), name()).prop_map(|(kind, name)| Step::Unsubscribe(kind, name)),
        3 => Just(Step::Speak),
        3 => Just(Step::Hear),
    ];
    vec(step, 0..120)
}

/// What the client knows of a kind.
#[derive(Debug, Default)]
struct Known {
    wildcard: bool,
    names: BTreeSet<&'static str>,
    /// It has said a name, and has to say from then on that it wants everything.
    has_named: bool,
    has: BTreeMap<String, String>,
    nonce: String,
    version: String,
    /// Bad versions that it refused.
    refused: BTreeSet<(String, String)>,
    /// Good versions that it refused together with a bad one, without saying which is which.
    held_back: BTreeSet<(String, String)>,
    /// It has asked for something, or been told something that it may be told more of, since the
    /// last response.
    reason: bool,
}

impl Known {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

struct Model {
    machine: Machine,
    variant: Variant,
    /// It says which resource it does not like.
    says_which: bool,
    kinds: BTreeMap<Kind, Known>,
    there: BTreeMap<Kind, BTreeMap<&'static str, u8>>,
    resources: Resources,
    unseen: VecDeque<Outgoing>,
    now: Instant,
}

impl Model {
    fn new(variant: Variant, wildcard: bool, says_which: bool) -> Self {
        let mut model = Self {
            machine: Machine::new(variant),
            variant,
            says_which,
            kinds: Kind::ALL.map(|kind| (kind, Known::default())).into(),
            there: BTreeMap::new(),
            resources: Resources::default(),
            unseen: VecDeque::new(),
            now: Instant::now(),
        };
        model.machine.resources(Arc::default());
        for kind in [Kind::Cluster, Kind::Listener].into_iter().filter(|_| wildcard) {
            model.of(kind).wildcard = true;
            model.request(kind, None, &[], &[]);
        }
        model
    }

    fn of(&mut self, kind: Kind) -> &mut Known {
        self.kinds.get_mut(&kind).expect("each kind is there")
    }

    fn request(&mut self, kind: Kind, error: Option<String>, add: &[&str], remove: &[&str]) {
        let (variant, known) = (self.variant, self.of(kind));
        known.reason = true;
        let mut names: Vec<String> = known.names.iter().map(ToString::to_string).collect();
        if known.wildcard && known.has_named {
            names.push("*".into());
        }
        let nonce = known.nonce.clone();
        let error_detail = error.map(|message| Status { message, ..Status::default() });
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        match variant {
            Variant::StateOfTheWorld => {
                let request = DiscoveryRequest {
                    type_url: kind.type_url().into(),
                    version_info: known.version.clone(),
                    response_nonce: nonce,
                    resource_names: names,
                    error_detail,
                    ..DiscoveryRequest::default()
                };
                self.machine.request(&request).expect("a good request");
            }
            Variant::Delta => {
                let is_answer = add.is_empty() && remove.is_empty();
                let request = DeltaDiscoveryRequest {
                    type_url: kind.type_url().into(),
                    response_nonce: if is_answer { nonce } else { String::new() },
                    resource_names_subscribe: strings(add),
                    resource_names_unsubscribe: strings(remove),
                    error_detail,
                    ..DeltaDiscoveryRequest::default()
                };
                self.machine.delta(request).expect("a good request");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Set(kind, name, version) => {
                let there = self.there.entry(kind).or_default();
                match version {
                    0 => there.remove(NAMES[name]),
                    version => there.insert(NAMES[name], version),
                };
                let list: Vec<(&str, String)> =
                    there.iter().map(|(name, version)| (*name, version.to_string())).collect();
                let list: Vec<(&str, &str)> =
                    list.iter().map(|(name, version)| (*name, &version[..])).collect();
                self.resources.set(kind, kind_resources(&list));
                self.machine.resources(Arc::new(self.resources.clone()));
            }
            Step::Subscribe(kind, name) => {
                let known = self.of(kind);
                known.names.insert(NAMES[name]);
                known.has_named = true;
                self.request(kind, None, &[NAMES[name]], &[]);
            }
            Step::Unsubscribe(kind, name) => {
                let known = self.of(kind);
                // An empty list would be the wish for everything, from a client that begins.
                let last = known.names.len() < 2 && known.nonce.is_empty();
                if !known.names.contains(NAMES[name]) || last {
                    return;
                }
                known.names.remove(NAMES[name]);
                if !known.wildcard {
                    known.has.remove(NAMES[name]);
                }
                self.request(kind, None, &[], &[NAMES[name]]);
            }
            Step::Speak => {
                if let Some(outgoing) = self.machine.next(self.now) {
                    self.unseen.push_back(outgoing);
                }
            }
            Step::Hear => self.hear(),
        }
    }

    /// Takes or refuses a response as a whole, and says so.
    fn hear(&mut self) {
        let Some(outgoing) = self.unseen.pop_front() else { return };
        let (kind, variant, says_which) = (outgoing.kind, self.variant, self.says_which);
        if kind == Kind::Cluster {
            self.of(Kind::Endpoint).reason = true;
        }
        let known = self.of(kind);
        let got: BTreeMap<String, String> = outgoing
            .resources
            .iter()
            .map(|resource| (resource.name.to_string(), resource.version.to_string()))
            .collect();
        for version in &got {
            let version = (version.0.clone(), version.1.clone());
            assert!(!known.refused.contains(&version), "{kind:?} {version:?} was refused before");
        }
        known.nonce = outgoing.nonce.clone();
        let new = got.iter().filter(|(name, version)| known.has.get(*name) != Some(*version));
        let new: Vec<(String, String)> =
            new.map(|(name, version)| (name.clone(), version.clone())).collect();
        let whole = variant == Variant::StateOfTheWorld && kind.has_wildcard();
        let gone = known.has.keys().any(|name| match whole {
            true => !got.contains_key(name),
            false => outgoing.removed.iter().any(|removed| **removed == **name),
        });
        assert!(
            !new.is_empty() || gone || std::mem::take(&mut known.reason),
            "{outgoing:?} says nothing new to {known:?}"
        );
        known.reason = false;
        let is_bad = |version: &str| version.parse().is_ok_and(|version| BAD.contains(&version));
        let bad: Vec<_> = new.iter().filter(|(_, version)| is_bad(version)).cloned().collect();
        if !bad.is_empty() {
            let names: Vec<&str> = bad.iter().map(|(name, _)| name.as_str()).collect();
            let text = match says_which {
                true => format!("error adding {}: bad", names.join(", ")),
                false => "something is bad".to_owned(),
            };
            if !says_which {
                known.held_back.extend(new);
            }
            known.refused.extend(bad);
            // What is taken away is taken away, whatever else was wrong.
            for name in &outgoing.removed {
                known.has.remove(&**name);
            }
            return self.request(kind, Some(text), &[], &[]);
        }
        known.version = outgoing.version.to_string();
        if whole {
            known.has.clear();
        }
        for name in &outgoing.removed {
            known.has.remove(&**name);
        }
        let wanted =
            got.into_iter().filter(|(name, _)| known.wildcard || known.names.contains(&name[..]));
        let wanted: Vec<_> = wanted.collect();
        known.has.extend(wanted);
        self.request(kind, None, &[], &[]);
    }

    fn finish(&mut self) {
        for _ in 0..ROUNDS_MAX {
            while self.unseen.front().is_some() {
                self.hear();
            }
            match self.machine.next(self.now) {
                Some(outgoing) => self.unseen.push_back(outgoing),
                None => return,
            }
        }
        panic!("it is never quiet");
    }

    fn check(&self) {
        for (kind, known) in &self.kinds {
            let there = self.there.get(kind);
            for name in NAMES.into_iter().filter(|name| known.wants(name)) {
                let there = there.and_then(|there| there.get(name));
                let has = known.has.get(name);
                let Some(version) = there else {
                    let told = self.variant == Variant::Delta || kind.has_wildcard();
                    assert!(!told || has.is_none(), "{kind:?} {name} is gone, but {known:?}");
                    continue;
                };
                let pair = (name.to_owned(), version.to_string());
                if !BAD.contains(version) && !known.held_back.contains(&pair) {
                    assert_eq!(has, Some(&pair.1), "{kind:?} {name}: {known:?}");
                }
            }
            for version in known.has.values() {
                assert!(!BAD.contains(&version.parse().expect("a number")), "{known:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    })]

    #[test]
    fn in_the_end_the_client_has_what_it_should(
        steps in steps(),
        delta: bool,
        wildcard: bool,
        says_which: bool,
    ) {
        let variant = if delta { Variant::Delta } else { Variant::StateOfTheWorld };
        let mut model = Model::new(variant, wildcard, says_which);
        for step in &steps {
            model.step(step);
        }
        model.finish();
        model.check();
    }
}
