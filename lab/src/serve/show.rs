//! One example that goes on until somebody chooses another: its scene, its client, and what a
//! person has done to it. Wishes are granted one after the other, as `lab run` does things; the
//! client's ticks go out meanwhile from a task of their own.

use std::{collections::BTreeMap, net::SocketAddrV4, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::AbortHandle,
};

use super::{
    deeds::{Condition, Deed},
    hub::{self, Backstage, Hub, Teller},
    window::Window,
};
use crate::{
    balancers,
    blocks::METRICS_PORT,
    client::{Client, Feed, What},
    clock::unix_s,
    error::LabError,
    examples::{self, Example, live},
    run::Run,
    spans::{Latest, Spans},
    stage::Stage,
};

/// Between two ticks, which is what a bar of the chart is.
const TICK: &str = "500ms";
/// More backends than fit a row of buttons.
const BACKENDS_MAX: usize = 8;
/// Addresses of a block for backends.
const HOSTS_MAX: u8 = 32;
/// Who starts a dead backend wants to see its calls soon.
const BACKOFF_MAX: &str = "1s";
/// Clients after another whose pages have ports of their own: the one before may not be gone yet.
const CLIENT_PORTS: u16 = 100;

/// What somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Example(&'static str),
    Policy(String),
    /// One backend more.
    Grow,
    Backend(u8, Deed),
    /// Who tells of the endpoints says nothing from now on, or answers again.
    Silence(bool),
    KillBalancer(u8),
    StartBalancer(u8),
}

/// See the module's head.
pub(super) struct Show {
    run: Arc<Run>,
    backstage: Backstage,
    rate: String,
    /// Why the examples with an Envoy can't be shown.
    no_envoy: Option<String>,
    next: &'static Example,
}

/// What is on.
struct On {
    example: &'static Example,
    scene: live::Scene,
    policy: Option<String>,
    backends: BTreeMap<u8, Condition>,
    balancers: BTreeMap<u8, bool>,
    is_silent: bool,
    /// The names of those whose shares should be equal.
    serving: watch::Sender<Vec<String>>,
    client: Option<Client>,
    /// Clients so far.
    clients: u16,
    ticks: Option<Ticks>,
}

/// The task that passes the client's ticks on; it ends with this.
struct Ticks(AbortHandle);

impl Drop for Ticks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Show {
    /// A show that begins with `example`, and the side of those who look.
    pub(super) fn new(
        run: Arc<Run>,
        example: &'static Example,
        rate: u32,
        no_envoy: Option<String>,
    ) -> (Self, Hub) {
        let (hub, backstage) = hub::pair();
        (Self { run, backstage, rate: rate.to_string(), no_envoy, next: example }, hub)
    }

    /// Goes on until it is dropped.
    pub(super) async fn go_on(mut self) {
        loop {
            let example = self.next;
            self.backstage.set(&json!({ "example": example.name, "busy": "starting" }));
            self.backstage.list(&json!([]));
            match self.open(example).await {
                Ok(on) => {
                    self.play(on).await;
                    self.run.spans().forget(&live::live_name(example));
                }
                Err(error) => {
                    self.trouble(&error);
                    self.backstage.set(&self.closed(example, &error));
                    self.wait_for_another().await;
                }
            }
        }
    }

    async fn open(&self, example: &'static Example) -> Result<On, LabError> {
        let scene = live::Scene::open(Arc::clone(&self.run), example).await?;
        let policy = scene.policies().first().map(|policy| (*policy).to_owned());
        let backends = live::BACKENDS.map(|host| (host, Condition::Serves)).into();
        let balancers = scene.balancers().iter().map(|number| (*number, true)).collect();
        let mut on = On {
            example,
            scene,
            policy,
            backends,
            balancers,
            is_silent: false,
            serving: watch::Sender::default(),
            client: None,
            clients: 0,
            ticks: None,
        };
        follow(&on);
        self.start_client(&mut on).await?;
        Ok(on)
    }

