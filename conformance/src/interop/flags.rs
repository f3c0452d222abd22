//! The flags of every implementation's interop client. Their names have underscores, as in the
//! descriptions.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use clap::{ArgAction, Parser};
use evenkeel::tls::{ClientTls, Roots, TlsError};
use rustls::crypto::ring;

use super::{
    soak::Soak,
    target::Target,
    unary::{LARGE_REQUEST, LARGE_RESPONSE},
};

/// gRPC's interop test client over evenkeel's channel.
#[derive(Clone, Debug, Parser)]
#[command(name = "conformance-interop", version, rename_all = "snake_case")]
pub(super) struct Flags {
    /// The server's name or address
    #[arg(long, default_value = "localhost")]
    server_host: String,

    /// Name that the calls are sent to (:authority) instead of the server's
    #[arg(long)]
    server_host_override: Option<String>,

    /// The server's port
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u16).range(1..))]
    server_port: u16,

    /// Name of the case
    #[arg(long, default_value = "large_unary")]
    pub(super) test_case: String,

    /// Whether to use TLS
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true",
          requires_if("true", "ca_file"))]
    use_tls: bool,

    /// Whether to trust the tests' CA; it is not built in, so --ca_file is trusted in any case
    #[arg(long = "use_test_ca", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true")]
    _use_test_ca: bool,

    /// PEM file with the roots to trust
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Service config as JSON
    #[arg(long, value_name = "JSON")]
    service_config_json: Option<String>,

    /// Soak: calls
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    soak_iterations: u32,

    /// Soak: calls that may fail
    #[arg(long, default_value = "0")]
    soak_max_failures: u32,

    /// Soak: a call that takes more than these milliseconds fails
    #[arg(long, default_value = "1000")]
    soak_per_iteration_max_acceptable_latency_ms: u32,

    /// Soak: least milliseconds from one call to the next
    #[arg(long, default_value = "0")]
    soak_min_time_ms_between_rpcs: u32,

    /// Soak: seconds for all of it
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    soak_overall_timeout_seconds: u32,

    /// Soak: workers
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    soak_num_threads: u32,

    /// Soak: bytes of a request's payload
    #[arg(long, default_value_t = LARGE_REQUEST)]
    soak_request_size: usize,

    /// Soak: bytes of a response's payload
    #[arg(long, default_value_t = LARGE_RESPONSE,
          value_parser = clap::value_parser!(i32).range(0..))]
    soak_response_size: i32,
}

impl Flags {
    /// Reads a command line; its first word is the program's name.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }

    pub(super) fn target(&self) -> Result<Target, TlsError> {
        let roots = self.ca_file.as_ref().filter(|_| self.use_tls);
        let tls = roots.map(|file| {
            let provider = Arc::new(ring::default_provider());
            Ok::<_, TlsError>(ClientTls::new(Roots::watch(file)?).provider(provider))
        });
        Ok(Target {
            authority: self.server_host_override.clone(),
            service_config: self.service_config_json.clone(),
            tls: tls.transpose()?,
            ..Target::of(&self.server_host, self.server_port)
        })
    }

    pub(super) fn soak(&self) -> Soak {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Soak {
            iterations: self.soak_iterations,
            max_failures: self.soak_max_failures,
            latency_max: ms(self.soak_per_iteration_max_acceptable_latency_ms),
            interval: ms(self.soak_min_time_ms_between_rpcs),
            overall: Duration::from_secs(self.soak_overall_timeout_seconds.into()),
            threads: self.soak_num_threads,
            request_bytes: self.soak_request_size,
            response_bytes: self.soak_response_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Flags, clap::Error> {
        Flags::read([&["conformance-interop"], words].concat().into_iter().map(OsString::from))
    }

    #[test]
    fn the_flags_are_sound_and_have_the_descriptions_names() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
        let words = ["--server_host=127.0.0.1", "--server_port=80", "--test_case=ping_pong"];
        let flags = read(&words).unwrap();
        assert_eq!(flags.target().unwrap().uri, "ipv4:127.0.0.1:80");
        assert_eq!(flags.test_case, "ping_pong");
        assert!(!flags.use_tls);
        assert!(read(&["--use_tls"]).is_err_and(|e| e.to_string().contains("--ca_file")));
        let tls = read(&["--use_tls=true", "--use_test_ca", "--ca_file=/none"]).unwrap();
        assert!(tls.use_tls);
        assert!(tls.target().unwrap_err().to_string().contains("/none: No such file"));
        assert!(read(&["--server-host=x"]).is_err());
        assert!(read(&["--server_port=0"]).is_err());
    }

    #[test]
    fn soak_has_the_descriptions_defaults() {
        let (soak, wanted) = (read(&[]).unwrap().soak(), Soak::default());
        assert_eq!(format!("{soak:?}"), format!("{wanted:?}"));
    }
}
