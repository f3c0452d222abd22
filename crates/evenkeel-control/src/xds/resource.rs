//! The seam between what is said and how: named, versioned, encoded resources. Versions are made of
//! the content, not counted: a balancer that restarts, or another replica, gives the same version
//! to the same content, so that a client that comes back is told nothing and rebuilds nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use evenkeel_proto::envoy::config::core::v3::Node;
use tokio::sync::watch;
use tonic::Status;

use crate::peer::Peer;

/// The types of resources, in the order in which a client has to get them: what is named comes
/// before what names it (make before break).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// SDS.
    Secret,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl Kind {
    /// Each, in order.
    pub const ALL: [Self; 5] =
        [Self::Cluster, Self::Endpoint, Self::Secret, Self::Listener, Self::Route];

    /// The type URL that requests and responses name.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The discovery service's name, which people use for the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Secret => "SDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
        }
    }

    /// Whether a client can ask for all there are. Then a response in the state of the world has
    /// all that the client wants, and what it lacks does not exist.
    #[must_use]
    pub const fn has_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// The type of that URL.
    #[must_use]
    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// One resource, encoded once for all who get it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Unique in its kind.
    pub name: Arc<str>,
    /// Made of the content.
    pub version: Arc<str>,
    /// The encoded message, without the `Any` around it.
    pub body: Bytes,
}

/// Without the content, which may be a private key.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, body } = self;
        let mut shown = f.debug_struct("Resource");
        shown.field("name", name).field("version", version).field("bytes", &body.len()).finish()
    }
}

/// The resources of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindResources {
    /// Made of the content of all of them.
    pub version: Arc<str>,
    /// By name.
    pub by_name: BTreeMap<Arc<str>, Arc<Resource>>,
}

/// All that clients of one view get, at one moment. Kinds in which nothing changed stay the same
/// `Arc`, so that a stream sees at once what it need not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    kinds: BTreeMap<Kind, Arc<KindResources>>,
    pending: Arc<BTreeSet<Arc<str>>>,
}

impl Resources {
    /// The resources of a kind, if there are any.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> Option<&Arc<KindResources>> {
        self.kinds.get(&kind)
    }

    /// Puts `resources` in the place of what was there of this kind.
    pub fn set(&mut self, kind: Kind, resources: Arc<KindResources>) {
        self.kinds.insert(kind, resources);
    }

    /// Names of endpoints of which it is not known yet whether there are any.
    #[must_use]
    pub fn pending(&self) -> &Arc<BTreeSet<Arc<str>>> {
        &self.pending
    }

    /// Says of which endpoints it is not known yet whether there are any. Nobody is told that they
    /// do not exist: Envoy would call nobody instead of waiting.
    pub fn set_pending(&mut self, names: BTreeSet<Arc<str>>) {
        self.pending = Arc::new(names);
    }
}

/// What a client gets.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The view's name, for people.
    pub view: Arc<str>,
    /// Its resources now and later. `None` before the first snapshots are there: a client waits for
    /// its first answer then, and is told nothing wrong.
    pub resources: watch::Receiver<Option<Arc<Resources>>>,
}

/// Who knows which resources a client gets. What is said implements it; streams ask it once, when
/// the first request has told the node.
pub trait Views: Send + Sync + 'static {
    /// The view of this client.
    ///
    /// # Errors
    ///
    /// A clear status when it gets nothing here: the stream ends with it.
    fn follow(&self, node: &Node, peer: &Peer) -> Result<Followed, Status>;

    /// Hears what a client asks for by name, before it is answered; `followed` is what it follows.
    /// Not every form of a listener's name can be listed beforehand (`greeter:80`, `GREETER.`), nor
    /// every service on demand: those that lead somewhere are among the resources from now on.
    fn asked(
        &self,
        followed: &watch::Receiver<Option<Arc<Resources>>>,
        kind: Kind,
        names: &[String],
    ) {
        let _ = (followed, kind, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_type_url_and_clusters_come_before_what_names_them() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of_type_url("type.googleapis.com/envoy.api.v2.Cluster"), None);
        assert!(Kind::ALL.is_sorted());
        assert!(Kind::Cluster < Kind::Endpoint && Kind::Listener < Kind::Route);
    }
}