    /// Starts the client; the one before ends.
    async fn start_client(&self, on: &mut On) -> Result<(), LabError> {
        on.ticks = None;
        on.client = None;
        on.clients += 1;
        let page = client_page(on).to_string();
        let mut flags =
            vec!["--count", "0", "--rate", &self.rate, "--live", TICK, "--slots", "10s"];
        flags.extend(["--backoff-max", BACKOFF_MAX, "--metrics-listen", &page]);
        flags.extend(on.policy.iter().flat_map(|policy| live::policy_flags(policy)));
        let client = on.scene.stage().client(&flags).await?;
        let (feed, teller) = (client.feed(), self.backstage.teller());
        let (serving, spans) = (on.serving.subscribe(), on.scene.stage().spans.clone());
        let task = tokio::spawn(pass_on(feed, teller, serving, spans));
        on.ticks = Some(Ticks(task.abort_handle()));
        on.client = Some(client);
        Ok(())
    }

    /// Grants wishes until another example is wished for.
    async fn play(&mut self, mut on: On) {
        loop {
            self.backstage.set(&self.state(&on, None));
            self.backstage.list(&targets(&on));
            let Some(wish) = self.backstage.wishes.recv().await else {
                return std::future::pending().await;
            };
            if let Wish::Example(name) = wish {
                if let Some(example) = self.chosen(name) {
                    self.next = example;
                    return;
                }
                continue;
            }
            let words = words(&wish, &on);
            self.backstage.set(&self.state(&on, Some(&words)));
            self.mark(&words);
            if let Err(error) = self.grant(wish, &mut on).await {
                self.trouble(&error);
            }
        }
    }

