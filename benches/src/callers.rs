//! The clients in this process that make calls: one way to call each, so that what differs between
//! candidates is only the channel.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use evenkeel::{ChannelBuilder, ConnectivityState};
use evenkeel_core::{
    Endpoint, ResolverFactory, ResolverSink, ResolverTask, ResolverUpdate, Target, TargetError,
};
use helloworld::{HelloRequest, greeter_client::GreeterClient};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};
use tonic::Status;

use crate::{
    byte_service,
    clock::{Clock, Slice},
    floor::Floor,
};

#[expect(clippy::disallowed_types, reason = "what Evenkeel is measured against")]
mod theirs {
    pub(super) type TonicChannel = tonic::transport::Channel;
}
use theirs::TonicChannel;

/// The name that is greeted.
pub const NAME: &str = "you";
/// Limit of connecting to everything.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Candidate {
    /// `evenkeel::Channel` with round_robin.
    Evenkeel,
    /// tonic's `Channel::balance_list`.
    BalanceList,
    /// A tonic Channel for each backend, taken in turn.
    HandPicked,
    /// h2 without a gRPC channel: the floor.
    RawH2,
    /// `peer client` of the peers, grpc-go with round_robin.
    GrpcGo,
}

impl Candidate {
    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::BalanceList => "balance-list",
            Self::HandPicked => "hand-picked",
            Self::RawH2 => "raw-h2",
            Self::GrpcGo => "grpc-go",
        }
    }
}

/// A connected client; each clone is one caller, and all clones share connections.
#[derive(Clone)]
pub enum Caller {
    /// See [`Candidate::Evenkeel`].
    Evenkeel(GreeterClient<evenkeel::Channel>, evenkeel::Channel),
    /// See [`Candidate::BalanceList`].
    BalanceList(GreeterClient<TonicChannel>, TonicChannel),
    /// See [`Candidate::HandPicked`]; with whose turn it is.
    HandPicked(Vec<GreeterClient<TonicChannel>>, Vec<TonicChannel>, usize),
    /// See [`Candidate::RawH2`].
    RawH2(Floor),
}

impl Caller {
    /// Connects to all backends.
    ///
    /// # Errors
    ///
    /// One of them can't be reached, or the candidate is not a client in this process.
    pub async fn connect(candidate: Candidate, backends: &[SocketAddr]) -> Result<Self, String> {
        let connecting = async {
            match candidate {
                Candidate::Evenkeel => {
                    let channel = evenkeel_channel(backends).await?;
                    Ok(Self::Evenkeel(GreeterClient::new(channel.clone()), channel))
                }
                Candidate::BalanceList => {
                    let endpoints = backends.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
                    let channel = TonicChannel::balance_list(endpoints.into_iter());
                    Ok(Self::BalanceList(GreeterClient::new(channel.clone()), channel))
                }
                Candidate::HandPicked => {
                    let mut channels = Vec::new();
                    for backend in backends {
                        let connected = endpoint(backend)?.connect().await;
                        channels.push(connected.map_err(|e| format!("{backend}: {e}"))?);
                    }
                    let clients = channels.iter().cloned().map(GreeterClient::new).collect();
                    Ok(Self::HandPicked(clients, channels, 0))
                }
                Candidate::RawH2 => Floor::connect(backends).await.map(Self::RawH2),
                Candidate::GrpcGo => Err("grpc-go is a program of its own".to_owned()),
            }
        };
        timeout(CONNECT_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("not connected within {CONNECT_LIMIT:?}")))
    }

    /// One call of SayHello.
    ///
    /// # Errors
    ///
    /// It did not end with OK, or the reply is not to us.
    pub async fn call(&mut self) -> Result<(), String> {
        let request = || HelloRequest { name: NAME.to_owned() };
        let reply = match self {
            Self::Evenkeel(client, _) => client.say_hello(request()).await,
            Self::BalanceList(client, _) => client.say_hello(request()).await,
            Self::HandPicked(clients, _, turn) => {
                *turn = (*turn + 1) % clients.len();
                clients[*turn].say_hello(request()).await
            }
            Self::RawH2(floor) => return floor.call().await.and_then(|reply| check(&reply)),
        };
        check(&reply.map_err(|e| e.to_string())?.into_inner())
    }

    /// Messages of `size` bytes on one stream for `length`: to the server or from it.
    ///
    /// # Errors
    ///
    /// The stream broke, or the candidate has no streams here.
    pub async fn stream(&self, up: bool, size: usize, length: Duration) -> Result<Slice, Status> {
        let clock = Clock::new();
        let count = match (self, up) {
            (Self::Evenkeel(_, channel), true) => {
                byte_service::write_for(channel.clone(), size, length).await?
            }
            (Self::Evenkeel(_, channel), false) => {
                byte_service::read_for(channel.clone(), size, length).await?
            }
            (Self::BalanceList(_, channel), true) => {
                byte_service::write_for(channel.clone(), size, length).await?
            }
            (Self::BalanceList(_, channel), false) => {
                byte_service::read_for(channel.clone(), size, length).await?
            }
            (Self::HandPicked(..) | Self::RawH2(_), _) => {
                return Err(Status::unimplemented("streams are measured on channels only"));
            }
        };
        Ok(clock.stop(count, 0))
    }

    /// A closed loop of `callers` callers for `length`.
    pub async fn load(&self, callers: usize, length: Duration) -> Slice {
        let clock = Clock::new();
        let end = Instant::now() + length;
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let mut caller = self.clone();
            if let Self::HandPicked(clients, _, turn) = &mut caller {
                *turn = number % clients.len();
            }
            tasks.spawn(async move {
                let (mut ok, mut failed) = (0, 0);
                while Instant::now() < end {
                    match caller.call().await {
                        Ok(()) => ok += 1,
                        Err(_) => failed += 1,
                    }
                }
                (ok, failed)
            });
        }
        let (mut ok, mut failed) = (0, 0);
        while let Some(ended) = tasks.join_next().await {
            let (more_ok, more_failed) = ended.unwrap_or((0, 1));
            (ok, failed) = (ok + more_ok, failed + more_failed);
        }
        clock.stop(ok, failed)
    }
}

