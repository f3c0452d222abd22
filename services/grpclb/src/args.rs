//! The command line; every flag has an environment variable. README.md has the same table, and a
//! test compares them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, ValueEnum};
use evenkeel_control::{
    ServiceKey,
    config::Config,
    sources::flags,
    weights::{LoadAware, Source},
};

use program::duration;

/// A lookaside balancer that speaks grpclb, and a control plane that speaks xDS.
#[derive(Debug, Parser)]
#[command(name = "grpclb")]
pub(crate) struct Args {
    /// Addresses to listen on, with commas between them; port 0 takes a free port.
    #[arg(
        long, env = "GRPCLB_LISTEN", default_value = "0.0.0.0:9000", value_name = "IP:PORT",
        value_delimiter = ',', value_parser = address, hide_env_values = true
    )]
    pub(crate) listen: Vec<SocketAddr>,

    /// The service for clients that ask with the balancer's own name: NAME, NAME.NAMESPACE, or its
    /// full DNS name, each with :PORT where it has several.
    #[arg(long, env = "BACKEND_SERVICE_NAME", value_name = "SERVICE", hide_env_values = true)]
    pub(crate) backend_service_name: Option<String>,

    /// The balancer's own names, with commas between them; each also with a namespace behind it.
    #[arg(
        long,
        env = "GRPCLB_OWN_NAMES",
        default_value = "grpclb,greeter-server-balancer",
        value_name = "NAMES",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) own_names: Vec<String>,

    /// A YAML file with services; it is followed when it changes.
    #[arg(long, env = "GRPCLB_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,

    /// Services with fixed endpoints, SERVICE=IP:PORT,IP:PORT, with semicolons between services.
    #[arg(
        long,
        env = "GRPCLB_BACKENDS",
        value_name = "SERVICES",
        value_delimiter = ';',
        hide_env_values = true
    )]
    pub(crate) backends: Vec<String>,

    /// The namespace of services that are named without one.
    #[arg(
        long,
        env = "GRPCLB_NAMESPACE",
        default_value = "default",
        value_name = "NAMESPACE",
        hide_env_values = true
    )]
    pub(crate) namespace: String,

    /// Namespaces of which every Service is served to who asks for it, with commas between them.
    #[arg(
        long,
        env = "GRPCLB_NAMESPACES",
        value_name = "NAMESPACES",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) namespaces: Vec<String>,

    /// Services whose pods are clients, NAME or NAME.NAMESPACE, with commas between them: their
    /// EndpointSlices say in which zone a client is, for services whose endpoints have zone hints.
    #[arg(
        long,
        env = "GRPCLB_CLIENT_SERVICES",
        value_name = "SERVICES",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) client_services: Vec<String>,

    /// What follows .svc. in full names.
    #[arg(
        long,
        env = "GRPCLB_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN",
        hide_env_values = true
    )]
    pub(crate) cluster_domain: String,

    /// The kubeconfig for EndpointSlices; not set: KUBECONFIG, ~/.kube/config, or the pod's own
    /// ServiceAccount.
    #[arg(long, env = "GRPCLB_KUBECONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// How often clients are asked to report; 0s: never.
    #[arg(
        long, env = "GRPCLB_CLIENT_STATS_INTERVAL", default_value = "10s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) client_stats_interval: Duration,

    /// Whether weights follow the load where the file does not say, and whose word counts: the
    /// endpoints' own, or that of xDS clients.
    #[arg(
        long,
        env = "GRPCLB_LOAD_AWARE",
        default_value = "off",
        value_name = "off|endpoints|clients",
        hide_env_values = true
    )]
    pub(crate) load_aware: FollowLoad,

    /// Serves xDS (ADS and LRS) beside grpclb, on the same port.
    #[arg(
        long, env = "GRPCLB_XDS", default_value = "true", value_name = "true|false",
        action = ArgAction::Set, hide_env_values = true
    )]
    pub(crate) xds: bool,

    /// Serves /status (JSON) and /metrics (Prometheus) over HTTP/1.1 here; not set: nowhere.
    #[arg(
        long, env = "GRPCLB_ADMIN_LISTEN", value_name = "IP:PORT", value_parser = address,
        hide_env_values = true
    )]
    pub(crate) admin_listen: Option<SocketAddr>,

    /// Sends GOAWAY to connections of this age, ± 10 %, so that clients spread over the replicas
    /// again; not set: never.
    #[arg(
        long, env = "GRPC_MAX_CONNECTION_AGE", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) max_connection_age: Option<Duration>,

    /// Closes connections this long after that GOAWAY.
    #[arg(
        long, env = "GRPC_MAX_CONNECTION_AGE_GRACE", default_value = "10s",
        value_name = "DURATION", value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) max_connection_age_grace: Duration,

    /// Closes further connections when accepted.
    #[arg(
        long,
        env = "GRPCLB_MAX_CONNECTIONS",
        default_value = "10000",
        value_name = "NUMBER",
        hide_env_values = true
    )]
    pub(crate) max_connections: usize,

    /// After SIGTERM, goes on accepting for this long with health NOT_SERVING.
    #[arg(
        long, env = "GRPCLB_DRAIN_DELAY", default_value = "5s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) drain_delay: Duration,

    /// After that, lets streams end for this long, then cuts them.
    #[arg(
        long, env = "GRPCLB_DRAIN_GRACE", default_value = "10s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) drain_grace: Duration,

    /// Serves over TLS with this certificate (PEM, its chain behind it).
    #[arg(
        long,
        env = "GRPCLB_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        hide_env_values = true
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(
        long,
        env = "GRPCLB_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Serves only clients whose certificate one of these roots (PEM) has signed.
    #[arg(
        long,
        env = "GRPCLB_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,
}