    /// The example `name`, unless it needs what is not here.
    fn chosen(&self, name: &str) -> Option<&'static Example> {
        let example = examples::find(name).ok()?;
        match &self.no_envoy {
            Some(why) if example.needs_envoy => {
                self.backstage.teller().tell("trouble", &json!({ "what": why }));
                None
            }
            _ => Some(example),
        }
    }

    /// Nothing is on; only another example can be wished for.
    async fn wait_for_another(&mut self) {
        while let Some(wish) = self.backstage.wishes.recv().await {
            if let Wish::Example(name) = wish
                && let Some(example) = self.chosen(name)
            {
                self.next = example;
                return;
            }
        }
    }

    async fn grant(&self, wish: Wish, on: &mut On) -> Result<(), LabError> {
        match wish {
            Wish::Example(_) => Ok(()),
            Wish::Policy(policy) => {
                if on.scene.policies().contains(&&*policy) {
                    on.policy = Some(policy);
                    self.start_client(on).await?;
                }
                Ok(())
            }
            Wish::Grow => self.grow(on).await,
            Wish::Backend(host, deed) => self.deal(host, deed, on).await,
            Wish::Silence(is_silent) => {
                if on.scene.source().is_some() && on.is_silent != is_silent {
                    on.scene.silence(is_silent).await?;
                    on.is_silent = is_silent;
                }
                Ok(())
            }
            Wish::KillBalancer(number) => {
                if on.balancers.get(&number) == Some(&true) {
                    on.balancers.insert(number, false);
                    on.scene.kill_balancer(number).await?;
                }
                Ok(())
            }
            Wish::StartBalancer(number) => {
                if on.balancers.get(&number) == Some(&false) {
                    on.scene.start_balancer(number).await?;
                    on.balancers.insert(number, true);
                }
                Ok(())
            }
        }
    }

    async fn grow(&self, on: &mut On) -> Result<(), LabError> {
        // A new pod has a new address, as long as there is one.
        let last = on.backends.keys().last().copied().unwrap_or(0);
        let fresh = (last + 1..=HOSTS_MAX).chain(1..=HOSTS_MAX);
        let free = fresh.into_iter().find(|host| !on.backends.contains_key(host));
        if let (true, Some(host)) = (on.scene.scales() && on.backends.len() < BACKENDS_MAX, free) {
            on.scene.scale_up(&[host]).await?;
            on.backends.insert(host, Condition::Serves);
            follow(on);
        }
        Ok(())
    }

    async fn deal(&self, host: u8, deed: Deed, on: &mut On) -> Result<(), LabError> {
        let Some(condition) = on.backends.get(&host).copied() else { return Ok(()) };
        if deed == Deed::Delete {
            return self.remove(host, condition, on).await;
        }
        let stage = on.scene.stage_mut();
        let after = match (deed, condition) {
            (Deed::Kill | Deed::Hang, Condition::Dead) | (Deed::Hang, Condition::Hangs) => {
                return Ok(());
            }
            (Deed::Kill, _) => {
                stage.kill_9(host).await?;
                Condition::Dead
            }
            (Deed::Hang, _) => {
                stage.hang(host)?;
                Condition::Hangs
            }
            (Deed::Resume, Condition::Hangs) => {
                stage.resume(host)?;
                Condition::Serves
            }
            _ => {
                let Some((after, settings)) = deed.starts() else { return Ok(()) };
                if condition != Condition::Dead {
                    stage.kill_9(host).await?;
                }
                stage.fleet.reset(host);
                settings.iter().for_each(|(name, value)| stage.fleet.set(host, name, value));
                stage.fleet.start(&[host]).await?;
                after
            }
        };
        on.backends.insert(host, after);
        follow(on);
        Ok(())
    }

    async fn remove(&self, host: u8, condition: Condition, on: &mut On) -> Result<(), LabError> {
        if !on.scene.scales() || on.backends.len() == 1 {
            return Ok(());
        }
        let stage = on.scene.stage_mut();
        match condition {
            // A pod that is deleted has a process: this one is started for its end.
            Condition::Dead => stage.fleet.start(&[host]).await?,
            Condition::Hangs => drop(stage.resume(host)?),
            Condition::Serves | Condition::Slow | Condition::Fails | Condition::Cuts => {}
        }
        on.scene.delete(&[host]).await?;
        on.backends.remove(&host);
        follow(on);
        Ok(())
    }

    fn mark(&self, what: &str) {
        self.run.progress().say("lab", what);
        self.backstage.teller().tell("mark", &json!({ "unix_s": unix_s(), "what": what }));
    }

    fn trouble(&self, error: &LabError) {
        self.run.progress().say("lab", &error.to_string());
        self.backstage.teller().tell("trouble", &json!({ "what": error.to_string() }));
    }

    fn examples(&self) -> Vec<Value> {
        let one = |example: &&Example| {
            let missing = example.needs_envoy && self.no_envoy.is_some();
            let Example { name, number, title, .. } = example;
            json!({ "name": name, "number": number, "title": title, "missing": missing })
        };
        examples::ALL.iter().map(one).collect()
    }

    fn closed(&self, example: &Example, error: &LabError) -> Value {
        json!({
            "example": example.name,
            "title": example.title,
            "examples": self.examples(),
            "trouble": error.to_string(),
        })
    }

    fn state(&self, on: &On, busy: Option<&str>) -> Value {
        let fleet = &on.scene.stage().fleet;
        let backend = |(host, condition): (&u8, &Condition)| {
            let ip = fleet.address(*host).ip().to_string();
            json!({ "host": host, "ip": ip, "condition": condition.word() })
        };
        let balancer = |(number, runs): (&u8, &bool)| json!({ "number": number, "runs": runs });
        json!({
            "example": on.example.name,
            "title": on.example.title,
            "control_plane": on.example.control_plane,
            "picture": on.example.picture,
            "examples": self.examples(),
            "policy": on.policy,
            "policies": on.scene.policies(),
            "scales": on.scene.scales(),
            "backends_max": BACKENDS_MAX,
            "rate": self.rate,
            "source": on.scene.source(),
            "is_silent": on.is_silent,
            "backends": on.backends.iter().map(backend).collect::<Vec<_>>(),
            "balancers": on.balancers.iter().map(balancer).collect::<Vec<_>>(),
            "busy": busy,
        })
    }
}

