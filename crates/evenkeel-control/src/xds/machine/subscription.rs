//! What a client wants of one kind: everything, or some names. The two variants of the protocol say
//! it differently (the whole list each time, or what is added and taken away) and mean the same,
//! which is why it is kept in one form.

use std::{collections::BTreeSet, sync::Arc};

use super::NAMES_MAX;
use crate::xds::Kind;

/// Means everything.
const WILDCARD: &str = "*";

/// There would be more names than [`NAMES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) usize);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// The first request was here.
    started: bool,
    /// Everything is wanted because no name has ever been said.
    implied: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
}

/// What a request changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Named in this request: names that are new, and in delta also those said again.
    pub(super) named: Vec<Arc<str>>,
    /// Everything is wanted, and was not before.
    pub(super) wildcard: bool,
    /// Taken back by name while everything is wanted: what is true of them has to be said again.
    pub(super) released: Vec<Arc<str>>,
}

impl Subscription {
    /// Takes a request of the state of the world, which has all names.
    pub(super) fn set(&mut self, kind: Kind, names: &[String]) -> Result<Asked, TooMany> {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let wildcard = self.implies(kind, names.is_empty())
            || (kind.has_wildcard() && names.contains(WILDCARD));
        let is_name = |name: &&str| !(kind.has_wildcard() && *name == WILDCARD);
        let names: Vec<&str> = names.into_iter().filter(is_name).collect();
        if names.len() > NAMES_MAX {
            return Err(TooMany(names.len()));
        }
        let mut asked = Asked { wildcard: wildcard && !self.wildcard, ..Asked::default() };
        let mut kept = BTreeSet::new();
        for name in names {
            match self.names.take(name) {
                Some(known) => drop(kept.insert(known)),
                None => {
                    let name: Arc<str> = name.into();
                    asked.named.push(name.clone());
                    kept.insert(name);
                }
            }
        }
        (self.started, self.wildcard, self.names) = (true, wildcard, kept);
        Ok(asked)
    }

    /// Takes a request of delta.
    pub(super) fn update(
        &mut self,
        kind: Kind,
        subscribe: &[String],
        unsubscribe: &[String],
    ) -> Result<Asked, TooMany> {
        let mut asked = Asked::default();
        let before = self.wildcard;
        self.wildcard |= self.implies(kind, subscribe.is_empty());
        self.started = true;
        for name in subscribe {
            if kind.has_wildcard() && name == WILDCARD {
                self.wildcard = true;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            self.names.insert(name.clone());
            asked.named.push(name);
            if self.names.len() > NAMES_MAX {
                return Err(TooMany(self.names.len()));
            }
        }
        for name in unsubscribe {
            if kind.has_wildcard() && name == WILDCARD {
                (self.wildcard, self.implied) = (false, false);
            } else if let Some(name) = self.names.take(name.as_str()) {
                asked.released.push(name);
            }
        }
        asked.wildcard = self.wildcard && !before;
        if !self.wildcard {
            asked.released.clear();
        }
        Ok(asked)
    }

    /// Whether a request implies that everything is wanted, which it does until one has had names.
    fn implies(&mut self, kind: Kind, no_names: bool) -> bool {
        self.implied = kind.has_wildcard() && no_names && (self.implied || !self.started);
        self.implied
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    pub(super) fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn texts(names: &[Arc<str>]) -> Vec<&str> {
        names.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn an_empty_first_request_means_everything_until_a_name_is_said() {
        let mut wanted = Subscription::default();
        assert!(wanted.set(Kind::Cluster, &[]).expect("few").wildcard);
        assert!(wanted.covers("a"));
        assert_eq!(wanted.set(Kind::Cluster, &[]), Ok(Asked::default()), "still");
        let asked = wanted.set(Kind::Cluster, &strings(&["a"])).expect("few");
        assert_eq!((texts(&asked.named), wanted.covers("b")), (vec!["a"], false));
        wanted.set(Kind::Cluster, &[]).expect("few");
        assert!(!wanted.covers("a") && !wanted.is_wildcard(), "empty means nothing now");
    }

    #[test]
    fn everything_can_be_asked_for_beside_names() {
        let mut wanted = Subscription::default();
        let asked = wanted.set(Kind::Listener, &strings(&["*", "a"])).expect("few");
        assert!(asked.wildcard && wanted.covers("b"));
        wanted.set(Kind::Listener, &strings(&["a"])).expect("few");
        assert!(wanted.covers("a") && !wanted.covers("b"));
    }

    #[test]
    fn endpoints_routes_and_secrets_are_had_by_name_alone() {
        for kind in [Kind::Endpoint, Kind::Route, Kind::Secret] {
            let mut wanted = Subscription::default();
            wanted.set(kind, &[]).expect("few");
            assert!(!wanted.covers("a"));
            wanted.set(kind, &strings(&["*"])).expect("few");
            assert!(!wanted.covers("a") && wanted.covers("*"), "a name that nothing has");
        }
    }

    #[test]
    fn delta_adds_and_takes_away() {
        let mut wanted = Subscription::default();
        wanted.update(Kind::Endpoint, &strings(&["a", "b"]), &[]).expect("few");
        let asked = wanted.update(Kind::Endpoint, &strings(&["b"]), &strings(&["a"]));
        let asked = asked.expect("few");
        assert_eq!(texts(&asked.named), ["b"], "said again");
        assert!(asked.released.is_empty() && !wanted.covers("a") && wanted.covers("b"));
    }

    #[test]
    fn in_delta_everything_stays_wanted_beside_names_until_it_is_taken_back() {
        let mut wanted = Subscription::default();
        assert!(wanted.update(Kind::Cluster, &[], &[]).expect("few").wildcard);
        wanted.update(Kind::Cluster, &strings(&["a"]), &[]).expect("few");
        assert!(wanted.covers("b"));
        let asked = wanted.update(Kind::Cluster, &[], &strings(&["a"])).expect("few");
        assert_eq!(texts(&asked.released), ["a"]);
        wanted.update(Kind::Cluster, &[], &strings(&["*"])).expect("few");
        assert!(!wanted.covers("b"));
        wanted.update(Kind::Cluster, &[], &[]).expect("few");
        assert!(!wanted.covers("b"), "it is not implied again");
    }

    #[test]
    fn names_have_a_limit() {
        let many: Vec<String> = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
        let too_many = Err(TooMany(NAMES_MAX + 1));
        assert_eq!(Subscription::default().set(Kind::Endpoint, &many), too_many);
        assert_eq!(Subscription::default().update(Kind::Endpoint, &many, &[]), too_many);
        Subscription::default().set(Kind::Endpoint, &many[1..]).expect("as many as there may be");
    }
}
