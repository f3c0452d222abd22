//! A balancer of xDS on a real socket, with resources made by hand, and clients of it over our own
//! channel, which say and answer only what a test makes them.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::Channel;
use evenkeel_control::{
    Control, Peer,
    config::Config,
    metrics::Page,
    names::NameRules,
    xds::{
        ClientView, Followed, Kind, KindResources, NodeViews, Resource, Resources, Views, Xds,
        XdsSettings,
    },
};
use evenkeel_proto::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use evenkeel_server::{Server, ShutdownHandle};
use futures_util::{Stream, stream::unfold};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tonic::{Code, Status, Streaming, body::Body, service::Routes};
use tower_service::Service;

const WAIT_MAX: Duration = Duration::from_secs(10);
const REQUESTS_MAX: usize = 100;

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(WAIT_MAX, future).await.expect("within 10 s")
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(crate) fn node(id: &str) -> Node {
    Node { id: id.into(), user_agent_name: "test".into(), ..Node::default() }
}

/// One view for all, but for the node `nobody`.
#[derive(Debug)]
struct OneView(watch::Receiver<Option<Arc<Resources>>>);

impl Views for OneView {
    fn follow(&self, node: &Node, _peer: &Peer) -> Result<Followed, Status> {
        if node.id == "nobody" {
            return Err(Status::permission_denied("nobody gets nothing"));
        }
        Ok(Followed { view: "all".into(), resources: self.0.clone() })
    }
}

