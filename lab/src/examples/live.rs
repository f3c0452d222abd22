//! The scenes of all examples behind one face, for a show in which a person chooses what happens
//! next. The phases have scenes of their own kinds, because each knows what it does to which part;
//! a button knows only "one more backend".

use std::sync::Arc;

use super::{envoy_dynamic, envoy_static, lookaside, mesh, proxied::Sidecar, told::Told};
use crate::{
    error::LabError, examples::Example, faults::CallFault, l4::L4, run::Run, spans::LIVE,
    stage::Stage,
};

const API_SERVER: &str = "the API server";

/// What a show begins with.
pub(crate) const BACKENDS: [u8; 3] = [1, 2, 3];

/// The policy `round_robin` with a retry policy: three attempts, and a throttle that stops them
/// when too many calls fail.
pub(crate) const RETRIES: &str = "round_robin+retry";
const RETRIES_CONFIG: &str = r#"{"loadBalancingConfig":[{"round_robin":{}}],
"retryThrottling":{"maxTokens":10,"tokenRatio":0.1},"methodConfig":[{"name":[{}],"retryPolicy":{
"maxAttempts":3,"initialBackoff":"0.01s","maxBackoff":"0.1s","backoffMultiplier":2,
"retryableStatusCodes":["UNAVAILABLE"]}}]}"#;

/// The client's flags that mean one of [`Scene::policies`].
pub(crate) fn policy_flags(policy: &str) -> [&str; 2] {
    if policy == RETRIES { ["--service-config", RETRIES_CONFIG] } else { ["--lb-policy", policy] }
}

/// The scene of one example.
pub(crate) enum Scene {
    /// One connection through a layer 4 proxy, which ends with the scene.
    Baseline(Stage, #[expect(dead_code, reason = "held, not asked")] L4),
    /// The client knows the backends, from DNS or from an API server.
    Plain(Stage),
    Lookaside(Box<lookaside::scene::Scene>),
    /// The client calls an Envoy, which asks DNS.
    Sidecar(Box<Sidecar>),
    /// The client calls an Envoy, which a balancer tells everything.
    Told(Box<Told>),
}

/// What the show of `example` is called where phases have their names.
pub(crate) fn live_name(example: &Example) -> String {
    format!("{}/{LIVE}", example.name)
}

impl Scene {
    /// Starts the parts of `example`, and [`BACKENDS`].
    ///
    /// # Errors
    ///
    /// When one can't be started.
    pub(crate) async fn open(run: Arc<Run>, example: &Example) -> Result<Self, LabError> {
        let name = live_name(example);
        let none = CallFault::None;
        match example.name {
            "baseline" => {
                let mut stage = Stage::open(run, &name, &[]).await?;
                stage.fleet.start(&BACKENDS).await?;
                let backends = BACKENDS.iter().map(|host| stage.fleet.address(*host)).collect();
                let proxy = L4::start(stage.block.cluster_ip(), backends).await?;
                stage.dns.publish(&[*proxy.address().ip()]).await;
                Ok(Self::Baseline(stage, proxy))
            }
            "kubernetes" => Self::plain(Stage::open_with_api(run, &name, &[]).await?).await,
            "lookaside" => {
                let mut scene = lookaside::scene::Scene::open(run, &name, &[], "").await?;
                scene.scale_up(&BACKENDS).await?;
                Ok(Self::Lookaside(Box::new(scene)))
            }
            "envoy-static" => {
                let sidecar = envoy_static::scene::open(run, &name, &[], &BACKENDS).await?;
                Ok(Self::Sidecar(Box::new(sidecar)))
            }
            "envoy-dynamic" => {
                let told = envoy_dynamic::open(run, &name, &[], none).await?;
                Ok(Self::Told(Box::new(told)))
            }
            "mesh" => {
                let (told, _) = mesh::open(run, &name, &[], (&BACKENDS, none)).await?;
                Ok(Self::Told(Box::new(told)))
            }
            // The first example, and what may come after these: the client asks DNS.
            _ => Self::plain(Stage::open(run, &name, &[]).await?).await,
        }
    }

    async fn plain(mut stage: Stage) -> Result<Self, LabError> {
        stage.scale_up(&BACKENDS).await?;
        Ok(Self::Plain(stage))
    }

