//! The client of a measurement: `lab caller`. It stays connected over all rounds, idle while others
//! are measured, makes the calls that a line on its input asks for, and answers with what it saw.
//!
//! The example's `client` makes one run and ends; then each round would measure a cold process and
//! new connections, and no client without a channel could make the same calls.

use std::{
    collections::BTreeMap, ffi::OsString, net::SocketAddr, process::ExitCode, time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use client::{
    cost,
    load::{self, Mode, Plan, Sample},
    stop::Stop,
    tally::{Epoch, SharedTally},
};
use evenkeel::{Channel, ConnectivityState};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use http_body::Body;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::{Request, Status, client::GrpcService, codegen::StdError};

use super::floor::Floor;

/// Each call's deadline, as the example's client has it.
const CALL_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// After the channel is READY its other connections get this long.
const SETTLE: Duration = Duration::from_millis(200);
/// Starts beyond it are shed, and a measurement in which that happened is none.
const IN_FLIGHT_MAX: u32 = 5_000;
/// What the lab waits for.
pub(super) const READY: &str = "ready";

/// Makes calls on demand; a child of `lab bench`.
#[derive(Debug, Parser)]
#[command(name = "lab caller")]
struct Flags {
    /// Bare HTTP/2 connections to these addresses, taken in turn
    #[arg(long, value_delimiter = ',', conflicts_with = "target")]
    bare: Vec<SocketAddr>,
    /// Our channel with round_robin and this target
    #[arg(long, required_unless_present = "bare")]
    target: Option<String>,
}

/// What a line asks for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Work {
    /// `calls` calls, started by the clock.
    Open { calls_per_s: f64, calls: u64 },
    /// As many calls as `workers` workers make in this time.
    Closed { workers: u32, seconds: f64 },
}

/// What a caller saw of its work.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Seen {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) shed: u64,
    pub(crate) wall_s: f64,
    /// From the intended start; `None` without an answer.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) mean_ms: Option<f64>,
    /// User and system time of the caller's process.
    pub(crate) cpu_s: f64,
    pub(crate) by_backend: BTreeMap<String, u64>,
    /// Why calls failed, the first different messages.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Is the program `lab caller`.
pub(crate) fn main_from(arguments: Vec<OsString>) -> ExitCode {
    let flags: Flags = match program::arguments(arguments) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match program::block_on(serve(flags)).map_err(|error| error.to_string()).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => failed(&message),
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("lab caller: {message}");
    ExitCode::FAILURE
}

/// Makes calls until its input ends.
async fn serve(flags: Flags) -> Result<(), String> {
    let connecting = tokio::time::timeout(CONNECT_LIMIT, Caller::connect(flags)).await;
    let caller = connecting.map_err(|_| format!("not connected within {CONNECT_LIMIT:?}"))??;
    println!("{READY}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
        let work: Work = serde_json::from_str(&line)
            .map_err(|error| format!("expected work as JSON, got {line:?}: {error}"))?;
        let seen = caller.work(work).await.map_err(|error| error.to_string())?;
        println!("{}", serde_json::json!(seen));
    }
    Ok(())
}

/// A client that is connected.
enum Caller {
    Bare(GreeterClient<Floor>),
    Channel(GreeterClient<Channel>),
}

impl Caller {
    async fn connect(flags: Flags) -> Result<Self, String> {
        let Some(target) = flags.target else {
            return Ok(Self::Bare(GreeterClient::new(Floor::connect(&flags.bare).await?)));
        };
        let channel = Channel::builder(&target).build().map_err(|error| error.to_string())?;
        channel.connect();
        let mut state = channel.state();
        while state != ConnectivityState::Ready {
            state = channel.wait_for_state_change(state).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(Self::Channel(GreeterClient::new(channel)))
    }

    async fn work(&self, work: Work) -> std::io::Result<Seen> {
        match self {
            Self::Bare(client) => measure(work, client.clone()).await,
            Self::Channel(client) => measure(work, client.clone()).await,
        }
    }
}

impl Work {
    fn plan(self) -> Plan {
        match self {
            Self::Open { calls_per_s, calls } => Plan {
                mode: Mode::Open { rate: calls_per_s, in_flight_max: IN_FLIGHT_MAX },
                count: Some(calls),
                duration: None,
            },
            Self::Closed { workers, seconds } => Plan {
                mode: Mode::Closed { workers, pause: Duration::ZERO },
                count: None,
                duration: Some(Duration::from_secs_f64(seconds)),
            },
        }
    }
}

/// Does `work`, the same for every channel.
async fn measure<T>(work: Work, client: GreeterClient<T>) -> std::io::Result<Seen>
where
    T: GrpcService<tonic::body::Body> + Clone + Send + Sync + 'static,
    T::Error: Into<StdError>,
    T::Future: Send,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let call = move |_| {
        let mut client = client.clone();
        async move {
            let mut request = Request::new(HelloRequest { name: "you".to_owned() });
            request.set_timeout(CALL_LIMIT);
            let reply = client.say_hello(request).await?.into_inner();
            Ok(backend_of(&reply.message).to_owned())
        }
    };
    let (epoch, cpu_s) = (Epoch::now(), cost::cpu_s());
    let tally = SharedTally::new(epoch, None);
    let sink = {
        let tally = tally.clone();
        move |sample: Sample<Result<String, Status>>| {
            tally.add(sample);
        }
    };
    let outcome = load::run(&work.plan(), epoch.begin, call, sink, &Stop::default()).await?;
    let cpu_s = cost::cpu_s() - cpu_s;
    let tally = tally.close(outcome.started);
    let backends = tally.by_backend.iter();
    Ok(Seen {
        ok: tally.ok(),
        failed: tally.fail,
        shed: outcome.shed,
        wall_s: outcome.wall.as_secs_f64(),
        p50_ms: tally.latency.quantile_ms(0.5),
        p99_ms: tally.latency.quantile_ms(0.99),
        mean_ms: tally.latency.mean_ms(),
        cpu_s,
        by_backend: backends.map(|(name, of)| (name.clone(), of.latency.count())).collect(),
        errors: tally.errors,
    })
}

/// Who answered, as the greeter's reply names it.
fn backend_of(message: &str) -> &str {
    let (_, after) = message.split_once("(Backend IP: ").unwrap_or_default();
    after.split_once(')').map_or("?", |(backend, _)| backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_as_it_is_written_and_anything_else_is_refused() {
        for work in [
            Work::Open { calls_per_s: 1000.0, calls: 4000 },
            Work::Closed { workers: 64, seconds: 1.5 },
        ] {
            let line = serde_json::json!(work).to_string();
            assert_eq!(serde_json::from_str::<Work>(&line).expect(&line), work);
        }
        for bad in [r#"{"open":{}}"#, r#"{"open":{"calls_per_s":1,"calls":1,"x":1}}"#, "open"] {
            assert!(serde_json::from_str::<Work>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_name_addresses_or_a_target_and_not_both() {
        let parse = |words: &[&str]| Flags::try_parse_from(["caller"].iter().chain(words));
        let bare = parse(&["--bare", "127.0.0.1:1,127.0.0.2:1"]).expect("two addresses").bare;
        assert_eq!(bare.len(), 2);
        assert!(parse(&["--target", "dns:///greeter:8000"]).is_ok());
        let both = ["--bare", "127.0.0.1:1", "--target", "x"];
        for bad in [&[][..], &both, &["--bare", "greeter:8000"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_reply_names_who_answered() {
        assert_eq!(backend_of("Hello you (Backend IP: 127.9.9.3)"), "127.9.9.3");
        assert_eq!(backend_of("Hello you"), "?");
    }
}
