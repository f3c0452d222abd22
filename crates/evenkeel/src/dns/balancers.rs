//! A name's addresses, and what is looked up beside them: balancers and the service config. They
//! are told together though they are looked up apart. Addresses never wait for balancers, and for
//! a service config, which the channel has to want, only a moment.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    Balancer, Balancers, Endpoint, ResolverError, ResolverSink, ResolverUpdate, ServiceConfig,
    Status,
};
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use super::{
    choices::Chooser,
    endpoints,
    lookup::{SrvLookup, srv::FoundBalancer, txt::TxtLookup},
    schedule::{LookUp, Report},
    shared::User,
};

/// How long the addresses wait for the service config that belongs to them, when one is wanted.
const CONFIG_WAIT: Duration = Duration::from_secs(1);

/// The number of their half.
const ADDRESSES: usize = 0;

/// What is looked up beside the addresses.
pub(super) struct Beside {
    /// Begins to look for balancers.
    pub(super) balancers: Box<dyn Fn() -> User<SrvLookup> + Send>,
    /// From the start; else when a service config names `grpclb`.
    pub(super) balancers_wanted: bool,
    pub(super) configs: Option<(User<TxtLookup>, Chooser)>,
}

/// Reports to one channel until it drops this.
pub(super) async fn run(addresses: User, beside: Beside, port: u16, sink: Arc<dyn ResolverSink>) {
    let requests = Arc::new(Requests { sink: sink.clone(), wanted: Mutex::default() });
    let half = |number| Half { requests: requests.clone(), number };
    let Beside { balancers: look_for, balancers_wanted, configs } = beside;
    let mut known = Known::new(balancers_wanted, configs.is_some());
    // Streams, whose half-done look-ups survive what the others report.
    let mut addresses = reports(addresses, half(ADDRESSES));
    let mut balancers = balancers_wanted.then(|| reports(look_for(), half(1)));
    let (mut texts, chooser) = match configs {
        Some((user, chooser)) => (Some(reports(user, half(2))), Some(chooser)),
        None => (None, None),
    };
    let mut waited = std::pin::pin!(sleep(CONFIG_WAIT));
    loop {
        let news = tokio::select! {
            Some(report) = addresses.next() => known.addresses(&report, port),
            Some(report) = next(&mut balancers) => known.balancers(&report),
            Some(report) = next(&mut texts) => known.config(&report, chooser.as_ref()),
            () = &mut waited, if known.waits() => known.without_config(),
            else => return,
        };
        if known.wants_balancers() && balancers.is_none() {
            balancers = Some(reports(look_for(), half(1)));
        }
        match news {
            Some(Ok(update)) => sink.update(update),
            Some(Err(error)) => sink.error(error),
            None => {}
        }
    }
}

async fn next<T>(reports: &mut Option<stream::BoxStream<'static, T>>) -> Option<T> {
    match reports {
        Some(reports) => reports.next().await,
        None => std::future::pending().await,
    }
}

fn reports<L: LookUp>(
    user: User<L>,
    half: Half,
) -> stream::BoxStream<'static, Arc<Report<L::Found>>> {
    stream::unfold((user, half), |(mut user, half)| async move {
        let report = user.report(&half).await;
        Some((report, (user, half)))
    })
    .boxed()
}

/// The service config, as far as it is known.
enum Config {
    NotWanted,
    Pending,
    None,
    Found(Arc<ServiceConfig>),
    /// The first one that came can't be used, and why.
    Bad(String),
}

/// What was found last.
struct Known {
    endpoints: Option<Vec<Endpoint>>,
    /// The addresses' look-up fails.
    failed: bool,
    balancers: Balancers,
    config: Config,
}

type News = Option<Result<ResolverUpdate, ResolverError>>;

impl Known {
    fn new(balancers_wanted: bool, config_wanted: bool) -> Self {
        let balancers = if balancers_wanted { Balancers::Pending } else { Balancers::None };
        let config = if config_wanted { Config::Pending } else { Config::NotWanted };
        Self { endpoints: None, failed: false, balancers, config }
    }

    /// Something is there and waits for the service config.
    fn waits(&self) -> bool {
        matches!(self.config, Config::Pending) && self.endpoints.is_some()
    }

    fn wants_balancers(&self) -> bool {
        let Config::Found(config) = &self.config else { return false };
        config.policy.as_ref().is_some_and(|policy| policy.name() == "grpclb")
    }