/// The balancer.
pub(crate) struct Stage {
    pub(crate) control: Control,
    pub(crate) xds: Xds,
    pub(crate) shutdown: ShutdownHandle,
    pub(crate) address: SocketAddr,
    sender: watch::Sender<Option<Arc<Resources>>>,
    resources: Resources,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with("{}").await
    }

    pub(crate) async fn with(yaml: &str) -> Self {
        let control = Control::new(NameRules::default(), Config::default());
        control.configure(&Config::from_yaml(yaml, "test", "default").expect("good"));
        let (sender, receiver) = watch::channel(None);
        Self::of(control, Arc::new(OneView(receiver)), sender).await
    }

    /// A balancer that says what it is configured to say.
    pub(crate) async fn speaking(control: Control) -> Self {
        let views = NodeViews::new(control.clone());
        tokio::spawn(views.clone().run());
        Self::of(control, Arc::new(views), watch::Sender::default()).await
    }

    async fn of(
        control: Control,
        views: Arc<dyn Views>,
        sender: watch::Sender<Option<Arc<Resources>>>,
    ) -> Self {
        let xds = Xds::new(control.clone(), views, XdsSettings::default());
        let routes = Routes::new(xds.ads()).add_service(xds.lrs());
        let server = Server::builder().build(routes).expect("good settings");
        let shutdown = server.shutdown_handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(server.serve([listener]));
        Self { control, xds, shutdown, address, sender, resources: Resources::default() }
    }

    /// Changes what there is of one kind, for all.
    pub(crate) fn set(&mut self, kind: Kind, list: &[(&str, &str)]) {
        let all = list.iter().map(|(name, version)| Resource {
            name: (*name).into(),
            version: (*version).into(),
            body: Bytes::from(format!("{name}={version}")),
        });
        let by_name: BTreeMap<_, _> = all.map(|one| (one.name.clone(), Arc::new(one))).collect();
        let version = format!("{list:?}").into();
        self.resources.set(kind, Arc::new(KindResources { version, by_name }));
        self.sender.send_replace(Some(Arc::new(self.resources.clone())));
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::builder(format!("ipv4:{}", self.address)).build().expect("good settings")
    }

    pub(crate) fn client(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        AggregatedDiscoveryServiceClient::new(self.channel())
    }

    pub(crate) async fn sotw(&self, id: &str) -> Client<DiscoveryRequest, DiscoveryResponse> {
        let (sender, requests) = requests();
        let call = self.client().stream_aggregated_resources(requests).await;
        let responses = call.expect("a stream").into_inner();
        Client { node: Some(node(id)), sender, responses }
    }

    pub(crate) async fn delta(
        &self,
        id: &str,
    ) -> Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let (sender, requests) = requests();
        let call = self.client().delta_aggregated_resources(requests).await;
        let responses = call.expect("a stream").into_inner();
        Client { node: Some(node(id)), sender, responses }
    }

    pub(crate) fn metrics(&self) -> String {
        let mut page = Page::default();
        self.xds.write_metrics(&mut page);
        page.into_text()
    }

    /// Looks until there are so many streams.
    pub(crate) async fn until_streams(&self, count: usize) {
        within(async {
            while self.xds.streams() != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Looks until the client is seen so; only looking again tells.
    pub(crate) async fn seen(&self, is_so: impl Fn(&[ClientView]) -> bool) -> Vec<ClientView> {
        within(async {
            loop {
                let (views, _) = self.xds.clients(100);
                if is_so(&views) {
                    return views;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// A balancer without sockets, and what it gives.
pub(crate) fn unserved() -> (Xds, watch::Sender<Option<Arc<Resources>>>) {
    let control = Control::new(NameRules::default(), Config::default());
    let (sender, receiver) = watch::channel(None);
    (Xds::new(control, Arc::new(OneView(receiver)), XdsSettings::default()), sender)
}

/// Calls a service itself, with a request whose messages never come.
pub(crate) async fn call<S>(mut service: S, name: &str, method: &str) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    // A body that has neither frames nor an end.
    let frames = futures_util::stream::pending::<Result<Frame<Bytes>, Status>>();
    let mut request = Request::post(format!("http://control.test/{name}/{method}"));
    if method == "compressed" {
        let path = format!("http://control.test/{name}/DeltaAggregatedResources");
        request = Request::post(path).header("grpc-encoding", "gzip");
    }
    let body = Body::new(StreamBody::new(frames));
    service.call(request.body(body).expect("a request")).await.expect("infallible")
}

pub(crate) fn requests<T: Send + 'static>()
-> (mpsc::Sender<T>, impl Stream<Item = T> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    let requests =
        unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    (sender, requests)
}

/// One stream.
pub(crate) struct Client<Q, R> {
    /// Goes with the next request.
    pub(crate) node: Option<Node>,
    sender: mpsc::Sender<Q>,
    responses: Streaming<R>,
}

impl<Q: Send + 'static, R> Client<Q, R> {
    pub(crate) async fn send(&self, request: Q) {
        // A stream that has ended says why when it is read.
        let _ = within(self.sender.send(request)).await;
    }

    pub(crate) async fn next(&mut self) -> R {
        let message = within(self.responses.message()).await;
        message.expect("no error").expect("a response")
    }

    pub(crate) async fn ended(&mut self, code: Code) -> String {
        match within(self.responses.message()).await {
            Err(status) if status.code() == code => status.message().to_owned(),
            Err(status) => panic!("expected {code:?}, got {status:?}"),
            Ok(_) => panic!("expected {code:?}, got a response or a good end"),
        }
    }
}

impl Client<DiscoveryRequest, DiscoveryResponse> {
    pub(crate) async fn ask(&mut self, kind: Kind, names: &[&str]) {
        let request = DiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().into(),
            resource_names: strings(names),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// Takes or, with a reason, refuses a response.
    pub(crate) async fn answer(
        &self,
        response: &DiscoveryResponse,
        names: &[&str],
        error: Option<&str>,
    ) {
        let message = |text: &str| evenkeel_proto::google::rpc::Status {
            code: 3,
            message: text.into(),
            ..Default::default()
        };
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            resource_names: strings(names),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(message),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }
}

impl Client<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    pub(crate) async fn ask(&mut self, kind: Kind, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(names),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.send(request).await;
    }
}

/// Resources of a response, as the bodies say.
pub(crate) fn bodies(response: &DiscoveryResponse) -> Vec<String> {
    let body = |any: &prost_types::Any| String::from_utf8_lossy(&any.value).into_owned();
    response.resources.iter().map(body).collect()
}