    /// Where it plays.
    pub(crate) fn stage(&self) -> &Stage {
        match self {
            Self::Baseline(stage, _) | Self::Plain(stage) => stage,
            Self::Lookaside(scene) => &scene.stage,
            Self::Sidecar(sidecar) => &sidecar.stage,
            Self::Told(told) => &told.sidecar.stage,
        }
    }

    /// The same, for faults.
    pub(crate) fn stage_mut(&mut self) -> &mut Stage {
        match self {
            Self::Baseline(stage, _) | Self::Plain(stage) => stage,
            Self::Lookaside(scene) => &mut scene.stage,
            Self::Sidecar(sidecar) => &mut sidecar.stage,
            Self::Told(told) => &mut told.sidecar.stage,
        }
    }

    /// The policies between which its client can choose; none where something else picks.
    pub(crate) fn policies(&self) -> &'static [&'static str] {
        match self {
            Self::Baseline(..) | Self::Plain(_) => &["round_robin", "pick_first", RETRIES],
            Self::Lookaside(_) => &["grpclb"],
            Self::Sidecar(_) | Self::Told(_) => &[],
        }
    }

    /// Whether backends may come and go: the proxy of the baseline has a fixed list.
    pub(crate) fn scales(&self) -> bool {
        !matches!(self, Self::Baseline(..))
    }

    /// Who tells of the endpoints and can be made to say nothing.
    pub(crate) fn source(&self) -> Option<&'static str> {
        match self {
            Self::Told(_) => None,
            Self::Lookaside(_) => Some(API_SERVER),
            Self::Baseline(stage, _) | Self::Plain(stage) if stage.slices.is_some() => {
                Some(API_SERVER)
            }
            Self::Baseline(..) | Self::Plain(_) | Self::Sidecar(_) => Some("DNS"),
        }
    }

    /// Has that one say nothing from now on, or answer again.
    ///
    /// # Errors
    ///
    /// When its address is taken meanwhile.
    pub(crate) async fn silence(&mut self, is_silent: bool) -> Result<(), LabError> {
        match self {
            Self::Lookaside(scene) => scene.slices.silence(is_silent).await,
            other => {
                let Stage { slices, dns, .. } = other.stage_mut();
                match slices {
                    Some(slices) => slices.silence(is_silent).await,
                    None => {
                        dns.silence(is_silent);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Starts backends and publishes them.
    ///
    /// # Errors
    ///
    /// When one is not ready in time.
    pub(crate) async fn scale_up(&mut self, hosts: &[u8]) -> Result<(), LabError> {
        match self {
            Self::Lookaside(scene) => scene.scale_up(hosts).await?,
            other => other.stage_mut().scale_up(hosts).await?,
        };
        Ok(())
    }

    /// Deletes backends with drain.
    ///
    /// # Errors
    ///
    /// When one does not run or does not end.
    pub(crate) async fn delete(&mut self, hosts: &[u8]) -> Result<(), LabError> {
        match self {
            Self::Lookaside(scene) => scene.delete(hosts).await?,
            other => other.stage_mut().delete(hosts).await?,
        };
        Ok(())
    }

    /// The numbers of the balancers that belong to it, running or not.
    pub(crate) fn balancers(&self) -> &'static [u8] {
        match self {
            Self::Lookaside(_) => &lookaside::scene::BALANCERS,
            Self::Told(_) => &[1],
            _ => &[],
        }
    }

    /// Kills balancer `number` without warning.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) async fn kill_balancer(&mut self, number: u8) -> Result<(), LabError> {
        match self {
            Self::Lookaside(scene) => scene.balancers.kill_9(number).await?,
            Self::Told(told) => told.kill_plane().await?,
            _ => return Err(no_balancer(number)),
        };
        Ok(())
    }

    /// Starts balancer `number` again.
    ///
    /// # Errors
    ///
    /// When it is not ready in time.
    pub(crate) async fn start_balancer(&mut self, number: u8) -> Result<(), LabError> {
        match self {
            Self::Lookaside(scene) => scene.balancers.start(&[number]).await,
            Self::Told(told) => told.start_plane().await,
            _ => Err(no_balancer(number)),
        }
    }
}

fn no_balancer(number: u8) -> LabError {
    LabError::Gone { name: format!("balancer {number}"), signal: "anything: there is none" }
}
