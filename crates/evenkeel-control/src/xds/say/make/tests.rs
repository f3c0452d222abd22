//! Whole views of small worlds: what each kind of client gets, and what a change changes.

use evenkeel_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{LbConfig, LbPolicy as OldPolicy},
        },
        core::v3::Node,
        listener::v3::{Listener, filter},
        route::v3::{
            RouteConfiguration, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier,
        },
    },
    extensions::{
        filters::network::http_connection_manager::v3::HttpConnectionManager,
        load_balancing_policies::wrr_locality::v3::WrrLocality,
        transport_sockets::tls::v3::{
            DownstreamTlsContext, Secret, UpstreamTlsContext,
            common_tls_context::ValidationContextType,
        },
    },
};
use prost::Message;
use prost_types::{Struct, Value, value};

use super::*;
use crate::{names::NameRules, peer::Peer};

fn world(yaml: &str) -> World {
    let config = Arc::new(Config::from_yaml(yaml, "test", "default").expect("good"));
    let names = Names::new(NameRules::default(), &config);
    let (on_demand, snapshots, secrets) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut world = World { config, names, on_demand, snapshots, secrets };
    for (key, service) in &world.config.services {
        let mut merge = crate::merge::Merge::new(key.clone());
        if let Some(snapshot) = merge.configure(service.clone()) {
            world.snapshots.insert(key.clone(), snapshot);
        }
    }
    for name in world.config.identities.keys() {
        let bytes = |what: &str| format!("{what} of {name}").into_bytes();
        let files = SecretFiles {
            certificate: bytes("certificate"),
            key: bytes("key"),
            roots: bytes("roots"),
        };
        world.secrets.insert(name.clone(), Arc::new(files));
    }
    world
}

fn view(metadata: &[(&str, &str)]) -> View {
    let value = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let fields = metadata.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
    let node = Node { metadata: Some(Struct { fields }), ..Node::default() };
    // From elsewhere: what is local may get keys.
    let peer = Peer { address: Some(([10, 0, 0, 9], 1).into()), ..Peer::default() };
    View::of(&node, &peer).expect("good")
}

fn sidecar() -> View {
    view(&[("role", "sidecar")])
}

fn grpc() -> View {
    view(&[])
}

fn made(world: &World, view: &View) -> Resources {
    make(world, view, &BTreeSet::new(), &mut Assignments::default(), None)
}

fn names(resources: &Resources, kind: Kind) -> Vec<String> {
    let all = resources.kind(kind).expect("all kinds are there");
    all.by_name.keys().map(ToString::to_string).collect()
}

fn get<M: Message + Default>(resources: &Resources, kind: Kind, name: &str) -> M {
    let resource = &resources.kind(kind).expect("there").by_name[name];
    M::decode(resource.body.clone()).expect("what was encoded")
}

fn unpack<M: Message + Default>(any: &prost_types::Any, name: &str) -> M {
    assert_eq!(any.type_url.rsplit('.').next(), Some(name));
    M::decode(&any.value[..]).expect("what was encoded")
}

