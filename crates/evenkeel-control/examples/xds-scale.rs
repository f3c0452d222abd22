//! What many clients of xDS cost the balancer: how long the change of one endpoint takes to reach
//! all of them, and how many bytes it is in both variants. Nothing is asserted but that responses
//! arrive; `met` and `NOT MET` stand beside what is aimed at. On a machine that does nothing else:
//!
//! ```text
//! cargo run --release -p evenkeel-control --example xds-scale [STREAMS ENDPOINTS]
//! ```
//!
//! Balancer and clients are this process, each client with a connection of its own over loopback,
//! so that the time includes that of the clients: reading, decoding, answering. The resources are
//! made by hand, so that what is measured is the protocol and not the making of resources.
//!
//! Endpoints of a cluster are one resource: the smallest thing that either variant can send. So a
//! change is small beside the whole where there are many clusters, and it is the whole where there
//! is one, whatever the variant.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel::Channel;
use evenkeel_control::{
    Control, Peer,
    config::Config,
    names::NameRules,
    xds::{
        Followed, Kind, KindResources, NAMES_MAX, Resource, Resources, Variant, Views, Xds,
        XdsSettings,
    },
};
use evenkeel_proto::envoy::{
    config::{
        cluster::v3::Cluster,
        core::v3::{
            Address, Node, SocketAddress, address::Address as Where, socket_address::PortSpecifier,
        },
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
    service::discovery::v3::{
        DeltaDiscoveryRequest, DiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use evenkeel_server::Server;
use futures_util::{Stream, stream::unfold};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tonic::{Status, service::Routes};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const STREAMS: usize = 500;
const ENDPOINTS: usize = 10_000;
const CLUSTERS: usize = 200;
/// Changes that are measured, after two that warm up.
const CHANGES: usize = 11;
const WARM_UP: usize = 2;
const REQUESTS_MAX: usize = 16;
const WAIT_MAX: Duration = Duration::from_secs(120);
const AIM_CHANGE_S: f64 = 1.0;
const AIM_BYTES_PERCENT: f64 = 1.0;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => all(STREAMS, ENDPOINTS).await,
        [streams, endpoints] => match (streams.parse(), endpoints.parse()) {
            (Ok(streams @ 1..=5_000), Ok(endpoints @ CLUSTERS..=100_000)) => {
                all(streams, endpoints).await
            }
            _ => Err("expected 1 to 5000 streams, and 200 to 100000 endpoints".into()),
        },
        _ => Err("expected STREAMS and ENDPOINTS, or nothing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xds-scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a change costs.
struct Cost {
    seconds: Vec<f64>,
    /// Of one stream.
    bytes: f64,
    /// Of one stream at its beginning: all there is.
    whole: f64,
}

async fn all(streams: usize, endpoints: usize) -> Result<()> {
    println!(
        "{streams} ADS streams, {endpoints} endpoints, 1 process; medians of {CHANGES} changes"
    );
    let mut whole = 0.0;
    for clusters in [CLUSTERS, 1] {
        println!(
            "\n{clusters} clusters of {} endpoints; one endpoint changes",
            endpoints / clusters
        );
        let sotw = measure(Variant::StateOfTheWorld, Kind::Endpoint, clusters, streams, endpoints);
        let sotw = sotw.await?;
        let delta = measure(Variant::Delta, Kind::Endpoint, clusters, streams, endpoints).await?;
        show("state of the world", &sotw);
        show("delta", &delta);
        println!("  delta, of all endpoints:  {}", ratio(delta.bytes, sotw.whole));
        let percent = delta.bytes / sotw.bytes * 100.0;
        println!("  delta, of our state of the world, which sends what changed: {percent:.0} %");
        if clusters == CLUSTERS {
            whole = sotw.whole;
        }
    }
    println!("\n{CLUSTERS} clusters; one cluster changes (CDS, of which a response has all)");
    let sotw =
        measure(Variant::StateOfTheWorld, Kind::Cluster, CLUSTERS, streams, endpoints).await?;
    let delta = measure(Variant::Delta, Kind::Cluster, CLUSTERS, streams, endpoints).await?;
    show("state of the world", &sotw);
    show("delta", &delta);
    println!("  delta, of state of the world: {}", ratio(delta.bytes, sotw.bytes));
    println!("\nall endpoints of {CLUSTERS} clusters are {:.1} KiB for a stream", whole / 1024.0);
    Ok(())
}

fn show(what: &str, cost: &Cost) {
    let (median, slowest) = (cost.seconds[cost.seconds.len() / 2], cost.seconds[CHANGES - 1]);
    let aim = if slowest < AIM_CHANGE_S { "met" } else { "NOT MET" };
    println!(
        "  {what:20} all notified in {median:.4} s, slowest {slowest:.4} s (aim < {AIM_CHANGE_S} s \
         {aim}); {:.0} bytes for a stream, {:.0} at its beginning",
        cost.bytes, cost.whole
    );
}

fn ratio(part: f64, whole: f64) -> String {
    let percent = part / whole * 100.0;
    let aim = if percent <= AIM_BYTES_PERCENT { "met" } else { "NOT MET" };
    format!("{percent:.2} % of the bytes (aim ≤ {AIM_BYTES_PERCENT} % {aim})")
}

/// The same resources for all clients.
struct OneView(watch::Receiver<Option<Arc<Resources>>>);

impl Views for OneView {
    fn follow(&self, _: &Node, _: &Peer) -> std::result::Result<Followed, Status> {
        Ok(Followed { view: "all".into(), resources: self.0.clone() })
    }
}

/// All that is there, and what changes in it.
struct World {
    clusters: usize,
    endpoints: usize,
    /// How often what changes has changed.
    turn: u32,
}

impl World {
    fn resources(&self, changing: Kind) -> Resources {
        let turn = |kind, index| if kind == changing && index == 0 { self.turn } else { 0 };
        let mut resources = Resources::default();
        let clusters =
            (0..self.clusters).map(|index| self.cluster(index, turn(Kind::Cluster, index)));
        resources.set(Kind::Cluster, Arc::new(kind_resources(clusters.collect())));
        let endpoints =
            (0..self.clusters).map(|index| self.assignment(index, turn(Kind::Endpoint, index)));
        resources.set(Kind::Endpoint, Arc::new(kind_resources(endpoints.collect())));
        resources
    }

    fn name(index: usize) -> String {
        format!("service-{index}.default:8000")
    }

    fn cluster(&self, index: usize, turn: u32) -> Resource {
        let connect_timeout = Some(prost_types::Duration { seconds: 5, nanos: turn as i32 });
        let name = Self::name(index);
        let cluster = Cluster { name: name.clone(), connect_timeout, ..Cluster::default() };
        resource(name, turn, cluster.encode_to_vec())
    }

    fn assignment(&self, index: usize, turn: u32) -> Resource {
        let each = self.endpoints / self.clusters;
        let endpoints = (0..each).map(|n| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + (index * each + n) as u32);
            let socket = SocketAddress {
                address: ip.to_string(),
                port_specifier: Some(PortSpecifier::PortValue(8000)),
                ..SocketAddress::default()
            };
            let address = Some(Address { address: Some(Where::SocketAddress(socket)) });
            let endpoint = Endpoint { address, ..Endpoint::default() };
            let weight = if n == 0 { 1 + turn } else { 1 };
            LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
                load_balancing_weight: Some(weight),
                ..LbEndpoint::default()
            }
        });
        let locality =
            LocalityLbEndpoints { lb_endpoints: endpoints.collect(), ..Default::default() };
        let name = Self::name(index);
        let assignment = ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        };
        resource(name, turn, assignment.encode_to_vec())
    }
}

