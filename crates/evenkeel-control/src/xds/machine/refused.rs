//! What a client has refused and must not be sent again. A refusal is of a whole response and says
//! why in words; the names in those words tell the resources that are bad, as Envoy's and gRPC's
//! do. Without a name all of the response is taken for bad: to try the rest once more might be to
//! send what was refused.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use crate::xds::Resource;

/// Refusals of one client and kind that are remembered; then the oldest may be sent again.
pub(crate) const REFUSED_MAX: usize = 1_000;

/// A resource's name and version.
type Version = (Arc<str>, Arc<str>);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Refused {
    versions: BTreeSet<Version>,
    order: VecDeque<Version>,
}

impl Refused {
    pub(super) fn contains(&self, resource: &Resource) -> bool {
        // Most clients refuse nothing, and then nothing is made to ask.
        !self.versions.is_empty()
            && self.versions.contains(&(resource.name.clone(), resource.version.clone()))
    }

    /// Those of `sent` that were refused for this reason.
    pub(super) fn add<'a>(&mut self, sent: impl Iterator<Item = &'a Resource>, detail: &str) {
        let sent: Vec<&Resource> = sent.collect();
        let named = sent.iter().any(|resource| names(detail, &resource.name));
        for resource in sent {
            if named && !names(detail, &resource.name) {
                continue;
            }
            let version = (resource.name.clone(), resource.version.clone());
            if self.versions.insert(version.clone()) {
                self.order.push_back(version);
            }
            if self.order.len() > REFUSED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.versions.remove(&oldest);
            }
        }
    }
}

/// Whether a text has this name as a word, not as a part of a longer one.
fn names(text: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let inside = |c: char| c.is_alphanumeric() || "-_/".contains(c);
    let joint = |c: char| ".:".contains(c);
    text.match_indices(name).any(|(at, _)| {
        let mut before = text[..at].chars().rev();
        let mut after = text[at + name.len()..].chars();
        let (b1, b2) = (before.next(), before.next());
        let (a1, a2) = (after.next(), after.next());
        let cut = |near: Option<char>, far: Option<char>| match near {
            Some(c) if inside(c) => false,
            // A full stop or a colon ends a word where nothing follows.
            Some(c) if joint(c) => !far.is_some_and(inside),
            _ => true,
        };
        cut(b1, b2) && cut(a1, a2)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn resource(name: &str, version: &str) -> Resource {
        Resource { name: name.into(), version: version.into(), body: Bytes::new() }
    }

    #[test]
    fn a_name_is_a_whole_word() {
        for text in [
            "greeter.default",
            "Error adding/updating cluster(s) greeter.default: no such policy",
            "bad resource \"greeter.default\"",
            "greeter.default.",
            "[greeter.default]: weight",
        ] {
            assert!(names(text, "greeter.default"), "{text}");
        }
        for text in
            ["greeter.default.svc", "a-greeter.default", "x.greeter.default", "greeter.default:80"]
        {
            assert!(!names(text, "greeter.default"), "{text}");
        }
        assert!(!names("anything", ""));
    }

    #[test]
    fn what_the_reason_names_is_refused_and_the_rest_is_not() {
        let (a, b) = (resource("a", "1"), resource("b", "1"));
        let mut refused = Refused::default();
        refused.add([&a, &b].into_iter(), "cluster(s) b: bad");
        assert!(!refused.contains(&a) && refused.contains(&b));
        assert!(!refused.contains(&resource("b", "2")), "another version may be good");
    }

    #[test]
    fn without_a_name_all_is_refused() {
        let (a, b) = (resource("a", "1"), resource("b", "1"));
        let mut refused = Refused::default();
        refused.add([&a, &b].into_iter(), "out of memory");
        assert!(refused.contains(&a) && refused.contains(&b));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut refused = Refused::default();
        for n in 0..=REFUSED_MAX {
            refused.add([&resource("a", &n.to_string())].into_iter(), "");
        }
        assert!(!refused.contains(&resource("a", "0")));
        assert!(refused.contains(&resource("a", "1")));
        assert_eq!((refused.versions.len(), refused.order.len()), (REFUSED_MAX, REFUSED_MAX));
    }
}