/// Where the client's page for Prometheus is.
fn client_page(on: &On) -> SocketAddrV4 {
    let port = METRICS_PORT + on.clients % CLIENT_PORTS;
    SocketAddrV4::new(on.scene.stage().block.client_ip(), port)
}

/// Whose metrics there are, as Prometheus's HTTP service discovery has it. Those that are dead are
/// on it, as pods are.
fn targets(on: &On) -> Value {
    let target = |job: &str, instance: String, at: String| {
        let labels = json!({ "job": job, "instance": instance, "example": on.example.name });
        json!({ "targets": [at], "labels": labels })
    };
    let Stage { fleet, block, .. } = on.scene.stage();
    let greeters = on.backends.keys().map(|host| {
        let at = fleet.metrics(*host);
        target("greeter", at.ip().to_string(), at.to_string())
    });
    let balancers = on.balancers.keys().map(|number| {
        let at = balancers::admin(block, *number).to_string();
        target("grpclb", format!("balancer-{number}"), at)
    });
    let client = target("client", "client".to_owned(), client_page(on).to_string());
    greeters.chain(balancers).chain([client]).collect()
}

/// The checks judge by those that serve now.
fn follow(on: &On) {
    let well = on.backends.iter().filter(|(_, condition)| **condition == Condition::Serves);
    let hosts: Vec<u8> = well.map(|(host, _)| *host).collect();
    on.serving.send_replace(on.scene.stage().fleet.names(&hosts));
}

/// Passes on what the client tells, and judges it by `serving`; with each tick the newest calls.
async fn pass_on(
    mut feed: Feed,
    teller: Teller,
    serving: watch::Receiver<Vec<String>>,
    spans: Option<Arc<Spans>>,
) {
    let mut window = Window::default();
    loop {
        let event = match feed.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let unix_s = event.unix_s;
        match event.what {
            What::Answered(sums) => {
                if let Some(spans) = &spans {
                    tell_calls(&teller, spans.take_latest());
                }
                let (p50_ms, p99_ms) = (sums.p50_ms, sums.p99_ms);
                let first = window.is_empty();
                let tick = window.add(sums);
                // The sums since the client's start are no tick.
                if !first {
                    let tick = json!({
                        "unix_s": unix_s,
                        "by_backend": tick.by_backend,
                        "fail": tick.fail,
                        "p50_ms": p50_ms,
                        "p99_ms": p99_ms,
                        "checks": window.checks(&serving.borrow()),
                    });
                    teller.tell("tick", &tick);
                }
            }
            What::Subchannel { address, state } => {
                let what = json!({ "unix_s": unix_s, "address": address, "state": state });
                teller.tell("subchannel", &what);
            }
            What::Balancer { lost: Some(why), .. } => {
                let what = format!("the client lost its balancer: {why}");
                teller.tell("mark", &json!({ "unix_s": unix_s, "what": what }));
            }
            _ => {}
        }
    }
}

fn tell_calls(teller: &Teller, calls: Latest) {
    for (failed, call) in [(false, calls.answered), (true, calls.failed)] {
        if let Some(call) = call {
            teller.tell("call", &json!({ "failed": failed, "trace": call }));
        }
    }
}

/// A wish as a sentence, for the marks.
fn words(wish: &Wish, on: &On) -> String {
    let name = |host: u8| on.scene.stage().fleet.address(host).ip().to_string();
    match wish {
        Wish::Example(name) => format!("{name} instead"),
        Wish::Policy(policy) => format!("a client with {policy}"),
        Wish::Grow => "one backend more".to_owned(),
        Wish::Backend(host, deed) => deed.words(&name(*host)),
        Wish::Silence(is_silent) => {
            let says = if *is_silent { "does not answer any more" } else { "answers again" };
            format!("{} {says}", on.scene.source().unwrap_or("nobody"))
        }
        Wish::KillBalancer(number) => format!("kill -9 of balancer {number}"),
        Wish::StartBalancer(number) => format!("balancer {number} starts again"),
    }
}