const GREETER: &str = "
services:
- name: greeter
  aliases: [greeter.test]
  endpoints: [{address: \"10.0.0.1:8000\"}]
  xds: {listen: \"127.0.0.1:10000\"}
- {name: other, endpoints: [{address: \"10.0.0.2:8000\"}]}
";

#[test]
fn a_service_that_may_not_exist_is_there_only_for_who_asked_for_it() {
    let mut world = world("services: [{name: wish}, {name: configured}]");
    world.on_demand =
        world.config.services.keys().filter(|key| key.name == "wish").cloned().collect();
    let asked: BTreeSet<String> = ["wish.default:80".to_owned()].into();
    let clusters = |world: &World, asked: &BTreeSet<String>| {
        let made = make(world, &grpc(), asked, &mut Assignments::default(), None);
        names(&made, Kind::Cluster)
    };
    assert_eq!(clusters(&world, &BTreeSet::new()), ["configured.default"]);
    assert_eq!(clusters(&world, &asked), ["configured.default", "wish.default"]);
    let made = make(&world, &grpc(), &asked, &mut Assignments::default(), None);
    assert_eq!(**made.pending(), ["wish.default".into()].into());
    let key = world.on_demand.first().expect("one").clone();
    let known = crate::merge::Merge::new(key.clone())
        .watched(crate::merge::Change::Replace(Vec::new()))
        .expect("news");
    world.snapshots.insert(key, known);
    assert_eq!(clusters(&world, &BTreeSet::new()), ["configured.default", "wish.default"]);
}

#[test]
fn envoy_is_asked_for_what_endpoints_say_where_weights_are_made_of_it() {
    let world = world("services: [{name: a}, {name: b, load_aware: {source: clients}}]");
    let wanted = |view: &View, name: &str| {
        let cluster: Cluster = get(&made(&world, view), Kind::Cluster, name);
        cluster.lrs_report_endpoint_metrics
    };
    assert_eq!(wanted(&sidecar(), "b.default"), ["application_utilization", "cpu_utilization"]);
    assert!(wanted(&sidecar(), "a.default").is_empty(), "the endpoints are asked, or nobody");
    assert!(wanted(&grpc(), "b.default").is_empty(), "it would say it by locality");
}

#[test]
fn a_sidecar_gets_sockets_and_http_2_and_all_calls_go_to_the_cluster() {
    let resources = made(&world(GREETER), &sidecar());
    assert_eq!(names(&resources, Kind::Cluster), ["greeter.default", "other.default"]);
    assert_eq!(names(&resources, Kind::Endpoint), ["greeter.default", "other.default"]);
    assert_eq!(names(&resources, Kind::Listener), ["greeter.default"], "who listens nowhere");
    let listener: Listener = get(&resources, Kind::Listener, "greeter.default");
    assert!(listener.address.is_some() && listener.api_listener.is_none());
    let filter = listener.filter_chains[0].filters[0].config_type.clone();
    let Some(filter::ConfigType::TypedConfig(manager)) = filter else { panic!("no manager") };
    let manager: HttpConnectionManager = unpack(&manager, "HttpConnectionManager");
    let filters: Vec<_> = manager.http_filters.iter().map(|one| &one.name[..]).collect();
    assert_eq!(filters, ["envoy.filters.http.fault", "envoy.filters.http.router"]);
    let route: RouteConfiguration = get(&resources, Kind::Route, "greeter.default");
    let route = &route.virtual_hosts[0].routes[0];
    let path = route.r#match.clone().expect("set").path_specifier;
    assert_eq!(path, Some(PathSpecifier::Prefix("/".into())));
    let Some(Action::Route(action)) = &route.action else { panic!("no action") };
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster("greeter.default".into())));
    assert_eq!(action.timeout.map(|timeout| timeout.seconds), Some(0), "not Envoy's 15 s");
    let cluster: Cluster = get(&resources, Kind::Cluster, "greeter.default");
    assert_eq!(cluster.typed_extension_protocol_options.len(), 1);
    let panic = cluster.common_lb_config.expect("set").healthy_panic_threshold;
    assert_eq!(panic.map(|percent| percent.value), Some(0.0));
}

#[test]
fn grpc_finds_a_service_under_each_of_its_names_and_under_one_that_it_asks_for() {
    let world = world(GREETER);
    let resources = made(&world, &grpc());
    let listeners = names(&resources, Kind::Listener);
    for name in ["greeter", "greeter.test", "greeter.default.svc.cluster.local", "other"] {
        assert!(listeners.iter().any(|one| one == name), "{name}: {listeners:?}");
    }
    let listener: Listener = get(&resources, Kind::Listener, "greeter.test");
    assert_eq!((&listener.name[..], listener.address.is_none()), ("greeter.test", true));
    let manager = listener.api_listener.expect("set").api_listener.expect("set");
    let manager: HttpConnectionManager = unpack(&manager, "HttpConnectionManager");
    assert_eq!(manager.stat_prefix, "greeter.default");
    let cluster: Cluster = get(&resources, Kind::Cluster, "greeter.default");
    assert!(cluster.typed_extension_protocol_options.is_empty());

    let asked = ["GREETER.test:80".to_owned(), "nothing".to_owned()].into();
    let more = make(&world, &grpc(), &asked, &mut Assignments::default(), Some(&resources));
    let new: Vec<_> = names(&more, Kind::Listener);
    assert_eq!(new.len(), listeners.len() + 1);
    let listener: Listener = get(&more, Kind::Listener, "GREETER.test:80");
    assert_eq!(listener.name, "GREETER.test:80");
}

#[test]
fn the_same_world_makes_the_same_bytes_and_versions() {
    for view in [sidecar(), grpc()] {
        assert_eq!(made(&world(GREETER), &view), made(&world(GREETER), &view));
    }
}

#[test]
fn an_endpoint_that_changes_makes_one_assignment_anew_and_nothing_else() {
    let mut assignments = Assignments::default();
    let mut step = |world: &World, before: Option<&Resources>| {
        make(world, &sidecar(), &BTreeSet::new(), &mut assignments, before)
    };
    let mut world = world(GREETER);
    let first = step(&world, None);
    let key = ServiceKey::parse("other", "default").expect("a key");
    let mut moved = (*world.snapshots[&key]).clone();
    moved.endpoints = [crate::snapshot::Endpoint::new(([10, 0, 0, 3], 8000).into())].into();
    world.snapshots.insert(key, Arc::new(moved));
    let second = step(&world, Some(&first));
    for kind in Kind::ALL {
        let (before, after) = (first.kind(kind).expect("there"), second.kind(kind).expect("there"));
        assert_eq!(Arc::ptr_eq(before, after), kind != Kind::Endpoint, "{kind:?}");
    }
    let of = |all: &Resources, name: &str| {
        all.kind(Kind::Endpoint).expect("there").by_name[name].clone()
    };
    assert!(Arc::ptr_eq(&of(&first, "greeter.default"), &of(&second, "greeter.default")));
    assert_ne!(of(&first, "other.default").version, of(&second, "other.default").version);
}

#[test]
fn a_fault_that_is_switched_on_changes_routes_and_nothing_else() {
    let faulty =
        GREETER.replace("10000\"}", "10000\", fault: {abort: {percent: 50, grpc_status: 14}}}");
    for view in [sidecar(), grpc()] {
        let (before, after) = (made(&world(GREETER), &view), made(&world(&faulty), &view));
        for kind in Kind::ALL {
            assert_eq!(before.kind(kind) == after.kind(kind), kind != Kind::Route, "{kind:?}");
        }
        let route: RouteConfiguration = get(&after, Kind::Route, "greeter.default");
        let fault = &route.virtual_hosts[0].routes[0].typed_per_filter_config;
        assert!(fault["envoy.filters.http.fault"].type_url.ends_with("http.fault.v3.HTTPFault"));
    }
}

#[test]
fn who_may_not_ask_for_a_service_does_not_hear_of_it() {
    let yaml = "
services:
- {name: secret, endpoints: [], allow: [\"spiffe://a.test/client\"]}
- name: open
  endpoints: []
  xds: {split: [{service: secret, weight: 1}, {service: open, weight: 3}]}
";
    let resources = made(&world(yaml), &grpc());
    assert_eq!(names(&resources, Kind::Cluster), ["open.default"]);
    let route: RouteConfiguration = get(&resources, Kind::Route, "open.default");
    let Some(Action::Route(action)) = &route.virtual_hosts[0].routes[0].action else {
        panic!("no action")
    };
    let only = ClusterSpecifier::Cluster("open.default".into());
    assert_eq!(action.cluster_specifier, Some(only));
}

#[test]
fn a_split_is_by_weight() {
    let yaml = "
services:
- {name: canary, endpoints: []}
- name: greeter
  endpoints: []
  xds: {split: [{service: canary, weight: 1}, {service: greeter, weight: 3}]}
";
    let route: RouteConfiguration =
        get(&made(&world(yaml), &sidecar()), Kind::Route, "greeter.default");
    let Some(Action::Route(action)) = &route.virtual_hosts[0].routes[0].action else {
        panic!("no action")
    };
    let Some(ClusterSpecifier::WeightedClusters(all)) = &action.cluster_specifier else {
        panic!("no weights")
    };
    let weights: Vec<_> = all.clusters.iter().map(|one| (&one.name[..], one.weight)).collect();
    assert_eq!(weights, [("canary.default", Some(1)), ("greeter.default", Some(3))]);
}

#[test]
fn each_policy_is_told_as_the_client_understands_it() {
    let cluster = |policy: &str, view: &View| -> Cluster {
        let yaml = format!("services: [{{name: a, endpoints: [], xds: {{policy: {policy}}}}}]");
        get(&made(&world(&yaml), view), Kind::Cluster, "a.default")
    };
    let policies = |cluster: Cluster| -> Vec<String> {
        let list = cluster.load_balancing_policy.expect("a list").policies;
        let configs = list.into_iter().map(|one| one.typed_extension_config.expect("set"));
        let mut names = Vec::new();
        for config in configs {
            let any = config.typed_config.expect("set");
            names.push(config.name.rsplit('.').next().expect("one").to_owned());
            if any.type_url.ends_with(".WrrLocality") {
                let inner: WrrLocality = unpack(&any, "WrrLocality");
                let inner = inner.endpoint_picking_policy.expect("set").policies;
                names.extend(inner.into_iter().map(|one| {
                    let name = one.typed_extension_config.expect("set").name;
                    name.rsplit('.').next().expect("one").to_owned()
                }));
            }
        }
        names
    };
    let ring = "{ring_hash: {minimum_ring_size: 64, header: x-user}}";
    for view in [sidecar(), grpc()] {
        assert_eq!(cluster("round_robin", &view).lb_policy(), OldPolicy::RoundRobin);
        let ring = cluster(ring, &view);
        assert_eq!(ring.lb_policy(), OldPolicy::RingHash);
        let Some(LbConfig::RingHashLbConfig(config)) = ring.lb_config else { panic!("no ring") };
        assert_eq!(config.minimum_ring_size, Some(64));
    }
    assert_eq!(cluster("least_request", &sidecar()).lb_policy(), OldPolicy::LeastRequest);
    let fall_back = ["wrr_locality", "least_request", "round_robin"];
    assert_eq!(policies(cluster("least_request", &grpc())), fall_back);
    let weighted = "client_side_weighted_round_robin";
    assert_eq!(policies(cluster("weighted_round_robin", &sidecar())), [weighted]);
    assert_eq!(policies(cluster("weighted_round_robin", &grpc())), ["wrr_locality", weighted]);
}

const MESH: &str = "
services:
- name: greeter
  endpoints: []
  xds:
    mtls: {identity: client, servers: [\"spiffe://a.test/server\"]}
    ingress:
      listen: 0.0.0.0:8443
      application: 0.0.0.0:8000
      identity: server
      allow: [\"spiffe://a.test/*\"]
identities:
  client: {certificate: a, key: b, roots: c, belongs_to: [client.test]}
  server: {certificate: a, key: b, roots: c}
secrets: {local_peers: true}
";

#[test]
fn mtls_names_secrets_and_the_names_to_expect() {
    let resources = made(&world(MESH), &sidecar());
    let cluster: Cluster = get(&resources, Kind::Cluster, "greeter.default");
    let text = format!("{:?}", cluster.transport_socket.expect("TLS"));
    assert!(text.contains("envoy.transport_sockets.tls"));
    assert_eq!(names(&resources, Kind::Secret), [""; 0], "it is nobody that we know");

    let other = view(&[("role", "sidecar"), ("identity", "server")]);
    let cluster: Cluster = get(&made(&world(MESH), &other), Kind::Cluster, "greeter.default");
    let socket = cluster.transport_socket.expect("TLS").config_type.expect("set");
    let evenkeel_proto::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(any) =
        socket;
    let context: UpstreamTlsContext = unpack(&any, "UpstreamTlsContext");
    let common = context.common_tls_context.expect("set");
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "server");
    let Some(ValidationContextType::CombinedValidationContext(both)) =
        common.validation_context_type
    else {
        panic!("not combined")
    };
    let roots = both.validation_context_sds_secret_config.expect("set").name;
    let sans = both.default_validation_context.expect("set").match_typed_subject_alt_names;
    assert_eq!((&roots[..], sans.len()), ("server/roots", 1));
    let bootstrap: Cluster = get(&made(&world(MESH), &grpc()), Kind::Cluster, "greeter.default");
    assert!(bootstrap.transport_socket.is_some());
}

#[test]
fn keys_go_to_their_owner_and_to_local_peers_only_where_that_is_said() {
    let secrets = |yaml: &str, change: &dyn Fn(&mut View)| {
        let mut view = sidecar();
        change(&mut view);
        names(&made(&world(yaml), &view), Kind::Secret)
    };
    let local = |view: &mut View| view.caller.is_local = true;
    assert_eq!(secrets(MESH, &local), ["client", "client/roots"]);
    let strict = MESH.replace("local_peers: true", "local_peers: false");
    assert_eq!(secrets(&strict, &local), [""; 0]);
    let resources = {
        let mut view = sidecar();
        view.caller.is_local = true;
        made(&world(MESH), &view)
    };
    let secret: Secret = get(&resources, Kind::Secret, "client");
    assert_eq!(secret.name, "client");
    let shown = format!("{resources:?}");
    assert!(!shown.contains("key of"), "no key is in a log");
}

#[test]
fn an_ingress_stands_before_its_application_and_asks_for_certificates() {
    let ingress = |metadata: &[(&str, &str)]| {
        let all = [&[("role", "ingress"), ("service", "greeter")], metadata].concat();
        made(&world(MESH), &view(&all))
    };
    let resources = ingress(&[("address", "10.0.0.7")]);
    for kind in [Kind::Cluster, Kind::Listener, Kind::Route] {
        assert_eq!(names(&resources, kind), ["ingress/greeter.default"]);
    }
    let listener: Listener = get(&resources, Kind::Listener, "ingress/greeter.default");
    assert!(format!("{:?}", listener.address).contains("10.0.0.7"));
    let socket = listener.filter_chains[0].transport_socket.clone().expect("TLS");
    let evenkeel_proto::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(any) =
        socket.config_type.expect("set");
    let context: DownstreamTlsContext = unpack(&any, "DownstreamTlsContext");
    assert_eq!(context.require_client_certificate, Some(true));
    let cluster: Cluster = get(&resources, Kind::Cluster, "ingress/greeter.default");
    assert!(format!("{:?}", cluster.load_assignment).contains("10.0.0.7"));
    let anywhere = ingress(&[]);
    let listener: Listener = get(&anywhere, Kind::Listener, "ingress/greeter.default");
    assert!(format!("{:?}", listener.address).contains("0.0.0.0"));
    let cluster: Cluster = get(&anywhere, Kind::Cluster, "ingress/greeter.default");
    assert!(format!("{:?}", cluster.load_assignment).contains("127.0.0.1"));
}
