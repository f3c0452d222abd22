//! The resolver against a DNS server on real sockets.

mod double;
mod failures;
mod lookups;
mod options;
mod records;
mod search;
mod sharing;
mod srv;
mod txt;
mod updates;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use evenkeel_core::{Address, Balancer, Balancers};
use hickory_resolver::proto::rr::Name;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use self::double::PATIENCE;
use super::{schedule::LookUp as _, *};

/// More reports than any test waits for.
const EVENTS_MAX: usize = 1000;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn options() -> DnsOptions {
    DnsOptions { interval_min: Duration::from_millis(20), ..DnsOptions::default() }
}

/// What a resolver reported.
#[derive(Debug, PartialEq)]
enum Event {
    Update(Vec<String>),
    /// Of a resolver that looks up balancers: the addresses, and `<address> <name>` or `pending`.
    Both(Vec<String>, Vec<String>),
    /// The policy of the service config in the update that follows.
    Config(String),
    Error {
        message: String,
        expired: bool,
    },
}

/// A channel's resolvers, which share with those of the same registry.
fn factory(registry: &Arc<Registry>, options: DnsOptions) -> DnsResolverFactory {
    DnsResolverFactory { registry: registry.clone(), ..DnsResolverFactory::new(options, 7) }
}

/// A [`ResolverSink`] that keeps all it hears.
struct Sink {
    events: mpsc::Sender<Event>,
    /// Whether look-ups fail, as far as it heard: each change, with the reason.
    renewals: Mutex<Vec<Option<String>>>,
    /// A request that is not yet taken, and whom to wake.
    request: Mutex<(bool, Option<Waker>)>,
}

impl Sink {
    fn keep(&self, event: Event) {
        // A test that has heard enough may be gone already.
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            panic!("more than {EVENTS_MAX} reports: {event:?}");
        }
    }
}

impl ResolverSink for Sink {
    fn update(&self, update: ResolverUpdate) {
        let addresses = update.endpoints.iter().map(|endpoint| match endpoint.addresses() {
            [Address::Tcp(address)] => address.to_string(),
            several => panic!("one address each, not {several:?}"),
        });
        let addresses = addresses.collect();
        let config = update.service_config.as_ref().and_then(|c| c.policy.as_ref());
        if let Some(policy) = config {
            self.keep(Event::Config(policy.name().to_owned()));
        }
        self.keep(match update.balancers {
            Balancers::None => Event::Update(addresses),
            Balancers::Found(found) => {
                let show = |b: &Balancer| format!("{} {}", b.address, b.name.as_deref().unwrap());
                Event::Both(addresses, found.iter().map(show).collect())
            }
            _ => Event::Both(addresses, vec!["pending".into()]),
        });
    }

    fn error(&self, error: ResolverError) {
        assert_eq!(error.status.code, evenkeel_core::Code::Unavailable);
        self.keep(Event::Error { message: error.status.message, expired: error.expired });
    }

    fn renewal(&self, error: Option<&Status>) {
        self.renewals.lock().unwrap().push(error.map(|status| status.message.clone()));
    }

    fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut request = self.request.lock().unwrap();
        if std::mem::take(&mut request.0) {
            return Poll::Ready(());
        }
        request.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A resolver at work, as a channel runs it.
struct Running {
    sink: Arc<Sink>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    _abort: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// Starts a resolver that shares with nobody else.
    fn start(target: &str, options: DnsOptions) -> Self {
        Self::of(&factory(&Arc::default(), options), target)
    }

    fn of(factory: &DnsResolverFactory, target: &str) -> Self {
        let target = Target::parse(target, &["dns"]).unwrap();
        Self::spawn(|sink| factory.start(&target, sink).unwrap())
    }

    /// Starts a resolver of a name that looks into a test's files and shares with nobody else.
    fn start_with(name: &str, files: &Files, options: DnsOptions) -> Self {
        Self::share(&Arc::default(), name, files, options)
    }

    /// Starts a resolver that looks into a test's files.
    fn share(registry: &Arc<Registry>, name: &str, files: &Files, options: DnsOptions) -> Self {
        let name = Name::from_ascii(name).unwrap();
        let timeout = options.timeout;
        let key = Key { name: name.clone(), server: None, options };
        let paths = files.paths();
        let lookup = move || Lookup::new(name.clone(), None, paths.system(), timeout);
        let user = registry.join(key, fastrand::Rng::with_seed(7), lookup);
        Self::spawn(|sink| Box::pin(run(user, 8000, sink)))
    }

    fn spawn(start: impl FnOnce(Arc<dyn ResolverSink>) -> ResolverTask) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let sink = Arc::new(Sink {
            events: sender,
            renewals: Mutex::default(),
            request: Mutex::default(),
        });
        let task = tokio::spawn(start(sink.clone()));
        let abort = AbortOnDrop(task.abort_handle());
        Self { sink, events, task, _abort: abort }
    }

    /// What the channel does when it lost a connection.
    fn request(&self) {
        let mut request = self.sink.request.lock().unwrap();
        request.0 = true;
        if let Some(waker) = request.1.take() {
            waker.wake();
        }
    }

    async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("no report within 10 s").expect("the task ended")
    }

    async fn update(&mut self) -> Vec<String> {
        match self.event().await {
            Event::Update(addresses) => addresses,
            event => panic!("expected an update, not {event:?}"),
        }
    }

    async fn error(&mut self) -> (String, bool) {
        match self.event().await {
            Event::Error { message, expired } => (message, expired),
            event => panic!("expected an error, not {event:?}"),
        }
    }

    /// The next update, after errors or none.
    async fn recovery(&mut self) -> Vec<String> {
        loop {
            if let Event::Update(addresses) = self.event().await {
                return addresses;
            }
        }
    }

    fn nothing_new(&mut self) {
        assert!(self.events.try_recv().is_err(), "expected no report");
    }
}

/// Files of one test, removed with it.
struct Files {
    folder: PathBuf,
    port: u16,
}

impl Files {
    fn new(test: &str, hosts: &str, resolv_conf: Option<&str>, port: u16) -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Self { folder, port };
        std::fs::write(files.folder.join("hosts"), hosts).unwrap();
        if let Some(content) = resolv_conf {
            files.write_resolv_conf(content);
        }
        files
    }

    fn write_resolv_conf(&self, content: &str) {
        std::fs::write(self.folder.join("resolv.conf"), content).unwrap();
    }

    fn paths(&self) -> Paths {
        Paths(self.folder.clone(), self.port)
    }

    fn system(&self) -> System {
        self.paths().system()
    }
}

/// Where the files are; without the duty to remove them.
struct Paths(PathBuf, u16);

impl Paths {
    fn system(&self) -> System {
        let Self(folder, port) = self;
        System::at(folder.join("hosts"), folder.join("resolv.conf"), *port)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