    /// The service config did not come in time.
    fn without_config(&mut self) -> News {
        self.config = Config::None;
        self.update()
    }

    fn config(&mut self, report: &Report<String>, chooser: Option<&Chooser>) -> News {
        let chosen = match report {
            Report::Nothing => return None,
            Report::Update(texts) => {
                let text = texts.first().map(String::as_str).unwrap_or_default();
                chooser.map_or(Ok(None), |chooser| chooser.choose(text))
            }
            // The last one stays, as addresses do.
            Report::Error { .. } if matches!(self.config, Config::Found(_)) => return None,
            Report::Error { .. } => Ok(None),
        };
        self.config = match chosen {
            Ok(Some(config)) => Config::Found(config),
            Ok(None) => Config::None,
            Err(why) => {
                tracing::warn!("the service config in the TXT records is refused: {why}");
                if matches!(self.config, Config::Found(_)) {
                    return None;
                }
                Config::Bad(why)
            }
        };
        if self.wants_balancers() && self.balancers == Balancers::None {
            self.balancers = Balancers::Pending;
        }
        if self.endpoints.is_some() && !self.failed { self.update() } else { None }
    }

    fn addresses(&mut self, report: &Report, port: u16) -> News {
        match report {
            Report::Nothing => None,
            Report::Update(addresses) => {
                self.endpoints = Some(endpoints(addresses, port));
                self.failed = false;
                self.update()
            }
            Report::Error { message, expired } => {
                self.failed = true;
                let found = matches!(self.balancers, Balancers::Found(_));
                if self.endpoints.is_none() && found {
                    return self.update();
                }
                let status = Status::unavailable(message.clone());
                Some(Err(ResolverError { status, expired: *expired }))
            }
        }
    }

    fn balancers(&mut self, report: &Report<FoundBalancer>) -> News {
        self.balancers = match report {
            Report::Nothing => return None,
            Report::Update(found) => {
                let balancer = |found: &FoundBalancer| Balancer {
                    address: found.address.into(),
                    name: Some(found.name.clone()),
                };
                Balancers::Found(found.iter().map(balancer).collect())
            }
            // Those that are known may still be there; a stream tells.
            Report::Error { .. } if matches!(self.balancers, Balancers::Found(_)) => return None,
            Report::Error { .. } => Balancers::None,
        };
        match (&self.endpoints, &self.balancers) {
            // The update would make a list that has expired a good one.
            (Some(_), _) if self.failed => None,
            (Some(_), _) => self.update(),
            // A name without addresses of its own lives by its balancers.
            (None, Balancers::Found(_)) if self.failed => self.update(),
            (None, _) => None,
        }
    }

    fn update(&self) -> News {
        let config = match &self.config {
            Config::Pending => return None,
            Config::NotWanted | Config::None => None,
            Config::Found(config) => Some(config.clone()),
            Config::Bad(why) => {
                let text = format!("the service config in the TXT records is refused: {why}");
                let status = Status::unavailable(text);
                return Some(Err(ResolverError { status, expired: false }));
            }
        };
        let mut update = ResolverUpdate::new(self.endpoints.clone().unwrap_or_default());
        update.balancers = self.balancers.clone();
        update.service_config = config;
        Some(Ok(update))
    }
}

/// The channel's wish to look again, for all.
struct Requests {
    sink: Arc<dyn ResolverSink>,
    wanted: Mutex<[bool; 3]>,
}

/// What one of the look-ups sees of the channel: its wishes.
struct Half {
    requests: Arc<Requests>,
    number: usize,
}

impl ResolverSink for Half {
    fn update(&self, update: ResolverUpdate) {
        self.requests.sink.update(update);
    }

    fn error(&self, error: ResolverError) {
        self.requests.sink.error(error);
    }

    /// Of the addresses alone: without balancers or a service config of its own a name is fine.
    fn renewal(&self, error: Option<&Status>) {
        if self.number == ADDRESSES {
            self.requests.sink.renewal(error);
        }
    }

    fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()> {
        let asked = self.requests.sink.poll_requested(cx).is_ready();
        // No code that holds the lock can panic; should it ever, the flags are whole all the same.
        let mut wanted = self.requests.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if asked {
            *wanted = [true; 3];
            // All are polled by one task, and the others may have had their turn.
            cx.waker().wake_by_ref();
        }
        if std::mem::take(&mut wanted[self.number]) { Poll::Ready(()) } else { Poll::Pending }
    }
}