fn resource(name: String, turn: u32, body: Vec<u8>) -> Resource {
    Resource { name: name.into(), version: format!("{turn:016x}").into(), body: body.into() }
}

fn kind_resources(all: Vec<Resource>) -> KindResources {
    let version = all.iter().map(|one| &*one.version).collect::<String>().into();
    let by_name: BTreeMap<_, _> =
        all.into_iter().map(|one| (one.name.clone(), Arc::new(one))).collect();
    KindResources { version, by_name }
}

/// What the clients have in common.
struct Shared {
    changing: Kind,
    names: Vec<String>,
    /// Of each client: the turn that it has.
    turns: Vec<AtomicU64>,
    news: Notify,
    /// All responses that came.
    bytes: AtomicU64,
}

async fn measure(
    variant: Variant,
    changing: Kind,
    clusters: usize,
    streams: usize,
    endpoints: usize,
) -> Result<Cost> {
    let mut world = World { clusters, endpoints, turn: 1 };
    let (sender, receiver) = watch::channel(Some(Arc::new(world.resources(changing))));
    let control = Control::new(NameRules::default(), Config::default());
    let limits = "limits: {streams_max: 100000, streams_per_peer_max: 100000}";
    control.configure(&Config::from_yaml(limits, "xds-scale", "default")?);
    let xds = Xds::new(control, Arc::new(OneView(receiver)), XdsSettings::default());
    let server = Server::builder().max_connections(200_000).build(Routes::new(xds.ads()))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Its end is the end of the measurement.
        let _ = server.serve([listener]).await;
    });
    let names: Vec<String> = (0..clusters.min(NAMES_MAX)).map(World::name).collect();
    let turns = (0..streams).map(|_| AtomicU64::new(0)).collect();
    let (news, bytes) = (Notify::new(), AtomicU64::new(0));
    let shared = Arc::new(Shared { changing, names, turns, news, bytes });
    for index in 0..streams {
        let channel = Channel::builder(format!("ipv4:{address}")).build()?;
        let shared = shared.clone();
        tasks.spawn(async move {
            let ended = match variant {
                Variant::StateOfTheWorld => sotw(channel, index, &shared).await,
                Variant::Delta => delta(channel, index, &shared).await,
            };
            if let Err(error) = ended {
                eprintln!("client {index}: {error}");
            }
        });
    }
    shared.have(1).await?;
    let whole = shared.bytes.swap(0, Ordering::Relaxed) as f64 / streams as f64;
    let mut seconds = Vec::new();
    for number in 0..WARM_UP + CHANGES {
        world.turn += 1;
        let resources = Arc::new(world.resources(changing));
        let begun = Instant::now();
        sender.send_replace(Some(resources));
        shared.have(world.turn.into()).await?;
        if number >= WARM_UP {
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    let bytes = shared.bytes.load(Ordering::Relaxed) as f64;
    let bytes = bytes / (streams * (WARM_UP + CHANGES)) as f64;
    seconds.sort_by(f64::total_cmp);
    Ok(Cost { seconds, bytes, whole })
}

impl Shared {
    /// Waits until all clients have what changed last.
    async fn have(&self, turn: u64) -> Result<()> {
        let all = async {
            loop {
                let heard = self.news.notified();
                if self.turns.iter().all(|one| one.load(Ordering::Relaxed) == turn) {
                    return;
                }
                heard.await;
            }
        };
        Ok(timeout(WAIT_MAX, all).await.map_err(|_| "not all clients were told in time")?)
    }

    /// A response came, with resources of these versions.
    fn got<'a>(
        &self,
        index: usize,
        type_url: &str,
        bytes: usize,
        bodies: impl Iterator<Item = &'a [u8]>,
    ) -> Result<()> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if type_url != self.changing.type_url() {
            return Ok(());
        }
        let name = World::name(0);
        for body in bodies {
            let turn = match self.changing {
                Kind::Cluster => {
                    let cluster = Cluster::decode(body)?;
                    let turn = cluster.connect_timeout.map(|timeout| timeout.nanos as u64);
                    turn.filter(|_| cluster.name == name)
                }
                _ => {
                    let assignment = ClusterLoadAssignment::decode(body)?;
                    let first = assignment.endpoints.first().and_then(|l| l.lb_endpoints.first());
                    let weight = first.and_then(|endpoint| endpoint.load_balancing_weight);
                    let turn = weight.map(|weight| u64::from(weight - 1));
                    turn.filter(|_| assignment.cluster_name == name)
                }
            };
            if let Some(turn) = turn {
                self.turns[index].store(turn, Ordering::Relaxed);
                self.news.notify_one();
            }
        }
        Ok(())
    }
}

