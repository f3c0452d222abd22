//! The channel as a user holds it, and what its calls share with its driver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use evenkeel_core::{
    Address, ConnectivityState, Picker, Status as CoreStatus, SubchannelId,
    observe::Recorder,
    picker::{FailPicker, QueuePicker},
};
use http::{
    HeaderValue,
    uri::{Authority, Scheme},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    ChannelBuilder,
    call::{CallConfig, CallFuture, ReplayAccount, ResponseBody},
    driver::{self, Command, DriverOptions},
    edge::{RequestBody, Status},
    layers::{AttemptLayer, CallLayer},
    meter::CallMeter,
    transport::{SlotQueue, Transport},
    view::{self, Board, ChannelSnapshot, Counts},
};

/// Per-call settings, put into `tonic::Request::extensions_mut()`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) routing_key: Option<Arc<str>>,
}

impl CallOptions {
    /// Wait for a READY subchannel instead of failing in TRANSIENT_FAILURE, until the call's
    /// deadline.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// What policies that send equal calls to equal backends go by
    /// ([`PickArgs::routing_key`](evenkeel_core::PickArgs::routing_key)). It is not sent.
    #[must_use]
    pub fn routing_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.routing_key = Some(key.into());
        self
    }
}

/// In a response's extensions: the backend that served the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub address: Address,
}

/// What every call starts from.
pub(crate) struct Defaults {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) user_agent: HeaderValue,
    pub(crate) wait_for_ready: bool,
    pub(crate) waiting_calls_max: usize,
    pub(crate) call_layers: Vec<Arc<dyn CallLayer>>,
    pub(crate) attempt_layers: Vec<Arc<dyn AttemptLayer>>,
    pub(crate) meter: Option<Arc<dyn CallMeter>>,
}

/// What a pick needs: replaced as a whole, never changed.
pub(crate) struct Snapshot {
    pub(crate) state: ConnectivityState,
    pub(crate) picker: Arc<dyn Picker>,
    /// The name of the policy whose picker it is; empty before there is one.
    pub(crate) policy: Arc<str>,
    /// Settings per method.
    pub(crate) config: Arc<CallConfig>,
    /// By subchannel index, with the generation that it was connected for.
    pub(crate) transports: Vec<Option<(u32, Arc<Transport>)>>,
}

impl Snapshot {
    /// The subchannel's connection, unless it is stale or takes no new streams.
    pub(crate) fn transport(&self, id: SubchannelId) -> Option<&Arc<Transport>> {
        let (generation, transport) = self.transports.get(id.index as usize)?.as_ref()?;
        (*generation == id.generation && transport.seen.is_usable()).then_some(transport)
    }
}

/// What calls and driver share.
pub(crate) struct Shared {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) target: String,
    pub(crate) scheme: String,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) defaults: Defaults,
    pub(crate) epoch: Instant,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Told after each new snapshot.
    pub(crate) changed: Arc<Notify>,
    /// The calls that wait for a stream.
    pub(crate) queue: Arc<SlotQueue>,
    pub(crate) waiting: AtomicUsize,
    /// Request bytes that are kept for transparent retries, over all calls.
    pub(crate) replay: ReplayAccount,
    pub(crate) counts: Counts,
    pub(crate) board: Board,
    state: watch::Sender<ConnectivityState>,
    closed: AtomicBool,
}

impl Shared {
    /// Nanoseconds since the channel was made.
    pub(crate) fn now_ns(&self) -> u64 {
        self.ns(Instant::now())
    }