/// Whose word counts for weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FollowLoad {
    Off,
    Endpoints,
    Clients,
}

impl Args {
    /// What flags say that is in every configuration.
    pub(crate) fn flags(&self) -> Result<Config, String> {
        let source = match self.load_aware {
            FollowLoad::Off => None,
            FollowLoad::Endpoints => Some(Source::Endpoints),
            FollowLoad::Clients if !self.xds || self.client_stats_interval.is_zero() => {
                return Err(
                    "--load-aware clients: expected clients that may report, with --xds true \
                            and a --client-stats-interval above 0s"
                        .into(),
                );
            }
            FollowLoad::Clients => Some(Source::Clients),
        };
        let load_aware = source.map(|source| LoadAware { source, ..LoadAware::default() });
        Ok(Config { load_aware, ..self.services()? })
    }

    /// The services of `--backends`.
    fn services(&self) -> Result<Config, String> {
        let given = self.backends.iter().filter(|text| !text.is_empty());
        let services: Vec<(ServiceKey, _)> = given
            .map(|text| flags::backends(text, &self.namespace))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("--backends: {error}"))?;
        let mut config = flags::config(services).map_err(|error| format!("--backends: {error}"))?;
        for text in self.client_services.iter().filter(|text| !text.is_empty()) {
            let key = flags::client_service(text, &self.namespace)
                .map_err(|error| format!("--client-services: {error}"))?;
            config.clients.insert(key);
        }
        Ok(config)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("expected an IP address and a port such as 0.0.0.0:9000 or [::]:9000, got {text:?}")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Environment variable, flag and default of each setting.
    type Row = (String, String, String);

    fn rows_of_the_command() -> Vec<Row> {
        let command = Args::command();
        let settings = command.get_arguments().filter(|arg| arg.get_id() != "help");
        settings
            .map(|arg| {
                let env = arg.get_env().expect("every setting has a variable");
                let flag = arg.get_long().expect("every setting has a flag");
                let default = arg.get_default_values().first();
                let default = default.map_or("not set", |value| value.to_str().expect("ASCII"));
                let env = env.to_str().expect("ASCII").to_owned();
                (env, format!("--{flag}"), default.to_owned())
            })
            .collect()
    }

    fn rows_of_the_readme() -> Vec<Row> {
        let readme = include_str!("../README.md");
        let rows = readme.lines().filter(|line| line.starts_with("| `"));
        rows.map(|line| {
            let mut cells = line.split('|').skip(1).map(|cell| cell.trim().replace('`', ""));
            let mut next = || cells.next().expect("a row has three cells");
            (next(), next(), next())
        })
        .collect()
    }

    #[test]
    fn the_readme_has_the_table_of_the_command_line() {
        let rows = rows_of_the_command();
        assert_eq!(rows.len(), 22);
        assert_eq!(rows_of_the_readme(), rows);
    }

    #[test]
    fn weights_follow_whose_word_is_named_and_others_are_refused() {
        let load_aware = |args: &[&str]| {
            let args = Args::try_parse_from([&["grpclb"], args].concat());
            args.map_err(|error| error.to_string())?.flags().map(|flags| flags.load_aware)
        };
        assert_eq!(load_aware(&[]), Ok(None), "off by default");
        let source =
            |name| load_aware(&["--load-aware", name]).map(|one| one.map(|one| one.source));
        assert_eq!(source("endpoints"), Ok(Some(Source::Endpoints)));
        assert_eq!(source("clients"), Ok(Some(Source::Clients)));
        let error = source("servers").expect_err("bad");
        assert!(
            error.contains("'servers'") && error.contains("off, endpoints, clients"),
            "{error}"
        );
        for other in [["--xds", "false"], ["--client-stats-interval", "0s"]] {
            let error = load_aware(&[&["--load-aware", "clients"], &other[..]].concat());
            let error = error.expect_err("nobody could report");
            assert!(error.contains("expected clients that may report"), "{error}");
        }
    }

    #[test]
    fn services_are_read_from_one_flag_or_several() {
        let args = ["grpclb", "--backends", "a=1.1.1.1:1;b.c=1.1.1.1:2", "--backends", "d="];
        let args = Args::try_parse_from(args).expect("good arguments");
        let services = args.services().expect("good").services;
        let keys: Vec<String> = services.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["b.c", "a.default", "d.default"]);
        let args = Args::try_parse_from(["grpclb", "--client-services", "a,b.c"]).expect("good");
        let clients = args.services().expect("good").clients;
        assert_eq!(
            clients.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["b.c", "a.default"]
        );
        let args = Args::try_parse_from(["grpclb", "--client-services", "a:grpc"]).expect("good");
        let error = args.services().expect_err("a port");
        assert!(error.starts_with("--client-services: expected name or name.namespace"), "{error}");
        let args = Args::try_parse_from(["grpclb", "--backends", "a=b"]).expect("good arguments");
        assert!(args.services().expect_err("bad").starts_with("--backends: expected an IP"));
    }
}
