//! What a client may rely on, whatever it does: at most one response of a type is unanswered, no
//! nonce comes twice, a version stands for one content and no other, and when all is answered it
//! becomes quiet. A client that is honest (it answers what it was last told, and always thinks the
//! same of the same) is never sent again what it refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use evenkeel_control::{
    Control, Peer,
    config::Config,
    names::NameRules,
    xds::{Followed, Kind, KindResources, Resource, Resources, Variant, Views, Xds, XdsSettings},
};
use evenkeel_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
    },
    google::rpc::Status,
};
use futures_util::stream::unfold;
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    time::advance,
};
use tonic::body::Body;

use super::{STEPS_MAX, message, open, status};
use crate::targets::gist;

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
/// An honest client refuses versions that this divides.
const BAD: u8 = 4;
/// Answers until it has to be quiet: each resource of each type twice over.
const ROUNDS_MAX: usize = 2 * NAMES.len() * Kind::ALL.len() * STEPS_MAX;
/// Requests that wait to be read; a step sends two at most.
const REQUESTS_MAX: usize = 4 * STEPS_MAX + ROUNDS_MAX;

/// One view for all.
#[derive(Debug)]
struct OneView(watch::Receiver<Option<Arc<Resources>>>);

impl Views for OneView {
    fn follow(&self, _node: &Node, _peer: &Peer) -> Result<Followed, tonic::Status> {
        Ok(Followed { view: "all".into(), resources: self.0.clone() })
    }
}

/// A balancer, and what it gives.
pub(super) fn balancer() -> (Xds, watch::Sender<Option<Arc<Resources>>>) {
    let control = Control::new(NameRules::default(), Config::default());
    control.configure(&Config::default());
    let (sender, receiver) = watch::channel(Some(Arc::default()));
    (Xds::new(control, Arc::new(OneView(receiver)), XdsSettings::default()), sender)
}

/// What the client knows of a type.
#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<String>,
    nonce: String,
    version: String,
    /// What the last response brought, until it is answered.
    unanswered: Option<BTreeMap<String, Vec<u8>>>,
    has: BTreeMap<String, Vec<u8>>,
    refused: BTreeSet<(String, Vec<u8>)>,
    /// The version of each content, in lists of everything.
    versions: BTreeMap<BTreeMap<String, Vec<u8>>, String>,
}

/// See the module's head.
pub(super) struct Client {
    xds: Xds,
    variant: Variant,
    requests: mpsc::Sender<Bytes>,
    body: Body,
    bytes: BytesMut,
    there: Resources,
    sender: watch::Sender<Option<Arc<Resources>>>,
    known: BTreeMap<Kind, Known>,
    nonces: BTreeSet<String>,
    is_honest: bool,
    has_spoken: bool,
    ended: Option<String>,
    news: BTreeSet<String>,
}

/// A response of either variant.
struct Told {
    kind: Kind,
    nonce: String,
    version: String,
    resources: BTreeMap<String, Vec<u8>>,
    removed: Vec<String>,
}