fn requests<T: Send + 'static>() -> (mpsc::Sender<T>, impl Stream<Item = T> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    let requests =
        unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    (sender, requests)
}

fn node(index: usize) -> Option<Node> {
    Some(Node { id: format!("client-{index}"), ..Node::default() })
}

/// Like Envoy: all clusters, and the endpoints of each by name.
async fn sotw(channel: Channel, index: usize, shared: &Shared) -> Result<()> {
    let (sender, requests) = requests();
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
    // Before the call: the balancer waits for the first request with a limit.
    for kind in [Kind::Cluster, Kind::Endpoint] {
        let names = if kind == Kind::Endpoint { shared.names.clone() } else { Vec::new() };
        let request = DiscoveryRequest {
            node: node(index),
            type_url: kind.type_url().into(),
            resource_names: names,
            ..DiscoveryRequest::default()
        };
        sender.send(request).await?;
    }
    let mut responses = client.stream_aggregated_resources(requests).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let bodies = response.resources.iter().map(|any| &any.value[..]);
        shared.got(index, &response.type_url, response.encoded_len(), bodies)?;
        let is_endpoint = response.type_url == Kind::Endpoint.type_url();
        let answer = DiscoveryRequest {
            type_url: response.type_url,
            version_info: response.version_info,
            response_nonce: response.nonce,
            resource_names: if is_endpoint { shared.names.clone() } else { Vec::new() },
            ..DiscoveryRequest::default()
        };
        sender.send(answer).await?;
    }
    Ok(())
}

/// The same in delta.
async fn delta(channel: Channel, index: usize, shared: &Shared) -> Result<()> {
    let (sender, requests) = requests();
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
    // Before the call: the balancer waits for the first request with a limit.
    for kind in [Kind::Cluster, Kind::Endpoint] {
        let names = if kind == Kind::Endpoint { shared.names.clone() } else { Vec::new() };
        let request = DeltaDiscoveryRequest {
            node: node(index),
            type_url: kind.type_url().into(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        sender.send(request).await?;
    }
    let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let bodies =
            response.resources.iter().filter_map(|one| Some(&one.resource.as_ref()?.value[..]));
        shared.got(index, &response.type_url, response.encoded_len(), bodies)?;
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        sender.send(answer).await?;
    }
    Ok(())
}