    /// A point in time as core counts it.
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        *self.state.borrow()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let state = snapshot.state;
        self.snapshot.store(Arc::new(snapshot));
        self.state.send_if_modified(|s| std::mem::replace(s, state) != state);
        self.changed.notify_waiters();
    }

    /// No call gets through any more; those that wait fail.
    pub(crate) fn close(&self, status: &CoreStatus) {
        self.closed.store(true, Ordering::Release);
        let (state, picker) = (ConnectivityState::Shutdown, Arc::new(FailPicker(status.clone())));
        let config = Arc::default();
        let policy = "".into();
        self.publish(Snapshot { state, picker, policy, config, transports: Vec::new() });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// A gRPC channel: the drop-in for `tonic::transport::Channel` under every generated client.
///
/// Cheap to clone; all clones share connections. Dropping the last clone ends its driver and
/// resolver; connections drain until their last stream ends.
#[derive(Clone)]
pub struct Channel {
    pub(crate) handle: Arc<Handle>,
}

/// What the clones of a channel hold on to together: each call has one, so that it is one count to
/// keep, and not on a line of the memory that every call reads.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    /// The driver ends with it.
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Channel {
    /// Starts to configure a channel to `target`, e.g. `dns:///greeter.default:8000`.
    pub fn builder(target: impl Into<String>) -> ChannelBuilder {
        ChannelBuilder::new(target.into())
    }

    pub(crate) fn start(defaults: Defaults, options: DriverOptions) -> Self {
        let (state, picker) = (ConnectivityState::Idle, Arc::new(QueuePicker));
        let config = options.call_config.clone();
        let policy = "".into();
        let idle = Snapshot { state, picker, policy, config, transports: Vec::new() };
        let shared = Arc::new(Shared {
            id: view::next_id(),
            target: options.target.to_string(),
            scheme: options.target.scheme().to_owned(),
            idle_timeout: options.idle_timeout,
            defaults,
            epoch: Instant::now(),
            runtime: options.runtime.clone(),
            recorder: options.recorder.clone(),
            snapshot: ArcSwap::from_pointee(idle),
            changed: Arc::default(),
            queue: Arc::default(),
            waiting: AtomicUsize::new(0),
            replay: ReplayAccount::default(),
            counts: Counts::default(),
            board: Board::default(),
            state: watch::Sender::new(state),
            closed: AtomicBool::new(false),
        });
        let commands = driver::spawn(shared.clone(), options);
        Self { handle: Arc::new(Handle { shared, commands }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The current state.
    pub fn state(&self) -> ConnectivityState {
        self.shared().state()
    }

    /// Everything that there is to see of the channel now. It asks no task, so it works when the
    /// runtime stands still, and takes a lock that no call takes; O(subchannels).
    pub fn snapshot(&self) -> ChannelSnapshot {
        view::snapshot(self.shared())
    }

    /// Leaves IDLE: resolves and connects, without a call.
    pub fn connect(&self) {
        if self.state() == ConnectivityState::Idle {
            // Full means that the same command waits already.
            let _ = self.handle.commands.try_send(Command::ExitIdle);
        }
    }

    /// Waits until the state differs from `from` and returns the new one. In SHUTDOWN it returns
    /// at once.
    pub async fn wait_for_state_change(&self, from: ConnectivityState) -> ConnectivityState {
        let mut state = self.shared().state.subscribe();
        let settled = |s: &ConnectivityState| *s != from || *s == ConnectivityState::Shutdown;
        // The sender lives in `shared`, so waiting can't fail while `self` is here.
        state.wait_for(settled).await.map_or(ConnectivityState::Shutdown, |s| *s)
    }

    /// Refuses new calls, lets running ones finish for at most `grace`, then closes what is left.
    pub async fn shutdown(&self, grace: Duration) {
        let (done, finished) = oneshot::channel();
        if self.handle.commands.send(Command::Shutdown { grace, done }).await.is_ok() {
            finished.await.ok();
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("target", &self.shared().target)
            .field("state", &self.state())
            .finish()
    }
}

impl tower_service::Service<http::Request<RequestBody>> for Channel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = CallFuture;

    /// Always ready: a call waits in its own future, where its deadline counts.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<RequestBody>) -> CallFuture {
        CallFuture::new(self.clone(), request)
    }
}
