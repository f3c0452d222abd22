//! The command line; every flag has an environment variable. README.md has the same table, and a
//! test compares them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Parser, builder::FalseyValueParser};

use crate::duration::{self, Setting};

/// A gRPC greeter that says which backend answered.
#[derive(Debug, Parser)]
#[command(name = "greeter")]
pub(crate) struct Args {
    /// Addresses to listen on, with commas between them; port 0 takes a free port.
    #[arg(
        long, env = "GREETER_LISTEN", default_value = "0.0.0.0:8000", value_name = "IP:PORT",
        value_delimiter = ',', value_parser = address, hide_env_values = true
    )]
    pub(crate) listen: Vec<SocketAddr>,

    /// Sends GOAWAY to connections of this age, ± 10 %; not set: never.
    #[arg(
        long, env = "GRPC_MAX_CONNECTION_AGE", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) max_connection_age: Option<Setting>,

    /// Closes connections this long after that GOAWAY; not set: when their calls have ended.
    #[arg(
        long, env = "GRPC_MAX_CONNECTION_AGE_GRACE", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) max_connection_age_grace: Option<Setting>,

    /// Sends GOAWAY to connections that had no call for so long.
    #[arg(
        long, env = "GRPC_MAX_CONNECTION_IDLE", default_value = "30m", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) max_connection_idle: Setting,

    /// Closes further connections when accepted.
    #[arg(
        long,
        env = "GREETER_MAX_CONNECTIONS",
        default_value = "10000",
        value_name = "NUMBER",
        hide_env_values = true
    )]
    pub(crate) max_connections: usize,

    /// Waits this long before each answer.
    #[arg(
        long, env = "GREETER_DELAY", default_value = "0s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) delay: Setting,

    /// Works on so many calls at once, others wait in line; not set: on all.
    #[arg(
        long,
        env = "GREETER_CAPACITY",
        value_name = "NUMBER",
        value_parser = capacity,
        hide_env_values = true
    )]
    pub(crate) capacity: Option<usize>,

    /// The fraction of calls, 0 to 1, that fail with UNAVAILABLE.
    #[arg(
        long, env = "GREETER_ERROR_RATE", default_value = "0", value_name = "FRACTION",
        value_parser = fraction, hide_env_values = true
    )]
    pub(crate) error_rate: f64,

    /// Reports its load by ORCA, in each call's trailers and out of band.
    #[arg(
        long,
        env = "GREETER_ORCA",
        value_parser = FalseyValueParser::new(),
        hide_env_values = true
    )]
    pub(crate) orca: bool,

    /// The shortest interval of out-of-band reports.
    #[arg(
        long, env = "GREETER_ORCA_OOB_MIN", default_value = "30s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) orca_oob_min: Setting,

    /// After SIGTERM, goes on accepting for this long with health NOT_SERVING.
    #[arg(
        long, env = "GREETER_DRAIN_DELAY", default_value = "5s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) drain_delay: Setting,

    /// After that, lets running calls end for this long, then cuts them.
    #[arg(
        long, env = "GREETER_DRAIN_GRACE", default_value = "20s", value_name = "DURATION",
        value_parser = duration::parse, hide_env_values = true
    )]
    pub(crate) drain_grace: Setting,

    /// The IP address that answers name; not set: the connection's local address.
    #[arg(
        long, env = "MY_POD_IP", value_name = "IP", value_parser = ip, hide_env_values = true
    )]
    pub(crate) pod_ip: Option<IpAddr>,

    /// Serves over TLS with this certificate (PEM, its chain behind it).
    #[arg(
        long,
        env = "GREETER_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        hide_env_values = true
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(
        long,
        env = "GREETER_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Serves only clients whose certificate one of these roots (PEM) has signed.
    #[arg(
        long,
        env = "GREETER_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Shows metrics for Prometheus on this address, at /metrics; port 0 takes a free port.
    #[arg(
        long, env = "GREETER_METRICS_LISTEN", value_name = "IP:PORT", value_parser = address,
        hide_env_values = true
    )]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

impl Args {
    /// The duration settings that were written without unit, by flag.
    pub(crate) fn bare_numbers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("--max-connection-age", self.max_connection_age.as_ref()),
            ("--max-connection-age-grace", self.max_connection_age_grace.as_ref()),
            ("--max-connection-idle", Some(&self.max_connection_idle)),
            ("--delay", Some(&self.delay)),
            ("--orca-oob-min", Some(&self.orca_oob_min)),
            ("--drain-delay", Some(&self.drain_delay)),
            ("--drain-grace", Some(&self.drain_grace)),
        ]
        .into_iter()
        .filter_map(|(flag, setting)| Some((flag, setting?.bare_number.as_deref()?)))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("expected an IP address and a port such as 0.0.0.0:8000 or [::]:8000, got {text:?}")
    })
}

/// A semaphore can't hold more than that, and no backend has so many threads.
const CAPACITY_MAX: usize = 1_000_000;

fn capacity(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(calls) if (1..=CAPACITY_MAX).contains(&calls) => Ok(calls),
        _ => Err(format!("expected a number from 1 to {CAPACITY_MAX}, got {text:?}")),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err(format!("expected a fraction from 0 to 1, got {text:?}")),
    }
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("expected an IP address such as 10.0.2.95, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Environment variable, flag and default of each setting.
    type Row = (String, String, String);

    fn rows_of_the_command() -> Vec<Row> {
        let command = Args::command();
        let settings = command.get_arguments().filter(|arg| arg.get_env().is_some());
        settings
            .map(|arg| {
                let env = arg.get_env().expect("filtered").to_str().expect("ASCII");
                let flag = arg.get_long().expect("every setting has a flag");
                let default = arg.get_default_values().first();
                let default = default.map_or("not set", |value| value.to_str().expect("ASCII"));
                (env.to_owned(), format!("--{flag}"), default.to_owned())
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
        assert_eq!(rows.len(), 17);
        assert_eq!(rows_of_the_readme(), rows);
    }

    #[test]
    fn every_argument_has_an_environment_variable() {
        for arg in Args::command().get_arguments() {
            assert!(arg.get_env().is_some(), "{}", arg.get_id());
        }
    }

    #[test]
    fn bare_numbers_are_reported_with_their_flag() {
        let args = ["greeter", "--max-connection-age", "5000", "--delay", "20ms"];
        let args = Args::try_parse_from(args).expect("good arguments");
        assert_eq!(args.bare_numbers().collect::<Vec<_>>(), [("--max-connection-age", "5000")]);
    }
}