impl Client {
    pub(super) async fn new(variant: Variant) -> Self {
        let (xds, sender) = balancer();
        let (requests, receiver) = mpsc::channel::<Bytes>(REQUESTS_MAX);
        let frames = unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, tonic::Status>(Frame::data(bytes)), receiver))
        });
        let body = open(&xds, variant, Body::new(StreamBody::new(frames))).await;
        Self {
            xds,
            variant,
            requests,
            body,
            bytes: BytesMut::new(),
            there: Resources::default(),
            sender,
            known: Kind::ALL.map(|kind| (kind, Known::default())).into(),
            nonces: BTreeSet::new(),
            is_honest: true,
            has_spoken: false,
            ended: None,
            news: BTreeSet::new(),
        }
    }

    fn of(&mut self, kind: Kind) -> &mut Known {
        self.known.get_mut(&kind).expect("each type is there")
    }

    pub(super) async fn step(&mut self, step: &[u8]) {
        let Some((what, rest)) = step.split_first() else { return };
        let byte = |n: usize| rest.get(n).copied().unwrap_or_default();
        let kind = Kind::ALL[usize::from(byte(0)) % Kind::ALL.len()];
        match what % 6 {
            0 => self.anything(rest),
            1 => self.ask(kind, byte(1), byte(2)),
            2 => self.set(kind, NAMES[usize::from(byte(1)) % NAMES.len()], byte(2)),
            3 => advance(Duration::from_millis(50) * u32::from(byte(0))).await,
            4 => self.answer(kind, None),
            _ => self.lie(kind, byte(1), byte(2)),
        }
        // Some requests cross responses.
        if what & 0x80 == 0 {
            self.read();
        }
    }

    /// Bytes that may be a request.
    fn anything(&mut self, bytes: &[u8]) {
        self.is_honest = false;
        let (url, nonce) = match self.variant {
            Variant::StateOfTheWorld => {
                let request = DiscoveryRequest::decode(bytes).unwrap_or_default();
                (request.type_url, request.response_nonce)
            }
            Variant::Delta => {
                let request = DeltaDiscoveryRequest::decode(bytes).unwrap_or_default();
                (request.type_url, request.response_nonce)
            }
        };
        if let Some(kind) = Kind::of_type_url(&url) {
            self.answered(kind, &nonce);
        }
        self.frame(bytes);
    }

    /// Wants other names than before: bits of `mask`, and everything with bit 4.
    fn ask(&mut self, kind: Kind, mask: u8, how: u8) {
        let wanted = |n: usize| mask & (1 << n) != 0;
        let mut names: BTreeSet<String> =
            (0..NAMES.len()).filter(|n| wanted(*n)).map(|n| NAMES[n].to_owned()).collect();
        if wanted(NAMES.len()) {
            names.insert("*".into());
        }
        let before = std::mem::replace(&mut self.of(kind).names, names.clone());
        match self.variant {
            // It has the names of every type's last answer.
            Variant::StateOfTheWorld => self.answer(kind, None),
            Variant::Delta => {
                let again = |name: &&String| how & 1 != 0 || !before.contains(*name);
                let request = DeltaDiscoveryRequest {
                    resource_names_subscribe: names.iter().filter(again).cloned().collect(),
                    resource_names_unsubscribe: before.difference(&names).cloned().collect(),
                    ..DeltaDiscoveryRequest::default()
                };
                self.send_delta(kind, request);
            }
        }
        let known = self.of(kind);
        if !known.names.contains("*") {
            let Known { has, names, .. } = known;
            has.retain(|name, _| names.contains(name));
        }
    }

    /// Answers what it was last told, with the client's own opinion of it or with `error`.
    fn answer(&mut self, kind: Kind, error: Option<&str>) {
        let variant = self.variant;
        let whole = variant == Variant::StateOfTheWorld && kind.has_wildcard();
        let known = self.of(kind);
        let told = known.unanswered.take();
        let mut message = error.map(str::to_owned);
        if let Some(told) = told {
            let new: Vec<(String, Vec<u8>)> = told
                .iter()
                .filter(|(name, body)| known.has.get(*name) != Some(*body))
                .map(|(name, body)| (name.clone(), body.clone()))
                .collect();
            let is_bad = |body: &[u8]| body.last().is_some_and(|byte| byte.is_multiple_of(BAD));
            let bad: Vec<_> = new.iter().filter(|(_, body)| is_bad(body)).cloned().collect();
            if !bad.is_empty() {
                let names: Vec<&str> = bad.iter().map(|(name, _)| name.as_str()).collect();
                message.get_or_insert(format!("error adding {}: bad", names.join(", ")));
                known.refused.extend(bad);
            } else if message.is_none() {
                if whole {
                    known.has.clear();
                }
                known.has.extend(told);
            }
        } else if variant == Variant::Delta && error.is_none() {
            return;
        }
        let error_detail = message.map(|message| Status { message, ..Status::default() });
        let nonce = known.nonce.clone();
        if variant == Variant::Delta {
            let response_nonce = nonce;
            let request =
                DeltaDiscoveryRequest { response_nonce, error_detail, ..Default::default() };
            return self.send_delta(kind, request);
        }
        let request = DiscoveryRequest {
            response_nonce: nonce,
            error_detail,
            version_info: known.version.clone(),
            resource_names: known.names.iter().cloned().collect(),
            ..DiscoveryRequest::default()
        };
        self.send_sotw(kind, request);
    }

    /// Refuses what is good, answers what is old or was never told, or asks for what there is not.
    fn lie(&mut self, kind: Kind, how: u8, name: u8) {
        self.is_honest = false;
        let name = NAMES[usize::from(name) % NAMES.len()];
        let nonce = match how % 4 {
            0 => return self.answer(kind, Some("no")),
            1 => return self.answer(kind, Some(&format!("{name} is bad"))),
            2 => self.nonces.first().cloned().unwrap_or_default(),
            _ => "never".to_owned(),
        };
        self.answered(kind, &nonce);
        match self.variant {
            Variant::StateOfTheWorld => {
                let resource_names = vec![name.to_owned()];
                let request = DiscoveryRequest {
                    response_nonce: nonce,
                    resource_names,
                    ..Default::default()
                };
                self.send_sotw(kind, request);
            }
            Variant::Delta => {
                let initial = [(name.to_owned(), "1".to_owned())].into();
                let request = DeltaDiscoveryRequest {
                    response_nonce: nonce,
                    initial_resource_versions: initial,
                    ..DeltaDiscoveryRequest::default()
                };
                self.send_delta(kind, request);
            }
        }
    }

    fn answered(&mut self, kind: Kind, nonce: &str) {
        let known = self.of(kind);
        if known.nonce == nonce {
            known.unanswered = None;
        }
    }

    fn node(&mut self) -> Option<Node> {
        let first = !std::mem::replace(&mut self.has_spoken, true);
        first.then(|| Node { id: "fuzz".into(), ..Node::default() })
    }

    fn send_sotw(&mut self, kind: Kind, request: DiscoveryRequest) {
        let (node, type_url) = (self.node(), kind.type_url().to_owned());
        self.frame(&DiscoveryRequest { node, type_url, ..request }.encode_to_vec());
    }

    fn send_delta(&mut self, kind: Kind, request: DeltaDiscoveryRequest) {
        let (node, type_url) = (self.node(), kind.type_url().to_owned());
        self.frame(&DeltaDiscoveryRequest { node, type_url, ..request }.encode_to_vec());
    }

    fn frame(&mut self, message: &[u8]) {
        self.has_spoken = true;
        let mut bytes = BytesMut::with_capacity(message.len() + super::HEAD_LEN);
        bytes.put_u8(0);
        bytes.put_u32(message.len() as u32);
        bytes.put_slice(message);
        // Nobody reads what comes after the end.
        let sent = self.requests.try_send(bytes.freeze());
        assert!(sent.is_ok() || self.ended.is_some(), "it is not read");
    }

    /// From now on there is this version of a resource; with 0 there is none.
    fn set(&mut self, kind: Kind, name: &str, version: u8) {
        let before = self.there.kind(kind);
        let mut by_name = before.map(|all| all.by_name.clone()).unwrap_or_default();
        by_name.remove(name);
        if version > 0 {
            let body = [name.as_bytes(), &[version]].concat().into();
            let version = version.to_string().into();
            by_name.insert(name.into(), Arc::new(Resource { name: name.into(), version, body }));
        }
        let version = format!("{by_name:?}").into();
        self.there.set(kind, Arc::new(KindResources { version, by_name }));
        self.sender.send_replace(Some(Arc::new(self.there.clone())));
    }

    /// Reads until there is nothing more to read.
    fn read(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.ended.is_none()
            && let Poll::Ready(Some(frame)) = Pin::new(&mut self.body).poll_frame(&mut cx)
        {
            match frame.expect("no error").into_data() {
                Ok(data) => self.bytes.extend_from_slice(&data),
                Err(frame) => {
                    assert!(self.bytes.is_empty(), "trailers in the middle of a message");
                    self.ended = Some(status(frame));
                    return;
                }
            }
            while let Some(message) = message(&mut self.bytes) {
                assert!(self.ended.is_none(), "something after the trailers");
                let told = self.told(message);
                self.hear(told);
            }
        }
    }

    fn told(&self, message: BytesMut) -> Told {
        // The bodies begin with their names.
        let name = |body: &[u8]| String::from_utf8_lossy(&body[..body.len() - 1]).into_owned();
        let kind = |url: &str| Kind::of_type_url(url).expect("a type that there is");
        match self.variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(message).expect("a message");
                let bodies = response.resources.into_iter().map(|any| any.value);
                Told {
                    kind: kind(&response.type_url),
                    nonce: response.nonce,
                    version: response.version_info,
                    resources: bodies.map(|body| (name(&body), body)).collect(),
                    removed: Vec::new(),
                }
            }
            Variant::Delta => {
                let response = DeltaDiscoveryResponse::decode(message).expect("a message");
                let each = response.resources.into_iter().map(|one| {
                    let body = one.resource.expect("a body").value;
                    let version = body.last().map(u8::to_string).unwrap_or_default();
                    assert_eq!((&one.name, one.version), (&name(&body), version));
                    (one.name, body)
                });
                Told {
                    kind: kind(&response.type_url),
                    nonce: response.nonce,
                    version: response.system_version_info,
                    resources: each.collect(),
                    removed: response.removed_resources,
                }
            }
        }
    }

    fn hear(&mut self, told: Told) {
        let Told { kind, nonce, version, resources, removed } = told;
        assert!(!nonce.is_empty() && self.nonces.insert(nonce.clone()), "{nonce:?} comes again");
        let whole = self.variant == Variant::StateOfTheWorld && kind.has_wildcard();
        let is_honest = self.is_honest;
        let known = self.of(kind);
        assert!(known.unanswered.is_none(), "{kind:?}: the one before is not answered");
        for (name, body) in &resources {
            let refused = known.refused.contains(&(name.clone(), body.clone()));
            assert!(!refused || !is_honest, "{kind:?} {name}: it was refused before");
            assert!(!removed.contains(name), "{kind:?} {name}: it is there and is not");
        }
        if whole {
            let last = known.versions.insert(resources.clone(), version.clone());
            assert!(last.is_none_or(|last| last == version), "{kind:?}: two versions of the same");
            let same = known.versions.values().filter(|other| **other == version).count();
            assert_eq!(same, 1, "{kind:?}: the same version of something else");
        }
        for name in &removed {
            known.has.remove(name);
        }
        (known.nonce, known.version) = (nonce, version);
        let what = format!("{kind:?} {} {}", resources.len().min(2), removed.len().min(2));
        known.unanswered = Some(resources);
        self.news.insert(what);
    }

    /// Answers everything: it becomes quiet, and nothing is left of who has gone.
    pub(super) async fn end(mut self) -> String {
        for _ in 0..ROUNDS_MAX {
            self.read();
            let waiting = self.known.iter().find(|(_, known)| known.unanswered.is_some());
            let Some(kind) = waiting.map(|(kind, _)| *kind).filter(|_| self.ended.is_none()) else {
                break;
            };
            self.answer(kind, None);
        }
        let waiting = self.known.values().any(|known| known.unanswered.is_some());
        assert!(!waiting || self.ended.is_some(), "it is never quiet");
        let (views, _) = self.xds.clients(1);
        let seen = views.first().map(|view| {
            let kinds = view.kinds.iter();
            let kinds = kinds.map(|kind| (kind.kind, kind.nacks.min(2), kind.refusing.len()));
            format!("{:?}", kinds.collect::<Vec<_>>())
        });
        let Self { xds, ended, news, body, .. } = self;
        drop(body);
        assert_eq!((xds.streams(), xds.clients(1).1), (0, 0), "something is left");
        let ended = ended.map(|ended| gist(&ended));
        format!("{news:?} {seen:?} {ended:?}")
    }
}
