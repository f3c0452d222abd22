//! The resolver against a DNS server on real sockets.

mod double;
mod failures;
mod lookups;
mod updates;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use evenkeel_core::Address;
use hickory_resolver::proto::rr::Name;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use self::double::PATIENCE;
use super::*;

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
    Error { message: String, expired: bool },
}

/// A [`ResolverSink`] that keeps all it hears.
struct Sink {
    events: mpsc::Sender<Event>,
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
        self.keep(Event::Update(addresses.collect()));
    }

    fn error(&self, error: ResolverError) {
        assert_eq!(error.status.code, evenkeel_core::Code::Unavailable);
        self.keep(Event::Error { message: error.status.message, expired: error.expired });
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
    /// Starts the factory's resolver for a target.
    fn start(target: &str, options: DnsOptions) -> Self {
        let target = Target::parse(target, &["dns"]).unwrap();
        Self::spawn(|sink| DnsResolverFactory::new(options, 7).start(&target, sink).unwrap())
    }

    /// Starts a resolver of a name that looks into other files than the system's.
    fn start_with(name: &str, system: System, options: DnsOptions) -> Self {
        let name = Name::from_ascii(name).unwrap();
        let lookup = Lookup::new(name, None, system, options.timeout);
        let rng = fastrand::Rng::with_seed(7);
        Self::spawn(|sink| {
            let target = "test".into();
            Box::pin(Worker { target, port: 8000, lookup, rng, sink }.run(options))
        })
    }

    fn spawn(start: impl FnOnce(Arc<dyn ResolverSink>) -> ResolverTask) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let sink = Arc::new(Sink { events: sender, request: Mutex::default() });
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

    fn system(&self) -> System {
        System::at(self.folder.join("hosts"), self.folder.join("resolv.conf"), self.port)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