fn check(reply: &helloworld::HelloReply) -> Result<(), String> {
    let ours = reply.message.starts_with("Hello you ");
    ours.then_some(()).ok_or_else(|| format!("expected a greeting, got {:?}", reply.message))
}

fn endpoint(backend: &SocketAddr) -> Result<tonic::transport::Endpoint, String> {
    format!("http://{backend}").try_into().map_err(|e| format!("{backend}: {e}"))
}

/// An `evenkeel::Channel` that is READY; its other subchannels may still connect.
pub(crate) async fn evenkeel_channel(backends: &[SocketAddr]) -> Result<evenkeel::Channel, String> {
    evenkeel_channel_with(backends, |builder| builder).await
}

/// The same with what `tune` adds.
pub(crate) async fn evenkeel_channel_with(
    backends: &[SocketAddr],
    tune: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> Result<evenkeel::Channel, String> {
    let endpoints = backends.iter().copied().map(Endpoint::new).collect();
    let builder = evenkeel::Channel::builder("fixed:///backends");
    let builder = tune(builder.register_resolver(Arc::new(Fixed(endpoints))));
    let channel = builder.build().map_err(|e| e.to_string())?;
    channel.connect();
    let mut state = channel.state();
    while state != ConnectivityState::Ready {
        if state == ConnectivityState::TransientFailure {
            return Err("no backend can be reached".into());
        }
        state = channel.wait_for_state_change(state).await;
    }
    Ok(channel)
}

/// Resolves to what it is given: an `ipv4:` target of 1,000 addresses would be too long.
struct Fixed(Vec<Endpoint>);

impl ResolverFactory for Fixed {
    fn schemes(&self) -> &[&str] {
        &["fixed"]
    }

    fn default_authority(&self, _target: &Target) -> Result<String, TargetError> {
        Ok("backends".to_owned())
    }

    fn start(
        &self,
        _target: &Target,
        sink: Arc<dyn ResolverSink>,
    ) -> Result<ResolverTask, TargetError> {
        let endpoints = self.0.clone();
        Ok(Box::pin(async move {
            sink.update(ResolverUpdate::new(endpoints));
            std::future::pending().await
        }))
    }
}
